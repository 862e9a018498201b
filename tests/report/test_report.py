"""What a report says of a run: a good one, one cut short, one refused, and the hand-written record of 2025-11-04."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from harness.core.clock import Bounds
from harness.core.errors import ExitCode
from harness.core.event import (
    AlertTransition,
    ChannelChanged,
    CleanChecked,
    ClockCompared,
    InjectDone,
    NotifierSeen,
    PageReceived,
    PodsSeen,
    PodState,
    ResponderActed,
    RunEnded,
    UndoDone,
)
from harness.core.history import entry
from harness.report.model import build
from harness.report.summary import summary
from harness.report.values import Finding, Report, SlaRow
from harness.report.wording import clean, measured, since, span, stamp, target, uncertainty, within
from tests.report import journal as journals
from tests.report.journal import FIRED, Writer


@pytest.fixture(scope="module")
def good() -> Report:
    return build(journals.experiment().tuned("smoke"), journals.oom_workers())


@pytest.fixture(scope="module")
def record() -> Report:
    return build(journals.experiment().tuned("gameday"), journals.support_readiness())


def rows(made: Report) -> dict[str, SlaRow]:
    return {f"{row.from_} → {row.to}": row for row in made.slas}


def rules(made: Report) -> dict[str, Finding]:
    return {finding.rule: finding for finding in made.findings}


class TestGoodRun:
    def test_headline(self, good: Report) -> None:
        head = good.headline
        assert (head.verdict, head.exit_code, head.exit_meaning) == ("MET", 0, "met")
        assert head.sentence == (
            "All 4 required targets and the 1 guard were met, and the cluster was put back as it was."
        )
        assert head.caveat.startswith("The responder was AUTOMATION, not a person")
        assert good.exit_code is ExitCode.MET

    def test_table(self, good: Report) -> None:
        table = [
            (name, target(r.target), measured(r.measured, r.target), r.verdict, r.who) for name, r in rows(good).items()
        ]
        assert table == [
            ("firing → acknowledged", "5 min", "2.3 s (2.0 to 2.6)", "MET", "automation"),
            ("firing → assessed", "10 min", "3.3 s (3.0 to 3.6)", "MET", "automation"),
            ("firing → l2.joined", "15 min", "6.3 s (6.0 to 6.6)", "MET", "automation"),
            ("firing → engineering.joined", "30 min", "7.3 s (7.0 to 7.6)", "MET", "automation"),
            ("firing → client.notified", "30 min", "8.4 s (8.1 to 8.7)", "MET", "automation"),
            ("firing → mitigated", "20 min", "20.5 s (19.0 to 22.0)", "MET", "machine"),
            ("firing → recovered", "1 h", "1 min 7.5 s (1 min 6.0 s to 1 min 9.0 s)", "MET", "machine"),
        ]
        assert rows(good)["firing → mitigated"].who_text == "measured, after AUTOMATION's fix"

    def test_alert(self, good: Report) -> None:
        (alert,) = good.alerts
        assert (alert.from_, alert.to, alert.verdict) == ("memory.effective", "HighQueueDepth.firing", "MET")
        assert measured(alert.measured) == "28.6 s (28.2 to 29.0)"

    def test_chain(self, good: Report) -> None:
        (chain,) = good.chains
        assert chain.dominant == "for"
        windows = {w.from_: (w.theory and within(w.theory), measured(w.measured)) for w in chain.windows}
        assert windows == {
            "memory.effective": (None, "28.6 s (28.2 to 29.0)"),
            "symptom (above 50)": ("10 s to 14 s", "13.5 s (12.0 to 15.0)"),
            "pending": ("10 s to 12 s", "10.0 s"),
            "firing": ("at least 1 s", "1.1 s"),
        }

    def test_timeline_tells_everything_once_and_in_order(self, good: Report) -> None:
        names = [moment.name for moment in good.timeline]
        assert names == [
            "run started", "memory planned", "memory undo record stored", "injected", "OOM kill of worker-7c9d5b-a",
            "OOM kill of worker-7c9d5b-b", "OOM kill of worker-7c9d5b-c", "memory.effective", "pending", "firing",
            "Alertmanager holds HighQueueDepth: active", "paged", "acknowledged", "assessed", "responder acted",
            "l2.paged", "l2.joined", "engineering.joined", "client.notified", "root_cause.declared", "fix.applied",
            "mitigated", "resolved", "recovered", "all_clear", "memory undo: found already restored", "clean",
            "run ended: complete",
        ]  # fmt: skip
        ends = [moment.at.latest for moment in good.timeline]
        assert ends == sorted(ends)

    def test_timeline_row(self, good: Report) -> None:
        moment = next(m for m in good.timeline if m.name == "injected")
        assert "limits.memory: 128Mi → 48Mi" in moment.detail
        assert moment.from_firing is not None
        assert (since(moment.from_firing), uncertainty(moment.at)) == ("T−35.0 s", "± 0.020 s")
        kill = next(m for m in good.timeline if m.name.endswith("-a"))
        assert (kill.at.earliest, kill.at.latest) == pytest.approx((FIRED - 31.0, FIRED - 30.4))

    def test_chart(self, good: Report) -> None:
        chart = good.chart
        assert chart is not None
        assert [line.label for line in chart.lines] == ["recovered below 20", "alert above 50"]
        bands = [(band.kind, round(band.start), round(band.end)) for band in chart.bands]
        assert bands == [("fault", -35, 12), ("pending", -10, 0), ("firing", 0, 58)]
        assert [ready for _, ready, _ in chart.ready] == [5, 4, 3, 2, 3, 5]
        at = {marker.label: round(marker.at, 1) for marker in chart.markers}
        assert at["firing"] == 0
        assert at["acknowledged"] == 2.3

    def test_changes_and_findings(self, good: Report) -> None:
        (change,) = good.changes
        assert (change.before, change.after, change.undo) == ("128Mi", "48Mi", "already")
        assert good.clean.clean is True
        assert {f.severity for f in good.findings} == {"note"}
        assert set(rules(good)) == {
            "fix-undid-fault", "automation-acknowledged", "looked-before-change", "root-cause-named", "severity-right",
        }  # fmt: skip

    def test_header(self, good: Report) -> None:
        header = good.header
        assert header.responder == "AUTOMATION (autopilot), no person was on call"
        assert (header.planned, round(header.actual, 1)) == (600.0, 146.7)
        assert stamp(header.started) == "Tuesday 2025-11-04 14:14:08.000 UTC"
        assert header.experiment_file == "oom-workers.yaml"


class TestSupportReadinessRecord:
    """The record claimed 7 of 7; its own timeline says 6 of 7."""

    def test_reproduces_its_numbers(self, record: Report) -> None:
        took = {name: row.measured.latest / 60 for name, row in rows(record).items() if row.measured}
        assert took == pytest.approx({
            "firing → acknowledged": 2,
            "firing → assessed": 3,
            "firing → l2.joined": 7,
            "firing → engineering.joined": 15,  # the record says 10, which is when they were paged
            "firing → client.notified": 15,
            "firing → mitigated": 28,  # the record says 18, which is when the root cause was found
            "firing → recovered": 45,
        }, abs=0.01)  # fmt: skip

    def test_paged_is_not_joined_and_a_root_cause_is_not_a_mitigation(self, record: Report) -> None:
        at = {m.name: (m.from_firing or 0) / 60 for m in record.timeline if m.is_milestone}
        named = ("engineering.paged", "engineering.joined", "root_cause.declared", "fix.applied", "mitigated")
        assert [round(at[name]) for name in named] == [10, 15, 18, 23, 28]

    def test_mitigation_is_missed(self, record: Report) -> None:
        row = rows(record)["firing → mitigated"]
        assert (row.verdict, measured(row.measured, row.target)) == (
            "MISSED",
            "27 min 59.5 s (27 min 59.0 s to 28 min)",
        )
        assert [r.verdict for name, r in rows(record).items() if name != "firing → mitigated"] == ["MET"] * 6
        assert (record.headline.verdict, record.headline.exit_code) == ("MISSED", 1)
        assert "1 of 4 required targets was missed: firing → mitigated took 27 min 59.5 s" in record.headline.sentence

    def test_the_missed_target_is_critical_and_stands_first(self, record: Report) -> None:
        assert (record.findings[0].rule, record.findings[0].severity) == ("target-missed", "critical")

    def test_people_are_people(self, record: Report) -> None:
        assert record.headline.caveat == ""
        assert rows(record)["firing → acknowledged"].who == "human"
        assert "AUTOMATION" not in summary(record)

    def test_what_the_record_never_measured(self, record: Report) -> None:
        assert measured(record.alerts[0].measured) == "28.6 s (28.2 to 29.0)"


class TestRunsThatEndedOtherwise:
    def test_refused(self) -> None:
        made = build(journals.experiment().tuned("smoke"), journals.refused())
        assert made.exit_code is ExitCode.REFUSED
        assert made.headline.sentence.startswith("The run was refused before anything was changed")
        assert made.headline.caveat == ""
        assert made.changes == ()
        assert set(rules(made)) == {"cut-short", "guard-undecided", "preflight-failed"}
        assert all(row.cut_short for row in made.slas)

    def test_recovered_by_a_later_process(self) -> None:
        made = build(journals.experiment().tuned("smoke"), journals.recovered_later())
        assert made.headline.verdict == "UNDECIDED"
        assert made.header.ended_by == "drill recover"
        assert {row.measured for row in made.slas} == {None}  # nobody watched: no lower bound is claimed
        assert rules(made)["recovered-later"].detail == "ended by drill recover"
        assert [change.undo for change in made.changes] == ["restored"]
        assert [m.name for m in made.timeline].count("clean check: NOT clean") == 0
        assert made.headline.caveat == "The responder was AUTOMATION, not a person, and it did not act."

    def test_not_put_back(self) -> None:
        writer = Writer()
        journals.preflight(writer)
        journals.injected(writer)
        writer.add(10, UndoDone(fault="memory", outcome="refused", at=Bounds.at(FIRED + 10), detail="now 64Mi"))
        writer.add(11, CleanChecked(clean=False, differences=("deployment/worker: 128Mi -> 64Mi",)))
        writer.add(12, RunEnded(reason="timeout", detail="the time is over"))
        made = build(journals.experiment().tuned("smoke"), writer.history)
        assert made.exit_code is ExitCode.ROLLBACK_INCOMPLETE
        assert made.headline.sentence.endswith(
            "; the cluster was NOT put back: fault memory may still be in force; deployment/worker: 128Mi -> 64Mi."
        )
        assert {f.rule for f in made.findings if f.severity == "critical"} >= {"leftovers", "fault-still-open"}

    def test_cut_short_before_the_injection(self) -> None:
        writer = Writer()
        journals.preflight(writer)
        writer.add(-40, RunEnded(reason="stopped", detail="SIGINT asked for it"))
        made = build(journals.experiment().tuned("smoke"), writer.history)
        assert made.headline.verdict == "UNDECIDED"
        assert "not-compared" not in rules(made)
        assert made.chart is None

    def test_nobody_answered(self) -> None:
        writer = Writer()
        journals.preflight(writer)
        journals.injected(writer)
        journals.paged(writer)
        for name in ("mitigated", "recovered"):
            writer.add(600, journals.signal(name, ((float(t), 95.0) for t in range(600)), step=1.0))
        writer.add(600, RunEnded(reason="timeout", detail="timeout: the run's 600 s are over; still open: everything"))
        made = build(journals.experiment().tuned("smoke"), writer.history)
        assert made.headline.sentence.startswith(
            "3 of 4 required targets were not reached: firing → acknowledged; firing → mitigated; and 1 more"
        )
        assert rows(made)["firing → mitigated"].reason == "not reached in the 600.0 s that were watched"
        assert made.header.end_detail == "the run's 600 s are over; still open: everything"

    def test_an_undo_that_found_nothing_to_do_and_no_declared_fix(self) -> None:
        writer = Writer()
        journals.preflight(writer)
        journals.injected(writer)
        writer.add(50, UndoDone(fault="memory", outcome="already", at=Bounds.at(FIRED + 50), detail="found at 128Mi"))
        made = build(journals.experiment().tuned("smoke"), writer.history)
        assert made.chart is not None
        assert made.chart.bands[0].label == "memory in force, at the latest until it was found restored"

    def test_injection_failed(self) -> None:
        writer = Writer()
        journals.preflight(writer)
        failed = InjectDone(fault="memory", outcome="failed", at=Bounds.at(FIRED - 35), detail="403 Forbidden")
        writer.add(-35, failed)
        writer.add(-30, RunEnded(reason="error", detail="fault memory could not be injected"))
        made = build(journals.experiment().tuned("smoke"), writer.history)
        assert "memory injection failed" in [m.name for m in made.timeline]


class TestHeadline:
    """What the first sentence says of why a run ended and of what became of the cluster."""

    def ended(self, reason: str, detail: str, *, undo: str = "restored", clean: bool | None = True) -> Report:
        writer = Writer()
        journals.preflight(writer)
        journals.injected(writer)
        journals.paged(writer)
        if undo:
            done = UndoDone.model_validate({"fault": "memory", "outcome": undo, "at": Bounds.at(FIRED + 9)})
            writer.add(9, done)
        if clean is not None:
            writer.add(9, CleanChecked(clean=clean, differences=() if clean else ("a: 1 -> 2", "b", "c")))
        writer.add(10, RunEnded.model_validate({"reason": reason, "detail": f"{reason}: {detail}"}))
        return build(journals.experiment().tuned("smoke"), writer.history)

    @pytest.mark.parametrize(
        ("reason", "detail", "said"),
        [
            ("stopped", "SIGINT asked for it", "the run was stopped by Ctrl-C (SIGINT)"),
            ("stopped", "SIGTERM asked for it", "the run was stopped by SIGTERM"),
            (
                "stopped",
                "the lock asked for it: taken by b",
                "the run was stopped because the lock was lost: taken by b",
            ),
            (
                "stopped",
                "the API server asked for it: no renewal",
                "the run was stopped because the API server did not answer: no renewal",
            ),
            ("stopped", "the disk is full", "the run was stopped: the disk is full"),
            ("aborted", "queue was 900", "the run was aborted: queue was 900"),
            ("error", "KeyError: x", "the run broke off with an error: KeyError: x"),
            ("recovered", "the runner had died", "the run was cut short: the runner had died"),
        ],
    )
    def test_why_it_was_cut_short_and_that_the_cluster_is_back(self, reason: str, detail: str, said: str) -> None:
        sentence = self.ended(reason, detail).headline.sentence
        assert sentence == f"No verdict can be given: {said}; the cluster was put back as it was."

    def test_not_put_back(self) -> None:
        sentence = self.ended("stopped", "SIGINT asked for it", undo="", clean=False).headline.sentence
        assert sentence.endswith(
            "(SIGINT); the cluster was NOT put back: fault memory may still be in force; a: 1 -> 2; and 2 more."
        )

    def test_undone_but_never_compared(self) -> None:
        sentence = self.ended("aborted", "x", clean=None).headline.sentence
        assert sentence.endswith("it is NOT known whether the cluster was put back: nothing compared it.")

    def test_nothing_injected(self) -> None:
        writer = Writer()
        journals.preflight(writer)
        writer.add(-40, RunEnded(reason="stopped", detail="stopped during the preflight; nothing was injected"))
        made = build(journals.experiment().tuned("smoke"), writer.history)
        said = "No verdict can be given: the run was stopped during the preflight; nothing was injected."
        assert made.headline.sentence == said
        refused = build(journals.experiment().tuned("smoke"), journals.refused())
        assert refused.headline.sentence.endswith("configmap/drill-stop exists; nothing was injected.")

    def test_a_run_still_going_says_that_the_fault_may_be_in_force(self) -> None:
        writer = Writer()
        journals.preflight(writer)
        journals.injected(writer)
        made = build(journals.experiment().tuned("smoke"), writer.history)
        assert made.headline.sentence.endswith("the cluster was NOT put back: fault memory may still be in force.")

    @pytest.mark.parametrize(
        ("guards", "said"),
        [
            (0, "All 4 required targets were met, and"),
            (1, "All 4 required targets and the 1 guard were met, and"),
            (2, "All 4 required targets and the 2 guards were met, and"),
        ],
    )
    def test_targets_and_guards_are_counted_apart(self, guards: int, said: str) -> None:
        plain = journals.experiment()
        changed = plain.model_copy(update={"must_hold": plain.must_hold * guards})
        assert build(changed.tuned("smoke"), journals.oom_workers()).headline.sentence.startswith(said)

    def test_one_target_and_one_guard(self) -> None:
        plain = journals.experiment()
        one = plain.model_copy(update={"slas": plain.slas[1:2]})
        made = build(one.tuned("smoke"), journals.oom_workers())
        assert made.headline.sentence.startswith("The 1 required target and the 1 guard were met, and")
        only = plain.model_copy(update={"alerts": (), "slas": ()})
        made = build(only.tuned("smoke"), journals.oom_workers())
        assert made.headline.sentence.startswith("The one guard was met, and")

    def test_what_stopped_no_clock_does_not_change_the_caveat(self) -> None:
        def caveat(*people: ResponderActed) -> str:
            history = journals.oom_workers()
            for act in people:
                history.append(entry(history, act, FIRED + 95))
            return build(journals.experiment().tuned("smoke"), history).headline.caveat

        alone = caveat()
        assert alone.startswith("The responder was AUTOMATION, not a person: this run")
        assert caveat(journals.act("acknowledged", -60, kind="human")) == alone
        assert caveat(journals.act("acknowledged", 1, kind="human", counted=False, reason="forged")) == alone
        assert caveat(journals.act("looked", 1, kind="human")) == alone

    def test_a_recovery_that_followed_automations_fix_is_automations_doing(self) -> None:
        writer = Writer()
        for record in journals.oom_workers():
            person = isinstance(record.event, ResponderActed) and record.event.action != "fix_applied"
            changed = record.event.model_copy(update={"actor_kind": "human"}) if person else record.event
            writer.add(record.at - FIRED, changed)
        made = build(journals.experiment().tuned("smoke"), writer.history)
        assert made.headline.caveat.startswith("People and AUTOMATION both acted")


class TestFindings:
    def made(self, *events: object, responder: str = "human", truth: str = "deployment/worker") -> Report:
        writer = Writer()
        journals.preflight(writer, "human" if responder == "human" else "autopilot", "gameday")
        journals.injected(writer)
        journals.paged(writer)
        for event in events:
            writer.add(50, event)  # type: ignore[arg-type]
        tuned = journals.experiment().tuned("gameday")
        cause = tuned.facilitator.root_cause.model_copy(update={"object": truth})
        hidden = tuned.facilitator.model_copy(update={"root_cause": cause})
        return build(tuned.model_copy(update={"facilitator": hidden}), writer.history)

    def test_automation_does_not_acknowledge_for_people(self) -> None:
        finding = rules(self.made(journals.act("acknowledged", 3)))["automation-acknowledged"]
        assert finding.severity == "note"
        assert finding.detail.endswith("it is not counted as the acknowledgement")

    def test_claimed_identity(self) -> None:
        made = self.made(journals.act("acknowledged", 3, actor="alice", kind="human", verified="claimed"))
        assert rules(made)["claimed-identity"].severity == "minor"
        row = next(row for row in made.slas if row.to == "acknowledged")
        assert row.who_text == "human, identity claimed, not verified"

    def test_a_fix_without_a_look(self) -> None:
        made = self.made(journals.act("fix_applied", 3), journals.act("looked", 5))
        assert rules(made)["changed-before-looking"].severity == "minor"
        assert rules(made)["root-cause-undeclared"].severity == "minor"

    @staticmethod
    def scaled(ready: int, killed: int) -> PodsSeen:
        """Ten pods where five were; of the new ones some were killed."""
        old = journals.pods(2, 3).pods
        new = tuple(
            PodState(name=f"new-{i}", uid=f"new-{i}", ready=i < ready - 2, restarts=0, oom_kills=int(i < killed))
            for i in range(5)
        )
        return PodsSeen(fault="memory", pods=(*old, *new))

    def test_scaling_what_crashes_is_in_vain_and_out_of_order(self) -> None:
        made = self.made(journals.act("acknowledged", 2), self.scaled(2, 2), journals.act("looked", 60))
        vain = rules(made)["ineffective-action"]
        assert vain.detail == "5 -> 10 pods, and 2 ready where 2 were; 2 new pods OOM-killed"
        assert vain.severity == rules(made)["action-out-of-order"].severity == "important"

    def test_who_looked_first_scaled_in_vain_and_in_order(self) -> None:
        made = rules(self.made(journals.act("looked", 4), self.scaled(2, 2)))
        assert "ineffective-action" in made
        assert "action-out-of-order" not in made

    def test_pods_that_come_to_work_or_came_with_the_fix_are_not_in_vain(self) -> None:
        assert "ineffective-action" not in rules(self.made(self.scaled(4, 0)))
        assert "ineffective-action" not in rules(self.made(journals.act("fix_applied", 10), self.scaled(2, 2)))
        assert "ineffective-action" not in rules(self.made(self.scaled(2, 2), journals.pods(2, 3)))

    def test_wrong_root_cause_and_severity(self) -> None:
        made = self.made(journals.act("root_cause", 3, "the database"), journals.act("assessed", 3, "P3, I think"))
        assert "the truth: deployment/worker" in rules(made)["root-cause-differs"].detail
        assert rules(made)["severity-wrong"].detail == "assessed P3, the truth is P1"
        assert "severity-unclear" in rules(self.made(journals.act("assessed", 3, "bad")))

    @pytest.mark.parametrize(
        ("said", "rule"),
        [
            ("deployment/worker: limit", "named"),
            ("Deployment/worker: limit", "named"),
            ("DEPLOY/Worker is to blame", "named"),
            ("deploy/worker.", "named"),
            ("deployments/worker", "named"),
            ("deployment.apps/worker: limit", "named"),
            ("nova-staging/deployment/worker: limit", "named"),
            ("Nova-Staging/Deploy/worker", "named"),
            ("OOMKilled: the deployment/worker memory limit", "named"),
            ("pod/worker-5d8f is killed, as deployment/worker gives too little", "named"),
            ("deployment/workers: limit", "differs"),
            ("deployment/worker-2: limit", "differs"),
            ("deployment/worker.old: limit", "differs"),
            ("my-deployment/worker: limit", "differs"),
            ("secret/worker: rotated", "differs"),
            ("sts/worker", "differs"),
            ("other/deployment/worker", "differs"),
            ("deployment/api: it waits for deployment/worker", "differs"),
            ("deployment/api", "differs"),
            ("the coworkers", "differs"),
            ("worker: the limit", "unclear"),
            ("it is the worker.", "unclear"),
        ],
    )
    def test_the_declared_object_is_compared_by_kind_and_name(self, said: str, rule: str) -> None:
        made = self.made(journals.act("root_cause", 3, said))
        assert [one for one in rules(made) if one.startswith("root-cause")] == [f"root-cause-{rule}"]

    @pytest.mark.parametrize(
        ("truth", "said", "rule"),
        [
            ("service/door", "svc/door: it selects nobody", "named"),
            ("svc/door", "service/door", "named"),
            ("service/door", "deployment/door", "differs"),
            ("job/load", "job/load holds the lock", "named"),
            ("pod/worker-1", "pod/worker-1 spins", "named"),
            ("podchaos.chaos-mesh.org/cut-off", "podchaos.chaos-mesh.org/cut-off is left", "named"),
            ("podchaos.chaos-mesh.org/cut-off", "podchaos/cut-off is left", "named"),
            ("podchaos.chaos-mesh.org/cut-off", "podchaos/cut-on", "differs"),
            ("podchaos.chaos-mesh.org/cut-off", "somebody left cut-off behind", "unclear"),
        ],
    )
    def test_any_object_may_be_the_truth(self, truth: str, said: str, rule: str) -> None:
        made = self.made(journals.act("root_cause", 3, said), truth=truth)
        assert [one for one in rules(made) if one.startswith("root-cause")] == [f"root-cause-{rule}"]

    def test_other_alerts(self) -> None:
        at = Bounds.at(FIRED + 3)
        page = PageReceived(
            alert="DiskFull", status="firing", at=at, starts_at=FIRED, receiver="pager", source="pager webhook"
        )
        made = self.made(page, page, journals.transition("firing", 3, "DiskFull"))
        assert rules(made)["unexpected-page"].detail.startswith("2 pages")
        assert "unexpected-alert" in rules(made)

    def test_clocks(self) -> None:
        slow = ClockCompared(peer="node", offset=Bounds(earliest=-2.6, latest=-2.4), method="Date")
        finding = rules(self.made(slow))["clocks-differ"]
        assert finding.detail.startswith("2.500 s behind ours")

    def test_a_lost_channel(self) -> None:
        lost = ChannelChanged(channel="pods", up=False, detail="410 Gone")
        made = self.made(lost, ChannelChanged(channel="pods", up=True))
        assert rules(made)["channel-lost"].title == "pods was lost for a while"
        assert not any(row.cut_short for row in self.made(lost).slas if row.verdict == "UNDECIDED")
        assert rules(self.made(lost))["channel-lost"].title == "pods was lost and did not come back"

    def test_uncounted_and_early_acts(self) -> None:
        made = self.made(
            journals.act("acknowledged", 3, counted=False, reason="forged"),
            journals.act("acknowledged", -60, kind="human"),
        )
        assert rules(made)["act-not-counted"].detail == "forged"
        assert "act-before-firing" in rules(made)

    def test_no_page(self) -> None:
        writer = Writer()
        journals.preflight(writer)
        journals.injected(writer)
        writer.add(1, journals.transition("firing", 0))
        made = build(journals.experiment().tuned("smoke"), writer.history)
        assert "no-page" in rules(made)

    def test_alertmanager_disagrees(self) -> None:
        writer = Writer()
        journals.preflight(writer)
        journals.injected(writer)
        writer.add(1, journals.transition("firing", 0))
        writer.add(1, NotifierSeen(alert="HighQueueDepth", fingerprint="f", state="active", starts_at=FIRED + 0.5))
        made = build(journals.experiment().tuned("smoke"), writer.history)
        assert rules(made)["alertmanager-stamp-disagrees"].severity == "minor"

    def test_gravest_first(self) -> None:
        made = self.made(CleanChecked(clean=False, differences=("x",)), journals.act("acknowledged", 3))
        order = ["critical", "important", "minor", "note"]
        places = [order.index(finding.severity) for finding in made.findings]
        assert places == sorted(places)
        assert places[0] == 0


def test_a_flapping_alert_has_a_band_for_each_time() -> None:
    writer = Writer()
    journals.preflight(writer)
    journals.injected(writer)
    moves: list[AlertTransition] = [
        journals.transition("pending", -10), journals.transition("firing", 0), journals.transition("resolved", 20),
        journals.transition("pending", 30), journals.transition("firing", 40),
    ]  # fmt: skip
    writer.add(60, *moves)
    writer.add(60, journals.signal("curve", ((float(t), 60.0) for t in range(60)), step=1.0))
    made = build(journals.experiment().tuned("smoke"), writer.history)
    assert made.chart is not None
    bands = [(b.kind, round(b.start), round(b.end)) for b in made.chart.bands if b.kind != "fault"]
    assert bands == [("pending", -10, 0), ("firing", 0, 20), ("pending", 30, 40), ("firing", 40, 59)]


def test_the_alert_line_is_drawn_only_where_the_expressions_agree() -> None:
    other = journals.experiment(signal={"query": "sum(other)", "title": "Other"})
    made = build(other.tuned("smoke"), journals.oom_workers())
    assert made.chart is not None
    assert made.chart.lines == ()
    assert "symptom" in {window.from_ for window in made.chains[0].windows}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (12.34, "12.3 s"), (59.96, "1 min"), (60, "1 min"), (1680, "28 min"), (125.3, "2 min 5.3 s"),
     (3905, "1 h 5 min 5.0 s"), (-3.2, "−3.2 s"), (-0.01, "0.0 s"), (math.inf, "unbounded")],
)  # fmt: skip
def test_span(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("bounds", "against", "text"),
    [
        (None, None, "not measured"),
        (Bounds.at(12.3), None, "12.3 s"),
        (Bounds(earliest=12.28, latest=12.32), None, "12.3 s"),
        (Bounds(earliest=12.1, latest=12.5), None, "12.3 s (12.1 to 12.5)"),
        (Bounds(earliest=12.25, latest=12.35), None, "12.30 s (12.25 to 12.35)"),
        (Bounds(earliest=55, latest=65), None, "1 min (55.0 s to 1 min 5.0 s)"),
        (Bounds(earliest=309, latest=math.inf), None, "over 5 min 9.0 s"),
        (Bounds.at(300.04), 300.0, "5 min 0.040 s"),
        (Bounds(earliest=-1, latest=1), None, "0.0 s (−1.0 s to 1.0 s)"),
    ],
)
def test_measured(bounds: Bounds | None, against: float | None, text: str) -> None:
    assert measured(bounds, against) == text


def test_cleaning_is_for_every_text_of_a_report(good: Report) -> None:
    from harness.report.values import cleaned

    dirty = replace(good, header=replace(good.header, title="a\x1b[2J\nb", tests=("\u202ex",)))
    assert cleaned(dirty).header.title == "a\ufffd[2J b"
    assert cleaned(dirty).header.tests == ("\ufffdx",)
    assert clean("plain – ünïcode 日本 🚀") == "plain – ünïcode 日本 🚀"
