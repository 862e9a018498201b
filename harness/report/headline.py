"""The verdict in one sentence, and what must be read with it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.core.errors import ExitCode
from harness.core.event import InjectDone, InjectStarted, ResponderActed
from harness.core.history import History
from harness.core.verdict import Judgement, Verdict
from harness.report.timeline import brought_about
from harness.report.values import Clean, GuardRow, Headline, SlaRow
from harness.report.wording import measured, plural, target

_MEANING = {
    ExitCode.MET: "met",
    ExitCode.MISSED: "missed",
    ExitCode.UNDECIDED: "undecided",
    ExitCode.REFUSED: "refused by a guard",
    ExitCode.ROLLBACK_INCOMPLETE: "rollback incomplete",
}

_CUT = "the run was cut short: "
_NOTHING_INJECTED = "; nothing was injected"
_ASKED = re.compile(r"(?P<by>.+?) asked for it(?:: (?P<why>.*))?", re.DOTALL)
_STOPPED_BY = {
    "SIGINT": "the run was stopped by Ctrl-C (SIGINT)",
    "SIGHUP": "the run was stopped because its terminal went away (SIGHUP)",
    "the lock": "the run was stopped because the lock was lost",
    "the API server": "the run was stopped because the API server did not answer",
}


def headline(
    judgement: Judgement, rows: Sequence[SlaRow], guards: Sequence[GuardRow], history: History, clean: Clean
) -> Headline:
    """The headline of a run. Its sentence ends with what became of the cluster."""
    code = judgement.exit_code
    ended = history.ended
    joint = "; "
    if code is ExitCode.REFUSED:
        sentence = f"The run was refused before anything was changed, so nothing was tested: {_detail(history)}"
    elif ended is None:
        sentence = "The run has not ended, so it cannot be judged yet"
    elif judgement.verdict is Verdict.MET:
        sentence, joint = _met(rows, guards), ", and "
    elif judgement.verdict is Verdict.UNDECIDED:
        cut = judgement.reason.startswith(_CUT)
        sentence = f"No verdict can be given: {_cut_short(history) if cut else judgement.reason}"
    else:
        sentence = _broken(judgement, rows, guards)
        if ended.reason not in {"complete", "timeout"}:
            sentence += f"; {_cut_short(history)}"
    sentence = f"{sentence}{joint}{_put_back(history, clean)}."
    return Headline(str(judgement.verdict), sentence, _caveat(judgement, history), int(code), _MEANING[code])


def _detail(history: History) -> str:
    """How the run ended, without the reason that the run repeats before it."""
    ended = history.ended
    return ended.detail.removeprefix(f"{ended.reason}: ").rstrip(".") if ended else "no reason was recorded"


def _cut_short(history: History) -> str:
    """What ended the run before its time, as a clause for people."""
    detail = _detail(history)
    reason = history.ended.reason if history.ended else ""
    if reason == "stopped":
        asked = _ASKED.fullmatch(detail)
        if asked is None:
            plain = detail.removesuffix(_NOTHING_INJECTED)
            return f"the run was {plain}" if plain.startswith("stopped ") else f"the run was stopped: {plain}"
        why = f": {asked['why']}" if asked["why"] else ""
        return _STOPPED_BY.get(asked["by"], f"the run was stopped by {asked['by']}") + why
    if reason == "aborted":
        return f"the run was aborted: {detail}"
    if reason == "error":
        return f"the run broke off with an error: {detail}"
    return f"{_CUT}{detail}"


def _put_back(history: History, clean: Clean) -> str:
    still = [f"fault {fault} may still be in force" for fault in history.open_faults()]
    if still or clean.clean is False:
        said = still + list(clean.differences if clean.clean is False else ())
        more = f"; and {len(said) - 2} more" if len(said) > 2 else ""
        told = "; ".join(said[:2]) or "it differs from its snapshot"
        return f"the cluster was NOT put back: {told}{more}"
    failed = {done.fault for done in history.all(InjectDone) if done.outcome == "failed"}
    begun = {event.fault for event in history.all(InjectStarted)} | {done.fault for done in history.all(InjectDone)}
    if not begun - failed:
        return "nothing was injected"
    if clean.clean:
        return "the cluster was put back as it was"
    return "every fault was undone, but it is NOT known whether the cluster was put back: nothing compared it"


def _met(rows: Sequence[SlaRow], guards: Sequence[GuardRow]) -> str:
    count = sum(row.required for row in rows)
    if not guards:
        sentence = "The one required target was met" if count == 1 else f"All {count} required targets were met"
    elif not count:
        sentence = "The one guard was met" if len(guards) == 1 else f"All {len(guards)} guards were met"
    else:
        lead = "The" if count == 1 else "All"
        sentence = f"{lead} {plural(count, 'required target')} and the {plural(len(guards), 'guard')} were met"
    unmet = sum(not row.required and row.verdict != "MET" for row in rows)
    if unmet:
        sentence += f", {plural(unmet, 'advisory target')} {'was' if unmet == 1 else 'were'} not"
    return sentence


def _broken(judgement: Judgement, rows: Sequence[SlaRow], guards: Sequence[GuardRow]) -> str:
    word = str(judgement.verdict)
    said = [
        f"{row.from_} → {row.to}"
        + (f" took {measured(row.measured, row.target)} against a target of {target(row.target)}"
           if row.verdict == "MISSED" and row.measured else "")
        for row in rows if row.required and row.verdict == word
    ]  # fmt: skip
    parts = []
    if said:
        verb = "was" if len(said) == 1 else "were"
        missed = "missed" if judgement.verdict is Verdict.MISSED else "not reached"
        more = f"; and {len(said) - 2} more" if len(said) > 2 else ""
        of = plural(sum(row.required for row in rows), "required target")
        parts.append(f"{len(said)} of {of} {verb} {missed}: {'; '.join(said[:2])}{more}")
    parts += [f"the guard “{guard.name}” did not hold" for guard in guards if guard.verdict == word]
    told = "; ".join(parts) or judgement.reason
    return told[:1].upper() + told[1:] if parts else told


def _caveat(judgement: Judgement, history: History) -> str:
    """Whose doing the ends of the judged promises were. What stopped no clock says nothing here."""
    makers = [
        maker
        for result in (*judgement.slas, *judgement.alerts)
        if (maker := brought_about(result.end, judgement.milestones)) is not None
    ]
    kinds = {"automation" if maker.actor_kind == "automation" else "human" for maker in makers}
    if kinds == {"human"}:
        return ""
    if kinds == {"human", "automation"}:
        return "People and AUTOMATION both acted in this run: each line below says which."
    if kinds == {"automation"}:
        return "The responder was AUTOMATION, not a person: this run says nothing of how fast people respond."
    if history.start.responder == "autopilot" and history.all(InjectDone):
        if any(act.counted and act.actor_kind == "automation" for act in history.all(ResponderActed)):
            return "The responder was AUTOMATION, not a person, and nothing that it did stopped a clock."
        return "The responder was AUTOMATION, not a person, and it did not act."
    return ""
