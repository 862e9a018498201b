"""A real cluster: it comes up, names resolve, memory limits kill, it is repaired, and it leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.clusters.local import LocalCluster, cgroups, processes, sweep
from harness.clusters.local.layout import Layout
from harness.clusters.local.machine import find_go
from harness.clusters.oci import write_archive
from harness.clusters.provider import Access
from harness.ports.progress import Silent

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

NAME = "ci-a"
PROBE = "drill.internal/probe:1"


@pytest.fixture(scope="module", autouse=True)
def _clean() -> Iterator[None]:
    LocalCluster(NAME).down(Silent())
    yield
    LocalCluster(NAME).down(Silent())


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("probe")
    source = Path(__file__).parent / "probe" / "main.go"
    env = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local"}
    argv = [str(find_go()), "build", "-trimpath", "-o", str(tree / "probe"), str(source)]
    subprocess.run(argv, check=True, env=env, cwd=tree, capture_output=True)
    archive = tree.with_suffix(".tar")
    write_archive(archive, PROBE, layers=[tree], entrypoint=["/probe"])
    return archive


@pytest.fixture
def access(probe: Path) -> Access:
    cluster = LocalCluster(NAME)
    reached = cluster.up(Silent())
    cluster.load_image(probe, PROBE)
    return reached


def _kubectl(access: Access, *words: str, stdin: str | None = None) -> str:
    argv = [str(access.kubectl), f"--kubeconfig={access.kubeconfig}", f"--context={access.context}", *words]
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def _run_pod(access: Access, name: str, args: list[str], *, memory: str = "64Mi") -> dict[str, object]:
    """Run a probe to its end; how its container ended."""
    container = {
        "name": "probe",
        "image": PROBE,
        "imagePullPolicy": "Never",
        "args": args,
        "resources": {"limits": {"memory": memory}},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]},
    }
    _kubectl(access, "apply", "-f", "-", stdin=json.dumps(pod))
    _kubectl(
        access, "wait", f"pod/{name}", "--for=jsonpath={.status.containerStatuses[0].state.terminated}", "--timeout=40s"
    )
    status = json.loads(_kubectl(access, "get", "pod", name, "-o", "json"))["status"]
    ended: dict[str, object] = status["containerStatuses"][0]["state"]["terminated"]
    return ended


def test_it_answers_and_is_marked(access: Access) -> None:
    status = LocalCluster(NAME).status()
    assert status.state == "up", status.detail
    assert access.kubeconfig.stat().st_mode & 0o777 == 0o600
    mark = json.loads(_kubectl(access, "-n", "drill-system", "get", "configmap", "drills-allowed", "-o", "json"))
    assert mark["data"] == {"environment": "staging"}
    began = time.monotonic()
    LocalCluster(NAME).up(Silent())
    assert time.monotonic() - began < 1


def test_there_is_no_way_out(access: Access) -> None:
    routes = subprocess.run(
        ["ip", "-n", Layout(NAME).netns, "route"], capture_output=True, text=True, check=True
    ).stdout
    assert "default" not in routes
    asked = ["ip", "-n", Layout(NAME).netns, "route", "get", "192.0.2.1"]
    assert "unreachable" in subprocess.run(asked, capture_output=True, text=True, check=False).stderr.lower()


def test_names_resolve_in_a_pod(access: Access) -> None:
    ended = _run_pod(access, "resolve", ["resolve", "kube-dns.kube-system.svc.cluster.local"])
    assert ended["exitCode"] == 0
    assert _kubectl(access, "logs", "resolve").strip() == "10.96.0.10"


def test_a_pod_over_its_limit_is_killed_by_the_kernel(access: Access) -> None:
    ended = _run_pod(access, "eat", ["eat", "200"], memory="32Mi")
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_a_killed_component_is_brought_back(access: Access) -> None:
    cluster, layout = LocalCluster(NAME), Layout(NAME)
    for name in ("etcd", "containerd", "kube-apiserver"):
        identity = processes.recorded(layout.run / f"{name}.pid")
        assert identity is not None
        processes.kill(identity)
    deadline = time.monotonic() + 5
    while cluster.status().state == "up" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert cluster.status().state == "broken"
    cluster.up(Silent())
    assert cluster.status().state == "up"
    assert _run_pod(access, "after-repair", ["resolve", "kubernetes.default.svc.cluster.local"])["exitCode"] == 0


def test_two_clusters_live_side_by_side(access: Access) -> None:
    other = LocalCluster("ci-b")
    try:
        reached = other.up(Silent())
        assert _kubectl(reached, "get", "nodes", "-o", "name").strip() == "node/ci-b-node"
        assert _kubectl(access, "get", "nodes", "-o", "name").strip() == f"node/{NAME}-node"
    finally:
        other.down(Silent())
    assert _traces("ci-b") == []
    assert LocalCluster(NAME).status().state == "up"


def test_down_leaves_nothing(access: Access) -> None:
    notes = (Layout(NAME).run / "containerd").glob("io.containerd.runtime.v2.task/*/*/address")
    sockets = {note.parent.name: Path(note.read_text().removeprefix("unix://")) for note in notes}
    assert sockets
    LocalCluster(NAME).down(Silent())
    assert _traces(NAME) == []
    assert [path for path in sockets.values() if path.exists()] == []
    assert [note for note in Path("/var/lib/cni/results").glob("*") for pod in sockets if pod in note.name] == []
    assert LocalCluster(NAME).status().state == "down"
    LocalCluster(NAME).down(Silent())


@pytest.mark.parametrize("after_seconds", [0.4, 1.0, 4.0])
def test_up_over_the_remains_of_a_killed_up(after_seconds: float) -> None:
    script = (
        "from harness.clusters.local import LocalCluster; from harness.ports.progress import Silent;"
        f"LocalCluster({NAME!r}).up(Silent())"
    )
    LocalCluster(NAME).down(Silent())
    with subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2]) as started:
        try:
            started.wait(after_seconds)
        except subprocess.TimeoutExpired:
            started.send_signal(signal.SIGKILL)
    LocalCluster(NAME).up(Silent())
    assert LocalCluster(NAME).status().state == "up"


def test_down_over_the_remains_of_a_dying_cluster() -> None:
    LocalCluster(NAME).up(Silent())
    identity = processes.recorded(Layout(NAME).run / "containerd.pid")
    assert identity is not None
    processes.kill(identity)
    subprocess.run(["ip", "netns", "del", Layout(NAME).netns], check=True)
    LocalCluster(NAME).down(Silent())
    assert _traces(NAME) == []


def _traces(name: str) -> list[str]:
    """Everything on this machine that still speaks of the cluster."""
    layout = Layout(name)
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    spaces = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    found = [f"process {identity}" for identity in sweep.own_processes(layout)]
    found += [f"process {pid}" for pid in processes.everyone() if f"{layout.root}/" in " ".join(processes.command(pid))]
    found += [f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if str(layout.root) in line]
    found += [f"link {line}" for line in links.splitlines() if layout.host_link in line]
    found += [f"namespace {line}" for line in spaces.splitlines() if layout.netns in line.split()]
    found += [f"cgroup {path}" for path in cgroups.remains(layout.cgroup)]
    notes = Path("/var/lib/cni/results").glob("*")
    found += [f"note {note}" for note in notes if note.name.startswith(f"{layout.cni_network}-")]
    links_to_logs = Path("/var/log/containers").glob("*")
    found += [f"link {link}" for link in links_to_logs if link.readlink().is_relative_to(layout.root)]
    return found + [f"path {path}" for path in (layout.root, layout.netns_path, layout.lock) if path.exists()]
