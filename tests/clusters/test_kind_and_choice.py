"""kind's refusals and command lines with a runner that only pretends; the choice among the providers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.clusters.existing import ExistingCluster
from harness.clusters.kind import KIND_VERSION, KindCluster
from harness.clusters.local import LocalCluster
from harness.clusters.oci import write_archive
from harness.clusters.select import choose
from harness.core.errors import BadInput, Refused, Unreachable
from harness.ports.progress import Silent


class FakeTools:
    """Answers by the first words of a command line; remembers all of them."""

    def __init__(
        self, answers: dict[str, tuple[int, str]] | None = None, *, present: Sequence[str] = ("docker", "kind")
    ):
        self.answers = {"kind version": (0, f"kind {KIND_VERSION} go1.25 linux/amd64")} | (answers or {})
        self.present = present
        self.calls: list[tuple[list[str], str | None]] = []

    def run(self, argv: Sequence[str], seconds: float, stdin: str | None) -> subprocess.CompletedProcess[str]:
        self.calls.append((list(argv), stdin))
        line = " ".join(argv)
        code, out = next((answer for start, answer in self.answers.items() if line.startswith(start)), (0, ""))
        if code == 0 and line.startswith("kind export kubeconfig"):
            Path(argv[-1]).write_text("{}")
        return subprocess.CompletedProcess(list(argv), code, out, "it says no" if code else "")

    def find(self, name: str) -> str | None:
        return f"/usr/bin/{name}" if name in self.present else None

    def cluster(self, folder: Path) -> KindCluster:
        return KindCluster("demo", run=self.run, find=self.find, state_folder=folder)

    def lines(self, start: str) -> list[str]:
        return [" ".join(argv) for argv, _ in self.calls if " ".join(argv).startswith(start)]


@pytest.mark.parametrize(
    ("tools", "slug"),
    [
        (FakeTools(present=()), "no-docker"),
        (FakeTools({"docker version": (1, "")}), "docker-silent"),
        (FakeTools(present=("docker",)), "no-kind"),
    ],
)
def test_what_is_missing_is_named_before_anything_happens(tmp_path: Path, tools: FakeTools, slug: str) -> None:
    with pytest.raises(BadInput) as caught:
        tools.cluster(tmp_path).up(Silent())
    assert caught.value.slug == slug
    assert list(tmp_path.iterdir()) == []
    assert tools.cluster(tmp_path).status().state == "down"


def test_up_creates_exports_and_marks(tmp_path: Path) -> None:
    tools = FakeTools()
    access = tools.cluster(tmp_path).up(Silent())
    assert access.context == "kind-demo"
    assert access.kubeconfig.stat().st_mode & 0o777 == 0o600
    create = next(call for call in tools.calls if call[0][:3] == ["kind", "create", "cluster"])
    assert create[0][3:5] == ["--name", "demo"]
    assert "extraPortMappings" not in (create[1] or "")
    applied = next(call for call in tools.calls if "apply" in call[0])
    assert [item["metadata"]["name"] for item in json.loads(applied[1] or "")["items"]] == [
        "drill-system",
        "drills-allowed",
    ]
    assert tools.lines("docker exec --interactive demo-control-plane kubectl")


def test_up_leaves_a_cluster_that_is_there(tmp_path: Path) -> None:
    tools = FakeTools({"kind get clusters": (0, "other\ndemo\n")})
    tools.cluster(tmp_path).up(Silent())
    assert not tools.lines("kind create")
    assert tools.cluster(tmp_path).status().state == "up"


def test_a_failing_tool_is_quoted(tmp_path: Path) -> None:
    tools = FakeTools({"kind create cluster": (1, "")})
    with pytest.raises(Unreachable, match="it says no"):
        tools.cluster(tmp_path).up(Silent())


def test_down_deletes_once(tmp_path: Path) -> None:
    there = FakeTools({"kind get clusters": (0, "demo")})
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
    with pytest.raises(BadInput, match="does not hold y:1"):
        fresh.cluster(tmp_path).load_image(tmp_path / "i.tar", "y:1")


def test_choice() -> None:
    assert isinstance(choose(context="staging", kind_usable=lambda: True), ExistingCluster)
    assert isinstance(choose("auto", name="never-made", kind_usable=lambda: True), KindCluster)
    assert isinstance(choose("auto", name="never-made", kind_usable=lambda: False), LocalCluster)
    assert isinstance(choose("local", kind_usable=lambda: True), LocalCluster)
    assert isinstance(choose("kind", kind_usable=lambda: False), KindCluster)


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
