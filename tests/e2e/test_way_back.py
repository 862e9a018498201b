"""What dies, freezes or is halted on the real cluster, and who brings things back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.core.event import EffectProved, RunEnded, StopAsked, UndoDone
from harness.engine.sweeper import REVERTS_WITHIN
from tests.e2e.conftest import NAMESPACE, Product

pytestmark = pytest.mark.cluster

FROZEN = 30.0
"""Seconds; twice what the lock lasts."""


def api_server(product: Product) -> int:
    """The process id of this cluster's kube-apiserver, and of no other cluster's."""
    folder = os.fsencode(product.access.kubeconfig.parent) + b"/"
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if command.split(b"\0")[0].endswith(b"kube-apiserver") and folder in command:
                return int(entry.name)
    raise AssertionError("no API server of this cluster runs here")


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_frozen_api_server_ends_the_run_undone_and_undecided(product: Product) -> None:
    before = product.deployment()
    process = product.start("run", "oom-workers")
    product.until(product.saw(EffectProved), process)
    with stopped(api_server(product)):
        time.sleep(FROZEN)
        assert process.poll() is None, "it waits to undo what it did"
        assert not product.saw(UndoDone)() or all(
            event.outcome == "failed" for event in product.events() if isinstance(event, UndoDone)
        )
    assert process.wait(timeout=90) == 2, product.output(process)
    events = product.events()
    stop = next(event for event in events if isinstance(event, StopAsked))
    assert stop.by == "the API server"
    undone = [event.outcome for event in events if isinstance(event, UndoDone)]
    assert undone[-1] in {"restored", "already"}, "nobody else acted: the lock was still ours when the server answered"
    assert product.deployment() == before
    assert product.leftovers() == ""


def test_halting_ends_a_running_drill_and_refuses_the_next(product: Product) -> None:
    before = product.deployment()
    process = product.start("run", "oom-workers")
    product.until(product.saw(EffectProved), process)
    try:
        halted = product.drill("halt", "release 42")
        assert halted.returncode == 0, halted.stdout + halted.stderr
        assert NAMESPACE in halted.stdout
        assert process.wait(timeout=90) == 2, product.output(process)
        assert product.deployment() == before
        assert product.leftovers() == ""
        stop = next(event for event in product.events() if isinstance(event, StopAsked))
        assert stop.by == "the stop switch"
        assert "release 42" in stop.detail
        refused = product.drill("run", "oom-workers", "--no-setup")
        assert refused.returncode == 3
        assert "halted" in refused.stdout + refused.stderr
        assert "HALTED" in product.drill("status").stdout
    finally:
        resumed = product.drill("resume")
    assert resumed.returncode == 0
    assert "allowed again" in resumed.stdout


def killed_in_the_middle(product: Product) -> tuple[str, float]:
    """A run that was killed while its fault was in force: its id, and when it died."""
    process = product.start("run", "oom-workers")
    product.until(product.saw(EffectProved), process)
    assert product.limit() == "64Mi"
    process.kill()
    process.wait()
    died_at = time.monotonic()
    (run,) = (path.name for path in product.runs.glob("2*"))
    return run, died_at


def test_the_sweeper_in_the_cluster_undoes_a_dead_run_in_time(product: Product) -> None:
    before = product.deployment()
    run, died_at = killed_in_the_middle(product)
    while product.limit() != "128Mi":
        assert time.monotonic() - died_at < REVERTS_WITHIN, "the sweeper is late"
        time.sleep(0.2)
    assert product.deployment() == before

    def noted() -> bool:
        return f"fault memory of run {run} was undone by sweeper" in product.drill("status").stdout

    while not noted():
        assert time.monotonic() - died_at < 120
        time.sleep(1.0)
    fetched = product.drill("recover")
    assert fetched.returncode == 0, fetched.stdout + fetched.stderr
    assert "nothing to recover" in fetched.stdout
    ended = next(event for event in product.events() if isinstance(event, RunEnded))
    assert (ended.reason, ended.by) == ("recovered", "recover")
    assert "sweeper" in ended.detail
    report = json.loads((product.runs / run / "report.json").read_text(encoding="utf-8"))
    assert report["headline"]["verdict"] == "UNDECIDED"
    assert product.leftovers() == ""


def test_another_machine_without_the_runs_folder_recovers_the_same(product: Product, tmp_path: Path) -> None:
    before = product.deployment()
    run, _ = killed_in_the_middle(product)
    kept = product.runs / run
    hidden = shutil.move(kept, tmp_path / "hidden")
    done = product.drill("recover")
    assert done.returncode == 0, done.stdout + done.stderr
    assert product.deployment() == before
    assert not kept.exists()
    assert f"drill-recovered-{run}-memory" in product.leftovers(), "a note for the machine that has the journal"
    shutil.move(hidden, kept)
    fetched = product.drill("recover")
    assert fetched.returncode == 0
    assert any(isinstance(event, RunEnded) for event in product.events(kept))
    assert product.leftovers() == ""
