"""The smoke run: a cluster of its own, the staging system on it, a few drills, files for CI, and away with it.

Whatever happens in between, the cluster is taken away: after an error, a refusal, Ctrl-C or SIGTERM. What the cluster
or the machine did, and no fault of ours, is called ENVIRONMENT and is neither met nor missed.
"""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.errors import BadInput, DrillError, ExitCode, Internal, Refused, worst
from harness.core.experiment import AnyExperiment, ProfileName
from harness.ports.progress import Progress
from harness.wiring.judging import report_of
from harness.wiring.series import expected_seconds, failed, read, run_series
from harness.wiring.session import handled, terminable
from harness.wiring.settings import Phases, RunOutcome, Settings, choose, set_up

if TYPE_CHECKING:
    from harness.clusters.provider import ClusterProvider
    from harness.report.junit import Run
    from harness.report.series import Outcome

EXPERIMENTS = ("noop", "oom-workers", "scaled-down-workers", "revoked-llm-key")
"""What is drilled where nothing is named: nothing at all, and a fault of each of three kinds."""
PROFILE: ProfileName = "smoke"
UNDO_FOR = 60.0
"""Seconds for which a failing undo is tried again: the fault goes with the cluster anyway."""
SUMMARY = "GITHUB_STEP_SUMMARY"
"""The variable that names the file to which a job's summary is appended."""
_UP = "cluster up"
_STAGING = "staging system"
_DOWN = "cluster down"
_EXPECTED = {_UP: 10.0, _STAGING: 22.0, _DOWN: 3.0}
"""Seconds, measured on two cores with everything cached."""


@dataclass(frozen=True, slots=True)
class SmokeOutcome:
    """How a smoke run ended. `phases` and `seconds` are wall seconds; `files` are what CI reads."""

    rows: tuple[Outcome, ...]
    table: str
    word: str
    exit_code: ExitCode
    phases: Mapping[str, float]
    seconds: float
    cluster: str
    fate: str
    """What became of the cluster, as a sentence."""
    files: tuple[Path, ...]


def run_smoke(
    settings: Settings,
    experiments: Sequence[str],
    *,
    name: str | None,
    results: Path | None,
    keep: bool,
    run: Callable[[Settings, str, int, int, Collection[str]], RunOutcome],
    tell: Callable[[DrillError], None],
    progress: Progress,
    env: Mapping[str, str] = os.environ,
) -> SmokeOutcome:
    """Bring up a cluster called `name` (or at random), drill these experiments (or a few) on it with the smoke profile,
    write junit.xml and summary.md into `results` (or a new folder below the runs), and take the cluster away, unless it
    is to be kept.

    Raises BadInput and Refused before anything is started, where an experiment cannot be read or a cluster of that name
    is there already. KeyboardInterrupt and what nobody foresaw are raised again when the cluster is gone and the files
    are written.
    """
    chosen = tuple(experiments) or EXPERIMENTS
    loaded = read(chosen, PROFILE)
    settings = replace(settings, name=name or f"smoke-{secrets.token_hex(3)}", undo_for=UNDO_FOR)
    provider = choose(settings)
    place = _free_place(provider)
    folder = _folder(results, settings)
    job = _Smoke(replace(settings, runs=folder), provider, place, chosen, run, tell, progress, keep=keep)
    return job.all(_estimate(loaded), env)


def _free_place(provider: ClusterProvider) -> str:
    """The provider's name. Raises Refused where a cluster of that name is there, or its remains."""
    state = provider.status()
    if state.state != "down":
        raise Refused(
            "cluster-left-behind",
            f"there is a {state.provider} cluster called {state.name} already: it is {state.state} ({state.detail})",
            expected="a name that no cluster has: a smoke run takes its cluster away in the end",
            remedy=f"`{_take_away(state.provider, state.name)}` takes it away; or choose another --name, or none",
        )
    return state.provider


def _take_away(provider: str, name: str) -> str:
    return shlex.join(["drill", "cluster", "down", "--cluster", provider, "--name", name])


def _folder(results: Path | None, settings: Settings) -> Path:
    """The folder of the results, which is there now, without the files of an earlier run: who finds them takes them for
    this one's."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder = results or settings.runs / f"{stamp}-{settings.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("junit.xml", "summary.md"):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def _unwritable(folder: Path, error: OSError) -> BadInput:
    return BadInput(
        "results-unwritable",
        f"{folder} cannot be written to: {error.strerror}",
        expected="a folder for junit.xml, summary.md and the runs",
        remedy="name another with --results",
    )


def _estimate(loaded: Iterable[tuple[str, AnyExperiment]]) -> float:
    """Seconds that a smoke run of these takes where everything is cached."""
    return sum(_EXPECTED.values()) + sum(expected_seconds(experiment, PROFILE) for _, experiment in loaded)


@dataclass
class _Smoke:
    settings: Settings
    provider: ClusterProvider
    place: str
    experiments: Sequence[str]
    run: Callable[[Settings, str, int, int, Collection[str]], RunOutcome]
    tell: Callable[[DrillError], None]
    progress: Progress
    keep: bool
    runs: list[Run] = field(default_factory=list)
    codes: list[ExitCode] = field(default_factory=list)
    phases: Phases = field(default_factory=Phases)

    def all(self, estimate: float, env: Mapping[str, str]) -> SmokeOutcome:
        """Up, drills, down, files."""
        from harness.report.wording import span

        began = time.monotonic()
        self.progress.say(
            f"smoke: {', '.join(self.experiments)} on {self.place} cluster {self.settings.name}, which goes again in "
            f"the end; about {span(estimate, 0)}, and minutes more where nothing is cached"
        )
        broken: BaseException | None = None
        with terminable():
            try:
                if self._up():
                    self.codes.append(run_series(self.experiments, PROFILE, self._each, self.tell).exit_code)
            except BaseException as error:  # noqa: BLE001 - it is raised again when the cluster is gone
                broken = error
            fate = self._kept() if self.keep else self._down()
            self._not_run(broken)
            outcome = self._outcome(fate, time.monotonic() - began, env, broken)
        if broken is not None:
            raise broken
        return outcome

    def _up(self) -> bool:
        spent = Phases()
        try:
            set_up(self.settings, PROFILE, setup=True, progress=self.progress, phases=spent)
        except Internal:
            raise  # a mistake of ours is nobody else's doing
        except DrillError as error:
            self._environment(_STAGING if _STAGING in spent.seconds else _UP, error)
            return False
        finally:
            names = {"cluster": _UP}
            self.phases.seconds |= {names.get(phase, phase): seconds for phase, seconds in spent.seconds.items()}
        return True

    def _each(self, name: str, number: int, of: int, fading: Collection[str]) -> RunOutcome:
        from harness.report.junit import Run
        from harness.report.series import ENVIRONMENT

        try:
            with self.phases.time(f"drill {name}"):
                done = self.run(self.settings, name, number, of, fading)
        except DrillError as error:
            self.runs.append(Run(failed(name, error), error=error))
            raise
        self.runs.append(Run(done.row, report_of(done.folder)))
        # What is not back because nobody answered goes with the cluster, which the next run repairs first.
        lost = done.row.verdict == ENVIRONMENT and not self.keep
        return replace(done, exit_code=ExitCode.UNDECIDED) if lost else done

    def _environment(self, what: str, error: DrillError) -> None:
        """What could not be set up, or taken away. Who must mend the machine first is told by the code for that."""
        from harness.report.junit import Run
        from harness.report.series import ENVIRONMENT, Outcome

        self.tell(error)
        self.runs.append(Run(Outcome(what, ENVIRONMENT, why=error.slug), error=error))
        self.codes.append(ExitCode.BAD_INPUT if isinstance(error, BadInput) else ExitCode.UNDECIDED)

    def _down(self) -> str:
        """Take the cluster away, whatever signal comes meanwhile; what became of it."""
        command = _take_away(self.place, self.settings.name)
        while True:
            try:
                with handled(_unheard, signal.SIGINT, signal.SIGTERM, signal.SIGHUP), self.phases.time(_DOWN):
                    gone = self._gone(command)
            except KeyboardInterrupt:  # it came just before it was not heard any more
                continue
            break
        if gone is not None:
            self._environment(_DOWN, gone)
            return f"The {self.place} cluster {self.settings.name} could NOT be taken away: {command}"
        return f"The {self.place} cluster {self.settings.name} was taken away."

    def _gone(self, command: str) -> DrillError | None:
        """Why the cluster is not gone; None where it is."""
        fact, failure = "", None
        try:
            self.provider.down(self.progress)
        except DrillError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody must learn that the cluster is still there
            fact = f"{type(error).__name__}: {error}"
        try:
            state = self.provider.status()
        except DrillError as error:
            return failure or error
        if state.state == "down":  # also where nothing could ever be made, say because there is no Docker
            return None
        return failure or Internal(
            "cluster-remains",
            f"the {self.place} cluster {self.settings.name} was not taken away: "
            + (fact or f"it is {state.state} ({state.detail})"),
            expected="nothing of it left on this machine",
            remedy=f"see what holds it, then run `{command}`",
        )

    def _kept(self) -> str:
        if self.provider.status().state == "down":
            return f"There is no {self.place} cluster {self.settings.name} to keep."
        command = _take_away(self.place, self.settings.name)
        return f"The {self.place} cluster {self.settings.name} was kept; `{command}` takes it away."

    def _not_run(self, broken: BaseException | None) -> None:
        """Rows for what there are none of yet, in the order that was asked for."""
        from harness.report.junit import Run
        from harness.report.series import NOT_RUN, Outcome

        left = [Run(Outcome(name, NOT_RUN)) for name in self.experiments[len(self._drilled()) :]]
        if left and broken is not None:
            why = "interrupted" if isinstance(broken, KeyboardInterrupt) else f"{type(broken).__name__}: {broken}"
            left[0] = Run(replace(left[0].row, why=why))
        last = [run for run in self.runs if run.row.experiment == _DOWN]
        self.runs = [*(run for run in self.runs if run not in last), *left, *last]

    def _drilled(self) -> list[Run]:
        """Those of the runs that are experiments, in the order that was asked for."""
        return [run for run in self.runs if run.row.experiment not in {_UP, _STAGING, _DOWN}]

    def _outcome(self, fate: str, seconds: float, env: Mapping[str, str], broken: BaseException | None) -> SmokeOutcome:
        from harness.report.job import Job, job_summary, word
        from harness.report.junit import combined
        from harness.report.render import keep
        from harness.report.series import table

        if broken is not None:
            self.codes.append(ExitCode.UNDECIDED if isinstance(broken, KeyboardInterrupt) else ExitCode.INTERNAL)
        rows = tuple(run.row for run in self.runs)
        again = [
            asked for asked, one in zip(self.experiments, self._drilled(), strict=True) if one.row.verdict != "MET"
        ]
        job = Job(
            tuple(self.runs), worst(self.codes), fate, self.phases.seconds, seconds, str(self.settings.runs),
            shlex.join(["./drill", "smoke", "--cluster", self.place, *(again or self.experiments)]),
            interrupted=isinstance(broken, KeyboardInterrupt),
        )  # fmt: skip
        text = job_summary(job).encode()
        try:
            files = keep({"junit.xml": combined(self.runs), "summary.md": text}, self.settings.runs)
        except OSError as error:
            raise _unwritable(self.settings.runs, error) from error
        self._append(env.get(SUMMARY, ""), text)
        return SmokeOutcome(
            rows, table(rows), word(job), job.exit_code, self.phases.seconds, seconds, self.settings.name, fate, files
        )  # fmt: skip

    def _append(self, path: str, text: bytes) -> None:
        """Append to the build server's own summary, where there is one: it is a copy, and fails nothing."""
        if not path:
            return
        try:
            with Path(path).open("ab") as file:
                file.write(text)
        except OSError as error:
            self.progress.say(f"the summary could not be appended to {path} ({SUMMARY}): {error.strerror}")


def _unheard(number: int, frame: object) -> None:
    """Signals end nothing any more: what is under way is the end."""
    del number, frame
