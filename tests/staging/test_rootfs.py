"""Building the image: what is cached under what, and what is said when it cannot be built."""

from __future__ import annotations

import errno
import shutil
import stat
import tarfile
from pathlib import Path

import pytest

from harness.clusters import oci, rootfs, staging_image
from harness.core.errors import BadInput
from harness.ports.progress import Silent

ROOT = Path(__file__).parents[2]
FAKE = """#!/bin/sh
echo "$@" >> {here}/calls
[ -e {here}/fail ] && {{ cat {here}/fail >&2; exit 1; }}
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
    (tools / "fail").write_text("I: running apt-get update...\nE: no mirror\nE: mmdebstrap failed to run\n")
    with pytest.raises(BadInput, match=r"base layer: E: no mirror\n") as caught:
        staging_image.build(checkout, Silent())
    assert caught.value.slug == "base-layer"
    assert [path.name for path in rootfs.cache_dir().iterdir()] == [".lock"]
    (tools / "fail").unlink()
    assert staging_image.build(checkout, Silent()).archive.exists()


@pytest.mark.parametrize(
    "words",
    [
        "W: creating tarball failed: E: cannot copy to /x/base.tar: No space left on device",
        "tar: ./usr/lib/x: Cannot write: No space left on device",
        "E: Write error - write (28: No space left on device)\nE: IO Error saving source cache",
        "E: You don't have enough free space in /tmp/mmdebstrap.x/var/cache/apt/archives/.",
    ],
)
def test_a_full_disk_is_told_from_a_mirror_that_is_gone(checkout: Path, tools: Path, words: str) -> None:
    (tools / "fail").write_text(f"{words}\nI: main() received signal HUP: waiting...\nE: mmdebstrap failed to run\n")
    with pytest.raises(BadInput) as caught:
        staging_image.build(checkout, Silent())
    assert caught.value.slug == "disk-full"
    assert words.splitlines()[0] in caught.value.fact
    assert "TMPDIR" in caught.value.remedy


def test_what_a_killed_build_left_goes_with_the_next(checkout: Path, tools: Path) -> None:
    cache = rootfs.cache_dir()
    (cache / "tmpkilled" / "half").mkdir(parents=True)
    (cache / "nova-staging-0.oci.tar.partial").touch()
    image = staging_image.build(checkout, Silent())
    left = {path.name for path in cache.iterdir() if path.is_dir() or path.suffix == ".partial"}
    assert left == set()
    assert image.archive.exists()


def test_a_note_that_a_full_disk_left_empty_is_not_believed(checkout: Path, tools: Path) -> None:
    image = staging_image.build(checkout, Silent())
    (note,) = rootfs.cache_dir().glob("base-*.sha256")
    note.write_text("")
    assert staging_image.build(checkout, Silent()) == image
    assert len(note.read_text()) == 64


def test_a_disk_that_fills_while_an_archive_is_written_is_named(
    checkout: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(oci, "_write", full)
    with pytest.raises(OSError, match="No space left") as caught:
        staging_image.build(checkout, Silent())
    assert "nova-staging-" in caught.value.filename
    assert not list(rootfs.cache_dir().glob("nova-staging-*"))
    monkeypatch.undo()


def test_what_makes_a_base_is_asked_for_only_where_one_is_to_be_made(checkout: Path, tools: Path) -> None:
    lists = staging_image.lists(checkout)
    with pytest.raises(BadInput) as caught:
        rootfs.refuse_unmakeable(lists, lambda _: None)
    assert caught.value.slug == "mmdebstrap-missing"
    rootfs.refuse_unmakeable(lists)
    staging_image.build(checkout, Silent())
    rootfs.refuse_unmakeable(lists, lambda _: None)


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
