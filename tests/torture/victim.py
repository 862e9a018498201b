"""The product's own command line, which dies by SIGKILL at a chosen step.

    python -m tests.torture.victim append:12 run FILE ...
    python -m tests.torture.victim write:3:before run FILE ...
    python -m tests.torture.victim held:3 run FILE ...
    python -m tests.torture.victim held:3:killed run FILE ...
    python -m tests.torture.victim count:PATH run FILE ...
    python -m tests.torture.victim live: run FILE ...

An append counts when it is durable; a write when it changes the cluster (dry runs do not) and comes from the main
thread: the lock's renewals have a thread and a time of their own. `held` stands still by SIGSTOP before the write
until somebody sends SIGCONT; `killed` right behind it, also where it is refused. `count` lets the run live and writes
down its steps; `live` lets it live.

A query for `INJECTED` is answered here and not by Prometheus: 1 from the moment on that the fault's write was answered.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.adapters.file_journal import FileJournal
from harness.adapters.kubernetes import KubeCluster
from harness.adapters.prometheus import Prometheus
from harness.cli import main
from harness.core.event import InjectDone, Record
from harness.ports.metrics import Series

INJECTED = "drill_torture_injected"
WRITES = ("create", "replace", "patch", "delete")


class Fate:
    """Counts steps, and ends the process at the one that was chosen."""

    def __init__(self, chosen: str) -> None:
        self._kind, _, rest = chosen.partition(":")
        self._path = Path(rest) if self._kind == "count" else None
        index, _, self._moment = rest.partition(":")
        self._index = int(index) if self._kind not in {"count", "live"} else -1
        self._injected_at: float | None = None
        self._appends: list[str] = []
        self._writes: list[str] = []

    def appended(self, record: Record) -> None:
        """A journal line is durable."""
        if isinstance(record.event, InjectDone) and record.event.outcome != "failed":
            self._injected_at = record.event.at.latest
        self._appends.append(record.event.type)
        if self._kind == "append" and len(self._appends) == self._index:
            _die()

    def writing(self, what: str) -> None:
        """A write is about to be sent."""
        self._writes.append(what)
        if self._kind == "write" and self._moment == "before" and len(self._writes) == self._index:
            _die()
        if self._kind == "held" and len(self._writes) == self._index:
            os.kill(os.getpid(), signal.SIGSTOP)

    def written(self) -> None:
        """A write's reply is there, and nobody knows yet."""
        if self._kind == "held" and self._moment == "killed" and len(self._writes) == self._index:
            _die()
        if self._kind == "write" and self._moment == "after" and len(self._writes) == self._index:
            _die()

    def injected(self, start: float, end: float, step: float) -> list[Series]:
        """Whether the fault's write was answered, as samples."""
        stamps = [start + number * step for number in range(round((end - start) / step) + 1)]
        known = self._injected_at
        return [Series({}, tuple((at, float(known is not None and at >= known)) for at in stamps))]

    def survived(self) -> None:
        """The run ended by itself."""
        if self._path is not None:
            self._path.write_text(json.dumps({"appends": self._appends, "writes": self._writes}), encoding="utf-8")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def doom(fate: Fate) -> None:
    """Put the fate's eyes on the journal and on the cluster's writes."""
    append = FileJournal.append

    def appending(journal: FileJournal, record: Record) -> None:
        append(journal, record)
        fate.appended(record)

    setattr(FileJournal, "append", appending)  # noqa: B010 - a method is put over another's on purpose
    grid = Prometheus.grid

    def gridded(metrics: Prometheus, query: str, start: float, end: float, step: float) -> list[Series]:
        return fate.injected(start, end, step) if query == INJECTED else grid(metrics, query, start, end, step)

    setattr(Prometheus, "grid", gridded)  # noqa: B010 - as above
    for name in WRITES:
        setattr(KubeCluster, name, _watched(name, getattr(KubeCluster, name), fate))


def _watched(name: str, real: Callable[..., Any], fate: Fate) -> Callable[..., Any]:
    def call(cluster: KubeCluster, *arguments: Any, **options: Any) -> Any:
        if options.get("dry_run") or threading.current_thread() is not threading.main_thread():
            return real(cluster, *arguments, **options)
        about = arguments[0]
        fate.writing(f"{name} {about['kind'] if isinstance(about, dict) else about.kind}")
        try:
            return real(cluster, *arguments, **options)
        finally:
            fate.written()

    return call


if __name__ == "__main__":
    fate = Fate(sys.argv[1])
    doom(fate)
    code = main(sys.argv[2:])
    fate.survived()
    sys.exit(code)
