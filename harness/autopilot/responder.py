"""The automated responder: it plays the runbook through the doors that people use.

It has an identity of its own (its cluster, metrics and notifier are built with that identity's token), and knows
neither the engine nor the journal nor the undo record: it sees the alert in Alertmanager, reads pods, patches the
Deployment and writes messages, as a person with kubectl would. Everything that it says is labelled as automation.
It is a responder and not a clock: it looks about once a second, and nothing is timed by when it looked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event as Flag
from typing import NoReturn, TypeVar

from harness.autopilot.fixes import Hands, NotSo, do
from harness.autopilot.steps import (
    Diagnosis,
    Window,
    Workload,
    described,
    diagnosed,
    labels_of,
    left_crashing,
    limit_patch,
    scale_patch,
    seen,
    still_killed,
)
from harness.core.clock import Clock
from harness.core.errors import DrillError, Unreachable
from harness.core.event import Action
from harness.core.experiment import (
    AnyExperiment,
    Autopilot,
    Condition,
    ExpectedAlert,
    Response,
    RestoreMemoryLimit,
    Step,
    split_object,
)
from harness.core.inbox import MAX_TEXT, message
from harness.core.workload import pod_labels
from harness.ports.cluster import Cluster, Conflict, OutcomeUnknown, Ref
from harness.ports.kinds import WORKLOADS, workload
from harness.ports.metrics import Matcher, Metrics, Notifier, NotifierAlert

POLL = 0.75
"""Seconds between two looks."""
PATIENCE = 10.0
"""Seconds that a rollout has to replace crashing pods before they are deleted, and that the runbook's condition has to
be seen."""
FALLING = 0.9
"""The part of its peak to which the signal must fall before that is said: less may be noise."""
SILENCE_FOR = 900.0
"""Seconds of the silence, where that is the door of the acknowledgement; ended early at the all clear."""

Wait = Callable[[float], bool]
"""Waits so many seconds, or less where it is asked to stop: then it answers True."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the responder ended: `finished` after the all clear, else with the reason why it left off."""

    finished: bool
    detail: str


def run(
    experiment: AnyExperiment,
    namespace: str,
    cluster: Cluster,
    metrics: Metrics,
    notifier: Notifier,
    *,
    clock: Clock,
    stop: Flag,
    say: Callable[[str], None],
    wait: Wait | None = None,
) -> Outcome:
    """Respond to each alert that the experiment has a response for until its all clear, a stop, or a world unlike the
    runbook's; to several at the same time, as so many people would.

    `experiment` is tuned to the run's profile. Never raises for what a peer does: peers that do not answer are asked
    again until `stop`, a refusal ends the work with its reason.
    """
    if experiment.autopilot is None or not experiment.alerts:
        return Outcome(finished=False, detail="the experiment gives the autopilot nothing to respond to")
    called: set[str] = set()
    responders = [
        _Responder(
            experiment, experiment.autopilot, response, _alert_of(experiment, response), namespace, cluster, metrics,
            notifier, clock, wait or stop.wait, stop, say, called,
        )
        for response in experiment.autopilot.responses
    ]  # fmt: skip
    if len(responders) == 1:
        return responders[0].outcome()
    with ThreadPoolExecutor(len(responders), "drill-autopilot") as pool:
        outcomes = list(pool.map(_Responder.outcome, responders))
    unfinished = [one for one in outcomes if not one.finished]
    return unfinished[0] if unfinished else outcomes[0]


def _alert_of(experiment: AnyExperiment, response: Response) -> ExpectedAlert:
    return next((alert for alert in experiment.alerts if alert.name == response.alert), experiment.alerts[0])


class _Left(Exception):
    """Not an error: the responder goes home."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(slots=True)
class _Responder:
    experiment: AnyExperiment
    autopilot: Autopilot
    response: Response
    alert: ExpectedAlert
    namespace: str
    cluster: Cluster
    metrics: Metrics
    notifier: Notifier
    clock: Clock
    wait: Wait
    stop: Flag
    say: Callable[[str], None]
    called: set[str]
    """Roles that were called already: nobody is called twice because there are two incidents."""
    actor: str = ""
    silence: str = ""

    def outcome(self) -> Outcome:
        """Respond, and say how that ended."""
        try:
            self.respond()
        except _Left as left:
            return Outcome(finished=False, detail=left.why)
        except DrillError as error:
            self.say(f"autopilot: leaves off: {error.fact}")
            return Outcome(finished=False, detail=error.fact)
        return Outcome(finished=True, detail="all clear")

    def respond(self) -> None:
        """The runbook from the page to the all clear."""
        self.actor = self._asked(self.cluster.whoami).username
        self._await_alert()
        self._pause(self.autopilot.acknowledge_after)
        self._acknowledge()
        self._next("assessed", self.autopilot.severity)
        for role in self.autopilot.escalate:
            if role not in self.called:
                self.called.add(role)
                self._next("escalated", f"{self._alert} needs {role}", role=role)
                self._next("joined", f"{role} joins (automation)", role=role)
        if isinstance(self._tree, RestoreMemoryLimit):
            self._by_the_tree(self._tree)
        else:
            self._by_the_steps()
        goal = self.experiment.goal(self._alert, "recovered")
        held = f"{goal} has held, and " if goal is not None else ""
        self._send("all_clear", f"{held}{self._alert} is resolved")
        if self.silence:
            self._asked(lambda: self.notifier.expire(self.silence))

    @property
    def _tree(self) -> Step:
        return self.response.steps[0]

    def _by_the_tree(self, runbook: RestoreMemoryLimit) -> None:
        workload = self._look()
        self._next("looked", described(workload))
        diagnosis = diagnosed(workload, runbook)
        if diagnosis.action == "leave":
            self._leave(diagnosis.why)
        self._next("note", diagnosis.why)
        self._next("root_cause", diagnosis.cause)
        self._notify()
        self._act(workload, diagnosis, runbook)
        self._watch(runbook if diagnosis.action == "fix" else None)

    def _by_the_steps(self) -> None:
        """What the runbook lists, once its own condition says that this is its case."""
        self._next("looked", self._seen())
        if self.response.when is not None:
            self._next("note", self._confirmed(self.response.when))
        self._next("root_cause", self.response.cause or f"{self.response.look_at}: as the runbook describes it")
        self._notify()
        hands = Hands(self.cluster, self.namespace, self.clock, self._asked, lambda: self._pause(POLL))
        done = ""
        for step in self.response.steps:
            try:
                done += ("; " if done else "") + do(step, hands)
            except NotSo as other:
                self._leave(other.why + (f" (done before: {done})" if done else ""))
        self._send("fix_applied", done)
        self._watch(None)

    def _confirmed(self, when: Condition) -> str:
        """That the runbook's own condition holds, in words; it may take a moment to be measured. Leaves where not."""
        since = self.clock.now()
        while True:
            value = self._value(when.query)
            if value is not None and when.holds(value):
                return f"{when}: it is {value:g}"
            if self.clock.now() - since >= PATIENCE:
                self._leave(f"the runbook is for {when}, and it is {'no value' if value is None else f'{value:g}'}")
            self._pause(POLL)

    def _notify(self) -> None:
        self._next("notified", self.autopilot.client_notice or "We are investigating; next update within 30 minutes.")
        self._pause(self.autopilot.step)

    def _seen(self) -> str:
        """The pods of the workload in words, where it is one whose pods can be read."""
        if split_object(self.response.look_at)[0] not in WORKLOADS:
            return f"{self.response.look_at}, by what it does"
        body = self._asked(lambda: self.cluster.get(workload(self.response.look_at, self.namespace)))
        return described(seen(body, self._asked(lambda: self.cluster.list("Pod", self.namespace, pod_labels(body)))))

    @property
    def _alert(self) -> str:
        return self.alert.name

    def _await_alert(self) -> None:
        self.say(f"autopilot: on call for {self._alert} as {self.actor}")
        while not any(alert.state == "active" for alert in self._held_alerts()):
            self._pause(POLL)

    def _held_alerts(self) -> list[NotifierAlert]:
        """What Alertmanager holds of the alert; one of its name with other labels is another system's."""
        held = self._asked(lambda: self.notifier.alerts(self._alert))
        return [alert for alert in held if self.alert.matches(alert.labels)]

    def _acknowledge(self) -> None:
        text = f"{self._alert}: I have it"
        if self.autopilot.door == "inbox":
            self._send("acknowledged", text)
            return
        labels = {**self.alert.labels, "alertname": self._alert}
        matchers = [Matcher(name, value) for name, value in sorted(labels.items())]
        self.silence = self._asked(
            lambda: self.notifier.silence(matchers, author=self.actor, comment=f"ACK! {text}", seconds=SILENCE_FOR)
        )
        self.say(f"autopilot: acknowledged by silence {self.silence}")

    def _look(self) -> Workload:
        kind, name = split_object(self.response.look_at)
        if kind != "deployment":
            self._leave(f"the runbook is about a Deployment, but {self.response.look_at} is none")
        deployment = self._asked(lambda: self.cluster.get(Ref("Deployment", self.namespace, name)))
        return seen(deployment, self._asked(lambda: self.cluster.list("Pod", self.namespace, labels_of(deployment))))

    def _act(self, workload: Workload, diagnosis: Diagnosis, runbook: RestoreMemoryLimit) -> None:
        if diagnosis.action == "scale" and runbook.scale_to is not None:
            operations = scale_patch(workload, runbook.scale_to)
            done = f"{self.response.look_at}: {workload.replicas} -> {runbook.scale_to} replicas"
        else:
            operations = limit_patch(workload, runbook.limit)
            done = f"{self.response.look_at}: memory limit {workload.limit} -> {runbook.limit}"
        unsure = False
        for _ in range(3):
            try:
                self.cluster.patch(Ref("Deployment", self.namespace, workload.name), operations)
            except OutcomeUnknown:
                unsure = True
                self._pause(POLL)
                if self._took_effect(diagnosis, runbook):
                    break
                continue
            except Conflict as conflict:
                if unsure and self._took_effect(diagnosis, runbook):  # our own earlier write, whose reply was lost
                    break
                self._leave(f"somebody changed {self.response.look_at} meanwhile: {conflict.fact}")
            break
        else:
            self._leave(f"the API server did not confirm the change of {self.response.look_at}")
        self._send("fix_applied", done)

    def _took_effect(self, diagnosis: Diagnosis, runbook: RestoreMemoryLimit) -> bool:
        now = self._look()
        return now.replicas == runbook.scale_to if diagnosis.action == "scale" else (
            now.limit == runbook.limit
        )  # fmt: skip

    def _watch(self, runbook: RestoreMemoryLimit | None) -> None:
        """Until the service has recovered and the alert is gone, helping a slow rollout along where a limit was put
        back."""
        fixed_at = self.clock.now()
        goal = self.experiment.goal(self._alert, "recovered")
        window = None if goal is None else Window(goal)
        signal = self.alert.signal or self.experiment.signal
        deleted: set[str] = set()
        peak, falling = self._value(signal.query), False
        while True:
            level = self._value(signal.query)
            if level is not None:
                if not falling and peak is not None and level <= peak * FALLING:
                    falling = True
                    self._send("note", f"{signal.title} falls: {peak:g} -> {level:g}")
                peak = level if peak is None else max(peak, level)
            held = window is None or goal is None or window.see(self.clock.now(), self._value(goal.query))
            if held and not self._held_alerts():
                return
            if runbook is not None:
                self._tend(deleted, runbook, slow=self.clock.now() - fixed_at >= PATIENCE)
            self._pause(POLL)

    def _tend(self, deleted: set[str], runbook: RestoreMemoryLimit, *, slow: bool) -> None:
        workload = self._look()
        again = still_killed(workload, runbook.limit)
        if again:
            self._leave(f"{again[0].name} was OOMKilled with the limit of {runbook.limit} put back: escalate")
        if not slow:
            return
        for pod in left_crashing(workload, runbook.limit):
            if pod.uid in deleted:
                continue
            deleted.add(pod.uid)
            with self._tolerated(f"delete {pod.name}"):
                self.cluster.delete(Ref("Pod", self.namespace, pod.name), uid=pod.uid)
                self._send("note", f"deleted {pod.name}, which still crashed with the limit of {pod.memory_limit}")

    def _value(self, query: str) -> float | None:
        """The one value of a query now; None where there is none or more than one."""
        series = self._asked(lambda: self.metrics.vector(query))
        return series[0].samples[-1][1] if len(series) == 1 and series[0].samples else None

    def _next(self, action: Action, text: str, *, role: str = "") -> None:
        self._pause(self.autopilot.step)
        self._send(action, text, role=role)

    def _send(self, action: Action, text: str, *, role: str = "") -> None:
        """One message. A lost reply is sent again: the first of two equal messages counts, and none is lost."""
        body = message(
            self.namespace, actor=self.actor, action=action, role=role, text=text[:MAX_TEXT], alert=self._alert,
            automation=True,
        )  # fmt: skip
        self._asked(lambda: self.cluster.create(body))
        self.say(f"autopilot: {action.replace('_', ' ')}{f' {role}' if role else ''}: {text}")

    def _leave(self, why: str) -> NoReturn:
        self._send("note", f"stopped acting: {why}")
        raise _Left(why)

    def _asked(self, call: Callable[[], T]) -> T:
        """The answer of a peer, asked again until it answers or the run ends."""
        told = False
        while True:
            try:
                return call()
            except Unreachable as error:
                if not told:
                    self.say(f"autopilot: no answer, asking again: {error.fact}")
                    told = True
                self._pause(POLL)

    @contextmanager
    def _tolerated(self, what: str) -> Iterator[None]:
        """For help that is not needed to go on."""
        try:
            yield
        except DrillError as error:
            self.say(f"autopilot: could not {what}: {error.fact}")

    def _pause(self, seconds: float) -> None:
        if self.stop.is_set() or self.wait(seconds) or self.stop.is_set():
            raise _Left("asked to stop")
