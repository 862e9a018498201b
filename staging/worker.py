"""The worker: one process, PID 1 of its container, one job at a time.

One process, because on cgroup v1 the kernel kills only the process that asked for too much: with a forking worker
the pod would never show `OOMKilled`.

A job needs `WORKING_MIB` of memory and one answer of a vendor. The memory is real: every page of it is written for
every job. It is kept between jobs, as an allocator keeps its arena, so the first job pays for the page faults and
the later ones only for the writes. Under a limit below its need a worker therefore dies on its first job, holding
it; `Queue.rescue` brings that job back.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import TYPE_CHECKING, Protocol

from staging.jobs import Job, Queue
from staging.resp import Redis, ReplyError
from staging.service import answer_probes, log, setting, stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = mmap.PAGESIZE
COST = 1
"""Cost units of one finished job; the budget is stated in the same unit."""


class Memory:
    """Working memory of a fixed size. Nothing is resident until the first `touch`."""

    def __init__(self, mib: int) -> None:
        self.mib = mib
        self._map = mmap.mmap(-1, mib * 1024 * 1024)
        self._pages = mib * 1024 * 1024 // PAGE

    def touch(self, mark: int) -> None:
        """Write one byte to every page."""
        self._map[::PAGE] = bytes([mark % 256]) * self._pages


class Jobs(Protocol):
    """The part of the queue that a worker uses."""

    def take(self, consumer: str, *, block_ms: int) -> Job | None:
        """A new job or None."""

    def rescue(self, consumer: str, *, idle_ms: int) -> Job | None:
        """A lost job or None."""

    def finish(self, job: Job, *, cost: int) -> bool:
        """Done."""

    def bury(self, job: Job) -> bool:
        """Given up."""


class Worker:
    """The loop, one round at a time, with its collaborators from outside.

    `clock` is monotonic, in seconds; `vendor` waits for as many seconds as it is told.
    """

    BLOCK_MS = 500
    RESCUE_EVERY_S = 1.0

    def __init__(
        self,
        queue: Jobs,
        name: str,
        *,
        touch: Callable[[int], None],
        vendor: Callable[[float], object],
        vendor_seconds: float,
        idle_ms: int,
        max_deliveries: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._name = name
        self._touch = touch
        self._vendor = vendor
        self._vendor_seconds = vendor_seconds
        self._idle_ms = idle_ms
        self._max_deliveries = max_deliveries
        self._clock = clock
        self._looked = clock()
        self.finished = 0
        self.last_round: float | None = None
        """When the last whole round ended; None before the first. Readiness rests on it."""

    def round(self) -> None:
        """One job, or one look at an empty queue."""
        job = self._lost() or self._queue.take(self._name, block_ms=self.BLOCK_MS)
        if job is None:
            # An empty queue is the one time when a worker that has proved nothing yet may look after lost jobs.
            job = self._queue.rescue(self._name, idle_ms=self._idle_ms)
        if job is not None:
            self._do(job)
        self.last_round = self._clock()

    def _lost(self) -> Job | None:
        # Only a worker that has finished a job looks for lost ones while there are new ones: a worker that crashes
        # on its first job can then never use up the deliveries of a job, however often it is restarted.
        now = self._clock()
        if not self.finished or now - self._looked < self.RESCUE_EVERY_S:
            return None
        self._looked = now
        return self._queue.rescue(self._name, idle_ms=self._idle_ms)

    def _do(self, job: Job) -> None:
        if job.deliveries > self._max_deliveries:
            self._queue.bury(job)
            log("job buried", job=job.id, deliveries=job.deliveries)
            return
        self._touch(self.finished + 1)
        self._vendor(self._vendor_seconds * job.weight)
        self._queue.finish(job, cost=COST)
        self.finished += 1


def main() -> None:
    """Work until SIGTERM; then finish the job in hand and leave."""
    stop = stop_on_signals()
    name = os.environ.get("HOSTNAME", "worker")
    memory = Memory(int(setting("WORKING_MIB", 68)))
    redis = Redis(os.environ.get("REDIS_HOST", "redis"))
    queue = Queue(redis)
    worker = Worker(
        queue,
        name,
        touch=memory.touch,
        # Not cut short by SIGTERM: the job in hand is finished, which takes less than the grace period.
        vendor=time.sleep,
        vendor_seconds=setting("VENDOR_SECONDS", 0.19),
        idle_ms=int(setting("RESCUE_IDLE_MS", 2000)),
        max_deliveries=int(setting("MAX_DELIVERIES", 5)),
    )

    def ready() -> bool:
        return worker.last_round is not None and time.monotonic() - worker.last_round < 5

    answer_probes(int(setting("PORT", 8081)), ready)
    # The last line of a worker that the kernel kills: `kubectl logs --previous` shows it.
    log("worker starts", name=name, working_memory_mib=memory.mib)
    first = True
    while not stop.is_set():
        try:
            queue.ensure()
            while not stop.is_set():
                worker.round()
                if first and worker.finished:
                    log("first job finished", name=name)
                    first = False
        except (OSError, ReplyError) as error:
            log("queue unreachable", error=repr(error))
            redis.close()
            stop.wait(1)
    try:
        queue.leave(name)
    except (OSError, ReplyError) as error:
        log("left without saying so", error=repr(error))
    log("worker ends", name=name, finished=worker.finished)


if __name__ == "__main__":
    main()
