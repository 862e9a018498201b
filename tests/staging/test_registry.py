"""The registry under a bulk insert, with real files and threads: what blocks whom, and what is told meanwhile."""

from __future__ import annotations

import io
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import Self

import pytest

from staging.bulk_insert import row, send
from staging.latency import BOUNDS, WINDOW, Latency
from staging.metrics import Family, Sample, render
from staging.registry import SNAPSHOT, Exhausted, Malformed, Registry, Skills, lines_of, row_of
from staging.registry_traffic import path as read_path
from staging.steady import Load, times

FAST = 1.0
"""Seconds. Far above what a read takes, far below how long the inserts here hold on."""


@contextmanager
def serving(folder: Path, mode: str, size: int, wait: float = 20) -> Iterator[tuple[Registry, int]]:
    skills = Skills(folder / "s.sqlite", journal_mode=mode, pool_size=size, cache_kib=64, wait_seconds=wait)
    with closing(skills):
        server = Registry(("127.0.0.1", 0), skills)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server, server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def get(port: int, path: str, timeout: float = 10) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def figure(port: int, name: str) -> float:
    (line,) = [line for line in get(port, "/metrics")[1].splitlines() if line.startswith(name + " ")]
    return float(line.split()[1])


class Insert:
    """A bulk insert that sends its rows at once and holds its transaction until told to end."""

    def __init__(self, skills: Skills, rows: int) -> None:
        self.inside = threading.Event()
        self.release = threading.Event()
        self._skills, self._rows = skills, rows
        self._thread = threading.Thread(target=self._run)

    def _lines(self) -> Iterator[bytes]:
        for number in range(self._rows):
            yield row(number, 1000)
        self.inside.set()
        self.release.wait(30)

    def _run(self) -> None:
        self._skills.insert(self._lines())

    def __enter__(self) -> Self:
        self._thread.start()
        assert self.inside.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._thread.join()


@pytest.mark.parametrize(
    ("mode", "size", "blocked"),
    [("delete", 1, True), ("delete", 8, True), ("wal", 1, True), ("wal", 8, False)],
)
def test_only_wal_with_a_larger_pool_lets_readers_by(tmp_path: Path, mode: str, size: int, blocked: bool) -> None:
    with serving(tmp_path, mode, size) as (server, port):
        took: list[float] = []

        def read() -> None:
            started = time.monotonic()
            assert get(port, "/skills/translate")[0] == 200
            took.append(time.monotonic() - started)

        reader = threading.Thread(target=read)
        with Insert(server.skills, 400):
            reader.start()
            reader.join(FAST)
            assert reader.is_alive() is blocked
            # Whatever happens to readers, the instruments answer.
            assert get(port, "/readyz", timeout=FAST)[0] == 200
            assert figure(port, "nova_registry_bulk_inserts") == 1
            assert (figure(port, "nova_registry_oldest_request_seconds") > 0.5) is blocked
            assert figure(port, "nova_registry_pool_waiting") == (1 if size == 1 else 0)
        reader.join()
        assert (took[0] >= FAST) is blocked


def test_nobody_overtakes_and_who_waits_too_long_is_turned_away(tmp_path: Path) -> None:
    with serving(tmp_path, "wal", 1, wait=0.2) as (server, port):
        with server.skills.pool.connection():
            with pytest.raises(Exhausted, match="none of 1 connections"):
                server.skills.listing()
            assert get(port, "/skills")[0] == 503
        assert server.skills.pool.waiting == 0
        assert get(port, "/skills")[0] == 200


def test_the_line_is_served_in_order(tmp_path: Path) -> None:
    with serving(tmp_path, "wal", 1) as (server, _):
        pool = server.skills.pool
        served: list[int] = []

        def want(number: int) -> None:
            with pool.connection():
                served.append(number)

        threads = [threading.Thread(target=want, args=(number,)) for number in range(5)]
        with pool.connection():
            for number, thread in enumerate(threads):
                thread.start()
                while pool.waiting <= number:
                    threading.Event().wait(0.001)
        for thread in threads:
            thread.join()
        assert served == [0, 1, 2, 3, 4]
        assert pool.in_use == 0


def test_the_snapshot_is_there_and_a_bulk_insert_over_http_is_all_or_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, "delete", 2) as (server, port):
        assert server.skills.listing() == (5, sorted(SNAPSHOT))
        assert send("127.0.0.1", port, 50, 0.0, 200, threading.Event()) == "answered 200"
        assert server.skills.listing()[0] == 55
        bad = row(60, 100) + b'{"name": 7}\n'
        request = urllib.request.Request(f"http://127.0.0.1:{port}/skills/bulk", bad)
        with pytest.raises(urllib.error.HTTPError, match="400") as refused:
            urllib.request.urlopen(request, timeout=5)  # noqa: S310
        refused.value.close()
        assert server.skills.listing()[0] == 55
        assert figure(port, "nova_registry_bulk_rows_total") == 50
        assert get(port, "/skills/imported-0000007")[0] == 200
        assert get(port, "/skills/imported-0000060")[0] == 404
        assert get(port, "/nowhere")[0] == 404


def test_a_pod_that_is_to_end_breaks_the_insert_off_and_lets_readers_through(tmp_path: Path) -> None:
    with serving(tmp_path, "delete", 1) as (server, port):
        said: list[str] = []
        client = threading.Thread(
            target=lambda: said.append(send("127.0.0.1", port, 500, 20.0, 1000, threading.Event()))
        )
        client.start()
        while figure(port, "nova_registry_bulk_inserts") == 0:
            threading.Event().wait(0.01)
        server.skills.draining = True
        assert get(port, "/skills")[0] == 200
        client.join()
        assert said[0] == "answered 503" or said[0].startswith("failed")
        assert server.skills.listing()[0] == 5


def test_a_file_of_another_journal_mode_is_said(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = wal")
        other.execute("BEGIN")
        other.execute("CREATE TABLE t (x)")
        with pytest.raises((SystemExit, sqlite3.OperationalError)):
            Skills(path, journal_mode="delete", pool_size=1, cache_kib=64, wait_seconds=0.1)


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"name": "x"}', b'{"name": "", "description": "d"}', b'{"name": 1}'])
def test_what_is_no_row_is_refused(line: bytes) -> None:
    with pytest.raises(Malformed):
        row_of(line)


def test_lines_end_with_the_body_and_a_client_that_leaves_is_noticed() -> None:
    assert list(lines_of(io.BytesIO(b"a\nb\nc\n"), 4)) == [b"a\n", b"b\n"]
    with pytest.raises(ConnectionError, match="2 bytes to go"):
        list(lines_of(io.BytesIO(b"a\n"), 4))
    with pytest.raises(Malformed):
        list(lines_of(io.BytesIO(b"a\nb"), 3))


def test_rows_have_their_length_and_are_rows() -> None:
    for number in (0, 7, 2399):
        assert len(row(number, 1000)) == 1000
        assert row_of(row(number, 1000))[0] == f"imported-{number:07d}"


def window_of(latency: Latency) -> dict[str, float]:
    _, recent, _ = latency.families("a", "b", "c")
    assert isinstance(recent, Family)
    return {point.labels["le"]: point.value for point in recent.points}


def test_who_waits_counts_by_age_and_who_finished_is_forgotten_after_the_window() -> None:
    now = 0.0
    latency = Latency(clock=lambda: now)
    with latency.measured():
        now = 0.02
    waiting = latency.measured()
    waiting.__enter__()
    now = 6.02
    assert window_of(latency) | {"5": 1, "7.5": 2, "+Inf": 2} == window_of(latency)
    oldest = latency.families("a", "b", "c")[2]
    assert isinstance(oldest, Sample)
    assert oldest.value == pytest.approx(6.0)
    now = 0.02 + WINDOW + 0.01
    assert window_of(latency)["+Inf"] == 1
    waiting.__exit__(None, None, None)
    text = render(latency.families("a", "b", "c"))
    assert 'a_bucket{le="0.025"} 1' in text
    assert 'a_bucket{le="+Inf"} 2' in text
    assert "a_count 2" in text
    assert list(BOUNDS) == sorted(BOUNDS)


def test_a_load_is_the_same_for_the_same_seed_and_as_strong_as_said() -> None:
    one, same, other = (list(islice(times(4, seed), 400)) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert all(a < b for a, b in pairwise(one))
    assert one[-1] == pytest.approx(100, rel=0.05)
    assert {read_path(n) for n in range(10)} == {"/skills", *(f"/skills/{name}" for name in SNAPSHOT)}


def test_a_load_does_not_wait_for_answers_and_drops_above_its_bound() -> None:
    release, full = threading.Event(), threading.Event()
    begun: list[int] = []

    def slow(number: int) -> int:
        begun.append(number)
        if len(begun) == 3:
            full.set()
        release.wait(10)
        return 200

    load = Load(slow, most=3)
    load.run(
        iter(
            [
                0.0,
                0.0,
                0.0,
                0.0,
                0.0,
            ]
        ),
        threading.Event(),
    )
    assert full.wait(5)
    assert load.outcomes == {"dropped": 2}
    assert not load.answered
    release.set()
    while load.outcomes["200"] < 3:
        threading.Event().wait(0.001)
    assert load.answered
