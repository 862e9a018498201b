"""Several experiments, one run after another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from harness.core.errors import BadInput, DrillError, ExitCode, Unreachable, worst
from harness.core.experiment import AnyExperiment, ProfileName
from harness.wiring.session import choose_profile
from harness.wiring.settings import ROOT, RunOutcome, SeriesOutcome

if TYPE_CHECKING:
    from harness.report.series import Outcome

_WORDS = {
    ExitCode.BAD_INPUT: "BAD INPUT", ExitCode.REFUSED: "REFUSED", ExitCode.ROLLBACK_INCOMPLETE: "NOT BACK",
}  # fmt: skip
_CHECKS = 5.0
_INCIDENT: dict[ProfileName, float] = {"smoke": 60.0, "gameday": 520.0}
"""Seconds from an injection until all is back, measured with the autopilot."""


def run_series(
    experiments: Sequence[str],
    profile: str | None,
    run: Callable[[str, int, int, Collection[str]], RunOutcome],
    tell: Callable[[DrillError], None],
) -> SeriesOutcome:
    """Run these experiments, or all that there are where none is named, and tabulate how they ended.

    `run` is given a name, its number, how many there are, and the alerts of those before, which may still be on their
    way out. Every file is read before the first run; raises BadInput
    where one of them, or its profile, cannot be. A run that is refused is told and the next one begins. What the
    environment did to a run is neither met nor missed: UNDECIDED by its code, unless something was not put back. Where
    that is so, or somebody asked a run to stop, nothing more is drilled.
    """
    from harness.report.series import ENVIRONMENT, NOT_RUN, Outcome, table

    loaded = read(experiments, profile)
    names = [name for name, _ in loaded]
    rows: list[Outcome] = []
    codes: list[ExitCode] = []
    for index, name in enumerate(names):
        try:
            before = {alert.name for _, earlier in loaded[:index] for alert in earlier.alerts}
            done = run(name, index + 1, len(names), before)
        except DrillError as error:
            tell(error)
            row = failed(name, error)
            code = ExitCode.UNDECIDED if row.verdict == ENVIRONMENT else error.exit_code
        else:
            row, code = done.row, done.exit_code
            if row.verdict == ENVIRONMENT and code is not ExitCode.ROLLBACK_INCOMPLETE:
                code = ExitCode.UNDECIDED
        codes.append(code)
        rows.append(row)
        asked = row.ended == "stopped" and row.verdict != ENVIRONMENT
        if code is ExitCode.ROLLBACK_INCOMPLETE or asked:
            rows += [Outcome(left, NOT_RUN) for left in names[index + 1 :]]
            break
    return SeriesOutcome(tuple(rows), worst(codes), table(rows))


def read(experiments: Sequence[str], profile: str | None) -> list[tuple[str, AnyExperiment]]:
    """These experiments, or all that there are where none is named, each with what it was asked for by. Raises
    BadInput where one of them, or its profile, cannot be read."""
    from harness import loading

    found: list[tuple[str, AnyExperiment]] = []
    for name in tuple(experiments) or loading.names(ROOT):
        experiment = loading.load(loading.find(name, ROOT)).experiment
        choose_profile(experiment, profile)
        found.append((name, experiment))
    if not found:
        raise BadInput(
            "no-experiments",
            "there are no experiments to run",
            expected="files in experiments/",
            remedy="name some, or write one (docs/writing-an-experiment.md)",
        )
    return found


def expected_seconds(experiment: AnyExperiment, profile: ProfileName) -> float:
    """Seconds that a run takes where all goes well and nobody is waited for."""
    tuned = experiment.tuned(profile)
    last = max((fault.at for fault in tuned.faults), default=0.0)
    return _CHECKS + (_INCIDENT[profile] + last if tuned.faults else tuned.profiles[profile].timeout)


def failed(name: str, error: DrillError) -> Outcome:
    """The row of what an error ended before there was anything to judge."""
    from harness.report.series import ENVIRONMENT, Outcome

    word = ENVIRONMENT if isinstance(error, Unreachable) else _WORDS.get(error.exit_code, "ERROR")
    return Outcome(name, word, why=error.slug)
