"""Programs that work for minutes: what becomes of them and of what they made where we are interrupted or killed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.clusters import shell
from harness.clusters.local import machine
from harness.clusters.local.provider import LocalCluster
from harness.clusters.shell import run, work
from harness.core.errors import BadInput, DrillError, Unreachable

TIDY = """#!/bin/sh
trap 'rm -r {room}; exit 25' INT
mkdir {room}
while :; do sleep 0.1; done
"""
"""Removes its folder where it is interrupted, as mmdebstrap and Go do."""
STUBBORN = """#!/bin/sh
trap '' INT
mkdir {room}
exec sleep 60
"""
HARNESS = "import sys; from harness.clusters.shell import work; work(sys.argv[1:])"


def program(tmp_path: Path, text: str) -> tuple[Path, Path]:
    """An executable file of that text, and the folder that it makes."""
    room, file = tmp_path / "room", tmp_path / "program"
    file.write_text(text.format(room=room))
    file.chmod(0o755)
    return file, room


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline, "not within 20 s"
        time.sleep(0.01)


def interrupted_once(room: Path) -> None:
    """Interrupt this very process as soon as the program works."""

    def interrupt() -> None:
        until(room.exists)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt).start()


def test_an_interrupted_program_ends_its_work_itself_and_is_waited_for(tmp_path: Path) -> None:
    file, room = program(tmp_path, TIDY)
    interrupted_once(room)
    with pytest.raises(KeyboardInterrupt):
        work([str(file)])
    assert not room.exists()


def test_one_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "_ENDING_SECONDS", 0.2)
    file, room = program(tmp_path, STUBBORN)
    interrupted_once(room)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        work([str(file)])
    assert time.monotonic() - began < 30


def test_one_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    file, room = program(tmp_path, TIDY)
    with pytest.raises(subprocess.TimeoutExpired):
        work([str(file)], timeout=1)
    assert not room.exists()


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="util-linux has it")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_harness_that_is_killed_leaves_no_program_at_work(tmp_path: Path, how: signal.Signals) -> None:
    file, room = program(tmp_path, TIDY)
    with subprocess.Popen([sys.executable, "-c", HARNESS, str(file)]) as harness:
        until(room.exists)
        harness.send_signal(how)
        assert harness.wait(20) == -how
    until(lambda: not room.exists())


def test_what_a_program_does_to_its_group_is_not_done_to_us(tmp_path: Path) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: heard.append(number))
    try:
        done = work(["sh", "-c", "trap 'exit 7' HUP; kill -HUP 0; sleep 60"])
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (done.returncode, heard) == (7, [])


def test_a_program_that_says_so_has_met_a_full_disk() -> None:
    with pytest.raises(BadInput) as caught:
        run(["sh", "-c", "echo level=info; echo 'ctr: write /x/meta.db: no space left on device: unknown' >&2; exit 1"])
    assert caught.value.slug == "disk-full"
    assert "/x/meta.db" in caught.value.fact
    with pytest.raises(Unreachable) as other:
        run(["sh", "-c", "echo 'ctr: not found' >&2; exit 1"])
    assert other.value.slug == "tool-failed"


@pytest.mark.parametrize(("free", "slug"), [(17 << 20, "disk-full"), (machine.LEAST_BYTES, "cluster-component")])
def test_a_cluster_that_does_not_start_on_a_full_disk_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, slug: str
) -> None:
    class Fails:
        def __init__(self, *_: object) -> None:
            """Takes whatever the real one takes."""

        def all(self) -> None:
            raise Unreachable("cluster-component", "no answer\netcd is gone", expected="one", remedy="read the log")

    monkeypatch.setattr("harness.clusters.local.provider.Start", Fails)
    monkeypatch.setattr(machine, "free_bytes", lambda _: free)
    cluster = LocalCluster("x", state_folder=Path("/x"))
    with pytest.raises(DrillError) as caught:
        cluster._start(None, None, lambda _: None)  # type: ignore[arg-type]
    assert caught.value.slug == slug
    if slug == "disk-full":
        assert "17 MiB are left under /x/x" in caught.value.fact
        assert "make room" in caught.value.remedy
