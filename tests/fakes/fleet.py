"""Clusters that take the Jobs of a fleet: the Job controller, pods that say what a test lets them say, and journals."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Event as Flag

from harness.core.errors import DrillError
from harness.core.event import NOTHING_BEFORE, Record, RunStarted, digest_of_line, encode
from harness.engine.jobs import SWEEPER
from harness.engine.results import Copier
from harness.engine.stopping import MARKER, OPT_IN_LABEL
from harness.engine.sweeper import HOME
from harness.ports.cluster import Json, Ref
from tests.fakes.cluster import Shared, no_answer
from tests.fakes.drill import Drill

IMAGE = "registry.example.org/harness:1"
STAGING = "nova-staging"
RUN = "20261126-101500-oom-workers-93fd"
AFTER = 60.0
"""Seconds by which the fake API server's clock is ahead of ours."""


def met(drill: Drill) -> None:
    drill.respond()


def nobody(drill: Drill) -> None:
    """Nobody responds."""


@functools.cache
def _records(act: Callable[[Drill], None]) -> tuple[Record, ...]:
    drill = Drill(run_id=RUN)
    drill.begin()
    act(drill)
    return tuple(drill.run())


def journal_of(run_id: str = RUN, act: Callable[[Drill], None] = met) -> bytes:
    """The journal of a whole run of the engine in the fake world, as it is on disk."""
    whole, prev = b"", NOTHING_BEFORE
    for record in _records(act):
        known = {"run_id": run_id} if isinstance(record.event, RunStarted) else {}
        line = encode(record.model_copy(update={"event": record.event.model_copy(update=known)}), prev).encode()
        whole, prev = whole + line + b"\n", digest_of_line(line)
    return whole


def started(run_id: str = RUN) -> str:
    """The first line of a drill's pod."""
    event = RunStarted(
        run_id=run_id, experiment={"name": "oom-workers"}, experiment_path="x", digest="d", profile="smoke",
        responder="autopilot", harness_version="1", cluster={}, identity="me",
    )  # fmt: skip
    return encode(Record(seq=1, at=time.time(), event=event))


def ended(code: int = 0) -> str:
    """The last line of one whose run was judged."""
    return json.dumps({"outcome": {"exit_code": code}})


def failed(error: DrillError) -> str:
    """The last line of one that an error ended."""
    return json.dumps({**error.as_dict(), "exit_code": int(error.exit_code)})


@dataclass
class Script:
    """What a Job's pod does. `state` is its container's; a pod without a code goes on."""

    lines: list[str] = field(default_factory=list)
    code: int | None = 0
    reason: str = "Completed"
    journal: bytes = b""
    run_id: str = RUN
    waits: str = ""
    breaks: list[int] = field(default_factory=list)
    """Behind how many lines the log's stream breaks, each time that it is read."""

    def status(self) -> Json:
        """The pod's status."""
        if self.waits:
            return {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": self.waits}}}]}
        if self.code is None:
            return {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}
        ended_ = {"exitCode": self.code, "reason": self.reason}
        return {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": ended_}}]}


class Site(Shared):
    """A cluster that is marked, has the harness' own part, and a namespace that opted in."""

    def __init__(self, script: Script | None = None, *, uid: str = "") -> None:
        super().__init__(now=lambda: time.time() + AFTER)
        self.script = script or Script()
        self.followed: list[int] = []
        self.on_line: Callable[[str], object] = lambda _: None
        """Is told of each line before it is handed on."""
        for name, labels in (("kube-system", {}), (HOME, {}), (STAGING, {OPT_IN_LABEL: "true"})):
            meta = {"name": name, "labels": labels, **({"uid": uid} if uid and name == "kube-system" else {})}
            self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        marker = {"name": MARKER.name, "namespace": HOME}
        self.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": marker, "data": {"environment": "staging"}})
        spec = {"template": {"spec": {"containers": [{"name": "sweeper", "image": IMAGE}]}}}
        meta = {"name": SWEEPER.name, "namespace": HOME}
        self.put({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec})

    @property
    def jobs(self) -> list[Json]:
        """The Jobs that are there."""
        return self.listing("Job", HOME)

    def create(self, body: Json, *, dry_run: bool = False) -> Json:
        """And the Job controller makes a pod, which begins at once."""
        made = super().create(body, dry_run=dry_run)
        if body["kind"] == "Job" and not dry_run:
            self.begin(made)
        return made

    def begin(self, job: Json) -> None:
        """What the Job controller does, and what the pod keeps of its run."""
        self.pod(job["metadata"]["name"], job["metadata"]["uid"])
        if self.script.journal:
            self.keep(self.script.run_id, self.script.journal)

    def pod(self, job: str, uid: str = "") -> None:
        """The pod of a Job as its script has it, made or changed."""
        owners = [{"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": uid}] if uid else []
        meta = {"name": f"{job}-x", "namespace": HOME, "labels": {"job-name": job}, "ownerReferences": owners}
        self.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": self.script.status()})

    def keep(self, run_id: str, journal: bytes) -> None:
        """Keep a journal in the drilled namespace."""
        Copier(self, STAGING, run_id, lambda at, size: journal[at : at + size]).copy({"verdict": "MET"})

    def follow(self, namespace: str, pod: str, skip: int, stop: Flag) -> Iterator[str]:
        """The script's lines; see KubeCluster."""
        self.followed.append(skip)
        self.get(Ref("Pod", namespace, pod))
        until = self.script.breaks.pop(0) if self.script.breaks else None
        for line in self.script.lines[skip:until]:
            if stop.is_set():
                return
            self.on_line(line)
            yield line
        if until is not None:
            raise no_answer()


@dataclass
class Told:
    """What was told of a fleet's targets."""

    records: list[tuple[str, Record]] = field(default_factory=list)
    said: list[tuple[str, str]] = field(default_factory=list)
    errors: list[tuple[str, DrillError]] = field(default_factory=list)
