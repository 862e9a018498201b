"""What the worker promises about jobs, without Redis: order, rescue, burial."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from staging.jobs import Job
from staging.worker import PAGE, Memory, Worker


@dataclass
class FakeQueue:
    """Jobs in lists; every call is noted."""

    new: list[Job] = field(default_factory=list)
    lost: list[Job] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def take(self, consumer: str, *, block_ms: int) -> Job | None:
        self.calls.append("take")
        return self.new.pop(0) if self.new else None

    def rescue(self, consumer: str, *, idle_ms: int) -> Job | None:
        self.calls.append("rescue")
        return self.lost.pop(0) if self.lost else None

    def finish(self, job: Job, *, cost: int) -> bool:
        self.calls.append(f"finish {job.id}")
        return True

    def bury(self, job: Job) -> bool:
        self.calls.append(f"bury {job.id}")
        return True


@dataclass
class Bench:
    """A worker with a queue of lists and a clock of our own."""

    queue: FakeQueue
    now: float = 0.0
    waited: list[float] = field(default_factory=list)
    touched: list[int] = field(default_factory=list)

    def worker(self) -> Worker:
        return Worker(
            self.queue,
            "w1",
            touch=self.touched.append,
            vendor=self.waited.append,
            vendor_seconds=0.2,
            idle_ms=2000,
            max_deliveries=5,
            clock=lambda: self.now,
        )


def job(ident: str, *, deliveries: int = 1, weight: float = 1.0) -> Job:
    return Job(ident, "acme", 1, weight, deliveries)


def test_a_job_takes_memory_then_time_and_is_finished() -> None:
    bench = Bench(FakeQueue(new=[job("1-0", weight=1.2)]))
    worker = bench.worker()
    worker.round()
    assert bench.queue.calls == ["take", "finish 1-0"]
    assert bench.touched == [1]
    assert bench.waited == [pytest.approx(0.24)]


def test_a_worker_that_has_finished_nothing_leaves_lost_jobs_to_others_while_there_are_new_ones() -> None:
    bench = Bench(FakeQueue(new=[job("1-0"), job("2-0")], lost=[job("0-1", deliveries=2)]))
    worker = bench.worker()
    bench.now = 60.0
    worker.round()
    assert "rescue" not in bench.queue.calls
    worker.round()
    assert bench.queue.calls[-1] == "finish 0-1"


def test_an_empty_queue_lets_even_a_fresh_worker_rescue() -> None:
    bench = Bench(FakeQueue(lost=[job("0-1", deliveries=2)]))
    bench.worker().round()
    assert bench.queue.calls == ["take", "rescue", "finish 0-1"]


def test_rescue_is_looked_for_once_a_second_at_most() -> None:
    bench = Bench(FakeQueue(new=[job(f"{n}-0") for n in range(1, 11)]))
    worker = bench.worker()
    for _ in range(10):
        worker.round()
        bench.now += 0.25
    assert bench.queue.calls.count("rescue") == 2


@pytest.mark.parametrize(("deliveries", "buried"), [(5, False), (6, True)])
def test_a_job_that_kills_its_workers_is_buried_untouched(deliveries: int, buried: bool) -> None:
    bench = Bench(FakeQueue(lost=[job("0-1", deliveries=deliveries)]))
    bench.worker().round()
    assert bench.queue.calls[-1] == ("bury 0-1" if buried else "finish 0-1")
    assert bool(bench.touched) is not buried


def test_there_is_no_last_round_before_the_first_ends_so_a_dying_worker_is_never_ready() -> None:
    bench = Bench(FakeQueue(new=[job("1-0")]))
    worker = Worker(
        bench.queue,
        "w1",
        touch=lambda _: (_ for _ in ()).throw(MemoryError),
        vendor=bench.waited.append,
        vendor_seconds=0.2,
        idle_ms=2000,
        max_deliveries=5,
        clock=lambda: bench.now,
    )
    with pytest.raises(MemoryError):
        worker.round()
    assert worker.last_round is None
    assert "finish 1-0" not in bench.queue.calls


def test_memory_is_written_on_every_page() -> None:
    memory = Memory(2)
    memory.touch(7)
    assert memory._map[::PAGE] == bytes([7]) * (2 * 1024 * 1024 // PAGE)
