"""The vendor and its adapter: which keys open, what is counted, and that no key is ever shown."""

from __future__ import annotations

import base64
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from staging.keys import Door, Keys, Unread, keys_of
from staging.llm_adapter import STUB, Adapter, Vendor
from staging.llm_provider import Provider
from staging.llm_traffic import body
from staging.metrics import render
from staging.web import Server

OLD, NEW = "old-" + "a" * 40, "new-" + "b" * 40


def data(**values: str) -> dict[str, str]:
    return {name.replace("_", "-"): base64.b64encode(value.encode()).decode() for name, value in values.items()}


class Held:
    """A Secret in a variable, and an API server that may be away."""

    def __init__(self, **values: str) -> None:
        self.values = values
        self.away = False

    def read(self) -> Keys:
        if self.away:
            raise Unread("the API server answers 503")
        return keys_of(data(**self.values))


@contextmanager
def served(make: Callable[[], Server]) -> Iterator[int]:
    server = make()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def call(url: str, body: bytes | None = None) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=5) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize(
    ("values", "old", "new"),
    [
        ({"key_current": OLD}, True, False),
        ({"key_current": OLD + "\n"}, True, False),
        ({"key_current": NEW, "key_previous": OLD}, True, True),
        ({"key_current": NEW}, False, True),  # rotated
        ({"revoked_1": OLD}, False, False),  # revoked
        ({"revoked_1": OLD, "key_current": OLD}, False, False),  # revoked, and the old value put back
        ({"revoked_1": OLD, "key_current": NEW}, False, True),  # revoked and cured
        ({"key_current": "spoilt!" + OLD}, False, False),  # garbled
        ({"key_current": "short"}, False, False),
        ({"other": OLD}, False, False),
        ({}, False, False),  # removed
    ],
)
def test_which_keys_open(values: dict[str, str], old: bool, new: bool) -> None:
    keys = keys_of(data(**values))
    assert keys.accept(OLD.encode()) is old
    assert keys.accept(NEW.encode()) is new
    assert not keys.accept(b"")


def test_what_is_no_base64_opens_nothing_and_counts_as_malformed() -> None:
    keys = keys_of({"key-current": "***"})
    assert keys.accepted == ()
    assert keys.malformed == 1


def test_the_last_keys_stay_while_the_api_server_is_away() -> None:
    now = 0.0
    held = Held(key_current=OLD)
    door = Door(held, clock=lambda: now)
    assert door.age is None
    door.refresh()
    held.away = True
    held.values = {"key_current": NEW}
    now = 9.0
    door.refresh()
    assert [door.age, door.failures] == [9.0, 1]
    assert door.keys.accept(OLD.encode())
    held.away = False
    door.refresh()
    assert [door.age, door.failures] == [0.0, 1]
    assert not door.keys.accept(OLD.encode())


def chain(held: Held, key: str, *, fallback: bool = False) -> tuple[Door, Callable[[int], Server]]:
    door = Door(held)
    door.refresh()
    return door, lambda port: Adapter(("127.0.0.1", 0), Vendor("127.0.0.1", port, key), fallback=fallback)


def test_a_rotated_key_leaves_the_running_pod_stale_until_it_is_started_anew() -> None:
    held = Held(key_current=OLD)
    door, adapter = chain(held, OLD)
    with served(lambda: Provider(("127.0.0.1", 0), door)) as vendor, served(lambda: adapter(vendor)) as port:
        url = f"http://127.0.0.1:{port}/invoke"
        assert call(url, body(1).encode())[0] == 200
        held.values = {"key_current": NEW}
        door.refresh()
        status, text = call(url, body(2).encode())
        assert (status, json.loads(text)) == (502, {"status": "error", "reason": "auth"})
        _, anew = chain(held, NEW)
        with served(lambda: anew(vendor)) as other:
            assert call(f"http://127.0.0.1:{other}/invoke", body(3).encode())[0] == 200
        lines = call(f"http://127.0.0.1:{port}/metrics")[1].splitlines()
        assert 'nova_llm_invocations_total{status="ok",reason=""} 1' in lines
        assert 'nova_llm_invocations_total{status="error",reason="auth"} 1' in lines
        assert 'nova_llm_invocations_total{status="error",reason="timeout"} 0' in lines
        lines = call(f"http://127.0.0.1:{vendor}/metrics")[1].splitlines()
        assert {
            'nova_llm_provider_requests_total{status="200"} 2',
            'nova_llm_provider_requests_total{status="401"} 1',
        } <= set(lines)


def test_the_stub_answers_where_the_vendor_does_not_and_is_counted_as_such() -> None:
    door, adapter = chain(Held(revoked_1=OLD), OLD, fallback=True)
    with served(lambda: Provider(("127.0.0.1", 0), door)) as vendor, served(lambda: adapter(vendor)) as port:
        status, text = call(f"http://127.0.0.1:{port}/invoke", body(1).encode())
        assert (status, json.loads(text)) == (200, {"status": "stub", "text": STUB})
        metrics = call(f"http://127.0.0.1:{port}/metrics")[1]
        assert 'nova_llm_invocations_total{status="stub",reason="auth"} 1' in metrics
        assert "nova_llm_fallback 1" in metrics


@pytest.mark.parametrize("key", ["", " \n", "with\nnewline", "ünprintable"])
def test_without_a_key_that_can_be_sent_nothing_is_sent(key: str) -> None:
    adapter = Adapter(("127.0.0.1", 0), Vendor("127.0.0.1", 1, key), fallback=False)
    try:
        assert adapter.invoke("x")[1] == {"status": "error", "reason": "no_key"}
        assert "nova_llm_key_present 0" in render(adapter.figures())
    finally:
        adapter.server_close()


def test_a_vendor_that_is_not_there_is_told_from_a_key_that_is_refused() -> None:
    with served(lambda: Provider(("127.0.0.1", 0), Door(Held()))) as port:
        pass  # the port is free again
    adapter = Adapter(("127.0.0.1", 0), Vendor("127.0.0.1", port, OLD), fallback=False)
    try:
        assert adapter.invoke("x")[1]["reason"] == "unreachable"
    finally:
        adapter.server_close()


@pytest.mark.parametrize("sent", [b"{", b"[]", b"{}", b'{"prompt": 7}', b"x" * 70_000])
def test_what_is_no_invocation_is_refused_and_not_counted(sent: bytes) -> None:
    door, adapter = chain(Held(key_current=OLD), OLD)
    with served(lambda: Provider(("127.0.0.1", 0), door)) as vendor, served(lambda: adapter(vendor)) as port:
        try:
            assert call(f"http://127.0.0.1:{port}/invoke", sent)[0] == 400
        except urllib.error.URLError:
            assert len(sent) > 64 * 1024  # refused before it was read
        assert 'status="ok",reason=""} 0' in call(f"http://127.0.0.1:{port}/metrics")[1]


def test_no_key_is_shown_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    held = Held(key_current=OLD, key_next=NEW)
    door, adapter = chain(held, NEW)
    with served(lambda: Provider(("127.0.0.1", 0), door)) as vendor, served(lambda: adapter(vendor)) as port:
        seen = [call(f"http://127.0.0.1:{at}{path}")[1] for at in (vendor, port) for path in ("/metrics", "/readyz")]
        seen.append(call(f"http://127.0.0.1:{port}/invoke", body(1).encode())[1])
        held.values = {"revoked_1": NEW}
        door.refresh()
        seen.append(call(f"http://127.0.0.1:{port}/invoke", body(2).encode())[1])
        held.away = True
        door.refresh()
    seen += [*capsys.readouterr(), repr(door.keys), str(door.keys)]
    for part in (OLD, NEW, OLD[:8], NEW[:8]):
        assert not any(part in text for text in seen)
