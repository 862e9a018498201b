"""The pager keeps what was sent, in order, and takes pages from Alertmanager only."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest

from staging.pager import Book, Pager

PAGE = {"version": "4", "status": "firing", "alerts": [{"labels": {"alertname": "HighQueueDepth"}}]}


@pytest.fixture
def url() -> Iterator[str]:
    server = Pager(("127.0.0.1", 0), Book(), "s3cret")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetch(url: str, body: object = None, token: str = "") -> tuple[int, dict[str, Any]]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=5) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_page_is_kept_with_its_time_and_number(url: str) -> None:
    assert fetch(url + "/webhook", PAGE, "s3cret") == (200, {"seq": 1})
    assert fetch(url + "/webhook", PAGE, "s3cret") == (200, {"seq": 2})
    _, book = fetch(url + "/notifications?since=1")
    assert (book["last"], book["dropped"]) == (2, 0)
    (entry,) = book["notifications"]
    assert entry["seq"] == 2
    assert entry["webhook"] == PAGE
    assert entry["received_at"].endswith(f".{entry['received_ms'] % 1000:03d}Z")
    assert entry["received_ms"] > 1_600_000_000_000


@pytest.mark.parametrize(("token", "reason"), [("", "no Authorization header"), ("wrong", "another token")])
def test_a_page_without_the_token_is_refused_with_the_reason(url: str, token: str, reason: str) -> None:
    status, answer = fetch(url + "/webhook", PAGE, token)
    assert status == 401
    assert reason in answer["error"]
    assert fetch(url + "/notifications")[1]["notifications"] == []


@pytest.mark.parametrize("body", [[], {}, {"version": "3", "alerts": []}, {"version": "4", "alerts": 1}])
def test_what_is_no_webhook_is_refused(url: str, body: object) -> None:
    assert fetch(url + "/webhook", body, "s3cret")[0] == 400


@pytest.mark.parametrize("since", ["-1", "x", "1.5"])
def test_since_is_a_sequence_number(url: str, since: str) -> None:
    assert fetch(f"{url}/notifications?since={since}")[0] == 400


def test_memory_is_bounded_by_number_and_by_bytes_and_says_what_went() -> None:
    book = Book(keep=3, keep_bytes=250)
    for _ in range(4):
        book.add({}, 10, received_ms=0)
    assert [n["seq"] for n in book.since(0)["notifications"]] == [2, 3, 4]
    book.add({}, 240, received_ms=0)
    kept = book.since(0)
    assert [n["seq"] for n in kept["notifications"]] == [4, 5]
    assert kept["dropped"] == 3
