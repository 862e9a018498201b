"""The runs that there are, on this machine and in the cluster, and a report of any of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.clock import Instant
from harness.core.errors import BadInput, DrillError
from harness.report.wording import inert_line
from harness.wiring.commands import namespaces_of
from harness.wiring.judging import close_journal, judge_run
from harness.wiring.settings import RunOutcome, Settings, connect, existing_access

if TYPE_CHECKING:
    from harness.adapters.kubernetes import KubeCluster
    from harness.engine.results import Stored

_WIDTHS = (44, 13, 7)
_FETCHED = ".fetched"
"""Beside a journal that came from the cluster: it is fetched anew each time, since the run may have gone on."""
_NONE = "no run yet; try: make drill EXP=oom-workers"


@dataclass(frozen=True, slots=True)
class Known:
    """A run that there is. `verdict` is "" where nothing has judged it yet; `places` are where its journal is."""

    run_id: str
    verdict: str
    clean: bool | None
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Runs:
    """All that are known, newest first; `unseen` says why the cluster's are not among them, "" where they are."""

    found: tuple[Known, ...]
    unseen: str

    def table(self) -> str:
        """For people: one line each."""
        lines = [_line("run", "verdict", "clean", "journal in")] if self.found else [_NONE]
        for run in self.found:
            clean = {True: "yes", False: "NO", None: "-"}[run.clean]
            lines.append(_line(run.run_id, run.verdict or "not ended", clean, ", ".join(run.places)))
        if self.unseen:
            lines.append(f"the cluster was not looked at: {self.unseen}")
        return "\n".join(map(inert_line, lines))

    def as_data(self) -> dict[str, Any]:
        """The same for machines."""
        return {
            "runs": [
                {"run_id": run.run_id, "verdict": run.verdict or None, "clean": run.clean, "places": list(run.places)}
                for run in self.found
            ],
            "unseen": self.unseen or None,
        }


def _line(*cells: str) -> str:
    fixed = "".join(f"{cell:<{width - 1}} " for cell, width in zip(cells, _WIDTHS, strict=False))
    return f"{fixed}{cells[-1]}"


def list_runs(settings: Settings) -> Runs:
    """Every run whose journal is in the folder of runs or in the cluster."""
    known: dict[str, Known] = {}
    for folder in settings.runs.glob("2*"):
        if (folder / "journal.jsonl").is_file():
            verdict, clean = _reported(folder)
            known[folder.name] = Known(folder.name, verdict, clean, (str(settings.runs),))
    unseen = ""
    try:
        for run in _stored(settings):
            result = run.result or {}
            local = known.get(run.run_id)
            # What the run itself said in the end goes before what was made of its first half.
            known[run.run_id] = Known(
                run.run_id,
                str(result.get("verdict") or "") or (local.verdict if local else ""),
                _flag(result.get("clean")) if "clean" in result or local is None else local.clean,
                (*(local.places if local else ()), f"namespace {run.namespace}"),
            )
    except DrillError as error:
        unseen = error.fact
    return Runs(tuple(sorted(known.values(), key=lambda run: run.run_id, reverse=True)), unseen)


def report_run(settings: Settings, run: str) -> RunOutcome:
    """The judgement of a run and its reports: from the folder of runs, and where it is not there, from the cluster.

    Raises BadInput where neither has it, and what judging raises.
    """
    folder = settings.runs / run
    was_fetched = (folder / _FETCHED).is_file()
    if ((folder / "journal.jsonl").is_file() and not was_fetched) or "/" in run or run == "latest":
        return judge_run(folder if "/" not in run else Path(run))
    return fetch_run(settings, run)


def fetch_run(settings: Settings, run: str, *, since: Instant = 0.0) -> RunOutcome:
    """The judgement of a run by the journal that the cluster keeps, whatever lies in the folder of runs. What was kept
    before `since`, by the API server's clock, is not looked at.

    Raises BadInput where the cluster has none (no-such-run), and what judging raises.
    """
    from harness.adapters.system_clock import SystemClock
    from harness.engine import notes, results

    folder, clock = settings.runs / run, SystemClock()
    cluster = connect(settings, existing_access(settings), clock)
    try:
        known = results.stored(cluster, namespaces_of(settings, cluster))
        kept = [one for one in known if one.run_id == run and one.created >= since]
        if not kept:
            raise BadInput(
                "no-such-run",
                f"neither {settings.runs} nor the cluster has a journal of {run[:80]}",
                expected="a run that there is",
                remedy="`drill runs` lists them",
            )
        lines = results.journal(cluster, kept[0].namespace, run)
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        (folder / _FETCHED).touch()
        (folder / "report.json").unlink(missing_ok=True)  # it may be of a journal that was not yet whole
        fresh = folder / ".journal.jsonl"
        fresh.write_bytes(lines)
        fresh.replace(folder / "journal.jsonl")
        for note in notes.read(cluster, kept[0].namespace):
            if note.run_id == run:  # it stays where it is, for whoever reads this run next
                close_journal(settings, note, clock)
    finally:
        cluster.close()
    outcome = judge_run(folder)
    if outcome.run_id != run:
        raise BadInput(
            "journal-tampered",
            f"what the cluster keeps as the journal of {run} is that of {outcome.run_id[:80]}",
            expected="the journal of that run",
            remedy=f"look at the ConfigMaps drill-journal-{run}-* in namespace {kept[0].namespace}",
            where=str(folder / "journal.jsonl"),
        )
    return outcome


def _stored(settings: Settings) -> Sequence[Stored]:
    from harness.adapters.system_clock import SystemClock
    from harness.engine import results

    cluster: KubeCluster = connect(settings, existing_access(settings), SystemClock())
    try:
        return results.stored(cluster, namespaces_of(settings, cluster))
    finally:
        cluster.close()


def _reported(folder: Path) -> tuple[str, bool | None]:
    try:
        report = json.loads((folder / "report.json").read_bytes())
        return str(report["headline"]["verdict"]), _flag(report["clean"]["clean"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "", None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None
