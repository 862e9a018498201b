"""The queue against a real Redis: nothing accepted is lost, nothing is counted twice."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread

import pytest
import yaml

from staging.api import Api
from staging.jobs import DEAD, GROUP, STREAM, Queue
from staging.resp import Redis, ReplyError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def queue(redis: Redis) -> Queue:
    queue = Queue(redis)
    queue.ensure()
    queue.ensure()  # a second worker does the same
    return queue


def test_depth_counts_waiting_and_in_flight(queue: Queue) -> None:
    for ticket in range(3):
        queue.submit("acme", ticket, 1.0)
    job = queue.take("w1", block_ms=10)
    assert job is not None
    assert (job.tenant, job.ticket, job.deliveries) == ("acme", 0, 1)
    state = queue.state()
    assert (state.depth, state.in_flight, state.accepted, state.processed) == (3, 1, 3, 0)
    assert queue.finish(job, cost=4)
    state = queue.state()
    assert (state.depth, state.in_flight, state.processed, state.spent) == (2, 0, 1, 4)
    assert state.delay_sum >= 0


def test_a_job_finished_twice_is_counted_once(queue: Queue) -> None:
    queue.submit("acme", 1, 1.0)
    job = queue.take("w1", block_ms=10)
    assert job is not None
    assert queue.finish(job, cost=1)
    assert not queue.finish(job, cost=1)
    assert (queue.state().processed, queue.state().spent) == (1, 1)


def test_the_job_of_a_dead_worker_goes_to_another_with_its_count(queue: Queue) -> None:
    queue.submit("acme", 7, 1.0)
    held = queue.take("dead", block_ms=10)
    assert held is not None
    assert queue.rescue("w2", idle_ms=60_000) is None, "a job in good hands is left there"
    time.sleep(0.03)
    rescued = queue.rescue("w2", idle_ms=20)
    assert rescued is not None
    assert (rescued.id, rescued.ticket, rescued.deliveries) == (held.id, 7, 2)
    assert queue.finish(rescued, cost=1)
    assert queue.state().depth == 0


def test_a_buried_job_is_off_the_queue_and_can_be_looked_at(queue: Queue, redis: Redis) -> None:
    queue.submit("acme", 7, 1.0)
    job = queue.take("w1", block_ms=10)
    assert job is not None
    assert queue.bury(job)
    assert not queue.bury(job)
    state = queue.state()
    assert (state.depth, state.dead, state.processed) == (0, 1, 0)
    assert redis.command("XLEN", DEAD) == 1


def test_a_worker_that_leaves_is_forgotten_unless_it_holds_a_job(queue: Queue, redis: Redis) -> None:
    queue.submit("acme", 7, 1.0)
    job = queue.take("holder", block_ms=10)
    assert job is not None
    queue.take("idle", block_ms=10)
    queue.leave("holder")
    queue.leave("idle")
    consumers = redis.command("XINFO", "CONSUMERS", STREAM, GROUP)
    assert isinstance(consumers, list)
    assert [c[1] for c in consumers if isinstance(c, list)] == [b"holder"]


def test_an_empty_queue_answers_none_and_age_zero(queue: Queue) -> None:
    assert queue.take("w1", block_ms=10) is None
    assert queue.rescue("w1", idle_ms=0) is None
    assert queue.state().oldest_age == 0


def test_a_refusal_is_an_error_and_the_connection_stays_usable(redis: Redis) -> None:
    with pytest.raises(ReplyError, match="unknown command"):
        redis.command("NO-SUCH-COMMAND")
    assert redis.command("PING") == b"PONG"


def test_large_values_come_back_whole(redis: Redis) -> None:
    redis.command("SET", "k", b"\r\n" * 100_000)
    assert redis.command("GET", "k") == b"\r\n" * 100_000


@contextmanager
def serving(redis_port: int) -> Iterator[str]:
    server = Api(("127.0.0.1", 0), "127.0.0.1", redis_port, budget=100)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetch(url: str, body: bytes | None = None) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=5) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_api_takes_jobs_and_tells_prometheus(queue: Queue, redis_port: int) -> None:
    with serving(redis_port) as url:
        status, body = fetch(url + "/jobs", b'{"tenant": "acme", "ticket": 512}')
        assert status == 202, body
        status, text = fetch(url + "/metrics")
        assert status == 200
        lines = text.splitlines()
        assert {"nova_queue_depth 1", "nova_jobs_accepted_total 1", "nova_budget_spent_ratio 0"} <= set(lines)
        assert fetch(url + "/readyz")[0] == 200


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"tenant": "acme"}', b'{"tenant": "a", "ticket": "x"}', b"x" * 20_000])
def test_the_api_refuses_what_is_no_job(queue: Queue, redis_port: int, body: bytes) -> None:
    with serving(redis_port) as url:
        assert fetch(url + "/jobs", body)[0] == 400
    assert queue.state().depth == 0


def test_without_redis_the_depth_is_absent_rather_than_zero() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        nobody = probe.getsockname()[1]
    with serving(nobody) as url:
        status, text = fetch(url + "/metrics")
        assert status == 200
        assert "nova_queue_up 0" in text.splitlines()
        assert "nova_queue_depth" not in text
        assert fetch(url + "/readyz")[0] == 503
        assert fetch(url + "/jobs", b'{"tenant": "acme", "ticket": 1}')[0] == 503


def test_the_manifest_lets_the_parts_use_the_queue_and_not_flush_or_reconfigure_the_server(
    redis: Redis, redis_port: int
) -> None:
    (manifest, _) = yaml.safe_load_all((ROOT / "manifests" / "staging" / "redis.yaml").read_text(encoding="utf-8"))
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    arguments = container["args"]
    name, *rights = arguments[arguments.index("--user") + 1 :]
    assert name == "default"
    redis.command("ACL", "SETUSER", "part", "reset", *rights)
    with closing(Redis("127.0.0.1", redis_port)) as connection:
        connection.command("AUTH", "part", "any")
        queue = Queue(connection)
        queue.ensure()
        queue.submit("acme", 1, 1.0)
        job = queue.take("w1", block_ms=10)
        assert job is not None
        assert queue.rescue("w2", idle_ms=0) is not None
        assert queue.finish(job, cost=1)
        queue.submit("acme", 2, 1.0)
        job = queue.take("w1", block_ms=10)
        assert job is not None
        queue.bury(job)
        queue.leave("w1")
        assert queue.state().dead == 1
        for words in (("FLUSHALL",), ("CONFIG", "GET", "dir"), ("REPLICAOF", "NO", "ONE"), ("SET", "other", "1")):
            with pytest.raises(ReplyError, match="NOPERM"):
                connection.command(*words)


def test_the_staging_system_knows_nothing_of_the_harness() -> None:
    for source in (ROOT / "staging").glob("*.py"):
        text = source.read_text(encoding="utf-8")
        assert "import harness" not in text
        assert "from harness" not in text
