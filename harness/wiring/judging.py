"""From a run's folder to its judgement and its reports, now or years later."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.clock import Bounds, Clock
from harness.core.errors import BadInput, ExitCode
from harness.core.event import SCHEMA_VERSION, CleanChecked, RunEnded, UndoDone
from harness.core.experiment import AnyExperiment, digest_of
from harness.core.history import History
from harness.wiring.settings import RunOutcome, Settings

if TYPE_CHECKING:
    from harness.adapters.file_journal import FileJournal
    from harness.engine.notes import Note
    from harness.ports.cluster import Cluster
    from harness.report.values import Report


def judge_run(path: Path, *, phases: dict[str, float] | None = None) -> RunOutcome:
    """Compute the reports of a run from its journal alone. An old run gives the same bytes again."""
    from harness.core.verdict import judge
    from harness.report.model import build
    from harness.report.render import write
    from harness.report.series import outcome
    from harness.report.summary import summary

    experiment, history, head = read_run(path)
    report = build(experiment, history, head)
    write(report, path)
    return RunOutcome(
        run_id=history.start.run_id,
        folder=path,
        summary=summary(report),
        exit_code=ExitCode(report.headline.exit_code),
        row=outcome(experiment, history, judge(experiment, history)),
        phases=phases or {},
    )


def report_of(path: Path) -> Report:
    """The report of a run's folder, as a value."""
    from harness.report.model import build

    return build(*read_run(path))


def read_run(path: Path) -> tuple[AnyExperiment, History, str]:
    """The tuned experiment, the history in a run's folder, and the journal's head ("" where it is not chained)."""
    from harness import loading
    from harness.adapters.file_journal import FileJournal

    if not os.path.isfile(path / "journal.jsonl"):  # noqa: PTH113 - which raises nothing, however strange the name
        raise BadInput(
            "no-such-run",
            f"{str(path)[:300]} holds no journal.jsonl",
            expected="the folder of a run",
            remedy="`drill status` names the newest; runs/ holds them all",
        )
    journal = FileJournal(path)
    history = History(journal.read())
    start = history.start
    if start.schema_version > SCHEMA_VERSION:
        raise BadInput(
            "journal-newer",
            f"the journal of {start.run_id} has schema version {start.schema_version}",
            expected=f"at most {SCHEMA_VERSION}, which this harness ({start.harness_version} wrote it) can read",
            remedy="judge it with the harness that wrote it",
            where=str(path / "journal.jsonl"),
        )
    if digest_of(start.experiment) != start.digest:
        raise BadInput(
            "thresholds-moved",
            f"the experiment in the journal of {start.run_id} is not the one that was hashed when the run started",
            expected=f"an experiment with the digest {start.digest[:12]}",
            remedy="restore the journal from a copy; targets are not moved after a run",
            where=str(path / "journal.jsonl"),
        )
    experiment = loading.parse(start.experiment)
    if start.profile not in experiment.profiles:
        raise BadInput(
            "journal-experiment",
            f"the journal of {start.run_id} names the profile {start.profile!r}, which its experiment does not have",
            expected=f"one of: {', '.join(experiment.profiles)}",
            remedy="restore the journal from a copy",
            where=str(path / "journal.jsonl"),
        )
    _is_the_reported(journal, path)
    return experiment.tuned(start.profile), history, journal.head


def _is_the_reported(journal: FileJournal, path: Path) -> None:
    """The report beside a journal names the journal's head as it was then: the line of that head must still be there,
    whatever a recovery appended since. Raises BadInput (journal-tampered) where it is not."""
    try:
        reported = json.loads((path / "report.json").read_bytes())["header"]["journal_head"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return  # no report yet, or none that says
    if isinstance(reported, str) and reported and reported not in journal.heads:
        raise BadInput(
            "journal-tampered",
            f"the report beside it was made from a journal with the head {reported[:64]}, which this one never had",
            expected="the journal that was reported, or one that goes on from it",
            remedy="restore the journal from a copy; to judge this one all the same, move report.json away",
            where=f"{path / 'journal.jsonl'}:{len(journal.heads) or 1}",
        )


def point_latest(runs: Path, folder: Path) -> None:
    """Let `runs/latest` point at a run; a reader sees the old or the new link, never none."""
    fresh = runs / f".latest-{folder.name}"
    fresh.symlink_to(folder.name)
    fresh.replace(runs / "latest")


def told(settings: Settings, cluster: Cluster, namespace: str, note: Note, clock: Clock) -> None:
    """Tell a dead run how it was brought back: in its own journal where that is on this machine, else in a note in the
    cluster for the machine that has it. Raises DrillError."""
    from harness.engine import notes

    if not close_journal(settings, note, clock):
        notes.leave(cluster, namespace, note)


def fetch_notes(settings: Settings, cluster: Cluster, namespace: str, clock: Clock) -> list[Note]:
    """Take into the journals of this machine what others noted of its dead runs, and remove those notes; all notes
    that were there. Raises DrillError."""
    from harness.engine import notes

    found = notes.read(cluster, namespace)
    for note in found:
        if close_journal(settings, note, clock):
            notes.discard(cluster, namespace, note)
    return found


def close_journal(settings: Settings, note: Note, clock: Clock) -> bool:
    """Tell a dead run's own journal how it was recovered; False where it is not on this machine."""
    from harness.adapters.file_journal import FileJournal
    from harness.engine.runner import Recorder

    folder = settings.runs / note.run_id
    if not (folder / "journal.jsonl").is_file():
        return False
    journal = FileJournal(folder)
    history = History(journal.read())
    if history.ended is not None and history.is_clean and note.fault not in history.open_faults():
        return True
    recorder = Recorder(journal, history, clock, lambda _: None)
    at = Bounds(earliest=min(note.at, clock.now()) - note.seconds, latest=min(note.at, clock.now()))
    recorder.add(UndoDone(fault=note.fault, outcome=note.outcome, at=at, detail=f"{note.detail} (by {note.by})"))
    recorder.add(CleanChecked(clean=note.clean, differences=note.differences))
    recorder.add(RunEnded(reason="recovered", detail=f"the run died and was undone by {note.by}", by="recover"))
    judge_run(folder)
    point_latest(settings.runs, folder)
    return True
