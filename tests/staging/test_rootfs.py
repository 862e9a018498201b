"""Building the image: what is cached under what, and what is said when it cannot be built."""

from __future__ import annotations

import shutil
import stat
import tarfile
from pathlib import Path

import pytest

from harness.clusters import rootfs, staging_image
from harness.core.errors import BadInput
from harness.ports.progress import Silent

ROOT = Path(__file__).parents[2]
FAKE = """#!/bin/sh
echo "$@" >> {here}/calls
[ -e {here}/fail ] && {{ echo 'E: no mirror' >&2; exit 1; }}
for out; do :; done
mkdir -p {here}/tree/usr/bin && echo promtool > {here}/tree/usr/bin/promtool && tar -C {here}/tree -cf "$out" .
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of staging/ that a test may change."""
    shutil.copytree(ROOT / "staging", tmp_path / "repo" / "staging", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "repo"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mmdebstrap that makes a tiny tree and notes its calls; a cache of our own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    tool = folder / "mmdebstrap"
    tool.write_text(FAKE.format(here=folder), encoding="utf-8")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def calls(tools: Path) -> int:
    return len((tools / "calls").read_text(encoding="utf-8").splitlines())


def test_a_changed_source_makes_another_image_and_no_other_base(checkout: Path, tools: Path) -> None:
    first = staging_image.build(checkout, Silent())
    assert staging_image.build(checkout, Silent()) == first
    source = checkout / "staging" / "worker.py"
    text = source.read_text(encoding="utf-8")
    source.write_text(text + "\n", encoding="utf-8")
    second = staging_image.build(checkout, Silent())
    assert second.ref != first.ref
    assert second.archive.exists()
    source.write_text(text, encoding="utf-8")
    assert staging_image.build(checkout, Silent()) == first
    assert calls(tools) == 1
    with tarfile.open(first.archive) as archive:
        assert "index.json" in archive.getnames()


def test_a_changed_list_of_packages_makes_another_base(checkout: Path, tools: Path) -> None:
    first = staging_image.build(checkout, Silent())
    packages = checkout / "staging" / "image" / "packages.txt"
    with packages.open("a", encoding="utf-8") as file:
        file.write("socat\n")
    assert staging_image.build(checkout, Silent()).archive.exists()
    assert calls(tools) == 2
    assert "socat" in (tools / "calls").read_text(encoding="utf-8").splitlines()[1]
    with packages.open("a", encoding="utf-8") as file:
        file.write("# a comment changes nothing\n")
    staging_image.build(checkout, Silent())
    assert calls(tools) == 2
    assert first.archive.exists()


def test_a_failed_base_is_said_and_leaves_nothing_that_passes_for_one(checkout: Path, tools: Path) -> None:
    (tools / "fail").touch()
    with pytest.raises(BadInput, match="no mirror"):
        staging_image.build(checkout, Silent())
    assert not list(rootfs.cache_dir().glob("base-*"))
    (tools / "fail").unlink()
    assert staging_image.build(checkout, Silent()).archive.exists()


def test_a_missing_mmdebstrap_is_named_with_its_remedy(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(BadInput, match="mmdebstrap is not installed") as caught:
        staging_image.build(checkout, Silent())
    assert "apt-get install mmdebstrap" in caught.value.remedy


def test_promtool_comes_out_of_the_base(checkout: Path, tools: Path) -> None:
    tool = staging_image.promtool(checkout, Silent())
    assert tool.read_text(encoding="utf-8") == "promtool\n"
    assert tool.stat().st_mode & stat.S_IXUSR
    assert staging_image.promtool(checkout, Silent()) == tool
    assert calls(tools) == 1


def test_old_archives_are_forgotten(checkout: Path, tools: Path) -> None:
    source = checkout / "staging" / "worker.py"
    for _ in range(5):
        source.write_text(source.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        newest = staging_image.build(checkout, Silent())
    kept = list(rootfs.cache_dir().glob("nova-staging-*.oci.tar"))
    assert len(kept) == 3
    assert newest.archive in kept
