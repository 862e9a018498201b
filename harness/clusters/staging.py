"""Puts the staging system onto a cluster, as declared in manifests/, and waits until it can be drilled.

Fit to be drilled means: every Deployment is rolled out, the load is on its plateau (readiness of `traffic`), and
Prometheus has watched a short queue for several scrapes in a row.

A second call is quick. What was declared is noted on the namespace `monitoring`, together with a fingerprint of the
live objects; while neither has moved there is nothing to apply. A generation moves with every change of a
Deployment's spec, so a limit or a replica count changed by hand is seen although the files are the same.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import quote

import yaml

from harness.clusters import staging_image
from harness.clusters.kubectl import WRITE_TIMEOUT, Kubectl, checkout, rolled_out
from harness.clusters.provider import Access, ClusterProvider
from harness.core.errors import Internal, Refused, Unreachable, disk_full, is_full
from harness.ports.progress import Progress

Profile = Literal["smoke", "gameday"]

NAMESPACE = "nova-staging"
MONITORING = "monitoring"
LABEL = "app.kubernetes.io/part-of"
PART_OF = "nova-staging"
NOTE = "drill.internal/declared"
FIELD_MANAGER = "drill-staging"
SECRETS = (
    (MONITORING, "pager-token", "token"),
    (NAMESPACE, "llm-key", "key-current"),
    (NAMESPACE, "sync-signing-key", "key-current"),
)
"""Namespace, name and data key of each secret value that is made on deployment."""
LEASE = "drill"

LONGEST_DRAIN = 900.0
"""Seconds, beyond a profile's own patience, that a falling backlog is waited for."""
STEADY_DEPTH = 20
"""Jobs. A queue on the plateau holds 2 to 6; the alert fires above 50."""

_KINDS = "namespaces,deployments,services,configmaps,serviceaccounts,roles,rolebindings"
_ROLLOUT_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class _Pace:
    """What a profile's scrape interval means for waiting. Times in seconds."""

    window: int
    samples: int
    patience: float
    poll: float


# The window holds the samples that must all be short; the patience allows for a start of Prometheus (up to 5 s to its
# first scrape), two missed scrapes and a queue that first has to drain.
_PACES: dict[Profile, _Pace] = {
    "smoke": _Pace(window=5, samples=4, patience=60, poll=0.5),
    "gameday": _Pace(window=45, samples=3, patience=180, poll=3),
}


def deploy(provider: ClusterProvider, access: Access, profile: Profile, progress: Progress) -> None:
    """Bring the staging system to its declared state and wait until it can be drilled. Idempotent.

    Changes made by hand or left by a drill are put back, and each of them is said. Raises Refused, before the first
    write, where a namespace of that name belongs to somebody else or a drill holds the staging namespace;
    Unreachable where the system does not become ready; BadInput where the image cannot be built, or where a pod says
    that its disk is full.
    """
    repository = checkout()
    kubectl = Kubectl(access)
    image = staging_image.build(repository, progress)
    declared = _declared(repository, profile, image.ref)
    live = _live(kubectl)
    if _note(live) != (declared, _fingerprint(live)):
        _guard(kubectl)
        with progress.step("image into the cluster", expect_seconds=4):
            provider.load_image(image.archive, image.ref)
        with progress.step(f"staging manifests, profile {profile}", expect_seconds=3):
            _apply(kubectl, repository, profile, image.ref, progress)
        before, live = live, _live(kubectl)
        for name in stale(before, live):
            progress.say(f"restart: {name}, which was started with settings that are put back")
            kubectl.must("rollout", "restart", f"deployment/{name}", "--namespace", NAMESPACE, timeout=WRITE_TIMEOUT)
            live = _live(kubectl)
        _write_note(kubectl, declared, _fingerprint(live))
    live = _try_again(kubectl, declared, live, progress)
    if not all(rolled_out(item) for item in live if item["kind"] == "Deployment"):
        with progress.step("staging system rolls out; traffic climbs to its plateau", expect_seconds=20):
            _wait_rollout(kubectl)
    _wait_steady(kubectl, profile, progress)


def undeploy(access: Access, progress: Progress) -> None:
    """Remove the staging system with all it kept. Raises Refused where the namespaces are not ours or in use."""
    kubectl = Kubectl(access)
    _guard(kubectl)
    with progress.step("staging system goes", expect_seconds=50):
        kubectl.must("delete", "namespace", NAMESPACE, MONITORING, "--ignore-not-found", timeout=120)


def _declared(repository: Path, profile: Profile, ref: str) -> str:
    """A digest of all that decides what ends up in the cluster."""
    digest = hashlib.sha256(f"{profile}\n{ref}\n".encode())
    for path in sorted((repository / "manifests").rglob("*.yaml")):
        digest.update(f"{path.relative_to(repository)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _live(kubectl: Kubectl) -> list[dict[str, Any]]:
    out = kubectl.must("get", _KINDS, "--all-namespaces", f"--selector={LABEL}={PART_OF}", "--output=json")
    return cast("list[dict[str, Any]]", json.loads(out)["items"])


def _fingerprint(live: Sequence[dict[str, Any]]) -> str:
    """Changes when the declared part of any live object does; stays when only a status or our own note changes."""
    facts: list[list[object]] = []
    for item in live:
        meta = item["metadata"]
        if item["kind"] == "Namespace":
            mark: object = sorted(meta.get("labels", {}).items())
        else:
            mark = meta["generation"] if item["kind"] == "Deployment" else meta["resourceVersion"]
        facts.append([item["kind"], meta.get("namespace", ""), meta["name"], meta["uid"], mark])
    return hashlib.sha256(json.dumps(sorted(facts, key=str)).encode()).hexdigest()


def stale(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> list[str]:
    """Deployments of the staging namespace whose pods were started with an environment from a ConfigMap that has
    changed since, and whose own spec has not, so that nothing but a restart reaches them."""

    def marks(items: Sequence[dict[str, Any]], kind: str, mark: str) -> dict[str, object]:
        mine = [item["metadata"] for item in items if item["kind"] == kind]
        return {meta["name"]: meta[mark] for meta in mine if meta["namespace"] == NAMESPACE}

    old, new = (marks(items, "ConfigMap", "resourceVersion") for items in (before, after))
    changed = {name for name, version in new.items() if old.get(name, version) != version}
    rolled = marks(before, "Deployment", "generation")
    return [
        item["metadata"]["name"]
        for item in after
        if item["kind"] == "Deployment"
        and rolled.get(item["metadata"]["name"]) == item["metadata"]["generation"]
        and changed & _environment(item)
    ]


def _environment(deployment: dict[str, Any]) -> set[str]:
    """The ConfigMaps that the pods take into their environment."""
    containers = deployment["spec"].get("template", {}).get("spec", {}).get("containers", [])
    sources = [source for container in containers for source in container.get("envFrom", [])]
    return {source["configMapRef"]["name"] for source in sources if "configMapRef" in source}


def _note(live: Sequence[dict[str, Any]]) -> tuple[str, str] | None:
    for item in live:
        if item["kind"] == "Namespace" and item["metadata"]["name"] == MONITORING:
            declared, _, fingerprint = item["metadata"].get("annotations", {}).get(NOTE, "").partition(" ")
            return declared, fingerprint
    return None


def _write_note(kubectl: Kubectl, declared: str, fingerprint: str) -> None:
    kubectl.must("annotate", "namespace", MONITORING, f"{NOTE}={declared} {fingerprint}", "--overwrite")


def _guard(kubectl: Kubectl) -> None:
    """Refuse before the first write what would hurt somebody else."""
    for name in (NAMESPACE, MONITORING):
        out = kubectl.must("get", "namespace", name, "--ignore-not-found", "--output=json")
        if out.strip() and json.loads(out)["metadata"].get("labels", {}).get(LABEL) != PART_OF:
            raise Refused(
                "namespace-foreign",
                f"namespace {name} exists and does not carry {LABEL}={PART_OF}",
                expected="no such namespace, or one that an earlier deployment made",
                remedy="use another cluster; label the namespace by hand only if all in it may be replaced",
            )
    only_holder = "--output=jsonpath={.spec.holderIdentity}"
    holder = kubectl.must("get", "lease", LEASE, "--namespace", NAMESPACE, "--ignore-not-found", only_holder).strip()
    if holder:
        raise Refused(
            "drill-running",
            f"{holder} holds the lock of namespace {NAMESPACE}",
            expected="no drill under way while the system under drill is replaced",
            remedy="wait for its end; if its process is gone, `drill recover` first",
        )


def _apply(kubectl: Kubectl, repository: Path, profile: Profile, ref: str, progress: Progress) -> None:
    rendered = kubectl.render(repository / "manifests" / "overlays" / profile, ref)
    documents = [document for document in yaml.safe_load_all(rendered) if document]
    namespaces = [document for document in documents if document["kind"] == "Namespace"]
    _server_side_apply(kubectl, yaml.safe_dump_all(namespaces), progress)
    _ensure_secrets(kubectl)
    _server_side_apply(kubectl, rendered, progress)
    _prune_config(kubectl, {d["metadata"]["name"] for d in documents if d["kind"] == "ConfigMap"})


def _server_side_apply(kubectl: Kubectl, body: str, progress: Progress) -> None:
    """Apply; where somebody else has changed a declared field, say which, then put it back.

    The first attempt does not force: its refusal is the only list of what was changed by whom.
    """
    command = ("apply", "--server-side", f"--field-manager={FIELD_MANAGER}", "--filename=-")
    done = kubectl.run(*command, body=body, timeout=WRITE_TIMEOUT)
    if done.returncode == 0:
        return
    changes = conflicts(done.stderr)
    if not changes:
        raise Unreachable(
            "apply-failed",
            f"the manifests were not accepted: {done.stderr.strip()}",
            expected="every object to be applied by server-side apply",
            remedy="correct what the API server names; `drill cluster status` tells whether it is well",
        )
    for change in changes:
        progress.say(f"put back: {change}")
    kubectl.must(*command, "--force-conflicts", body=body, timeout=WRITE_TIMEOUT)


def conflicts(stderr: str) -> list[str]:
    """What server-side apply refused to overwrite, as `field, changed by manager`, from kubectl's own words."""
    found: list[str] = []
    manager = ""
    for line in stderr.splitlines():
        if match := re.search(r'conflicts? with "([^"]+)"[^:]*:\s*(\S.*)?$', line):
            manager = match[1]
            if match[2]:
                found.append(f"{match[2].strip()}, changed by {manager}")
        elif manager and line.startswith("- "):
            found.append(f"{line[2:].strip()}, changed by {manager}")
    return found


def _ensure_secrets(kubectl: Kubectl) -> None:
    """The secret values between the parts: made once per cluster, kept nowhere else. One that is there stays."""
    for namespace, name, key in SECRETS:
        there = kubectl.must("get", "secret", name, "--namespace", namespace, "--ignore-not-found", "--output=name")
        if there.strip():
            continue
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace, "labels": {LABEL: PART_OF}},
            "stringData": {key: secrets.token_urlsafe(32)},
        }
        kubectl.must("create", "--filename=-", body=json.dumps(secret), timeout=WRITE_TIMEOUT)


def _prune_config(kubectl: Kubectl, wanted: set[str]) -> None:
    """Remove the ConfigMaps of earlier profiles: their names carry a hash, so nothing replaces them."""
    out = kubectl.must("get", "configmaps", "--namespace", MONITORING, f"--selector={LABEL}={PART_OF}", "--output=json")
    stale = [name for item in json.loads(out)["items"] if (name := item["metadata"]["name"]) not in wanted]
    if stale:
        kubectl.must("delete", "configmaps", "--namespace", MONITORING, "--ignore-not-found", *stale)


def _try_again(kubectl: Kubectl, declared: str, live: list[dict[str, Any]], progress: Progress) -> list[dict[str, Any]]:
    """Restart what had not come up within its deadline; what is live then. Kubernetes remembers the deadline as missed,
    and waits ever longer before it starts a container again, also once what kept it is gone."""
    late = [item["metadata"] for item in live if item["kind"] == "Deployment" and _gave_up(item)]
    if not late:
        return live
    _guard(kubectl)
    for meta in late:
        progress.say(f"restart: {meta['name']}, which had not come up in time")
        target = (f"deployment/{meta['name']}", "--namespace", meta["namespace"])
        kubectl.must("rollout", "restart", *target, timeout=WRITE_TIMEOUT)
    live = _live(kubectl)
    _write_note(kubectl, declared, _fingerprint(live))
    return live


def _gave_up(deployment: dict[str, Any]) -> bool:
    conditions = deployment.get("status", {}).get("conditions", [])
    return not rolled_out(deployment) and any(
        condition["type"] == "Progressing" and condition["status"] == "False" for condition in conditions
    )


def _wait_rollout(kubectl: Kubectl) -> None:
    """Wait, by kubectl's watch, until every Deployment of both namespaces is rolled out."""

    def watch(namespace: str) -> subprocess.CompletedProcess[str]:
        limits = (f"--selector={LABEL}={PART_OF}", f"--timeout={_ROLLOUT_TIMEOUT:.0f}s")
        words = ("rollout", "status", "deployment", "--namespace", namespace, *limits)
        try:
            return kubectl.run(*words, timeout=_ROLLOUT_TIMEOUT + 10)
        except Unreachable as error:  # its limit counts anew for each of them
            return subprocess.CompletedProcess(words, 1, "", error.fact)

    with ThreadPoolExecutor(max_workers=2) as pool:
        results = list(pool.map(watch, (NAMESPACE, MONITORING)))
    if all(done.returncode == 0 for done in results):
        return
    last = "; ".join(done.stderr.strip().splitlines()[-1] for done in results if done.stderr.strip())
    unready = _unready(kubectl)
    for pod in unready:
        full = [line.strip() for line in _words_of(kubectl, pod).splitlines() if is_full(line)]
        if full:
            raise disk_full(
                f"pod {pod.name}: {full[-1]}",
                remedy="make room on the disk of the cluster's node (Docker's, or that of the local cluster's state), "
                "then the same command again",
            )
    raise Unreachable(
        "staging-not-ready",
        f"the staging system did not roll out: {last}. Not ready: "
        + (", ".join(f"{pod.name} ({pod.why})" for pod in unready) or "no pod"),
        expected=f"every Deployment available within {_ROLLOUT_TIMEOUT:.0f} s",
        remedy=f"kubectl --namespace {NAMESPACE} get pods; kubectl describe the one that is not ready",
    )


@dataclass(frozen=True, slots=True)
class _Unready:
    """A pod that is not ready: in a word why, and what the node says of it at length."""

    namespace: str
    name: str
    why: str
    words: str


def _words_of(kubectl: Kubectl, pod: _Unready) -> str:
    """What the node and the pod itself say."""
    try:
        logs = kubectl.run("logs", pod.name, "--namespace", pod.namespace, "--tail=20", "--all-containers").stdout
    except Unreachable:
        return pod.words
    return f"{pod.words}\n{logs}"


def _unready(kubectl: Kubectl) -> list[_Unready]:
    """The pods that are not ready."""
    out = kubectl.must("get", "pods", "--all-namespaces", f"--selector={LABEL}={PART_OF}", "--output=json")
    found: list[_Unready] = []
    for pod in json.loads(out)["items"]:
        states = pod.get("status", {}).get("containerStatuses", [])
        if states and all(state.get("ready") for state in states):
            continue
        waiting = [waits for state in states if (waits := state.get("state", {}).get("waiting"))]
        why = ", ".join(waits["reason"] for waits in waiting) or pod.get("status", {}).get("phase", "?")
        words = "\n".join(waits.get("message", "") for waits in waiting)
        found.append(_Unready(pod["metadata"]["namespace"], pod["metadata"]["name"], why, words))
    return found


def _wait_steady(kubectl: Kubectl, profile: Profile, progress: Progress) -> None:
    """Wait until Prometheus has seen a short queue for the profile's number of scrapes. A backlog that is being worked
    off (an earlier run was killed, say) is given the time it needs while it falls."""
    pace = _PACES[profile]
    series = f"nova_queue_depth[{pace.window}s]"
    query = f"max(max_over_time({series})) and on() (max(count_over_time({series})) >= {pace.samples})"
    seen, value = _query(kubectl, query)
    if value is not None and value < STEADY_DEPTH:
        return
    lowest = float("inf") if value is None else value
    deadline = time.monotonic() + pace.patience
    latest = deadline + LONGEST_DRAIN
    with progress.step("Prometheus sees a steady queue", expect_seconds=pace.window + 5) as step:
        pause = threading.Event()
        while time.monotonic() < deadline:
            step.update(seen)
            # Prometheus offers no watch; the pace follows its scrape interval.
            pause.wait(pace.poll)
            seen, value = _query(kubectl, query)
            if value is not None and value < STEADY_DEPTH:
                return
            if value is not None and value < lowest:
                lowest = value
                deadline = min(time.monotonic() + pace.patience, latest)
    raise Unreachable(
        "queue-not-steady",
        f"after {pace.patience:.0f} s {seen}",
        expected=f"nova_queue_depth below {STEADY_DEPTH} in {pace.samples} scrapes in a row",
        remedy=f"kubectl --namespace {NAMESPACE} get pods; see runbooks/high-queue-depth.md if workers are missing",
    )


def _query(kubectl: Kubectl, query: str) -> tuple[str, float | None]:
    """What Prometheus says, as a phrase and as a number; None without data. Asked through the API server's proxy."""
    path = f"/api/v1/namespaces/{MONITORING}/services/prometheus:9090/proxy/api/v1/query?query={quote(query, safe='')}"
    done = kubectl.run("get", "--raw", path)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"Prometheus does not answer: {last}", None
    try:
        result = json.loads(done.stdout)["data"]["result"]
    except (ValueError, KeyError, TypeError) as error:
        raise Internal(
            "prometheus-reply",
            f"not an answer to a query: {done.stdout[:200]}",
            expected="the JSON of Prometheus's HTTP API",
            remedy="report this with the version of Prometheus",
        ) from error
    if not result:
        return "Prometheus has too few samples of nova_queue_depth", None
    value = float(result[0]["value"][1])
    return f"up to {value:.0f} jobs in the queue", value
