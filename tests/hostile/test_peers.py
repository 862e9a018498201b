"""Peers that answer with anything: a value or an error of ours comes of it, in bounded time and memory."""

from __future__ import annotations

import gzip
import json
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event as Flag
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes.client.configuration import Configuration

from harness.adapters.alertmanager import Alertmanager, matchers, routed
from harness.adapters.endpoints import HttpTransport, resolve
from harness.adapters.kubernetes import KubeCluster
from harness.adapters.kubernetes.answers import Asked, failure
from harness.adapters.kubernetes.wire import Timing
from harness.adapters.prometheus import Prometheus, duration
from harness.adapters.webhook_pager import WebhookPager
from harness.core.clock import LAST_INSTANT, Bounds, Instant
from harness.core.errors import DrillError, Unreachable
from harness.core.event import ResponderActed
from harness.core.experiment import ExpectedAlert
from harness.core.inbox import read as read_message
from harness.core.pods import pod_state
from harness.core.promql import matchers as promql_matchers
from harness.ports import payload
from harness.ports.cluster import Ref
from harness.ports.endpoint import Answer
from harness.ports.kinds import kind_of
from harness.ports.retry import seconds_wished
from harness.ports.stamps import http_date
from tests.adapters.server import Handler, Step, answer, peer

NOW = 1795327200.0
SHARP = Timing(connect=1.0, read=2.0, budget=0.0, watch=1.0, grace=0.5, give_up=0.0)

stamps = st.sampled_from(
    ["2026-11-22T06:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "2026-11-22", "now", "", 1e308, -1,
     None]
)  # fmt: skip
numbers = st.sampled_from(
    [0, 1, -1, 15.0, 2**70, 10**400, 1e308, -1e308, "1e999", "NaN", "+Inf", "٣", "x", "", True, None]
)
words = (
    st.sampled_from(["", "HighQueueDepth", "firing", "x" * 3000, '"}', "\x1b[31m", "\u202e", "\U0001f383"]) | st.text()
)
anything: st.SearchStrategy[Any] = st.recursive(
    stamps | numbers | words | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


def spoiled(body: Any) -> st.SearchStrategy[Any]:
    """`body` with anything at one or two of its places, or something else altogether."""
    places: list[tuple[str | int, ...]] = []

    def walk(value: Any, at: tuple[str | int, ...]) -> None:
        places.append(at)
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, one in inner:
            walk(one, (*at, key))

    walk(body, ())

    @st.composite
    def strategy(draw: st.DrawFn) -> Any:
        copy = json.loads(json.dumps(body))
        for _ in range(draw(st.integers(1, 2))):
            at = draw(st.sampled_from(places))
            if not at:
                return draw(anything)
            inside = copy
            try:
                for key in at[:-1]:
                    inside = inside[key]
                inside[at[-1]] = draw(anything)
            except (LookupError, TypeError):
                continue
        return copy

    return strategy()


class Told:
    """A transport that answers every request with one body."""

    def __init__(self, body: Any) -> None:
        self.body = body

    def get(self, path: str, params: Any = None, *, accept: tuple[int, ...] = (), text: bool = False) -> Answer:
        del path, params, accept
        return Answer(200, "" if text else self.body, NOW, NOW, NOW)

    def write(self, method: str, path: str, body: Any = None, *, accept: tuple[int, ...] = ()) -> Answer:
        del method, path, body
        return Answer(500 if 500 in accept else 200, self.body, NOW, NOW, NOW)

    def offset(self, path: str) -> Bounds:
        del path
        return Bounds.at(0.0)

    def close(self) -> None:
        """Nothing."""


def sane(instant: Instant | None) -> bool:
    return instant is None or 0 <= instant <= LAST_INSTANT


RULES = {
    "data": {"groups": [{"name": "g", "file": "f", "interval": 5, "rules": [{
        "type": "alerting", "name": "HighQueueDepth", "query": "q > 1", "duration": 10, "labels": {"severity": "page"},
        "annotations": {"runbook_url": "x"}, "health": "ok", "lastError": "", "state": "firing",
        "lastEvaluation": "2026-11-22T06:00:00Z",
        "alerts": [{"state": "firing", "labels": {"a": "b"}, "activeAt": "2026-11-22T06:00:00Z", "value": "1e0"}],
    }]}]}
}  # fmt: skip
TARGETS = {"data": {"activeTargets": [{"scrapePool": "nova", "scrapeInterval": "5s"}]}}
BUILD = {"data": {"version": "2.42.0", "startTime": "2026-11-22T06:00:00Z"}}
ALERTS = [{
    "fingerprint": "f", "labels": {"alertname": "HighQueueDepth"}, "startsAt": "2026-11-22T06:00:00Z",
    "endsAt": "2026-11-22T06:05:00Z", "status": {"state": "active", "silencedBy": ["s"]},
}]  # fmt: skip
SILENCES = [{
    "id": "s", "matchers": [{"name": "alertname", "value": "H.*", "isRegex": True, "isEqual": True}],
    "startsAt": "2026-11-22T06:00:00Z", "endsAt": "2026-11-22T07:00:00Z", "updatedAt": "2026-11-22T06:00:00Z",
    "createdBy": "emma", "comment": "mine", "status": {"state": "active"},
}]  # fmt: skip
PAGES = {"instance": "i", "notifications": [{"seq": 1, "received_ms": 1795327200000, "webhook": {
    "receiver": "pager", "alerts": [{"status": "firing", "labels": {"alertname": "HighQueueDepth"},
                                     "startsAt": "2026-11-22T06:00:00Z", "fingerprint": "f"}]}}]}  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(spoiled(RULES), spoiled(TARGETS), spoiled(BUILD))
def test_any_answer_about_rules_is_read_or_unreachable(rules: Any, targets: Any, build: Any) -> None:
    endpoint = resolve("http://127.0.0.1:1", None)
    with suppress(Unreachable):
        for rule in Prometheus(endpoint, Told(rules), now=lambda: NOW).rules():
            assert sane(rule.last_evaluation)
            assert 0 <= rule.for_seconds < 1e9
            assert 0 <= rule.interval < 1e9
            assert all(sane(one.active_at) for one in rule.active)
            assert all(isinstance(text, str) for pair in rule.labels.items() for text in pair)
    with suppress(Unreachable):
        assert all(0 <= seconds < 1e9 for seconds in Prometheus(
            endpoint, Told(targets), now=lambda: NOW).scrape_intervals().values())  # fmt: skip
    with suppress(Unreachable):
        Prometheus(endpoint, Told(build), now=lambda: NOW).ready()
    with suppress(Unreachable):
        assert sane(Prometheus(endpoint, Told(build), now=lambda: NOW).started_at())


@settings(max_examples=400, deadline=None)
@given(spoiled(ALERTS), spoiled(SILENCES), anything)
def test_any_answer_of_alertmanager_is_read_or_unreachable(alerts: Any, silences: Any, status: Any) -> None:
    with suppress(Unreachable):
        assert all(sane(one.starts_at) and isinstance(one.fingerprint, str) for one in Alertmanager(
            Told(alerts), now=lambda: NOW).alerts("HighQueueDepth"))  # fmt: skip
    with suppress(Unreachable):
        assert all(sane(one.starts_at) and isinstance(one.id, str) for one in Alertmanager(
            Told(silences), now=lambda: NOW).silences())  # fmt: skip
    peer_ = Alertmanager(Told(status), now=lambda: NOW)
    calls: tuple[Callable[[], object], ...] = (
        peer_.ready, lambda: peer_.expire("x"), lambda: peer_.route({"alertname": "x"}),
        lambda: peer_.silence([], author="a", comment="c", seconds=1.0),
    )  # fmt: skip
    for call in calls:
        with suppress(Unreachable):
            call()


@settings(max_examples=300, deadline=None)
@given(st.lists(spoiled(PAGES), min_size=1, max_size=3))
def test_any_answer_of_the_pager_is_read_or_unreachable(bodies: list[Any]) -> None:
    transport = Told(None)
    pager, since = WebhookPager(transport), 0
    for body in bodies:
        transport.body = body
        with suppress(Unreachable):
            for page in pager.notifications(since):
                assert page.seq > since
                assert sane(page.received_at)
                assert sane(page.starts_at)
            since += 1


def test_a_pager_that_repeats_itself_is_heard_once_and_numbers_may_run_backwards() -> None:
    transport = Told(PAGES)
    pager = WebhookPager(transport)
    assert [page.seq for page in pager.notifications(0)] == [1]
    assert pager.notifications(1) == []
    for seq in (1, 0, -5):
        transport.body = {**PAGES, "notifications": [{**PAGES["notifications"][0], "seq": seq}]}  # type: ignore[dict-item]
        assert pager.notifications(1) == []


# Alertmanager's configuration

LABELS = {"alertname": "HighQueueDepth", "pod": "a" * 60}


def route_of(configuration: str) -> object:
    status = {"config": {"original": configuration}}
    return Alertmanager(Told(status), now=lambda: NOW).route(LABELS)


def test_a_configuration_with_anchors_is_followed() -> None:
    text = (
        "x: &base {group_wait: 7s, receiver: other}\n"
        "route:\n  receiver: all\n  routes:\n"
        "  - <<: *base\n    receiver: pager\n    match: {alertname: HighQueueDepth}\n    continue: no\n"
    )
    found = route_of(text)
    assert (found.receiver, found.group_wait) == ("pager", 7.0)  # type: ignore[attr-defined]


def doubled(levels: int) -> str:
    lines = ["a0: &a0 {receiver: x, continue: true}"]
    lines += [f"a{n}: &a{n} {{continue: true, routes: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, levels)]
    return "\n".join([*lines, f"route: *a{levels - 1}"])


@pytest.mark.parametrize(
    "text",
    [
        doubled(12), "route: &r {receiver: x, routes: [*r]}", "route: &r {<<: *r}", "route: " + "[" * 50_000, "[]", "",
        "route: {receiver: x, routes: [{matchers: ['" + " " * 200_000 + "x']}]}", "route: {group_wait: 99999999y}",
        "route: {receiver: x, routes: [{match_re: {pod: '(a|a)*b'}}]}", "a: " + "x" * 2_000_000, "\x00",
        "!!python/x: 1",
        "route: {receiver: x, routes: [{match_re: {pod: '" + "(.|.)" * 40 + "b'}}]}", "route: 1", "route: [1]",
        "route: {routes: {a: b}}", "route: {routes: [1]}", "a: " + ":".join(["59"] * 100_000),
        "\n".join(["a: &a {x: y}", *(f"b{n}: &b{n} {{<<: [*{'a' if n == 0 else f'b{n - 1}'}, *a]}}" for n in range(40)),
                   "route: {<<: [" + ", ".join(f"*b{n}" for n in range(40)) + "]}"]),
    ],
)  # fmt: skip
def test_a_hostile_configuration_is_read_or_unreachable_at_once(text: str) -> None:
    began = time.monotonic()
    with suppress(Unreachable):
        route_of(text)
    assert time.monotonic() - began < 5.0


@settings(max_examples=300, deadline=2000)
@given(st.text(st.sampled_from('{}=~!",\\ \nab|*+()[]'), max_size=60))
def test_any_matcher_is_read_or_no_matcher(text: str) -> None:
    with suppress(ValueError):
        found = matchers(text)
        routed({"routes": [{"matchers": [text]}]}, LABELS)
        assert all(isinstance(one.value, str) for one in found)


# Kubernetes

STATUS = {"kind": "Status", "message": "no", "reason": "Invalid", "code": 422,
          "details": {"name": "x", "causes": [{"field": "metadata.uid", "message": "m"}]}}  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([400, 401, 403, 404, 409, 410, 413, 422, 429, 500, 503]),
    spoiled(STATUS).map(lambda body: json.dumps(body).encode()) | st.binary(max_size=80),
    st.sampled_from(["", "1", "²", "-1", "9" * 5000, "Wed, 21 Oct 2026 07:28:00 GMT", "nan", "inf", "1.5", "٣"]),
    st.booleans(),
)
def test_any_refusal_is_one_of_ours(status: int, body: bytes, wish: str, writes: bool) -> None:
    error = failure(Asked("get x", writes=writes), status, {"Retry-After": wish}, body)
    assert isinstance(error, DrillError)
    assert len(str(error)) < 4000


POD = {
    "metadata": {"name": "p", "uid": "u", "resourceVersion": "5", "creationTimestamp": "2026-11-22T06:00:00Z"},
    "spec": {"containers": [{"name": "worker", "resources": {"limits": {"memory": "64Mi"}}}]},
    "status": {"conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [{"name": "worker",
               "restartCount": 1,
               "state": {"terminated": {"reason": "OOMKilled", "finishedAt": "2026-11-22T06:00:00Z"}}}]},
}  # fmt: skip


def cluster(url: str) -> KubeCluster:
    configuration = Configuration()
    configuration.host = url
    return KubeCluster(configuration, now=lambda: NOW, timing=SHARP)


@settings(max_examples=60, deadline=None)
@given(spoiled({"metadata": {"resourceVersion": "5"}, "items": [POD], "status": {"userInfo": {"username": "u"}}}))
def test_any_answer_of_the_api_server_is_read_or_an_error_of_ours(body: Any) -> None:
    with peer(answer(json.dumps(body).encode())) as server:
        api = cluster(server.url)
        calls: tuple[Callable[[], object], ...] = (
            lambda: [item["metadata"]["uid"] for item in api.list("Pod", "n")],
            lambda: api.get(Ref("Pod", "n", "p"))["metadata"],
            api.whoami,
            api.server_version,
            lambda: api.allowed("get", "Pod", "n"),
            lambda: api.token("n", "sa", 600),
            lambda: api.logs("n", "p"),
            lambda: api.patch(Ref("Pod", "n", "p"), []),
        )
        for call in calls:
            with suppress(DrillError, KeyError):  # an object without metadata is for who reads it
                call()
        api.close()


def test_no_name_leads_to_another_path() -> None:
    for name in ("..", "."):
        with pytest.raises(DrillError):
            kind_of("Deployment").path("n", name)
        with pytest.raises(DrillError):
            kind_of("Deployment").path(name, "x")
    for name in ("../../secrets", "a/b", "a?b=c", "a#b", "a%2fb", "a\r\nX: y", "ü"):
        path = kind_of("Deployment").path("n", name)
        assert path.count("/") == "/apis/apps/v1/namespaces/n/deployments/x".count("/")
        assert not set(path) & set("?#\r\n ")


@settings(max_examples=200, deadline=None)
@given(spoiled(POD))
def test_any_pod_is_read_or_refused_by_a_plain_error(pod: Any) -> None:
    with suppress(KeyError, TypeError, ValueError, AttributeError, OverflowError):
        pod_state(pod, "worker")


MESSAGE = {
    "metadata": {"name": "drill-ack-x", "uid": "u", "creationTimestamp": "2026-11-22T06:00:00Z"},
    "data": {"actor": "emma", "action": "acknowledged", "role": "", "text": "mine", "actorKind": "human"},
}


@settings(max_examples=400, deadline=None)
@given(spoiled(MESSAGE).filter(lambda body: isinstance(body, dict)))
def test_any_message_is_an_act_or_none(message: dict[str, Any]) -> None:
    act = read_message(message, verified=True, offset=Bounds.at(0.0), seen_at=NOW + 5)
    if act is not None:
        assert ResponderActed.model_validate(act.model_dump()) == act
        assert act.at.latest <= NOW + 5


def test_any_header_of_a_date_or_a_wish_is_read_or_nothing() -> None:
    for text in ("²", "٣", "1e9", "-1", "nan", "9" * 40, "", None):
        assert seconds_wished(text) == 0.0
    assert seconds_wished("120") == 120.0
    for text in (
        "Sun, 22 Nov 99999 06:00:00 GMT",
        "Mon, 01 Jan 0001 00:00:00 +9999",
        ",",
        "\x00",
        "1 2 3 4 5 6",
        "Sun",
    ):
        assert http_date(text) is None


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_any_header_of_a_date_is_an_instant_or_none(text: str) -> None:
    assert sane(http_date(text))


# Sizes and times


def endless(chunk: bytes, status: int = 200, headers: dict[str, str] | None = None, pause: float = 0.0) -> Step:
    """An answer that never ends."""

    def step(handler: Handler) -> None:
        handler.send_response(status)
        handler.send_header("Transfer-Encoding", "chunked")
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        framed = f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n"
        handler.close_connection = True
        with suppress(OSError):
            while not handler.server.release.wait(pause) if pause else not handler.server.release.is_set():
                handler.wfile.write(framed)

    return step


BOMB = gzip.compress(b"0" * 100_000_000)
HOSTILE: dict[str, Step] = {
    "endless": endless(b"[" + b"1," * 30_000),
    "endless refusal": endless(b"x" * 60_000, status=503),
    "endless packed": endless(BOMB, headers={"Content-Encoding": "gzip"}),
    "packed": answer(BOMB, headers={"Content-Encoding": "gzip"}),
    "deep": answer(b"[" * 200_000),
    "deep objects": answer(b'{"data":' * 100_000),
    "not UTF-8": answer(b'{"data":"\xff"}'),
    "another encoding": answer('{"data":1}'.encode("utf-16")),
    "a huge number": answer(b'{"data":' + b"9" * 100_000 + b"}"),
    "no number": answer(b'{"data":NaN}'),
    "half a surrogate": answer(
        b'{"status":"success","data":{"version":"\\ud800","result":[{"metric":{"a":"\\ud800"}}]}}'
    ),
    "elsewhere": answer(b"", status=302, headers={"Location": "http://127.0.0.1:1/"}),
    "nothing": answer(b""),
}


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "WHOLE", 1.0)


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_answer_fills_the_memory_or_lasts_for_ever(kind: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with peer(HOSTILE[kind]) as server:
        endpoint = resolve(server.url, None)
        transport = HttpTransport(endpoint, now=lambda: NOW, budget=0.0, limits=(1.0, 2.0))
        metrics = Prometheus(endpoint, transport, now=lambda: NOW, budget=0.0, limits=(1.0, 2.0))
        notifier, pager, api = Alertmanager(transport, now=lambda: NOW), WebhookPager(transport), cluster(server.url)
        calls: tuple[Callable[[], object], ...] = (
            metrics.ready, metrics.rules, lambda: metrics.vector("up"), lambda: metrics.grid("up", NOW, NOW + 5, 1.0),
            metrics.offset, notifier.silences, lambda: notifier.silence([], author="a", comment="c", seconds=1.0),
            lambda: pager.notifications(0), lambda: api.list("Pod", "n"), lambda: api.logs("n", "p"),
            lambda: api.patch(Ref("Pod", "n", "p"), []),
        )  # fmt: skip
        for call in calls:
            began = time.monotonic()
            with suppress(DrillError):
                call()
            assert time.monotonic() - began < 10.0
        metrics.close()
        api.close()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 700 * 1024, f"{grown} KiB"


def test_an_answer_that_drips_ends() -> None:
    """One byte at a time comes often enough for any time limit between two bytes."""
    ticks = iter(range(1000))
    with pytest.raises(payload.TooMuch, match="no whole answer within 30 s"):
        payload.gathered((b"x" for _ in range(1000)), encoding=None, most=10**6, monotonic=lambda: float(next(ticks)))


@pytest.mark.usefixtures("little_patience")
def test_a_body_that_drips_is_given_up_by_every_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload.gathered, "__kwdefaults__", {**(payload.gathered.__kwdefaults__ or {}), "within": 1.0})
    with peer(endless(b" ", pause=0.05)) as server:
        endpoint = resolve(server.url, None)
        transport = HttpTransport(endpoint, now=lambda: NOW, budget=0.0, limits=(1.0, 2.0))
        metrics = Prometheus(endpoint, transport, now=lambda: NOW, budget=0.0, limits=(1.0, 2.0))
        api = cluster(server.url)
        calls: tuple[Callable[[], object], ...] = (metrics.rules, lambda: metrics.vector("up"), api.server_version)
        for call in calls:
            began = time.monotonic()
            with pytest.raises(Unreachable, match="no whole answer"):
                call()
            assert time.monotonic() - began < 4.0
        metrics.close()
        api.close()


def test_half_a_surrogate_becomes_a_character_that_can_be_written() -> None:
    found = payload.parsed(b'{"\\ud800":["\\udc00x","\\ud83c\\udf83"]}')
    assert found == {"\ufffd": ["\ufffdx", "\U0001f383"]}
    json.dumps(found, ensure_ascii=False).encode()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | anything.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_json_or_a_value_error(raw: bytes) -> None:
    with suppress(ValueError):
        json.dumps(payload.parsed(raw), ensure_ascii=False).encode()


# A watch

LINES: dict[str, bytes] = {
    "not JSON": b"{broken}\n",
    "deep": b"[" * 100_000 + b"\n",
    "a list": b"[]\n",
    "a text": b'"x"\n',
    "no object": b'{"type":"ADDED"}\n',
    "an object that is none": b'{"type":"ADDED","object":7}\n',
    "an object without a name": b'{"type":"ADDED","object":{"metadata":{"resourceVersion":"6","uid":"u"}}}\n',
    "a uid that is none": b'{"type":"ADDED","object":{"metadata":{"resourceVersion":"6","name":"p","uid":[]}}}\n',
    "an error that is none": b'{"type":"ERROR","object":[]}\n',
    "not UTF-8": b'{"type":"\xff"}\n',
    "endless": b"x" * 60_000,
}


@pytest.mark.parametrize("kind", LINES)
def test_a_malformed_line_of_a_watch_is_a_lost_watch(kind: str) -> None:
    listed = answer({"metadata": {"resourceVersion": "5"}, "items": []})
    with peer(listed, endless(LINES[kind], pause=0.0 if kind == "endless" else 0.05)) as server:
        api = cluster(server.url)
        began = time.monotonic()
        with pytest.raises(Unreachable, match="no connection"):
            assert {event.type for event in api.watch("Pod", "n", "", Flag())} == {"sync"}
        assert time.monotonic() - began < 10.0
        api.close()


# What is put into other languages

NAMES = [
    'x"}',
    "x\\",
    "x\n",
    "a,b",
    '=~".*"',
    "x} or vector(1) #",
    "ü",
    "\u202e",
    "x{",
    "$(id)",
    "x\x00",
    " x",
    "x/../y",
]


@pytest.mark.parametrize("name", NAMES)
def test_no_alert_of_such_a_name_can_be_declared(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        ExpectedAlert.model_validate({"name": name, "within": "5m", "of": "injected"}, context={"written": True})


@pytest.mark.parametrize("name", [*NAMES, "HighQueueDepth"])
def test_a_name_is_quoted_in_a_filter_of_alertmanager(name: str) -> None:
    with peer(answer([])) as server:
        transport = HttpTransport(resolve(server.url, None), now=lambda: NOW)
        Alertmanager(transport, now=lambda: NOW).alerts(name)
        (_, path, _), *_ = server.asked
        (sent,) = parse_qs(urlsplit(path).query)["filter"]
        (matcher,) = matchers(sent)
        assert (matcher.name, matcher.value, matcher.is_regex, matcher.is_equal) == ("alertname", name, False, True)
        transport.close()


@given(st.dictionaries(st.sampled_from(["severity", "team", "a_b"]), st.text() | st.sampled_from(NAMES)))
def test_a_label_of_an_alert_is_quoted_in_promql(labels: dict[str, str]) -> None:
    """Alertmanager quotes as PromQL does, so its reader is asked what was written."""
    found = matchers("{" + promql_matchers(labels) + "}") if sum(map(len, labels.values())) < 1000 else []
    assert {one.name: one.value for one in found} == labels
    assert not [one for one in found if one.is_regex or not one.is_equal]
    assert "\n" not in promql_matchers(labels)


@pytest.mark.parametrize(
    "text",
    ["service:a/b:80/../../x", "service:../b:80", "service:a/b:80?x", "http://u:p@h", "file:///etc/passwd", "http://h/?q",
     "gopher://h", "http://", "service:a/b", "javascript:alert(1)", "\x1b[31m", "http://[", "http://h:99999999"],
)  # fmt: skip
def test_no_address_leads_elsewhere(text: str) -> None:
    with pytest.raises(DrillError):
        resolve(text, None)


@pytest.mark.parametrize("text", ["9" * 400 + "y", "1s" * 5000, "", "s", "-1s", "1e9s"])
def test_any_duration_is_read_or_none(text: str) -> None:
    with suppress(ValueError):
        duration(text)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x00", b"- a", b"clusters: 7", b"[" * 5000, b"!!python/object/apply:os.system [id]", b"a: &a [*a]",
     b"\xff\xfe",
     b"current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\nclusters: []\nusers: []",
     b"current-context: x\ncontexts: 7\nclusters: {}\nusers: null", b"current-context: [x]\ncontexts: [7]"],
)  # fmt: skip
def test_any_kubeconfig_is_read_or_bad_input(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "config"
    path.write_bytes(raw)
    with pytest.raises(DrillError):
        KubeCluster.from_kubeconfig(path, None, now=lambda: NOW)
    for strange in (tmp_path, Path("/dev/null"), Path("/dev/zero"), tmp_path / "missing", tmp_path / ("x" * 5000)):
        with pytest.raises(DrillError):
            KubeCluster.from_kubeconfig(strange, "x", now=lambda: NOW)
