"""Several experiments, one run after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.core.errors import BadInput, DrillError, ExitCode
from harness.wiring.session import choose_profile
from harness.wiring.settings import ROOT, RunOutcome, SeriesOutcome

if TYPE_CHECKING:
    from harness.report.series import Outcome

_WORST = (
    ExitCode.ROLLBACK_INCOMPLETE, ExitCode.INTERNAL, ExitCode.BAD_INPUT, ExitCode.REFUSED, ExitCode.MISSED,
    ExitCode.UNDECIDED, ExitCode.MET,
)  # fmt: skip
_WORDS = {
    ExitCode.BAD_INPUT: "BAD INPUT", ExitCode.REFUSED: "REFUSED", ExitCode.ROLLBACK_INCOMPLETE: "NOT BACK",
}  # fmt: skip


def run_series(
    experiments: Sequence[str],
    profile: str | None,
    run: Callable[[str, int, int], RunOutcome],
    tell: Callable[[DrillError], None],
) -> SeriesOutcome:
    """Run these experiments, or all that there are where none is named, and tabulate how they ended.

    `run` is given a name, its number and how many there are. Every file is read before the first run; raises BadInput
    where one of them, or its profile, cannot be. A run that is refused is told and the next one begins. Where
    something could not be put back, or somebody asked a run to stop, nothing more is drilled.
    """
    from harness import loading
    from harness.report.series import Outcome, table

    names = tuple(experiments) or loading.names(ROOT)
    for name in names:
        choose_profile(loading.load(loading.find(name, ROOT)).experiment, profile)
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
            done = run(name, index + 1, len(names))
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
    return SeriesOutcome(tuple(rows), min(codes, key=_WORST.index), table(rows))
