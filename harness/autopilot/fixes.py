"""What a runbook tells a responder to do, done as a person with kubectl would: look, change on condition, look again.

Each step answers one sentence of what was done. A step may be repeated after a lost reply: what is already as the
runbook wants it is left alone.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.core.clock import Clock, utc
from harness.core.errors import Unreachable
from harness.core.experiment import (
    DeleteJobs,
    NewKey,
    Restart,
    RestoreMemoryLimit,
    ScaleTo,
    SetConfig,
    SetEnvironment,
    SetImage,
    Step,
)
from harness.ports.cluster import Cluster, Conflict, Json, Ref
from harness.ports.kinds import workload

ATTEMPTS = 5
"""How often a change is tried whose object moved between the look and the write, or whose reply was lost."""
KEY_BYTES = 36
"""Random bytes of a fresh key: 48 characters of the alphabet that HTTP headers and files take without quoting."""
_ANNOTATION = "kubectl.kubernetes.io/restartedAt"
_TEMPLATE = "/spec/template"
T = TypeVar("T")


class NotSo(Exception):
    """The world is not what the runbook describes; `why` in one sentence."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Hands:
    """With what a responder acts. `asked` repeats a call until the peer answers; `pause` lets a moment pass."""

    cluster: Cluster
    namespace: str
    clock: Clock
    asked: Callable[[Callable[[], object]], object]
    pause: Callable[[], None]

    def get(self, ref: Ref) -> Json:
        """The object."""
        return self.asked(lambda: self.cluster.get(ref))  # type: ignore[return-value]

    def change(self, ref: Ref, operations: Callable[[Json], list[Json]]) -> bool:
        """Patch an object with what `operations` says for it as it is; empty where nothing is left to do. Whether
        there was anything to do. Raises NotSo where it keeps changing."""
        begun = False
        for _ in range(ATTEMPTS):
            body = self.get(ref)
            due = operations(body)
            if not due:
                return begun
            same = {"op": "test", "path": "/metadata/resourceVersion", "value": body["metadata"]["resourceVersion"]}
            begun = True
            try:
                self.cluster.patch(ref, [same, *due])
            except (Conflict, Unreachable):  # a lost reply is one of the latter; what was done is seen at the next look
                self.pause()
                continue
            return True
        raise NotSo(f"{ref} kept changing, or did not confirm its change")


def do(step: Step, hands: Hands) -> str:
    """Take one step; one sentence of what was done. Raises NotSo, and what the cluster raises."""
    match step:
        case ScaleTo(target=target, replicas=replicas):
            return _scale(target, replicas, hands)
        case SetEnvironment(target=target, container=container, set=wanted):
            changed = hands.change(
                workload(target, hands.namespace), lambda body: _environment(body, container, wanted)
            )
            return _told(
                f"{target}: {', '.join(f'{k}={v}' for k, v in wanted.items())} in {container}", changed=changed
            )
        case SetConfig(configmap=name, set=wanted):
            changed = hands.change(Ref("ConfigMap", hands.namespace, name), lambda body: _config(body, wanted))
            return _told(f"configmap/{name}: {', '.join(f'{k}={v}' for k, v in wanted.items())}", changed=changed)
        case SetImage(target=target, container=container, image=image):
            changed = hands.change(workload(target, hands.namespace), lambda body: _image(body, container, image))
            return _told(f"{target}: image {image} in {container}", changed=changed)
        case Restart(target=target):
            stamp = utc(hands.clock.now())
            hands.change(workload(target, hands.namespace), lambda body: _annotated(body, stamp))
            return f"{target} restarted"
        case DeleteJobs(labels=labels):
            return _delete_jobs(labels, hands)
        case NewKey(secret=name, key=key):
            hands.change(Ref("Secret", hands.namespace, name), _once(lambda: [_fresh(key)]))
            return f"secret/{name}: a new {key}"
        case RestoreMemoryLimit():
            raise NotSo("the memory limit is put back by looking at pods first")


def _told(what: str, *, changed: bool) -> str:
    return what if changed else f"{what} (was so already)"


def _scale(target: str, replicas: int, hands: Hands) -> str:
    seen: list[int] = []

    def operations(body: Json) -> list[Json]:
        now = int(body["spec"].get("replicas", 1))
        seen.append(now)
        return [] if now == replicas else [{"op": "add", "path": "/spec/replicas", "value": replicas}]

    hands.change(workload(target, hands.namespace), operations)
    return f"{target}: {seen[0]} -> {replicas} replicas"


def _container(body: Json, name: str) -> tuple[int, Json]:
    containers = body["spec"]["template"]["spec"]["containers"]
    for index, container in enumerate(containers):
        if container["name"] == name:
            return index, container
    raise NotSo(f"{body['kind'].lower()}/{body['metadata']['name']} has no container {name}")


def _environment(body: Json, container: str, wanted: dict[str, str]) -> list[Json]:
    index, found = _container(body, container)
    variables = {one["name"]: one for one in found.get("env", [])}
    if all(variables.get(name) == {"name": name, "value": value} for name, value in wanted.items()):
        return []
    kept = [one for one in found.get("env", []) if one["name"] not in wanted]
    places = [one["name"] for one in found.get("env", [])]
    mended = [{"name": name, "value": value} for name, value in wanted.items()]
    ordered = sorted([*kept, *mended], key=lambda one: places.index(one["name"]) if one["name"] in places else 999)
    return [{"op": "add", "path": f"{_TEMPLATE}/spec/containers/{index}/env", "value": ordered}]


def _image(body: Json, container: str, image: str) -> list[Json]:
    index, found = _container(body, container)
    if found.get("image") == image:
        return []
    return [{"op": "replace", "path": f"{_TEMPLATE}/spec/containers/{index}/image", "value": image}]


def _config(body: Json, wanted: dict[str, str]) -> list[Json]:
    have = body.get("data", {})
    if all(have.get(key) == value for key, value in wanted.items()):
        return []
    return [{"op": "add", "path": "/data", "value": {**have, **wanted}}]


def _annotated(body: Json, stamp: str) -> list[Json]:
    metadata = body["spec"]["template"].get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    if annotations.get(_ANNOTATION) == stamp:
        return []
    path, value = f"{_TEMPLATE}/metadata/annotations", {**annotations, _ANNOTATION: stamp}
    return [{"op": "add", "path": path, "value": value}]


def _fresh(key: str) -> Json:
    value = base64.b64encode(secrets.token_urlsafe(KEY_BYTES).encode()).decode()
    return {"op": "add", "path": f"/data/{key.replace('~', '~0').replace('/', '~1')}", "value": value}


def _once(operations: Callable[[], list[Json]]) -> Callable[[Json], list[Json]]:
    """For a change that cannot be recognised afterwards: it is made anew as often as it takes."""
    return lambda _: operations()


def _delete_jobs(labels: dict[str, str], hands: Hands) -> str:
    selector = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
    found: Sequence[Json] = hands.asked(  # type: ignore[assignment]
        lambda: hands.cluster.list("Job", hands.namespace, selector)
    )
    if not found:
        raise NotSo(f"no Job carries {selector}")
    for body in found:
        ref = Ref("Job", hands.namespace, body["metadata"]["name"])
        hands.asked(lambda ref=ref, body=body: hands.cluster.delete(ref, uid=body["metadata"]["uid"]))  # type: ignore[misc]
    return "deleted " + ", ".join(f"job/{body['metadata']['name']}" for body in found)
