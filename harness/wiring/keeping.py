"""A copy of a run's journal in the cluster, made while the run goes on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING

from harness.core.errors import DrillError
from harness.wiring.settings import RunOutcome

if TYPE_CHECKING:
    from harness.adapters.kubernetes import KubeCluster
    from harness.engine.results import Copier

FIRST, LONGEST = 5.0, 60.0
"""Seconds between two copies, at the beginning and at most: a run whose pod is killed loses no more of its journal than
what is newer. In between a twentieth of what the run has taken, so that a long one makes few objects."""
_LAST_FOR = 30.0
"""Seconds for which the last copy is tried."""


class Keeping:
    """Copies a run's journal on a thread and a connection of its own, so that nothing in the run ever waits for it."""

    def __init__(
        self, connected: Callable[[], KubeCluster], namespace: str, folder: Path, say: Callable[[str], None]
    ) -> None:
        self._connected = connected
        self._namespace = namespace
        self._folder = folder
        self._say = say
        self._cluster: KubeCluster | None = None
        self._copier: Copier | None = None
        self._over = Flag()
        self._outcome: RunOutcome | None = None
        self._thread = Thread(target=self._go_on, name="drill-keeping", daemon=True)

    def start(self) -> None:
        """Copy from now on."""
        self._thread.start()

    def finish(self, outcome: RunOutcome | None) -> None:
        """Copy the rest, with how the run ended, and let the oldest runs go. What could not be kept is told."""
        self._outcome = outcome
        self._over.set()
        self._thread.join()

    def _go_on(self) -> None:
        began = time.monotonic()
        while not self._over.wait(min(LONGEST, max(FIRST, (time.monotonic() - began) / 20))):
            self._copy()
        until = time.monotonic() + _LAST_FOR
        while (why := self._copy(last=True)) and time.monotonic() < until:
            time.sleep(1.0)
        if why:
            self._say(f"the journal could not be kept in the cluster: {why}; it is in {self._folder}")
        if self._cluster is not None:
            self._cluster.close()

    def _copy(self, *, last: bool = False) -> str:
        """Copy what is new; why that failed, or ""."""
        from harness.engine.results import Copier, prune

        try:
            cluster = self._cluster = self._cluster or self._connected()
            self._copier = self._copier or Copier(cluster, self._namespace, self._folder.name, self._read)
            self._copier.copy(_result(self._outcome) if last and self._outcome is not None else None)
        except DrillError as error:
            return error.fact
        except Exception as error:  # noqa: BLE001 - a copy that dies silently would be missed only when it is needed
            return f"{type(error).__name__}: {error}"
        if last:
            with contextlib.suppress(DrillError):  # what is too much is in nobody's way; the next run tries again
                prune(cluster, self._namespace)
        return ""

    def _read(self, offset: int, size: int) -> bytes:
        try:
            with (self._folder / "journal.jsonl").open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except FileNotFoundError:
            return b""


def _result(outcome: RunOutcome) -> dict[str, object]:
    row = outcome.row
    return {
        "verdict": row.verdict, "exit_code": int(outcome.exit_code), "clean": row.clean, "ended": row.ended,
    }  # fmt: skip
