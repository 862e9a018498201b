"""How a run ends for whoever started it: signals, a journal that broke, targets moved afterwards."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from harness.adapters.file_journal import FileJournal
from harness.clusters.provider import Access
from harness.core.errors import BadInput, DrillError, Internal, RollbackIncomplete, disk_full
from harness.core.event import InjectStarted, RunStarted
from harness.core.history import entry
from harness.loading import parse
from harness.ports.progress import Silent
from harness.wiring import commands
from harness.wiring import session as module
from harness.wiring.judging import read_run
from harness.wiring.settings import Phases, Settings, existing_access
from tests.fakes.drill import experiment_data


def written(tmp_path: Path, **changes: Any) -> Path:
    experiment = parse(experiment_data())
    from harness.core.history import History

    started = RunStarted(
        run_id="run-1", experiment=experiment.as_data() | changes, experiment_path="p", digest=experiment.digest(),
        profile="smoke", responder="human", harness_version="0", cluster={}, identity="i",
    )  # fmt: skip
    FileJournal(tmp_path).append(entry(History(), started, 1000.0))
    return tmp_path


def test_targets_cannot_be_moved_after_the_run(tmp_path: Path) -> None:
    read_run(written(tmp_path / "honest"))
    moved = json.loads(json.dumps(parse(experiment_data()).as_data()["slas"]).replace('"5m"', '"50m"'))
    with pytest.raises(BadInput) as refused:
        read_run(written(tmp_path / "moved", slas=moved))
    assert refused.value.slug == "thresholds-moved"


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_lost_terminal_stops_a_run_unless_nohup_said_otherwise(before: signal.Handlers) -> None:
    kept = signal.signal(signal.SIGHUP, before)
    seen: list[Any] = []
    try:
        with module._stop_signals(seen.append):
            os.kill(os.getpid(), signal.SIGHUP) if before is signal.SIG_IGN else signal.raise_signal(signal.SIGHUP)
        assert len(seen) == (0 if before is signal.SIG_IGN else 1)
        if before is signal.SIG_DFL:
            with pytest.raises(KeyboardInterrupt), module.terminable():
                signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is before
    finally:
        signal.signal(signal.SIGHUP, kept)


def test_a_set_up_without_a_run_is_stopped_like_by_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def set_up(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(commands, "set_up", set_up)
    with pytest.raises(KeyboardInterrupt):
        commands.cluster_up(Settings(), Silent())


@pytest.mark.parametrize(
    "broken",
    [
        Internal("journal-not-durable", "input/output error", expected="space", remedy="free some"),
        disk_full("event 3 could not be made durable"),
    ],
)
def test_a_broken_journal_does_not_hide_an_incomplete_rollback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: DrillError
) -> None:
    class Peer:
        def close(self) -> None:
            """Nothing to give back."""

    def full(*_: object) -> None:
        raise broken

    def drill(_: object, run_id: str, cluster: object, peers: object, recorder: Any, on_view: object) -> None:
        del run_id, cluster, peers, on_view
        recorder.add(InjectStarted(fault="memory"))
        monkeypatch.setattr(FileJournal, "append", full)
        raise RollbackIncomplete("rollback-incomplete", "still broken", expected="clean", remedy="recover")

    monkeypatch.setattr(module, "connect", lambda *_: Peer())
    monkeypatch.setattr(module, "peers_of", lambda *_: Peer())
    monkeypatch.setattr(module._Session, "_drill", drill)
    access = Access("context", "there", tmp_path / "kubeconfig", "there", None)
    run = module._Session(
        Settings(runs=tmp_path), access, parse(experiment_data()), "p", "smoke", "human", Phases(), Silent()
    )  # fmt: skip
    with pytest.raises(RollbackIncomplete):
        run.run(lambda _: None, None)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        (Settings(cluster="pod"), "--cluster context"),
        (Settings(cluster="local", name="none"), "drill cluster up"),
        (Settings(cluster="context", context="none", kubeconfig=Path("none")), "get-contexts"),
    ],
    ids=lambda one: getattr(one, "cluster", ""),
)
def test_a_cluster_that_is_not_there_is_told_with_the_remedy_of_its_kind(
    settings: Settings, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(BadInput) as refused:
        existing_access(settings)
    assert remedy in refused.value.remedy
