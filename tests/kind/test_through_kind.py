"""The main job on clusters that the real `kind` command made, and what befalls them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.core.event import PodsSeen, decode
from tests.e2e.test_main_job import kernel_log
from tests.kind.conftest import Desk

pytestmark = pytest.mark.kind

STAGING = "nova-staging"


def killed_by_the_kernel(desk: Desk, after: int) -> set[str]:
    """The pods of the newest run that the kernel killed for their memory, by its own log."""
    lines = (desk.runs / "latest" / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    events = [decode(line).event for line in lines]
    uids = {pod.uid for event in events if isinstance(event, PodsSeen) for pod in event.pods}
    kills = [text for _, text in kernel_log(after) if "oom-kill:" in text and "CONSTRAINT_MEMCG" in text]
    return {uid for uid in uids for text in kills if uid in text or uid.replace("-", "_") in text}


def leftovers(desk: Desk, cluster: str) -> list[str]:
    """Whatever of ours is still in the drilled namespace."""
    found = desk.kubectl(cluster, "-n", STAGING, "get", "configmaps,leases", "-o", "name")
    return [line for line in found.splitlines() if "/drill" in line]


def test_a_drill_from_nothing_is_met_and_down_deletes_the_cluster(desk: Desk) -> None:
    newest = max((number for number, _ in kernel_log()), default=-1)
    tools = {"PATH": f"{desk.bin}:{desk.rig.engine.path}", "EXP": "oom-workers", "ARGS": f"--runs {desk.runs}"}
    done = desk.run("make", "drill", more=tools)
    assert done.returncode == 0, done.stdout + done.stderr
    report = desk.report()
    assert report["headline"]["verdict"] == "MET"
    assert {row["verdict"] for row in report["slas"]} == {"MET"}
    assert len(killed_by_the_kernel(desk, newest)) >= 3
    assert leftovers(desk, "drill") == []
    assert "wall time by phase" in done.stdout

    state = desk.drill("cluster", "status")
    assert "kind cluster drill is up" in state.stdout
    inspected = json.loads(desk.docker("inspect", "drill-control-plane"))[0]
    assert list(inspected["HostConfig"]["PortBindings"]) == ["6443/tcp"], "the API server's port and no other"

    def loads() -> int:
        return desk.calls.read_text().count("load image-archive")

    assert loads() == 2, "the staging system's image and the harness' own"
    again = desk.drill("cluster", "up")
    assert again.returncode == 0, again.stdout + again.stderr
    assert loads() == 2, "what is loaded is not loaded again"

    down = desk.drill("cluster", "down", "--provider", "kind")
    assert down.returncode == 0, down.stdout + down.stderr
    assert desk.clusters() == []
    assert desk.docker("ps", "--all", "--quiet") == ""
    assert desk.docker("volume", "ls", "--quiet") == ""
    assert not (desk.folder / "state" / "drill" / "kind" / "drill").exists()
    assert desk.drill("cluster", "down", "--provider", "kind").returncode == 0, "twice is once"


def test_a_cluster_that_kind_itself_made_is_taken_and_kept(desk: Desk) -> None:
    own = desk.folder / "own.kubeconfig"
    made = desk.run("kind", "create", "cluster", "--name=mine", f"--kubeconfig={own}", f"--image={desk.rig.node.ref}")
    assert made.returncode == 0, made.stderr
    before = desk.docker("inspect", "--format={{.Id}}", "mine-control-plane")
    mine = ("--provider", "kind", "--name", "mine")

    # By its context alone it is a cluster like any other: without the mark of its owners it is left alone.
    by_context = desk.drill("run", "oom-workers", DRILL_CLUSTER="auto", CONTEXT="kind-mine", KUBECONFIG=str(own))
    assert by_context.returncode == 3, by_context.stdout + by_context.stderr
    assert "no mark that drills are allowed" in by_context.stdout + by_context.stderr
    # And the owners' word stands, whichever way it is reached: this one says that it is production.
    marker = ("-n", "drill-system", "create", "configmap", "drills-allowed", "--from-literal=environment=production")
    desk.kubectl("mine", "create", "namespace", "drill-system")
    desk.kubectl("mine", *marker)
    for where in (mine, ("--context", "kind-mine", "--kubeconfig", str(own))):
        environment = {} if where is mine else {"DRILL_CLUSTER": "auto"}
        refused = desk.drill("run", "oom-workers", "--output", "json", *where, **environment)
        assert refused.returncode == 3, refused.stdout + refused.stderr
        assert "cluster-not-staging" in refused.stdout + refused.stderr
    assert STAGING not in desk.kubectl("mine", "get", "namespaces", "-o", "name"), "nothing was deployed"
    desk.kubectl("mine", "delete", "namespace", "drill-system")

    done = desk.drill("run", "oom-workers", *mine)
    assert done.returncode == 0, done.stdout + done.stderr
    assert desk.report()["headline"]["verdict"] == "MET"
    assert leftovers(desk, "mine") == []

    down = desk.drill("cluster", "down", *mine)
    assert down.returncode == 3, down.stdout + down.stderr
    assert "kind delete cluster --name mine" in down.stderr
    assert desk.clusters() == ["mine"]
    assert desk.docker("inspect", "--format={{.Id}}", "mine-control-plane") == before


def test_killed_while_it_sets_up_and_rebooted_it_goes_on(desk: Desk) -> None:
    def says(words: str) -> bool:
        return words in desk.log.read_text()

    def node() -> str:
        return desk.run("docker", "inspect", "--format={{.Id}}", "drill-control-plane").stdout.strip()

    creation = desk.start("cluster", "up")
    desk.until(node, creation)
    left = node()
    creation.kill()
    creation.wait()

    loading = desk.start("cluster", "up")
    desk.until(lambda: says("image into the cluster"), loading)
    loading.kill()
    loading.wait()
    assert node() != left, "what was half made is made anew"

    up = desk.drill("cluster", "up")
    assert up.returncode == 0, up.stdout + up.stderr

    desk.docker("kill", "drill-control-plane")
    assert "its node is stopped; `up` starts it" in desk.drill("cluster", "status").stdout
    bindings = "{{range .HostConfig.PortBindings}}{{range .}}{{.HostPort}}{{end}}{{end}}"
    with taken(desk, desk.docker("inspect", f"--format={bindings}", "drill-control-plane").strip()):
        refused = desk.drill("cluster", "up", "--output", "json")
    said = json.loads(refused.stderr.splitlines()[-1])
    assert (said["error"], refused.returncode) == ("kind-port-taken", 3), refused.stderr
    assert "drill cluster down" in said["remedy"]
    up = desk.drill("cluster", "up")
    assert up.returncode == 0, up.stdout + up.stderr
    assert "kind cluster drill is up" in desk.drill("cluster", "status").stdout
    assert desk.drill("cluster", "down").returncode == 0
    assert desk.clusters() == []


@contextmanager
def taken(desk: Desk, port: str) -> Iterator[None]:
    """Somebody else listens on that port where the engine publishes its own."""
    code = "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); print(flush=True); input()"
    command = desk.rig.engine.inside([sys.executable, "-c", code, port])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "\n", "it does not listen"
        yield
        other.communicate("\n")


def test_every_lack_is_told_with_its_remedy(desk: Desk) -> None:
    def refused(slug: str, remedy: str, *words: str, before: tuple[str, ...] = (), **environment: str) -> None:
        command = desk.command("cluster", "up", "--output", "json", *words)
        done = desk.run(*before, *command, more=environment)
        said = json.loads(done.stderr.splitlines()[-1])
        assert (said["error"], done.returncode) == (slug, said["exit_code"]), done.stderr
        assert remedy in said["remedy"], said
        assert said["exit_code"] in {3, 64}

    refused("docker-silent", "start Docker", DOCKER_HOST=f"unix://{desk.folder}/nobody.sock")
    # Somebody who may read everything, as the checkout may lie in root's home, and may use no socket of root's.
    reader = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    stranger = ("/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *reader)
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        shutil.copy(desk.bin / "docker", open_to_all)
        refused("docker-denied", "usermod -aG docker", before=stranger, PATH=open_to_all)
    (desk.bin / "docker").rename(desk.folder / "docker")
    refused("no-docker", "install Docker")
    (desk.folder / "docker").rename(desk.bin / "docker")

    (desk.bin / "kind").rename(desk.folder / "kind")
    refused("no-kind", "go install sigs.k8s.io/kind@v0.33.0")
    older = "echo kind v0.20.0 go1.20.4 linux/amd64"
    desk.lay("kind", f'case $1 in version) {older};; *) exec {desk.real("kind")} "$@";; esac')
    refused("kind-version", "go install sigs.k8s.io/kind@v0.33.0", DRILL_KIND_IMAGE="")
    (desk.folder / "kind").rename(desk.bin / "kind")

    refused("mmdebstrap-missing", "apt-get install mmdebstrap", XDG_CACHE_HOME=str(desk.folder / "nothing-made"))
    # The engine reaches no registry, so the pinned node image is what it lacks.
    refused("kind-image-missing", "DRILL_KIND_IMAGE", DRILL_KIND_IMAGE="")
    desk.docker("create", "--name=taken-control-plane", desk.rig.node.ref)
    refused("kind-name-taken", "docker ps --all", "--name", "taken")
    assert desk.clusters() == []
    assert desk.docker("ps", "--all", "--format={{.Names}}").split() == ["taken-control-plane"], "it is not ours"


def test_a_full_disk_is_said_to_be_full(desk: Desk) -> None:
    cache = desk.folder / "cache" / "drill" / "images"
    cache.mkdir(parents=True)
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drill" / "images"
    # All layers are there, and no room for the image that is made of them.
    fill = (
        'mount -t tmpfs -o size=4m tmpfs "$1"; for one in "$2"/*.tar "$2"/*.sha256; do case $one in *.oci.tar) ;; '
        '*) ln -s "$one" "$1";; esac; done; shift 2; exec "$@"'
    )
    room = ["/usr/bin/unshare", "--mount", "/bin/sh", "-euc", fill, "fill", str(cache), str(kept)]
    tools = {"PATH": f"{desk.bin}:{desk.rig.engine.path}", "XDG_CACHE_HOME": str(desk.folder / "cache")}
    done = desk.run(*room, *desk.command("cluster", "up", "--output", "json"), more=tools)
    said = json.loads(done.stderr.splitlines()[-1])
    assert (said["error"], done.returncode) == ("disk-full", 64), done.stderr
    assert "XDG_CACHE_HOME" in said["remedy"]


def test_nothing_leaves_the_engine(desk: Desk) -> None:
    with socket.create_server(("0.0.0.0", 0)) as door:  # noqa: S104 - every address of this machine but the engine's
        port = door.getsockname()[1]
        desk.docker("run", "--detach", "--name=probe", "--entrypoint=sleep", desk.rig.node.ref, "infinity")
        addresses = {"203.0.113.1", own_address()} - {""}
        for address in addresses:
            tried = desk.run("docker", "exec", "probe", "bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}", within=30)
            assert tried.returncode != 0
            assert "unreachable" in tried.stderr, tried.stderr
    routes = [line.split() for line in desk.run("/bin/cat", "/proc/net/route").stdout.splitlines()[1:]]
    assert routes, "the engine's own networks"
    assert "00000000" not in {destination for _, destination, *_ in routes}
    sixth = [line.split() for line in desk.run("/bin/cat", "/proc/net/ipv6_route").stdout.splitlines()]
    assert {device for _, length, *_, device in sixth if length == "00"} <= {"lo"}


def own_address() -> str:
    """An address of this machine beyond its loopback; "" where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))  # sends nothing: a datagram socket only looks the route up
        except OSError:
            return ""
        return str(probe.getsockname()[0])
