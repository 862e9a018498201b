"""From a journal to a report: `build`.

Computed from the journal and the experiment only: no clock, no environment, no paths of the machine. The same
journal gives the same report, byte for byte, in every format.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import PurePath

from harness.core.clock import Bounds
from harness.core.event import (
    AlertingRead,
    CheckDone,
    CleanChecked,
    ClockCompared,
    EffectProved,
    InjectDone,
    InjectionPlanned,
    PhaseTimed,
    Record,
    ResponderActed,
    SignalRead,
    UndoDone,
)
from harness.core.experiment import AnyExperiment
from harness.core.history import History
from harness.core.milestone import Milestone
from harness.core.verdict import GuardResult, Judgement, SlaResult, Verdict, guard_signal, judge
from harness.report.curve import alert_bound, chart, incident_charts, symptom
from harness.report.findings import findings
from harness.report.headline import headline
from harness.report.timeline import brought_about, timeline, value_text, who_text
from harness.report.values import (
    Chain,
    ChangeMade,
    Check,
    Clean,
    ClockRow,
    Evidence,
    GuardRow,
    Header,
    Phase,
    Report,
    SlaRow,
    Who,
    Window,
    cleaned,
)

_CUT_SHORT = frozenset({"aborted", "stopped", "refused", "error", "recovered"})
_LONGEST_EVENT = 360


def build(experiment: AnyExperiment, history: History, head: str = "") -> Report:
    """The report of a run. `experiment` must be tuned to the run's profile; `head` is the digest of the journal's last
    line, where its lines are a chain."""
    judgement = judge(experiment, history)
    found = judgement.milestones
    excused = _excuses(experiment, history)
    slas = tuple(_sla_row(result, judgement, history, excused=excused) for result in judgement.slas)
    alerts = tuple(_sla_row(result, judgement, history, excused=excused) for result in judgement.alerts)
    guards = tuple(_guard_row(result, history) for result in judgement.guards)
    clean = _clean(history)
    drawn, more = chart(experiment, history, found), incident_charts(experiment, history, found)
    chains = tuple(_chains(experiment, history, found))
    moments = timeline(history, found)
    changes = tuple(_changes(history))
    told = findings(experiment, history, found, (*slas, *alerts), guards, clean)
    checks = tuple(Check(e.name, e.ok, e.fact, e.expected, e.remedy, (r.seq,)) for r, e in history.records(CheckDone))
    clocks = tuple(ClockRow(e.peer, e.offset, e.method, (r.seq,)) for r, e in history.records(ClockCompared))
    phases = tuple(Phase(e.phase, e.seconds, (r.seq,)) for r, e in history.records(PhaseTimed))
    cited: set[int] = set()
    for rows in (slas, alerts, guards, chains, moments, changes, told, checks, clocks, phases, (clean,)):
        cited.update(seq for row in rows for seq in row.evidence)
    for chain in chains:
        cited.update(seq for window in chain.windows for seq in window.evidence)
    cited.update(seq for one in (*filter(None, [drawn]), *more) for seq in one.evidence)
    return cleaned(Report(
        header=_header(experiment, history, head),
        headline=headline(judgement, (*slas, *alerts), guards, history, clean),
        slas=slas, alerts=alerts, guards=guards, chains=chains, timeline=moments, chart=drawn,
        incident_charts=more, changes=changes,
        clean=clean, findings=told, checks=checks, clocks=clocks, phases=phases,
        evidence=tuple(_evidence(record) for record in history if record.seq in cited),
    ))  # fmt: skip


def _header(experiment: AnyExperiment, history: History, head: str) -> Header:
    start, ended = history.start, history.ended
    profile = next((p for name, p in experiment.profiles.items() if name == start.profile), None)
    acted = {act.actor_kind for act in history.all(ResponderActed)}
    automated = start.responder == "autopilot"
    responder = "AUTOMATION (autopilot), no person was on call" if automated else "human"
    if not automated and "automation" in acted:
        responder += ", with acts by AUTOMATION"
    elif automated and "human" in acted:
        responder = "AUTOMATION (autopilot), with acts by people"
    return Header(
        title=experiment.title,
        experiment=experiment.name,
        run_id=start.run_id,
        profile=start.profile,
        responder=responder,
        automated=automated,
        cluster=tuple(sorted(start.cluster.items())),
        namespace=experiment.namespace,
        severity=experiment.severity,
        started=history.started_at,
        ended=history.last_at if ended else None,
        end_reason=ended.reason if ended else "the run has not ended",
        end_detail=ended.detail.removeprefix(f"{ended.reason}: ") if ended else "",
        ended_by=ended.by if ended else "",
        planned=profile.timeout if profile else None,
        actual=history.last_at - history.started_at,
        digest=start.digest,
        harness_version=start.harness_version,
        journal_head=head,
        identity=start.identity,
        experiment_file=PurePath(start.experiment_path).name,
        runbook=experiment.runbook,
        probability=experiment.why.probability,
        tests=experiment.why.tests,
        narrative=tuple(filter(None, (" ".join(part.split()) for part in experiment.narrative.split("\n\n")))),
        root_cause_object=experiment.facilitator.root_cause.object,
        root_cause_reason=experiment.facilitator.root_cause.reason,
    )


def _excuses(experiment: AnyExperiment, history: History) -> bool:
    """Whether what the run did not reach says nothing of the people: it was cut short, or a fault was never proved."""
    ended = history.ended
    proved = {event.fault for event in history.all(EffectProved)}
    return ended is None or ended.reason in _CUT_SHORT or any(fault.id not in proved for fault in experiment.faults)


def _sla_row(result: SlaResult, judgement: Judgement, history: History, *, excused: bool) -> SlaRow:
    who, text = _who(result.end, judgement.milestones, history)
    ends = [m for m in (result.start, result.end) if m is not None]
    ended = history.ended
    cut_short = excused and result.verdict is Verdict.NOT_REACHED
    # How the run ended is told once, in the header, and not again with every row.
    duration, reason = result.duration, result.reason.partition(" (the run ended")[0]
    if cut_short and ended is not None and ended.reason == "recovered":
        # Between the death of the run's process and the recovery nobody watched.
        duration, reason = None, f"the run's own process ended before {result.sla.to} was reached"
    return SlaRow(
        name=result.sla.title,
        from_=result.sla.from_,
        to=result.sla.to,
        target=result.sla.within,
        measured=duration,
        verdict=str(result.verdict),
        required=result.sla.required,
        who=who,
        who_text=text,
        reason=reason,
        evidence=_union(m.evidence for m in ends),
        cut_short=cut_short,
    )


def _who(end: Milestone | None, found: dict[str, Milestone], history: History) -> tuple[Who, str]:
    """Whose doing the end of an SLA was. What automation's fix brought about is said to be so."""
    if end is None:
        return "", ""
    if end.actor_kind:
        acts = {record.seq: act for record, act in history.records(ResponderActed)}
        act = acts.get(end.evidence[-1])
        kind: Who = "automation" if end.actor_kind == "automation" else "human"
        return kind, who_text(kind, act.verified if act else "")
    fix = brought_about(end, found)
    if fix is not None:
        by = "AUTOMATION's fix" if fix.actor_kind == "automation" else "a person's fix"
        return "machine", f"measured, after {by}"
    return "machine", "measured by machine"


def _guard_row(result: GuardResult, history: History) -> GuardRow:
    signal = guard_signal(result.condition)
    cited = [record.seq for record, event in history.records(SignalRead) if event.signal == signal]
    ends = tuple(sorted({*cited[:1], *cited[-1:]}))
    return GuardRow(result.condition.name, str(result.condition), str(result.verdict), result.reason, ends)


def _chains(experiment: AnyExperiment, history: History, found: dict[str, Milestone]) -> Iterable[Chain]:
    expected = {alert.name: alert for alert in experiment.alerts}
    latest = {read.alert: (record.seq, read) for record, read in history.records(AlertingRead)}
    for name, (seq, read) in latest.items():
        knobs = [("scrape interval", read.scrape_interval), ("evaluation interval", read.evaluation_interval),
                 ("for", read.for_seconds)]  # fmt: skip
        if read.group_wait is not None:
            knobs.append(("group wait", read.group_wait))
        yield Chain(
            alert=name,
            group=read.group,
            file=PurePath(read.file).name,
            query=read.query,
            receiver=read.receiver,
            runbook_url=read.runbook_url,
            labels=tuple(sorted(read.labels.items())),
            knobs=tuple(knobs),
            dominant=max(knobs, key=lambda knob: knob[1])[0],
            floor=read.floor,
            windows=tuple(_windows(experiment, history, found, read, expected[name].of if name in expected else "")),
            evidence=(seq,),
        )


def _windows(
    experiment: AnyExperiment, history: History, found: dict[str, Milestone], read: AlertingRead, cause: str
) -> Iterable[Window]:
    firing = found.get(f"{read.alert}.firing")
    pending, paged = found.get(f"{read.alert}.pending"), found.get(f"{read.alert}.paged")
    risen = symptom(experiment, history, read.query, found.get("injected"))
    if cause:
        yield _window(found.get(cause), firing, cause, "firing", None)
    since = risen.until(firing.at).clipped(not_before=0.0) if risen and firing else None
    bound = alert_bound(experiment, read.query)
    name = f"symptom (above {bound:g})" if bound is not None else "symptom"
    yield Window(name, "firing", read.floor, since, firing.evidence if firing else ())
    held = Bounds(earliest=read.for_seconds, latest=read.for_seconds + read.evaluation_interval)
    yield _window(pending, firing, "pending", "firing", held)
    if read.group_wait is not None:
        waited = Bounds(earliest=read.group_wait, latest=float("inf"))
        yield _window(firing, paged, "firing", "paged", waited)


def _window(start: Milestone | None, end: Milestone | None, from_: str, to: str, theory: Bounds | None) -> Window:
    took = start.at.until(end.at) if start and end else None
    return Window(from_, to, theory, took, _union(m.evidence for m in (start, end) if m))


def _changes(history: History) -> Iterable[ChangeMade]:
    undone = {event.fault: (record.seq, event) for record, event in history.records(UndoDone)}
    done = {event.fault: (record.seq, event.outcome) for record, event in history.records(InjectDone)}
    for record, plan in {plan.fault: (record, plan) for record, plan in history.records(InjectionPlanned)}.values():
        cited = {record.seq}
        undo, detail = "not needed: it was never injected", ""
        if plan.fault in done:
            seq, outcome = done[plan.fault]
            cited.add(seq)
            undo = "NOT undone" if outcome != "failed" else "not needed: the injection failed"
        if plan.fault in undone:
            seq, event = undone[plan.fault]
            cited.add(seq)
            undo, detail = event.outcome, event.detail
        for change in plan.changes:
            yield ChangeMade(
                plan.fault, plan.kind, change.object, change.path, value_text(change.before),
                value_text(change.after), undo, detail, tuple(sorted(cited)),
            )  # fmt: skip


def _clean(history: History) -> Clean:
    found = history.records(CleanChecked)
    if not found:
        return Clean(None, (), ())
    record, event = found[-1]
    return Clean(event.clean, event.differences, (record.seq,))


def _union(evidence: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sorted({seq for cited in evidence for seq in cited}))


def _evidence(record: Record) -> Evidence:
    event = record.event
    if isinstance(event, SignalRead):
        known = [value for _, value in event.samples if value is not None]
        spread = f", from {min(known):g} to {max(known):g}" if known else ", none with a value"
        text = f"signal {event.signal}: {len(event.samples)} samples{spread}"
    else:
        body = event.model_dump(mode="json", exclude={"type", "experiment", "experiment_path"})
        text = json.dumps(body, ensure_ascii=False, separators=(", ", ": "))[1:-1]
    if len(text) > _LONGEST_EVENT:
        text = f"{text[:_LONGEST_EVENT]}…"
    return Evidence(record.seq, record.at, event.type, text)
