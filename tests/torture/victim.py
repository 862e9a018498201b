"""The product's own command line, which dies by SIGKILL at a chosen step.

    python -m tests.torture.victim append:undo.stored#1 run FILE ...
    python -m tests.torture.victim "write:patch Deployment#2:before" run FILE ...
    python -m tests.torture.victim "held:patch Deployment#1" run FILE ...
    python -m tests.torture.victim "held:patch Deployment#1:killed" run FILE ...
    python -m tests.torture.victim count:PATH run FILE ...

A step is told by what it is and how many of its like there were, counted from one: the number of other steps before it
may differ from run to run. An append counts when it is durable; a write when it changes the cluster (dry runs do not)
and comes from the main thread: the lock's renewals have a thread and a time of their own. `held` stands still by
SIGSTOP before the write until somebody sends SIGCONT; `killed` right behind it, also where it is refused. `count` lets
the run live and writes down its steps.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.adapters.file_journal import FileJournal
from harness.adapters.kubernetes import KubeCluster
from harness.adapters.prometheus import Prometheus
from harness.cli import main
from harness.core.event import Record
from harness.ports.metrics import Series

MEASURED = "torture_in_force"
"""What Prometheus would be asked for a measured effect. Nothing scrapes the targets, so it is answered here: 1 once
the fault is injected."""
WRITES = ("create", "replace", "patch", "delete")


class Fate:
    """Counts steps, and ends the process at the one that was chosen."""

    def __init__(self, chosen: str) -> None:
        self._kind, _, rest = chosen.partition(":")
        self._path = Path(rest) if self._kind == "count" else None
        self._step, _, self._moment = ("", "", "") if self._path else rest.partition(":")
        self._appends: list[str] = []
        self._writes: list[str] = []
        self.injected_at = math.inf

    def appended(self, record: Record) -> None:
        """A journal line is durable."""
        self._appends.append(record.event.type)
        if record.event.type == "inject.done":
            self.injected_at = time.time()
        if self._kind == "append" and nth(self._appends) == self._step:
            _die()

    def writing(self, what: str) -> None:
        """A write is about to be sent."""
        self._writes.append(what)
        if self._kind == "write" and self._moment == "before" and self._is_chosen():
            _die()
        if self._kind == "held" and self._is_chosen():
            os.kill(os.getpid(), signal.SIGSTOP)

    def written(self) -> None:
        """A write's reply is there, and nobody knows yet."""
        if self._kind == "held" and self._moment == "killed" and self._is_chosen():
            _die()
        if self._kind == "write" and self._moment == "after" and self._is_chosen():
            _die()

    def survived(self) -> None:
        """The run ended by itself."""
        if self._path is not None:
            self._path.write_text(json.dumps({"appends": self._appends, "writes": self._writes}), encoding="utf-8")

    def _is_chosen(self) -> bool:
        return nth(self._writes) == self._step


def nth(steps: Sequence[str]) -> str:
    """The newest step by what it is and how many of its like there were with it, as in `patch Deployment#2`."""
    return f"{steps[-1]}#{steps.count(steps[-1])}"


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def doom(fate: Fate) -> None:
    """Put the fate's eyes on the journal and on the cluster's writes."""
    append = FileJournal.append

    def appending(journal: FileJournal, record: Record) -> None:
        append(journal, record)
        fate.appended(record)

    grid = Prometheus.grid

    def measuring(metrics: Prometheus, query: str, start: float, end: float, step: float) -> list[Series]:
        if query != MEASURED:
            return grid(metrics, query, start, end, step)
        instants = [start + number * step for number in range(round((end - start) / step) + 1)]
        return [Series({}, tuple((at, float(at >= fate.injected_at)) for at in instants))]

    setattr(FileJournal, "append", appending)  # noqa: B010 - a method is put over another's on purpose
    setattr(Prometheus, "grid", measuring)  # noqa: B010
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
