"""The verdict in one sentence, and what must be read with it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.errors import ExitCode
from harness.core.event import InjectDone, ResponderActed
from harness.core.history import History
from harness.core.verdict import Judgement, Verdict
from harness.report.values import Clean, GuardRow, Headline, SlaRow
from harness.report.wording import measured, plural, target

_MEANING = {
    ExitCode.MET: "met",
    ExitCode.MISSED: "missed",
    ExitCode.UNDECIDED: "undecided",
    ExitCode.REFUSED: "refused by a guard",
    ExitCode.ROLLBACK_INCOMPLETE: "rollback incomplete",
}


def headline(
    judgement: Judgement, rows: Sequence[SlaRow], guards: Sequence[GuardRow], history: History, clean: Clean
) -> Headline:
    """The headline of a run."""
    code = judgement.exit_code
    if code is ExitCode.REFUSED:
        sentence = f"The run was refused before anything was changed, so nothing was tested: {_end(history)}"
    elif history.ended is None:
        sentence = "The run has not ended, so it cannot be judged yet"
    elif judgement.verdict is Verdict.MET:
        sentence = _met(rows, guards, clean)
    elif judgement.verdict is Verdict.UNDECIDED:
        sentence = f"No verdict can be given: {judgement.reason}"
    else:
        sentence = _broken(judgement, rows, guards)
    if code is ExitCode.ROLLBACK_INCOMPLETE:
        sentence += "; and the cluster is NOT back as it was"
    return Headline(str(judgement.verdict), f"{sentence}.", _caveat(history), int(code), _MEANING[code])


def _end(history: History) -> str:
    ended = history.ended
    return ended.detail.removeprefix(f"{ended.reason}: ").rstrip(".") if ended else "no reason was recorded"


def _met(rows: Sequence[SlaRow], guards: Sequence[GuardRow], clean: Clean) -> str:
    count = sum(row.required for row in rows) + len(guards)
    sentence = "The one required target was met" if count == 1 else f"All {count} required targets were met"
    unmet = sum(not row.required and row.verdict != "MET" for row in rows)
    if unmet:
        sentence += f", {plural(unmet, 'advisory target')} {'was' if unmet == 1 else 'were'} not"
    if clean.clean:
        sentence += ", and the cluster was put back as it was"
    return sentence


def _broken(judgement: Judgement, rows: Sequence[SlaRow], guards: Sequence[GuardRow]) -> str:
    word = str(judgement.verdict)
    said = [
        f"{row.from_} → {row.to}"
        + (f" took {measured(row.measured, row.target)} against a target of {target(row.target)}"
           if row.verdict == "MISSED" and row.measured else "")
        for row in rows if row.required and row.verdict == word
    ]  # fmt: skip
    said += [f"“{guard.name}” did not hold" for guard in guards if guard.verdict == word]
    if not said:
        return judgement.reason
    count = sum(row.required for row in rows) + len(guards)
    verb = "was" if len(said) == 1 else "were"
    missed = "missed" if judgement.verdict is Verdict.MISSED else "not reached"
    more = f"; and {len(said) - 2} more" if len(said) > 2 else ""
    return f"{len(said)} of {count} required targets {verb} {missed}: {'; '.join(said[:2])}{more}"


def _caveat(history: History) -> str:
    kinds = {act.actor_kind for act in history.all(ResponderActed) if act.counted}
    if kinds == {"human"}:
        return ""
    if kinds == {"human", "automation"}:
        return "People and AUTOMATION both acted in this run: each line below says which."
    if "automation" in kinds:
        return "The responder was AUTOMATION, not a person: this run says nothing of how fast people respond."
    if history.start.responder == "autopilot" and history.all(InjectDone):
        return "The responder was AUTOMATION, not a person, and it did not act."
    return ""
