"""The automated responder: it plays the runbook through the doors that people use.

It has an identity of its own (its cluster, metrics and notifier are built with that identity's token), and knows
neither the engine nor the journal nor the undo record: it sees the alert in Alertmanager, reads pods, patches the
Deployment and writes messages, as a person with kubectl would. Everything that it says is labelled as automation.
It is a responder and not a clock: it looks about once a second, and nothing is timed by when it looked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event as Flag
from typing import NoReturn, TypeVar

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
from harness.core.experiment import AnyExperiment, Autopilot, split_object
from harness.core.inbox import MAX_TEXT, message
from harness.ports.cluster import Cluster, Conflict, OutcomeUnknown, Ref
from harness.ports.metrics import Matcher, Metrics, Notifier, NotifierAlert

POLL = 0.75
"""Seconds between two looks."""
PATIENCE = 10.0
"""Seconds that a rollout has to replace crashing pods before they are deleted."""
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
    """Respond to the experiment's first expected alert until the all clear, a stop, or a world unlike the runbook's.

    `experiment` is tuned to the run's profile. Never raises for what a peer does: peers that do not answer are asked
    again until `stop`, a refusal ends the work with its reason.
    """
    if experiment.autopilot is None or not experiment.alerts:
        return Outcome(finished=False, detail="the experiment gives the autopilot nothing to respond to")
    responder = _Responder(
        experiment, experiment.autopilot, namespace, cluster, metrics, notifier, clock, wait or stop.wait, stop, say
    )
    try:
        responder.respond()
    except _Left as left:
        return Outcome(finished=False, detail=left.why)
    except DrillError as error:
        say(f"autopilot: leaves off: {error.fact}")
        return Outcome(finished=False, detail=error.fact)
    return Outcome(finished=True, detail="all clear")


class _Left(Exception):
    """Not an error: the responder goes home."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(slots=True)
class _Responder:
    experiment: AnyExperiment
    autopilot: Autopilot
    namespace: str
    cluster: Cluster
    metrics: Metrics
    notifier: Notifier
    clock: Clock
    wait: Wait
    stop: Flag
    say: Callable[[str], None]
    actor: str = ""
    silence: str = ""

    def respond(self) -> None:
        """The runbook from the page to the all clear."""
        self.actor = self._asked(self.cluster.whoami).username
        self._await_alert()
        self._pause(self.autopilot.acknowledge_after)
        self._acknowledge()
        self._next("assessed", self.autopilot.severity)
        for role in self.autopilot.escalate:
            self._next("escalated", f"{self._alert} needs {role}", role=role)
            self._next("joined", f"{role} joins (automation)", role=role)
        workload = self._look()
        self._next("looked", described(workload))
        diagnosis = diagnosed(workload, self.autopilot)
        if diagnosis.action == "leave":
            self._leave(diagnosis.why)
        self._next("note", diagnosis.why)
        self._next("root_cause", diagnosis.cause)
        self._next("notified", self.autopilot.client_notice or "We are investigating; next update within 30 minutes.")
        self._pause(self.autopilot.step)
        self._act(workload, diagnosis)
        self._watch(diagnosis)
        self._send("all_clear", f"{self.experiment.recovered} has held, and {self._alert} is resolved")
        if self.silence:
            self._asked(lambda: self.notifier.expire(self.silence))

    @property
    def _alert(self) -> str:
        return self.experiment.alerts[0].name

    def _await_alert(self) -> None:
        self.say(f"autopilot: on call for {self._alert} as {self.actor}")
        while not any(alert.state == "active" for alert in self._held_alerts()):
            self._pause(POLL)

    def _held_alerts(self) -> list[NotifierAlert]:
        """What Alertmanager holds of the alert; one of its name with other labels is another system's."""
        held = self._asked(lambda: self.notifier.alerts(self._alert))
        return [alert for alert in held if self.experiment.alerts[0].matches(alert.labels)]

    def _acknowledge(self) -> None:
        text = f"{self._alert}: I have it"
        if self.autopilot.door == "inbox":
            self._send("acknowledged", text)
            return
        labels = {**self.experiment.alerts[0].labels, "alertname": self._alert}
        matchers = [Matcher(name, value) for name, value in sorted(labels.items())]
        self.silence = self._asked(
            lambda: self.notifier.silence(matchers, author=self.actor, comment=f"ACK! {text}", seconds=SILENCE_FOR)
        )
        self.say(f"autopilot: acknowledged by silence {self.silence}")

    def _look(self) -> Workload:
        kind, name = split_object(self.autopilot.look_at)
        if kind != "deployment":
            self._leave(f"the runbook is about a Deployment, but {self.autopilot.look_at} is none")
        deployment = self._asked(lambda: self.cluster.get(Ref("Deployment", self.namespace, name)))
        return seen(deployment, self._asked(lambda: self.cluster.list("Pod", self.namespace, labels_of(deployment))))

    def _act(self, workload: Workload, diagnosis: Diagnosis) -> None:
        if diagnosis.action == "scale" and self.autopilot.scale_to is not None:
            operations = scale_patch(workload, self.autopilot.scale_to)
            done = f"{self.autopilot.look_at}: {workload.replicas} -> {self.autopilot.scale_to} replicas"
        else:
            operations = limit_patch(workload, self.autopilot.limit)
            done = f"{self.autopilot.look_at}: memory limit {workload.limit} -> {self.autopilot.limit}"
        unsure = False
        for _ in range(3):
            try:
                self.cluster.patch(Ref("Deployment", self.namespace, workload.name), operations)
            except OutcomeUnknown:
                unsure = True
                self._pause(POLL)
                if self._took_effect(diagnosis):
                    break
                continue
            except Conflict as conflict:
                if unsure and self._took_effect(diagnosis):  # our own earlier write, whose reply was lost
                    break
                self._leave(f"somebody changed {self.autopilot.look_at} meanwhile: {conflict.fact}")
            break
        else:
            self._leave(f"the API server did not confirm the change of {self.autopilot.look_at}")
        self._send("fix_applied", done)

    def _took_effect(self, diagnosis: Diagnosis) -> bool:
        now = self._look()
        return now.replicas == self.autopilot.scale_to if diagnosis.action == "scale" else (
            now.limit == self.autopilot.limit
        )  # fmt: skip

    def _watch(self, diagnosis: Diagnosis) -> None:
        """Until the service has recovered and the alert is gone, helping a slow rollout along."""
        fixed_at = self.clock.now()
        window = Window(self.experiment.recovered)
        deleted: set[str] = set()
        peak, falling = self._value(self.experiment.signal.query), False
        while True:
            depth = self._value(self.experiment.signal.query)
            if depth is not None:
                if not falling and peak is not None and depth <= peak * FALLING:
                    falling = True
                    self._send("note", f"{self.experiment.signal.title} falls: {peak:g} -> {depth:g}")
                peak = depth if peak is None else max(peak, depth)
            held = window.see(self.clock.now(), self._value(self.experiment.recovered.query))
            if held and not self._held_alerts():
                return
            if diagnosis.action == "fix":
                self._tend(deleted, slow=self.clock.now() - fixed_at >= PATIENCE)
            self._pause(POLL)

    def _tend(self, deleted: set[str], *, slow: bool) -> None:
        workload = self._look()
        again = still_killed(workload, self.autopilot.limit)
        if again:
            self._leave(f"{again[0].name} was OOMKilled with the limit of {self.autopilot.limit} put back: escalate")
        if not slow:
            return
        for pod in left_crashing(workload, self.autopilot.limit):
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
            self.namespace, actor=self.actor, action=action, role=role, text=text[:MAX_TEXT], automation=True
        )
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
