"""Findings by rule: what a run says beyond its numbers. No rule guesses at a person's reasons.

A required promise that was broken is critical, an advisory one important; so is a cluster that was not put back
(critical: it blocks the next run). The rest is minor, or a note where nothing is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.core.event import (
    AlertTransition,
    ChannelChanged,
    CheckDone,
    ClockCompared,
    EffectProved,
    InjectDone,
    PageReceived,
    PodsSeen,
    ResponderActed,
    SourceRestarted,
    UndoDone,
)
from harness.core.evidence import unprovable
from harness.core.experiment import AnyExperiment, RootCause
from harness.core.history import History
from harness.core.milestone import AMBIGUOUS, MITIGATED, Milestone, restarts
from harness.core.naming import Named, objects_in
from harness.report.facts import why_not_judged
from harness.report.values import SEVERITIES, Clean, Finding, GuardRow, Severity, SlaRow
from harness.report.wording import measured, plural, span, target

_CLOCK_LIMIT = 1.0
_SEVERITY = re.compile(r"\bP[1-4]\b", re.IGNORECASE)


def findings(
    experiment: AnyExperiment,
    history: History,
    found: dict[str, Milestone],
    promises: tuple[SlaRow, ...],
    guards: tuple[GuardRow, ...],
    clean: Clean,
) -> tuple[Finding, ...]:
    """All findings, the gravest first, in a stable order."""
    every = [
        *_promises(history, promises),
        *_guards(guards),
        *_put_back(history, clean),
        *_faults(experiment, history),
        *_alerting(experiment, history, found),
        *_acknowledgement(history, found),
        *_uncounted(history, found),
        *_diagnosis(experiment, history, found),
        *_in_vain(history, found),
        *_restarts(experiment, history, found),
        *_observers(history),
    ]
    return tuple(sorted(every, key=lambda finding: SEVERITIES.index(finding.severity)))


def _promises(history: History, rows: tuple[SlaRow, ...]) -> Iterator[Finding]:
    cut_short = [row for row in rows if row.verdict == "NOT REACHED" and row.cut_short]
    if cut_short:
        severity: Severity = "important" if any(row.required for row in cut_short) else "minor"
        ended = history.ended
        why = why_not_judged(ended.reason if ended else "", ended=ended is not None)
        title = f"{why}: {plural(len(cut_short), 'target')} could not be judged"
        detail = "what was not reached by then says nothing of the people; the table of targets says which"
        yield Finding("cut-short", severity, title, detail, ())
    for row in rows:
        ends = f"{row.from_} → {row.to}"
        broken: Severity = "critical" if row.required else "important"
        doubted: Severity = "important" if row.required else "minor"
        if row.verdict == "MISSED":
            took = f"took {measured(row.measured, row.target)}" if row.measured else "was missed"
            detail = f"{took} against a target of {target(row.target)}" + (f"; {row.reason}" if row.reason else "")
            yield Finding("target-missed", broken, f"Target missed: {ends}", detail, row.evidence)
        elif row.verdict == "NOT REACHED" and not row.cut_short:
            yield Finding("target-not-reached", broken, f"Never reached: {ends}", row.reason, row.evidence)
        elif row.verdict == "UNDECIDED":
            yield Finding("target-undecided", doubted, f"Cannot be decided: {ends}", row.reason, row.evidence)


def _guards(rows: tuple[GuardRow, ...]) -> Iterator[Finding]:
    for row in rows:
        if row.verdict == "MISSED":
            yield Finding("guard-broken", "critical", f"Did not hold: {row.name}", row.reason, row.evidence)
        elif row.verdict != "MET":
            yield Finding("guard-undecided", "important", f"Cannot be decided: {row.name}", row.reason, row.evidence)


def _put_back(history: History, clean: Clean) -> Iterator[Finding]:
    if clean.clean is False:
        detail = "; ".join(clean.differences) or "the cluster differs from the snapshot"
        yield Finding("leftovers", "critical", "The cluster is not back as it was", detail, clean.evidence)
    open_faults = history.open_faults()
    ends = {event.fault: (record.seq, event) for record, event in history.records(UndoDone)}
    for fault in open_faults:
        seq, undo = ends.get(fault, (None, None))
        detail = f"undo {undo.outcome}: {undo.detail}" if undo else "no undo was recorded"
        cited = (seq,) if seq is not None else ()
        yield Finding("fault-still-open", "critical", f"Fault {fault} may still be in force", detail, cited)
    if clean.clean is None and any(done.outcome != "failed" for done in history.all(InjectDone)):
        yield Finding(
            "not-compared", "important", "Nobody compared the cluster with its snapshot afterwards",
            "no clean check is in the journal", (),
        )  # fmt: skip
    ended = history.ended
    if ended is not None and ended.reason == "recovered":
        cited = (len(history) - 1,)
        yield Finding("recovered-later", "important", "The run did not end itself", f"ended by {ended.by}", cited)


def _faults(experiment: AnyExperiment, history: History) -> Iterator[Finding]:
    proved = {event.fault for event in history.all(EffectProved)}
    for record, done in history.records(InjectDone):
        if done.outcome != "failed" and done.fault not in proved:
            never = unprovable(experiment.fault(done.fault), history)
            detail = never or "it was injected but was not seen to do what it was meant to do"
            title = f"Fault {done.fault} was never proved"
            yield Finding("effect-not-proved", "important", title, detail, (record.seq,))
    for record, check in history.records(CheckDone):
        if not check.ok:
            detail = f"{check.fact}; expected: {check.expected}; remedy: {check.remedy}"
            title = f"Preflight check failed: {check.name}"
            yield Finding("preflight-failed", "important", title, detail, (record.seq,))
        elif check.warning:
            yield Finding("preflight-warning", "note", f"Warned: {check.name}", check.warning, (record.seq,))
    for record, undo in history.records(UndoDone):
        declared = {fault.id for fault in experiment.faults}
        if undo.outcome == "already" and undo.fault in declared:
            detail = "the value was found back at what it was: the responder's fix undid the fault"
            yield Finding("fix-undid-fault", "note", f"Fault {undo.fault} was already undone", detail, (record.seq,))


def _alerting(experiment: AnyExperiment, history: History, found: dict[str, Milestone]) -> Iterator[Finding]:
    expected = {alert.name for alert in experiment.alerts}
    others: dict[str, list[int]] = {}
    for record, page in history.records(PageReceived):
        mine = any(alert.name == page.alert and alert.matches(page.labels) for alert in experiment.alerts)
        if not mine and page.status == "firing":
            others.setdefault(page.alert, []).append(record.seq)
    for alert, cited in sorted(others.items()):
        detail = f"{plural(len(cited), 'page')} for an alert that this experiment does not expect"
        yield Finding("unexpected-page", "minor", f"Page for another alert: {alert}", detail, tuple(cited))
    for record, move in history.records(AlertTransition):
        if move.alert not in expected and move.to == "firing":
            detail = "it fired during the run, and this experiment does not expect it"
            yield Finding("unexpected-alert", "minor", f"Another alert fired: {move.alert}", detail, (record.seq,))
    for name, milestone in found.items():
        if milestone.note.startswith(AMBIGUOUS) and name.partition(".")[0] in expected:
            title = f"Cannot be attributed: {name}"
            yield Finding("ambiguous", "minor", title, milestone.note.partition(": ")[2], milestone.evidence)
    for name in sorted(expected):
        fired = found.get(f"{name}.firing")
        if fired is not None and "differs" in fired.note:
            title = f"Alertmanager's stamp for {name} disagrees"
            yield Finding("alertmanager-stamp-disagrees", "minor", title, fired.note, fired.evidence)
        if fired is not None and f"{name}.paged" not in found:
            detail = "it fired, but no notification reached the pager while the run watched"
            yield Finding("no-page", "minor", f"No page for {name}", detail, fired.evidence)


def _acknowledgement(history: History, found: dict[str, Milestone]) -> Iterator[Finding]:
    acknowledged = found.get("acknowledged")
    programs = [
        (record.seq, act) for record, act in history.records(ResponderActed)
        if act.action == "acknowledged" and act.actor_kind == "automation"
    ]  # fmt: skip
    if programs:
        seq, program = programs[0]
        counted = acknowledged is not None and acknowledged.actor_kind == "automation"
        detail = f"{program.actor} is a program: its time says nothing of how fast people answer"
        detail += "" if counted else "; it is not counted as the acknowledgement"
        yield Finding("automation-acknowledged", "note", "AUTOMATION acknowledged, not a person", detail, (seq,))
    if acknowledged is None:
        return
    act = _act(history, acknowledged)
    if act is not None and act.verified == "claimed":
        detail = f"the door ({act.source}) does not authenticate; {act.actor} is what the sender wrote"
        yield Finding(
            "claimed-identity", "minor", "The acknowledgement's identity is claimed, not verified", detail,
            acknowledged.evidence,
        )  # fmt: skip


def _uncounted(history: History, found: dict[str, Milestone]) -> Iterator[Finding]:
    firing = found.get("firing")
    for record, act in history.records(ResponderActed):
        what = f"{act.actor}: {act.action.replace('_', ' ')}"
        if not act.counted:
            yield Finding("act-not-counted", "note", f"Shown, not counted: {what}", act.reason, (record.seq,))
        elif firing is not None and act.at.latest < firing.at.earliest and act.action not in {"looked", "note"}:
            detail = "it came before the alert fired, so it stops no clock"
            yield Finding("act-before-firing", "note", f"Before the alert: {what}", detail, (record.seq,))


def _act(history: History, milestone: Milestone) -> ResponderActed | None:
    acts = {record.seq: event for record, event in history.records(ResponderActed)}
    return acts.get(milestone.evidence[-1])


def _diagnosis(experiment: AnyExperiment, history: History, found: dict[str, Milestone]) -> Iterator[Finding]:
    yield from _order(history, found)
    for index, alert in enumerate(experiment.alerts):
        truth = experiment.facilitator.root_cause if index == 0 else experiment.facilitator.of_alerts.get(alert.name)
        if truth is not None:
            of = "" if index == 0 else f"{alert.name}."
            yield from _root_cause(truth, experiment.namespace, of, history, found)
    assessed = found.get("assessed")
    act = _act(history, assessed) if assessed else None
    if assessed and act:
        yield _severity(experiment.severity, act.text, assessed.evidence)


def _root_cause(
    truth: RootCause, namespace: str, of: str, history: History, found: dict[str, Milestone]
) -> Iterator[Finding]:
    """Of the first alert, or (`of`: its name and a dot) of another: what was declared against what was so."""
    declared = found.get(f"{of}root_cause.declared")
    act = _act(history, declared) if declared else None
    where = f" of {of.removesuffix('.')}" if of else ""
    if declared and act:
        detail = f"declared: “{act.text}”; the truth: {truth.object}, {truth.reason}"
        own = truth.object.partition("/")[0].partition(".")[0]
        (_, kind, name), *_ = objects_in(truth.object, own)
        said = _first_object(act.text, own)
        if said in {Named("", kind, name), Named(namespace, kind, name)}:
            yield Finding("root-cause-named", "note", f"The declared root cause{where} names the right object", detail,
                          declared.evidence)  # fmt: skip
        elif said is None and re.search(rf"(?<![-.\w/]){re.escape(name)}(?![-\w/]|\.\w)", act.text.lower()):
            title = f"The declared root cause{where} does not say which kind of object"
            detail += "; it is compared where it is written as kind/name"
            yield Finding("root-cause-unclear", "minor", title, detail, declared.evidence)
        else:
            title = f"The declared root cause{where} does not name the right object"
            yield Finding("root-cause-differs", "minor", title, detail, declared.evidence)
    elif f"{of}fix.applied" in found:
        detail = f"a fix was applied; the truth was {truth.object}, {truth.reason}"
        yield Finding("root-cause-undeclared", "minor", f"Nobody declared a root cause{where}", detail,
                      found[f"{of}fix.applied"].evidence)  # fmt: skip


def _first_object(text: str, kind: str) -> Named | None:
    """The object that a text declares, of that kind or a well-known one: what comes after it only says what is wrong
    with it. Pods are what the workload makes of itself, so they are passed over."""
    passed = {"pod", "replicaset"} - {kind}
    return next((one for one in objects_in(text, kind) if one.kind not in passed), None)


def _severity(truth: str, text: str, cited: tuple[int, ...]) -> Finding:
    said = {match.upper() for match in _SEVERITY.findall(text)}
    if not said:
        detail = f"“{text}” names none of P1 to P4; the truth is {truth}"
        return Finding("severity-unclear", "minor", "The assessment names no severity", detail, cited)
    if said == {truth}:
        return Finding("severity-right", "note", f"Severity was assessed rightly as {truth}", f"“{text}”", cited)
    detail = f"assessed {' and '.join(sorted(said))}, the truth is {truth}"
    return Finding("severity-wrong", "minor", "Severity was assessed wrongly", detail, cited)


def _order(history: History, found: dict[str, Milestone]) -> Iterator[Finding]:
    fix = found.get("fix.applied")
    if fix is None:
        return
    looks = [
        (record, act) for record, act in history.records(ResponderActed)
        if act.action == "looked" and act.counted and act.at.middle < fix.at.middle
    ]  # fmt: skip
    if not looks:
        detail = "no look at the pods is recorded before the fix: diagnose first, change second"
        yield Finding("changed-before-looking", "minor", "The fix came before any look", detail, fix.evidence)
        return
    record, act = looks[0]
    lead = span(fix.at.middle - act.at.middle)
    sure = "" if act.at.latest <= fix.at.earliest else " (their bounds overlap, so the order is likely, not certain)"
    automated = "AUTOMATION: " if act.actor_kind == "automation" else ""
    detail = f"{automated}{act.actor} looked {lead} before the fix{sure}" + (f": {act.text}" if act.text else "")
    cited = (record.seq, *fix.evidence)
    yield Finding("looked-before-change", "note", "The responder looked before changing anything", detail, cited)


def _in_vain(history: History, found: dict[str, Milestone]) -> Iterator[Finding]:
    """Pods that responders added before any fix and that did not come to work: scaling what crashes makes more that
    crashes. Counted against what there was when the alert fired; a rollout's surge is over before that, or is part of
    the fix."""
    firing = found.get("firing")
    if firing is None:
        return
    ends = [found[name].at.earliest for name in ("fix.applied", MITIGATED) if name in found]
    if history.undo_began is not None:
        ends.append(history.undo_began.at)
    until = min(ends, default=history.last_at + 1.0)
    for fault in dict.fromkeys(event.fault for event in history.all(PodsSeen)):
        seen = [(record, event) for record, event in history.records(PodsSeen) if event.fault == fault]
        before = [event for record, event in seen if record.at <= firing.at.latest]
        after = [(record, event) for record, event in seen if firing.at.latest < record.at < until]
        if not before or not after:
            continue
        had, worked = len(before[-1].pods), sum(pod.ready for pod in before[-1].pods)
        grown = [(record, event) for record, event in after if len(event.pods) > had]
        last = after[-1][1]
        if not grown or len(last.pods) <= had or sum(pod.ready for pod in last.pods) > worked:
            continue
        first, at = grown[0][0], grown[0][0].at
        known = {pod.uid for pod in before[-1].pods}
        killed = sum(1 for pod in last.pods if pod.uid not in known and pod.oom_kills)
        detail = f"{had} -> {len(last.pods)} pods, and {sum(pod.ready for pod in last.pods)} ready where {worked} were"
        detail += f"; {plural(killed, 'new pod')} OOM-killed" if killed else ""
        cited = (first.seq, after[-1][0].seq)
        yield Finding("ineffective-action", "important", f"Scaled in vain: the pods of {fault}", detail, cited)
        looks = [act for act in history.all(ResponderActed) if act.action == "looked" and act.counted]
        if not any(act.at.earliest <= at for act in looks):
            order = "pods were added before anybody had looked at those that there were: diagnose first, scale second"
            yield Finding("action-out-of-order", "important", "Scaled before looking", order, (first.seq,))


def _restarts(experiment: AnyExperiment, history: History, found: dict[str, Milestone]) -> Iterator[Finding]:
    """Recoveries that did not outlast a restart: what was mended was what ran, and not what is declared."""
    for alert, outcome in restarts(experiment, history, found).items():
        for attempt in outcome.all:
            plan, cited = attempt.plan, (*attempt.recovery.evidence, attempt.record.seq)
            if attempt.fell:
                title = f"A fix for {alert} did not outlast a restart of {plan.workload}"
                yield Finding("fix-did-not-last", "important", title, attempt.fell, cited)
            elif attempt.void:
                title = f"A restart of {plan.workload} says nothing of the recovery from {alert}"
                yield Finding("restart-says-nothing", "minor", title, attempt.void, cited)
            elif attempt.stood is not None:
                title = f"The recovery from {alert} outlasted a restart of {plan.workload}"
                yield Finding("fix-lasts", "note", title, f"{plural(len(plan.pods), 'pod')}, one at a time", cited)


def _observers(history: History) -> Iterator[Finding]:
    latest: dict[str, tuple[int, ClockCompared]] = {
        compared.peer: (record.seq, compared) for record, compared in history.records(ClockCompared)
    }
    for peer, (seq, compared) in sorted(latest.items()):
        off = compared.offset.middle
        if abs(off) > _CLOCK_LIMIT:
            word = "ahead of" if off > 0 else "behind"
            detail = f"{span(abs(off), 3)} {word} ours; every time from there was moved by it, within its bounds"
            yield Finding("clocks-differ", "minor", f"The clock of {peer} differs by more than 1 s", detail, (seq,))
    down: dict[str, tuple[int, float, str]] = {}
    for record, channel in history.records(ChannelChanged):
        if not channel.up:
            down.setdefault(channel.channel, (record.seq, record.at, channel.detail))
        elif channel.channel in down:
            seq, since, why = down.pop(channel.channel)
            detail = f"blind for {span(record.at - since)}: {why}"
            cited = (seq, record.seq)
            yield Finding("channel-lost", "minor", f"{channel.channel} was lost for a while", detail, cited)
    for name, (seq, since, why) in sorted(down.items()):
        detail = f"blind for the last {span(history.last_at - since)} of the run: {why}"
        yield Finding("channel-lost", "minor", f"{name} was lost and did not come back", detail, (seq,))
    for record, restarted in history.records(SourceRestarted):
        detail = f"{restarted.detail}; times across that point are not trusted"
        yield Finding("source-restarted", "minor", f"{restarted.source} restarted", detail, (record.seq,))
