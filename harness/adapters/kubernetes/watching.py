"""List, then watch, for as long as anybody wants to know.

The network is read on a thread of its own, so that a stop takes effect at once even when the server is silent or
frozen: whoever listens waits on a queue, and the abandoned connection is shut down behind it. A cut or a silence
resumes from the last version seen; a version that the server has forgotten (410 as a status or inside the stream)
lists again and says so with a sync.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from threading import Event as Flag
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Literal

from harness.adapters.kubernetes.answers import Asked, Expired, expired, unreachable
from harness.adapters.kubernetes.wire import JSON, METADATA, METADATA_LIST, Wire
from harness.core.errors import DrillError, Unreachable
from harness.ports.cluster import Json, WatchEvent
from harness.ports.kinds import Kind
from harness.ports.payload import parsed
from harness.ports.retry import Transient, jitter
from harness.ports.sealed import KINDS as SEALED
from harness.ports.sealed import sealed

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

_TYPES: dict[str, Literal["added", "modified", "deleted"]] = {
    "ADDED": "added",
    "MODIFIED": "modified",
    "DELETED": "deleted",
}
_SLICE = 0.25
"""Seconds between looks at the stop flag while nothing happens."""


class Watch:
    """One watch. `events` may be consumed once."""

    def __init__(self, wire: Wire, kind: Kind, namespace: str, labels: str, stop: Flag, *, name: str = "") -> None:
        self._wire = wire
        self._timing = wire.timing
        self._kind = kind
        self._path = kind.path(namespace)
        # RBAC lets a watch be granted by resourceNames only where it selects by metadata.name.
        chosen = (("labelSelector", labels), ("fieldSelector", f"metadata.name={name}" if name else ""))
        self._selector = tuple((key, value) for key, value in chosen if value)
        self._sealed = kind.name in SEALED
        self._asked = Asked(f"watch {kind.plural}" + (f" in {namespace}" if namespace else ""), sealed=self._sealed)
        self._stop = stop
        self._over = Flag()
        self._queue: SimpleQueue[WatchEvent | DrillError] = SimpleQueue()
        self._lock = Lock()
        self._response: BaseHTTPResponse | None = None
        self._pause = 0.0
        self._version = ""

    def events(self) -> Iterator[WatchEvent]:
        """Until the stop flag is set; ends within a quarter of a second of it."""
        thread = Thread(target=self._pump, name=self._asked.what, daemon=True)
        thread.start()
        try:
            while not self._stop.is_set():
                try:
                    item = self._queue.get(timeout=_SLICE)
                except Empty:
                    if not thread.is_alive() and self._queue.empty():
                        raise unreachable(self._asked, "its reader ended", sent=True) from None
                    continue
                if isinstance(item, DrillError):
                    raise item
                yield item
        finally:
            self._over.set()
            self._cut()

    # ------------------------------------------------------------------------- on the reading thread

    def _pump(self) -> None:
        lost_at: float | None = None
        while not self._over.is_set():
            try:
                if not self._version:
                    self._list()
                    lost_at = None
                with self._connected():
                    lost_at = None
                    self._follow()
                continue
            except Expired:
                self._version = ""
            except Transient as error:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at >= self._timing.give_up:
                    self._queue.put(self._lost(error))
                    return
                self._over.wait(min(error.retry_after, self._timing.give_up))
            except DrillError as error:
                self._queue.put(error)
                return
            self._back_off()

    def _list(self) -> None:
        accept = METADATA_LIST if self._sealed else JSON
        answer = self._wire.json("GET", self._path, self._asked, query=self._selector, accept=accept)
        version = (answer.get("metadata") or {}).get("resourceVersion")
        if not version:
            raise unreachable(self._asked, "its list has no version to go on from", sent=True)
        items = tuple(filled(self._kind, answer, self._asked))
        self._version = str(version)
        self._queue.put(WatchEvent("sync", items=items))

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Hold a stream that the server has accepted, where `_cut` can reach it."""
        query = (
            *self._selector,
            ("watch", "true"),
            ("resourceVersion", self._version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(max(1, int(self._timing.watch)))),
        )
        silence = self._timing.watch + self._timing.grace
        accept = METADATA if self._sealed else JSON
        response = self._wire.open(self._path, self._asked, query=query, silence=silence, accept=accept)
        with self._lock:
            self._response = response
        if self._over.is_set():
            self._cut()
        try:
            yield
        finally:
            with self._lock:
                self._response = None
            response.close()

    def _follow(self) -> None:
        """Hand on what the stream says until it ends. Raises Transient or Expired."""
        response = self._response
        if response is None:
            return
        begun, told = time.monotonic(), False
        for line in self._wire.lines(response, self._asked):
            if self._over.is_set():
                return
            self._take(line)
            self._pause, told = 0.0, True
        if not told and time.monotonic() - begun < 1.0:
            self._back_off()

    def _take(self, line: bytes) -> None:
        """Hand one line on, and remember the version that it brings us to."""
        try:
            event = parsed(line)
            kind, body = event["type"], event["object"]
            if kind == "ERROR":
                self._failed(body)
            version = str(body["metadata"]["resourceVersion"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise unreachable(self._asked, f"a line of the stream is not an event ({error!r})", sent=True) from error
        if kind in _TYPES and not _is_object(body):
            raise unreachable(self._asked, "a line of the stream holds no object of the API", sent=True)
        if kind in _TYPES:
            self._queue.put(WatchEvent(_TYPES[kind], items=(sealed(self._kind.name, body),)))
        self._version = version

    def _failed(self, status: Json) -> None:
        if status.get("code") == 410:
            raise expired(self._asked, str(status.get("message")))
        raise unreachable(self._asked, f"the stream says {status.get('code')}: {status.get('message')}", sent=True)

    def _lost(self, error: Unreachable) -> Unreachable:
        return Unreachable(
            "watch-lost",
            f"no connection for {self._timing.give_up:.0f} s: {error.fact}",
            expected=error.expected,
            remedy=error.remedy,
        )

    def _back_off(self) -> None:
        """Wait a random time below a bound that doubles from 0.1 s to 5 s."""
        self._pause = min(5.0, max(0.1, self._pause * 2))
        self._over.wait(self._pause * jitter(0.5, 1.0))

    def _cut(self) -> None:
        """Wake the reader from a blocking read."""
        with self._lock:
            response, self._response = self._response, None
        if response is not None:
            try:
                response.shutdown()
            except (ValueError, RuntimeError, OSError):
                return


def filled(kind: Kind, answer: dict[str, Any], asked: Asked) -> list[Json]:
    """A list's items, each with the apiVersion and kind that the API server leaves out of lists. Raises Unreachable
    where they are not objects with a name and a uid."""
    items = answer.get("items") or []
    if not isinstance(items, list) or not all(_is_object(item) for item in items):
        raise unreachable(asked, "its list holds something that is no object of the API", sent=True)
    return [sealed(kind.name, {"apiVersion": kind.api_version, "kind": kind.name, **item}) for item in items]


def _is_object(item: Any) -> bool:
    meta = item.get("metadata") if isinstance(item, dict) else None
    return isinstance(meta, dict) and isinstance(meta.get("name"), str) and isinstance(meta.get("uid"), str)
