"""Several experiments, one run after another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from harness.core.errors import BadInput, DrillError, ExitCode, worst
from harness.wiring.session import choose_profile
from harness.wiring.settings import ROOT, RunOutcome, SeriesOutcome

if TYPE_CHECKING:
    from harness.report.series import Outcome

_WORDS = {
    ExitCode.BAD_INPUT: "BAD INPUT", ExitCode.REFUSED: "REFUSED", ExitCode.ROLLBACK_INCOMPLETE: "NOT BACK",
}  # fmt: skip


def run_series(
    experiments: Sequence[str],
    profile: str | None,
    run: Callable[[str, int, int, Collection[str]], RunOutcome],
    tell: Callable[[DrillError], None],
) -> SeriesOutcome:
    """Run these experiments, or all that there are where none is named, and tabulate how they ended.

    `run` is given a name, its number, how many there are, and the alerts of those before, which may still be on their
    way out. Every file is read before the first run; raises BadInput
    where one of them, or its profile, cannot be. A run that is refused is told and the next one begins. Where
    something could not be put back, or somebody asked a run to stop, nothing more is drilled.
    """
    from harness import loading
    from harness.report.series import Outcome, table

    names = tuple(experiments) or loading.names(ROOT)
    raised: dict[str, tuple[str, ...]] = {}
    for name in names:
        experiment = loading.load(loading.find(name, ROOT)).experiment
        choose_profile(experiment, profile)
        raised[name] = tuple(alert.name for alert in experiment.alerts)
    if not names:
        raise BadInput(
            "no-experiments",
            "there are no experiments to run",
            expected="files in experiments/",
            remedy="name some, or write one (docs/writing-an-experiment.md)",
        )
    rows: list[Outcome] = []
    codes: list[ExitCode] = []
    for index, name in enumerate(names):
        try:
            before = {alert for earlier in names[:index] for alert in raised[earlier]}
            done = run(name, index + 1, len(names), before)
        except DrillError as error:
            tell(error)
            codes.append(error.exit_code)
            rows.append(Outcome(name, _WORDS.get(error.exit_code, "ERROR"), why=error.slug))
        else:
            codes.append(done.exit_code)
            rows.append(done.row)
        if codes[-1] is ExitCode.ROLLBACK_INCOMPLETE or rows[-1].ended == "stopped":
            rows += [Outcome(left, "not run") for left in names[index + 1 :]]
            break
    return SeriesOutcome(tuple(rows), worst(codes), table(rows))
