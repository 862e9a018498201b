"""Builds appear whole or not at all, and are found again; with a go command that only pretends."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from harness.clusters.local import machine, toolchain
from harness.clusters.oci import digest_of
from harness.core.errors import BadInput
from harness.ports.progress import Silent

GO = """#!/bin/sh
[ "$1" = env ] && echo go1.99.0 && exit 0
echo "$@" >>"{folder}/calls"
echo half >"$GOTMPDIR/go-build1"
dirname "$GOTMPDIR" >"{folder}/worked-in"
[ -e "{folder}/full" ] && echo "write $GOTMPDIR/b.a: no space left on device" >&2 && exit 1
[ -e "{folder}/broken" ] && echo "x.go:1: undefined: y" >&2 && exit 1
while [ "$1" != -o ]; do shift; done
for package in pause coredns server kube-apiserver kubelet kubectl; do echo "$package" >"$2$package"; done
echo k8s.io/some/package >&2
"""


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a pretended go command and of a copy of the pinned module; the cache lies below it too."""
    script = tmp_path / "go"
    script.write_text(GO.format(folder=tmp_path))
    script.chmod(0o755)
    source = tmp_path / "source"
    shutil.copytree(toolchain.source_folder(), source)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(machine, "find_go", lambda: str(script))
    monkeypatch.setattr(toolchain, "source_folder", lambda: source)
    return tmp_path


def test_the_pins_are_read_from_the_module() -> None:
    plan = toolchain.plan()
    assert plan.kubernetes.startswith("v1.")
    assert machine.release(plan.go_needed) >= (1, 25)


def test_a_build_is_made_once_and_found_again(go: Path) -> None:
    first = toolchain.ensure(toolchain.plan(), Silent())
    assert first.path("etcd").exists()
    for name in ("pause", "coredns"):
        assert digest_of(*first.image(name)).startswith("sha256:")
    assert toolchain.ensure(toolchain.plan(), Silent()) == first
    assert len((go / "calls").read_text().splitlines()) == 1


def test_another_pin_is_another_build(go: Path) -> None:
    first = toolchain.ensure(toolchain.plan(), Silent())
    with (go / "source" / "go.mod").open("a") as module:
        module.write("// moved\n")
    assert toolchain.plan().finished() is None
    assert toolchain.ensure(toolchain.plan(), Silent()) != first


def test_a_build_is_found_without_a_go_command(go: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = toolchain.ensure(toolchain.plan(), Silent())
    monkeypatch.setattr(machine, "find_go", lambda: None)
    plan = toolchain.plan()
    assert plan.go_version is None
    assert plan.finished() == first


def test_a_failed_build_is_quoted_and_leaves_nothing(go: Path) -> None:
    (go / "broken").touch()
    with pytest.raises(BadInput, match="undefined: y"):
        toolchain.ensure(toolchain.plan(), Silent())
    assert [path.name for path in (go / "cache/drill/kubernetes").iterdir()] == [".lock"]


def test_a_full_disk_is_no_matter_of_the_module_proxy(go: Path) -> None:
    (go / "full").touch()
    with pytest.raises(BadInput) as caught:
        toolchain.ensure(toolchain.plan(), Silent())
    assert caught.value.slug == "disk-full"
    assert "XDG_CACHE_HOME" in caught.value.remedy
    (go / "full").unlink()
    assert toolchain.ensure(toolchain.plan(), Silent()).path("etcd").exists(), "once there is room it goes on"


def test_all_half_done_work_lies_where_the_next_build_removes_it(go: Path) -> None:
    toolchain.ensure(toolchain.plan(), Silent())
    assert (go / "worked-in").read_text().strip() == str(go / "cache/drill/kubernetes")


def test_leftovers_of_a_killed_build_and_forgotten_builds_go(go: Path) -> None:
    cache = go / "cache/drill/kubernetes"
    (cache / ".building-killed" / "out").mkdir(parents=True)
    (cache / "old").mkdir()
    os.utime(cache / "old", (1, 1))
    built = toolchain.ensure(toolchain.plan(), Silent())
    assert {path.name for path in cache.iterdir()} == {".lock", built.folder.name}
