"""kind's refusals and command lines with a runner that only pretends; the choice among the providers."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.clusters.existing import ExistingCluster
from harness.clusters.kind import IMAGE_VARIABLE, KIND_VERSION, NODE_IMAGE, ROOM_BYTES, KindCluster, free_bytes, usable
from harness.clusters.local import LocalCluster
from harness.clusters.oci import write_archive
from harness.clusters.select import choose
from harness.core.errors import BadInput, Refused, Unreachable
from harness.ports.progress import Silent

TOOLS = ("docker", "kind", "mmdebstrap")
BORN = 1_700_000_000.0
NODE = {
    "docker inspect": (0, "abc 2023-11-14T22:13:22.123456789Z"),
    "docker ps": (0, "demo-control-plane running control-plane\n"),
}
"""What Docker says of a node that came to be two seconds after `BORN`, unless a test says otherwise."""


class FakeTools:
    """Answers by the first words of a command line; remembers all of them."""

    def __init__(self, answers: dict[str, tuple[int, str]] | None = None, *, present: Sequence[str] = TOOLS):
        pinned = (0, f"kind {KIND_VERSION} go1.25 linux/amd64")
        self.answers = {"kind version": pinned} | NODE | (answers or {})
        self.present = present
        self.calls: list[tuple[list[str], str | None]] = []

    def run(self, argv: Sequence[str], seconds: float, stdin: str | None) -> subprocess.CompletedProcess[str]:
        self.calls.append((list(argv), stdin))
        line = " ".join(argv)
        code, out = next((answer for start, answer in self.answers.items() if line.startswith(start)), (0, ""))
        if code == 0 and line.startswith("kind export kubeconfig"):
            Path(argv[-1]).write_text("{}")
        if code == 0 and line.startswith("docker cp"):
            Path(argv[-1]).write_text("kubectl")
        if code == 0 and line.startswith("kind create cluster"):
            self.answers["kind get clusters"] = (0, argv[4])
        return subprocess.CompletedProcess(list(argv), code, "" if code else out, (out or "it says no") if code else "")

    def find(self, name: str) -> str | None:
        return f"/usr/bin/{name}" if name in self.present else None

    def cluster(self, folder: Path) -> KindCluster:
        return KindCluster("demo", run=self.run, find=self.find, state_folder=folder, now=lambda: BORN)

    def lines(self, start: str) -> list[str]:
        return [" ".join(argv) for argv, _ in self.calls if " ".join(argv).startswith(start)]


@pytest.mark.parametrize(
    ("tools", "slug"),
    [
        (FakeTools(present=()), "no-docker"),
        (FakeTools({"docker version": (1, "")}), "docker-silent"),
        (
            FakeTools({"docker version": (1, "Cannot connect to the Docker daemon at unix:///x. Is it running?")}),
            "docker-silent",
        ),
        (
            FakeTools(
                {"docker version": (1, "permission denied while trying to connect to the docker API at unix:///x")}
            ),
            "docker-denied",
        ),
        (FakeTools(present=("docker",)), "no-kind"),
        (FakeTools(present=("docker", "kind")), "mmdebstrap-missing"),
    ],
)
def test_what_is_missing_is_named_before_anything_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools: FakeTools, slug: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tmp_path = tmp_path / "states"
    with pytest.raises(BadInput) as caught:
        tools.cluster(tmp_path).up(Silent())
    assert caught.value.slug == slug
    assert not tmp_path.exists()
    assert not tools.lines("kind")
    assert tools.cluster(tmp_path).status().state == "down"


def test_up_creates_exports_and_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(IMAGE_VARIABLE, raising=False)
    tools = FakeTools()
    access = tools.cluster(tmp_path).up(Silent())
    assert access.context == "kind-demo"
    assert access.kubeconfig.stat().st_mode & 0o777 == 0o600
    create = next(call for call in tools.calls if call[0][:3] == ["kind", "create", "cluster"])
    assert create[0][3:5] == ["--name", "demo"]
    assert json.loads(create[1] or "")["nodes"] == [{"role": "control-plane", "image": NODE_IMAGE}]
    assert re.fullmatch(r"kindest/node:v1\.34\.\d+@sha256:[0-9a-f]{64}", NODE_IMAGE)
    applied = next(call for call in tools.calls if "apply" in call[0])
    assert [item["metadata"]["name"] for item in json.loads(applied[1] or "")["items"]] == [
        "drill-system",
        "drills-allowed",
    ]
    assert tools.lines("docker exec --interactive demo-control-plane kubectl")


@pytest.mark.parametrize(
    ("info", "free", "refused"),
    [
        (f"{platform.node()} /var/lib/docker", ROOM_BYTES - 1, True),
        (f"{platform.node()} /var/lib/docker", ROOM_BYTES, False),
        (f"{platform.node()} /var/lib/docker", None, False),
        ("docker-desktop /var/lib/docker", 0, False),
        ("", 0, False),
    ],
)
def test_no_cluster_is_made_on_a_disk_that_is_too_small_where_it_can_be_seen(
    tmp_path: Path, info: str, free: int | None, refused: bool
) -> None:
    asked: list[Path] = []

    def look(folder: Path) -> int | None:
        asked.append(folder)
        return free

    tools = FakeTools({"docker info": (0, info)})
    cluster = KindCluster("demo", run=tools.run, find=tools.find, state_folder=tmp_path, now=lambda: BORN, free=look)
    if not refused:
        cluster.up(Silent())
        assert tools.lines("kind create")
        return
    with pytest.raises(BadInput) as caught:
        cluster.up(Silent())
    assert caught.value.slug == "disk-too-small"
    assert "docker system df" in caught.value.remedy
    assert asked == [Path("/var/lib/docker")]
    assert not tools.lines("kind create")
    assert cluster.status().state == "down"


@pytest.mark.parametrize(
    ("free", "slug"), [(100 << 20, "disk-full"), (ROOM_BYTES, "tool-failed"), (None, "tool-failed")]
)
def test_what_does_not_come_up_on_a_full_disk_is_the_disks_fault(tmp_path: Path, free: int | None, slug: str) -> None:
    node = "docker exec --interactive demo-control-plane kubectl --kubeconfig=/etc/kubernetes/admin.conf"
    tools = FakeTools(
        {
            "kind get clusters": (0, "demo"),
            "docker info": (0, f"{platform.node()} /var/lib/docker"),
            f"{node} --namespace=kube-system rollout": (1, "error: timed out waiting for the condition"),
        }
    )
    cluster = KindCluster(
        "demo", run=tools.run, find=tools.find, state_folder=tmp_path, now=lambda: BORN, free=lambda _: free
    )
    with pytest.raises(Unreachable, match="timed out waiting for the condition") as caught:
        cluster.up(Silent())
    assert caught.value.slug == slug
    assert ("100 MiB are free for /var/lib/docker" in caught.value.fact) == (slug == "disk-full")


def test_an_api_server_on_its_way_back_is_waited_for_and_a_full_disk_is_not(tmp_path: Path) -> None:
    ready = "docker exec --interactive demo-control-plane kubectl --kubeconfig=/etc/kubernetes/admin.conf get --raw"
    tools = FakeTools({"kind get clusters": (0, "demo"), ready: (1, "[-]etcd failed: reason withheld")})
    looks = [0]

    def run(argv: Sequence[str], seconds: float, stdin: str | None) -> subprocess.CompletedProcess[str]:
        done = tools.run(argv, seconds, stdin)
        if done.returncode:
            looks[0] += 1
            tools.answers[ready] = (0, "ok") if looks[0] == 2 else tools.answers[ready]
        return done

    KindCluster("demo", run=run, find=tools.find, state_folder=tmp_path, now=lambda: BORN).up(Silent())
    assert len(tools.lines(ready)) == 3
    tools.answers[ready] = (126, "OCI runtime exec failed: write /x: no space left on device: unknown")
    with pytest.raises(Unreachable) as caught:
        tools.cluster(tmp_path).up(Silent())
    assert caught.value.slug == "disk-full"
    assert len(tools.lines(ready)) == 4, "it does not go away by waiting"


def test_the_disk_of_a_folder_that_is_not_there_is_not_known(tmp_path: Path) -> None:
    assert (free_bytes(tmp_path) or 0) > 0
    assert free_bytes(tmp_path / "absent") is None


def test_up_leaves_a_cluster_that_is_there(tmp_path: Path) -> None:
    tools = FakeTools({"kind get clusters": (0, "other\ndemo\n")})
    tools.cluster(tmp_path).up(Silent())
    assert not tools.lines("kind create")
    assert tools.cluster(tmp_path).status().state == "up"
    with pytest.raises(Refused) as caught:
        tools.cluster(tmp_path).down(Silent())
    assert caught.value.slug == "not-our-cluster"
    assert not tools.lines("kind delete")


def test_another_kind_makes_no_cluster_and_takes_one_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(IMAGE_VARIABLE, raising=False)
    older = {"kind version": (0, "kind v0.20.0 go1.20.4 linux/amd64")}
    with pytest.raises(BadInput) as caught:
        FakeTools(dict(older)).cluster(tmp_path).up(Silent())
    assert caught.value.slug == "kind-version"
    FakeTools(older | {"kind get clusters": (0, "demo")}).cluster(tmp_path).up(Silent())
    monkeypatch.setenv(IMAGE_VARIABLE, "mirror/node:1")
    tools = FakeTools(dict(older))
    tools.cluster(tmp_path / "named").up(Silent())
    create = next(stdin for argv, stdin in tools.calls if argv[:3] == ["kind", "create", "cluster"])
    assert json.loads(create or "")["nodes"][0]["image"] == "mirror/node:1"


def test_the_mark_that_a_cluster_bears_is_left_as_it_is(tmp_path: Path) -> None:
    ask = "docker exec --interactive demo-control-plane kubectl --kubeconfig=/etc/kubernetes/admin.conf get configmap"
    there = {"kind get clusters": (0, "demo")}
    live = FakeTools(there | {ask: (0, json.dumps({"data": {"environment": "production"}}))})
    with pytest.raises(Refused) as caught:
        live.cluster(tmp_path).up(Silent())
    assert caught.value.slug == "cluster-not-staging"
    halted = FakeTools(there | {ask: (0, json.dumps({"data": {"environment": "staging", "halted": "true"}}))})
    halted.cluster(tmp_path).up(Silent())
    for tools in (live, halted):
        assert not [argv for argv, _ in tools.calls if "apply" in argv]


def test_what_an_interrupted_creation_left_is_made_anew(tmp_path: Path) -> None:
    def killed(argv: Sequence[str], seconds: float, stdin: str | None) -> subprocess.CompletedProcess[str]:
        if argv[:3] == ["kind", "create", "cluster"]:
            raise KeyboardInterrupt
        return FakeTools().run(argv, seconds, stdin)

    cluster = KindCluster("demo", run=killed, find=FakeTools().find, state_folder=tmp_path, now=lambda: BORN)
    with pytest.raises(KeyboardInterrupt):
        cluster.up(Silent())
    late = FakeTools({"kind get clusters": (0, "demo"), "docker inspect": (0, "def 2023-11-15T22:13:22Z")})
    late.cluster(tmp_path).up(Silent())
    assert not late.lines("kind delete"), "that one was made a day later, by somebody else"
    left = FakeTools({"kind get clusters": (0, "demo")})
    left.cluster(tmp_path).up(Silent())
    assert left.lines("kind delete")
    assert left.lines("kind create")
    left.cluster(tmp_path).down(Silent())
    assert len(left.lines("kind delete")) == 2


def test_nodes_that_are_stopped_are_started(tmp_path: Path) -> None:
    listed = "demo-control-plane exited control-plane\ndemo-worker running worker\n"
    tools = FakeTools({"kind get clusters": (0, "demo"), "docker ps": (0, listed)})
    assert tools.cluster(tmp_path).status().state == "broken"
    tools.cluster(tmp_path).up(Silent())
    assert tools.lines("docker start") == ["docker start demo-control-plane"]


@pytest.mark.parametrize(
    ("words", "slug"),
    [
        ("write /x: no space left on device", "disk-full"),
        ("Error starting userland proxy: listen tcp4 127.0.0.1:4: bind: address already in use", "kind-port-taken"),
        ("Bind for 127.0.0.1:4 failed: port is already allocated", "kind-port-taken"),
        ('The container name "/demo-control-plane" is already in use by container "abc"', "kind-name-taken"),
        ("failed to pull image kindest/node:v1: dial tcp: lookup registry", "kind-image-missing"),
        ("something else", "tool-failed"),
    ],
)
def test_what_kind_says_becomes_a_remedy(tmp_path: Path, words: str, slug: str) -> None:
    with pytest.raises(Unreachable, match="exit code 1") as caught:
        FakeTools({"kind create cluster": (1, words)}).cluster(tmp_path).up(Silent())
    assert caught.value.slug == slug
    assert words in caught.value.fact


def test_of_what_kind_says_the_reason_is_quoted(tmp_path: Path) -> None:
    said = "Creating cluster ...\n ✗ Preparing nodes\nERROR: failed to create cluster: because"
    with pytest.raises(Unreachable) as caught:
        FakeTools({"kind create cluster": (1, said)}).cluster(tmp_path).up(Silent())
    assert caught.value.fact.endswith("ended with exit code 1: failed to create cluster: because")


def test_no_name_leads_out_of_the_state_folder(tmp_path: Path) -> None:
    for name in ("..", "../x", "", "A", "x" * 51):
        with pytest.raises(BadInput, match="cannot name a kind cluster"):
            KindCluster(name, state_folder=tmp_path)


@pytest.mark.skipif(platform.system() != "Linux", reason="the node's programs run on Linux only")
def test_the_nodes_own_kubectl_is_used_where_it_runs_here(tmp_path: Path) -> None:
    present = ("docker", "kind", "kubectl")
    fits = FakeTools(present=present).cluster(tmp_path / "fits").up(Silent())
    assert fits.kubectl == tmp_path / "fits/demo/kubectl"
    foreign = FakeTools({str(tmp_path): (126, "exec format error")}, present=present)
    assert foreign.cluster(tmp_path / "foreign").up(Silent()).kubectl == Path("/usr/bin/kubectl")


def test_a_failing_tool_is_quoted(tmp_path: Path) -> None:
    tools = FakeTools({"kind create cluster": (1, "")})
    with pytest.raises(Unreachable, match="it says no"):
        tools.cluster(tmp_path).up(Silent())


def test_down_deletes_once(tmp_path: Path) -> None:
    there = FakeTools()
    there.cluster(tmp_path).up(Silent())
    there.cluster(tmp_path).down(Silent())
    assert len(there.lines("kind delete cluster --name demo")) == 1
    gone = FakeTools()
    gone.cluster(tmp_path).down(Silent())
    assert not gone.lines("kind delete")


def test_an_image_is_loaded_unless_its_content_is_there(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    digest = write_archive(tmp_path / "i.tar", "x:1", layers=[tree])
    stale = FakeTools({"docker exec": (0, "x:1 sha256:0000")})
    stale.cluster(tmp_path).load_image(tmp_path / "i.tar", "x:1")
    assert stale.lines("kind load image-archive")
    fresh = FakeTools({"docker exec": (0, f"x:1 application/json {digest} 1 MiB")})
    fresh.cluster(tmp_path).load_image(tmp_path / "i.tar", "x:1")
    assert not fresh.lines("kind load")
    listed = "demo-control-plane running control-plane\ndemo-external-load-balancer running external-load-balancer\n"
    answers = {"docker exec demo-control-plane": (0, f"x:1 {digest}"), "docker ps": (0, listed)}
    balanced = FakeTools(answers)
    balanced.cluster(tmp_path).load_image(tmp_path / "i.tar", "x:1")
    assert not balanced.lines("kind load"), "what only balances loads holds no images"
    listed = "demo-control-plane running control-plane\ndemo-worker running worker\n"
    half = FakeTools({"docker exec demo-control-plane": (0, f"x:1 {digest}"), "docker ps": (0, listed)})
    half.cluster(tmp_path).load_image(tmp_path / "i.tar", "x:1")
    assert half.lines("kind load"), "the other node lacks it"
    with pytest.raises(BadInput, match="does not hold y:1"):
        fresh.cluster(tmp_path).load_image(tmp_path / "i.tar", "y:1")


def test_choice() -> None:
    assert isinstance(choose(context="staging", kind_usable=lambda _: True), ExistingCluster)
    assert isinstance(choose("auto", name="never-made", kind_usable=lambda _: True), KindCluster)
    assert isinstance(choose("auto", name="never-made", kind_usable=lambda _: False), LocalCluster)
    assert isinstance(choose("local", kind_usable=lambda _: True), LocalCluster)
    assert isinstance(choose("kind", kind_usable=lambda _: False), KindCluster)
    assert isinstance(choose("kind", name="a-name.longer-than-a-local-one"), KindCluster)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({}, True),
        ({"docker version": (1, "")}, False),
        ({"kind version": (0, "kind v0.20.0 go1.20.4")}, False),
        ({"kind version": (0, "kind v0.20.0 go1.20.4"), "kind get clusters": (0, "demo")}, True),
    ],
)
def test_kind_is_meant_where_it_has_the_cluster_or_can_make_it(
    answers: dict[str, tuple[int, str]], *, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(IMAGE_VARIABLE, raising=False)
    tools = FakeTools(answers)
    assert usable("demo", tools.run, tools.find) is expected
    assert not usable("demo", tools.run, FakeTools(present=("docker",)).find)


def test_contradictions_are_refused() -> None:
    with pytest.raises(BadInput, match="together"):
        choose("local", "staging")
    with pytest.raises(BadInput, match="without a context"):
        choose("context")


def _kubeconfig(path: Path, server: str) -> Path:
    path.write_text(
        json.dumps(
            {
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": {"token": "x"}}],
                "contexts": [{"name": "staging", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    return path


def test_an_unknown_context_lists_the_known(tmp_path: Path) -> None:
    file = _kubeconfig(tmp_path / "k", "https://127.0.0.1:9")
    with pytest.raises(BadInput) as caught:
        ExistingCluster("production", file).up(Silent())
    assert "staging" in caught.value.expected
    (tmp_path / "k").write_text("just: [text")
    with pytest.raises(BadInput, match="cannot be read"):
        ExistingCluster("production", file).up(Silent())


def test_the_second_kubeconfig_is_searched_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _kubeconfig(tmp_path / "k", "https://127.0.0.1:9")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'absent'}:{file}")
    assert ExistingCluster("staging").status().state == "broken"


def test_a_silent_cluster_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="did not answer"):
        ExistingCluster("staging", _kubeconfig(tmp_path / "k", "https://127.0.0.1:9")).up(Silent())


def test_a_foreign_cluster_is_neither_filled_nor_removed(tmp_path: Path) -> None:
    cluster = ExistingCluster("staging", tmp_path / "k")
    with pytest.raises(Refused):
        cluster.down(Silent())
    with pytest.raises(Refused):
        cluster.load_image(tmp_path / "i.tar", "x:1")
