"""A drill as a Kubernetes Job in the cluster that it breaks: started, followed to its end, called off.

The Job carries its experiment with it, as an annotation of its pod that is mounted as a file. So it is one object: it
is there as a whole or not at all, nobody needs the right to make ConfigMaps beside the owners' mark, and nothing is
left when it goes. Kubernetes starts the pod, ends it after its deadline, and keeps its last words; this module only
looks.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Event as Flag
from threading import Timer
from typing import Literal, TypeVar

from harness.core.errors import BadInput, Refused, Unreachable
from harness.engine.sweeper import HOME
from harness.ports.cluster import AlreadyExists, Cluster, Json, NotFound, OutcomeUnknown, Ref

T = TypeVar("T")

APP = "drill-fleet"
FLEET_LABEL = "drill.internal/fleet"
TARGET_LABEL = "drill.internal/target"
EXPERIMENT = "drill.internal/experiment"
"""The annotation of a pod that holds its experiment's text."""
FOLDER = "/etc/drill"
RUNS = "/var/run/drill"
SWEEPER = Ref("Deployment", HOME, "drill-sweeper")
EXPERIMENT_BYTES = 200 * 1024
"""All annotations of an object together take 256 KiB (TotalAnnotationSizeLimitB in k8s.io/apimachinery)."""
SPARE = 15 * 60.0
"""Seconds beside an experiment's own timeout: its checks, ten minutes of undoing, and the comparison."""
LOST_AFTER = 60.0
"""Seconds without an answer after which a target counts as lost. Its drill goes on without us."""
AGAIN = 1.0
"""Seconds between two looks at a pod whose log has ended, or cannot be read."""

Follow = Callable[[str, str, int, Flag], Iterator[str]]
"""Yields a pod's log lines behind so many, given its namespace and its name, until the log ends or the flag is set."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a Job is to do. `arguments` are those of `drill run` beside the experiment; `timeout` is the experiment's
    own, in seconds."""

    fleet: str
    target: str
    experiment: str
    text: str
    arguments: tuple[str, ...]
    timeout: float


@dataclass(frozen=True, slots=True)
class Ended:
    """How a Job's pod ended. `code` is its exit code, None where it never had one, and then `slug` and `why` say what
    became of it."""

    code: int | None
    slug: str = ""
    why: str = ""


LEFT = Ended(None, "left", "it was left to itself")

PodState = tuple[Literal["waiting", "running", "ended"], str, int | None]
"""Where a pod stands, why it waits or has ended, and its exit code."""


def job_name(fleet: str, target: str) -> str:
    """The name of a target's Job: at most 63 characters, for its pods carry it as a label."""
    return f"{APP}-{fleet[-4:]}-{target}"


def check_size(experiment: str, text: str) -> None:
    """Raises BadInput where an experiment is too large to go with its Job."""
    if len(text.encode()) > EXPERIMENT_BYTES:
        raise BadInput(
            "experiment-too-large",
            f"the experiment {experiment} has {len(text.encode()) // 1024} KiB",
            expected=f"at most {EXPERIMENT_BYTES // 1024} KiB: it goes with its Job",
            remedy="split it, or run it by itself with `drill run`",
        )


def job_of(order: Order, cronjob: Json, image: str) -> Json:
    """The Job, made of the template of the game day's CronJob: what a drill's pod may and needs is said there, once."""
    spec = copy.deepcopy(cronjob["spec"]["jobTemplate"]["spec"])
    labels = {"app": APP, FLEET_LABEL: order.fleet, TARGET_LABEL: order.target}
    spec["activeDeadlineSeconds"] = int(order.timeout + SPARE)
    template = spec["template"]
    template["metadata"] = {"labels": labels, "annotations": {EXPERIMENT: order.text}}
    pod = template["spec"]
    container = pod["containers"][0]
    file = f"{order.experiment}.yaml"
    container["image"] = image
    container["args"] = [
        "run", f"{FOLDER}/{file}", "--no-setup", "--cluster=pod", "--keep=cluster", f"--runs={RUNS}", "--output=json",
        *order.arguments,
    ]  # fmt: skip
    config = {
        "name": "config",
        "downwardAPI": {"items": [{"path": file, "fieldRef": {"fieldPath": f"metadata.annotations['{EXPERIMENT}']"}}]},
    }
    pod["volumes"] = [config, *(one for one in pod["volumes"] if "emptyDir" in one)]
    kept = {one["name"] for one in pod["volumes"]}
    container["volumeMounts"] = [one for one in container["volumeMounts"] if one["name"] in kept]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job_name(order.fleet, order.target), "namespace": HOME, "labels": labels},
        "spec": spec,
    }


def image_of(cluster: Cluster) -> str:
    """The image that the cluster's sweeper runs: what a cluster has of the harness, it has in one version. Raises
    Refused where there is no sweeper."""
    try:
        body = cluster.get(SWEEPER)
    except NotFound as error:
        raise Refused(
            "harness-not-installed",
            f"{SWEEPER} does not exist",
            expected="a cluster that has the harness' own part, whose image its drills take",
            remedy="kubectl apply -k manifests/harness, with an image that the cluster can pull (docs/roles.md)",
        ) from error
    return str(body["spec"]["template"]["spec"]["containers"][0]["image"])


def start(cluster: Cluster, body: Json) -> None:
    """Make the Job, once. Raises DrillError where it is not there afterwards."""
    ref = Ref("Job", HOME, body["metadata"]["name"])
    try:
        cluster.create(body)
    except (OutcomeUnknown, AlreadyExists) as error:
        try:
            found = cluster.get(ref)
        except NotFound:
            raise error from None
        if found["metadata"].get("labels", {}).get(FLEET_LABEL) != body["metadata"]["labels"][FLEET_LABEL]:
            raise


def pod_state(pod: Json) -> PodState:
    """Where the pod of a drill stands."""
    status = pod.get("status") or {}
    containers = status.get("containerStatuses") or [{}]
    state = containers[0].get("state") or {}
    if "terminated" in state:
        ended = state["terminated"]
        return "ended", str(ended.get("reason") or ""), int(ended.get("exitCode", 0))
    if status.get("phase") in {"Failed", "Succeeded"}:  # evicted before, or on a node that is gone
        return "ended", ": ".join(filter(None, (status.get("reason"), status.get("message")))), None
    if "running" in state:
        return "running", "", None
    waiting = state.get("waiting") or {}
    why = ": ".join(filter(None, (waiting.get("reason"), waiting.get("message"))))
    for one in status.get("conditions") or ():
        if one["type"] == "PodScheduled" and one["status"] == "False":
            why = why or str(one.get("message") or "")
    return "waiting", why, None


@dataclass
class Attendance:
    """Follows one Job from its start to its end. `attend` is for one thread, the others for any."""

    cluster: Cluster
    job: str
    follow: Follow
    on_line: Callable[[str], None]
    say: Callable[[str], None]
    start_within: float
    again: float = field(default_factory=lambda: AGAIN)
    lines: int = 0
    """How many lines of the log were handed on."""
    _enough: Flag = field(default_factory=Flag)
    _called_off: Flag = field(default_factory=Flag)
    _left: Flag = field(default_factory=Flag)

    def call_off(self) -> None:
        """Let the Job go: its pod is asked to end, undoes what it did, and is followed until then. Raises
        DrillError."""
        self._called_off.set()
        self._enough.set()
        self.remove()

    def leave(self) -> None:
        """Look no longer; the drill goes on."""
        self._left.set()
        self._enough.set()

    def remove(self) -> None:
        """Take the Job away. Raises DrillError."""
        self._insist(lambda: self.cluster.delete(Ref("Job", HOME, self.job)))

    def attend(self) -> Ended:
        """Wait for the Job's pod, follow its log, and say how it ended. Raises Unreachable where the cluster does not
        answer any more: the drill goes on there without us."""
        pod, why = self._started()
        if self._called_off.is_set():
            self.remove()  # it may have been made behind the back of whoever called it off
        if pod is None and not self._left.is_set():
            self.remove()  # or it would begin when nobody looks any more
            pod = self._begun_after_all()
        if self._left.is_set():
            return LEFT
        if pod is not None:
            return self._followed(pod)
        if self._called_off.is_set():
            return Ended(None, "called-off", "it was called off before its pod had started")
        return Ended(None, "pod-not-started", f"no pod within {self.start_within:.0f} s: {why or 'it has none'}")

    def _started(self) -> tuple[str | None, str]:
        """The name of the pod that runs, or has run; None where none does in time, with the reason."""
        why, told = "", ""
        timer = Timer(self.start_within, self._enough.set)
        timer.daemon = True
        timer.start()
        try:
            for event in self.cluster.watch("Pod", HOME, self._pods, self._enough):
                for pod in event.items if event.type != "deleted" else ():
                    state, why, _ = pod_state(pod)
                    if state != "waiting":
                        return str(pod["metadata"]["name"]), ""
                    if why and why != told:
                        told = why
                        self.say(f"its pod waits: {why}")
        finally:
            timer.cancel()
        return None, why

    def _begun_after_all(self) -> str | None:
        """The pod of a Job that was just removed, where it had begun meanwhile; None once it is certain that none
        has. Raises Unreachable where that cannot be known: a node that is gone lets no pod go."""
        quiet, until = Flag(), time.monotonic() + LOST_AFTER
        while not self._left.is_set():
            pods = self._insist(lambda: self.cluster.list("Pod", HOME, self._pods))
            begun = [pod for pod in pods if pod_state(pod)[0] != "waiting"]
            if begun or not pods:
                return str(begun[0]["metadata"]["name"]) if begun else None
            if time.monotonic() > until:
                raise _stays(pods[0])
            quiet.wait(self.again)
        return None

    def _followed(self, pod: str) -> Ended:
        """Read the log for as long as the pod lives, and once more behind its end: what broke the stream, or ended it
        early, may have cut off the last words. A stream that breaks is taken up behind the last line. Raises
        Unreachable where the pod is to go and does not."""
        ref, quiet, until, gone_by = Ref("Pod", HOME, pod), Flag(), math.inf, math.inf
        ended: Ended | None = None
        while True:
            whole = self._read(pod)
            if self._left.is_set():
                return LEFT
            if ended is not None and (whole or time.monotonic() > until):
                return ended
            if ended is None:
                try:
                    body = self._insist(lambda: self.cluster.get(ref))
                except NotFound:
                    # A Job that was called off goes with its pod; the log was read to its end by then.
                    gone = Ended(None, "pod-removed", "its pod was removed")
                    return Ended(None) if self._called_off.is_set() else gone
                state, why, code = pod_state(body)
                if "deletionTimestamp" in body["metadata"]:
                    grace = float(body["metadata"].get("deletionGracePeriodSeconds") or 0)
                    gone_by = min(gone_by, time.monotonic() + grace + LOST_AFTER)
                if state == "ended":
                    ended = Ended(code, *(("pod-ended", why) if why not in {"", "Completed", "Error"} else ()))
                    until = time.monotonic() + LOST_AFTER
                    continue
                if time.monotonic() > gone_by:
                    raise _stays(body)
            quiet.wait(self.again)

    def _read(self, pod: str) -> bool:
        """Hand on what is new of a pod's log; whether that was all of it."""
        try:
            for line in self.follow(HOME, pod, self.lines, self._left):
                self.lines += 1
                self.on_line(line)
        except Unreachable:  # what is the matter is asked next
            return False
        except NotFound:
            return True
        return True

    @property
    def _pods(self) -> str:
        return f"job-name={self.job}"

    def _insist(self, call: Callable[[], T]) -> T:
        """The result of a call that may be repeated safely, in spite of a server that is away for a while."""
        quiet, until = Flag(), time.monotonic() + LOST_AFTER
        while True:
            try:
                return call()
            except Unreachable:
                if time.monotonic() > until or self._left.is_set():
                    raise
            quiet.wait(self.again)


def _stays(pod: Json) -> Unreachable:
    return Unreachable(
        "pod-stays",
        f"the pod {pod['metadata']['name']} is to go, and does not",
        expected="that its node ends it",
        remedy="kubectl get nodes says what is the matter with it; the sweeper undoes what the drill changed",
    )


def is_there(cluster: Cluster, job: str) -> bool:
    """Whether a Job is there. Raises DrillError."""
    try:
        cluster.get(Ref("Job", HOME, job))
    except NotFound:
        return False
    return True
