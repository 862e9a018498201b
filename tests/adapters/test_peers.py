"""Endpoints, Prometheus, Alertmanager and the pager against peers that answer, refuse, break and lie."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event as Flag
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from harness.adapters.alertmanager import Alertmanager, matchers, routed
from harness.adapters.endpoints import HttpTransport, resolve
from harness.adapters.prometheus import Prometheus, duration
from harness.adapters.webhook_pager import WebhookPager
from harness.core.errors import BadInput, Unreachable
from harness.ports.cluster import OutcomeUnknown
from harness.ports.endpoint import ApiServer, Endpoint
from harness.ports.metrics import Matcher, Route
from tests.adapters.server import Peer, Step, answer, cut, peer, silence

LIMITS = (1.0, 0.3)


@contextmanager
def transport(*steps: Step) -> Iterator[tuple[HttpTransport, Peer]]:
    with peer(*steps) as server:
        made = HttpTransport(Endpoint("the peer", server.url), now=time.time, budget=0.5, limits=LIMITS)
        try:
            yield made, server
        finally:
            made.close()


@contextmanager
def prometheus(*steps: Step, budget: float = 0.5) -> Iterator[tuple[Prometheus, Peer]]:
    with transport(*steps) as (made, server):
        metrics = Prometheus(made.endpoint, made, now=time.time, stop=Flag(), budget=budget, limits=LIMITS)
        try:
            yield metrics, server
        finally:
            metrics.close()


def data(result: Any, kind: str = "vector", **more: Any) -> Step:
    return answer({"status": "success", "data": {"resultType": kind, "result": result}, **more})


def asked(server: Peer, number: int = -1) -> Mapping[str, str]:
    query = parse_qs(urlsplit(server.asked[number][1]).query)
    return {name: values[0] for name, values in query.items()}


# ------------------------------------------------------------------------------------------- endpoints

DOOR = ApiServer("https://api:6443", "/ca.pem", ("/c.pem", "/k.pem"), lambda: "Bearer t")


def test_a_service_is_reached_through_the_api_server_with_its_identity() -> None:
    found = resolve("service:monitoring/prometheus:9090", DOOR)
    assert found.base_url == "https://api:6443/api/v1/namespaces/monitoring/services/prometheus:9090/proxy"
    assert (found.verify, found.cert, found.authorization()) == ("/ca.pem", ("/c.pem", "/k.pem"), "Bearer t")
    assert not found.environment
    tls = resolve("service:https:monitoring/prometheus:web", DOOR)
    assert tls.base_url.endswith("/services/https:prometheus:web/proxy")
    assert "Bearer" not in repr(found)


def test_a_url_is_taken_as_it_is() -> None:
    assert resolve("http://127.0.0.1:9090/prom/", None) == Endpoint(
        "http://127.0.0.1:9090/prom", "http://127.0.0.1:9090/prom", authorization=Endpoint("", "").authorization
    )


@pytest.mark.parametrize(
    "text",
    ["", "prometheus:9090", "service:monitoring/prometheus", "service:a/b:c/d", "ftp://x", "http://", "http://x?y=1"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        resolve(text, DOOR)


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(BadInput) as caught:
        resolve("http://me:hunter2@prometheus:9090", None)
    assert "hunter2" not in str(caught.value)


def test_a_service_needs_an_api_server() -> None:
    with pytest.raises(BadInput):
        resolve("service:a/b:1", None)


@pytest.mark.parametrize("trouble", [answer({"error": "x"}, 503), cut, silence, answer(b"<html>")])
def test_a_get_is_repeated_and_a_write_is_not(trouble: Step) -> None:
    with transport(trouble, answer({"ok": 1})) as (http, _):
        assert http.get("/x").body == {"ok": 1}
    with transport(trouble) as (http, server):
        with pytest.raises(OutcomeUnknown):
            http.write("POST", "/x", {})
        assert len(server.asked) == 1


def test_a_refusal_is_not_repeated_and_says_what_the_peer_said() -> None:
    status = {"kind": "Status", "message": 'services "prometheus" not found'}
    with transport(answer(status, 404)) as (http, server):
        with pytest.raises(Unreachable, match='the peer gave 404: services "prometheus" not found to GET /x'):
            http.get("/x")
        assert len(server.asked) == 1
        assert http.get("/x", accept=(404,)).status == 404


def test_a_write_that_was_refused_is_not_unknown() -> None:
    with transport(answer({"error": "bad"}, 400)) as (http, _):
        with pytest.raises(Unreachable) as caught:
            http.write("POST", "/x", {})
        assert not isinstance(caught.value, OutcomeUnknown)


# ------------------------------------------------------------------------------------------ prometheus


def test_a_vector_keeps_its_labels_stamps_and_odd_numbers() -> None:
    result = [
        {"metric": {"pod": "a"}, "value": [1700000000.123, "1.5"]},
        {"metric": {"pod": "b"}, "value": [1700000000.123, "NaN"]},
        {"metric": {"pod": "c"}, "value": [1700000000.123, "+Inf"]},
    ]
    with prometheus(data(result)) as (metrics, server):
        found = metrics.vector("up", at=1700000000.1234)
        assert [series.labels for series in found] == [{"pod": "a"}, {"pod": "b"}, {"pod": "c"}]
        assert found[0].samples == ((1700000000.123, 1.5),)
        assert math.isnan(found[1].samples[0][1])
        assert found[2].samples[0][1] == math.inf
        assert asked(server) == {"query": "up", "time": "1700000000.123"}


def test_nothing_is_an_empty_list() -> None:
    with prometheus(data([])) as (metrics, server):
        assert metrics.vector("absent_metric") == []
        assert asked(server) == {"query": "absent_metric"}
        assert metrics.raw("absent_metric", 30) == []
        assert metrics.grid("absent_metric", 1, 9, 1) == []


def test_a_scalar_is_one_series_without_labels() -> None:
    with prometheus(data([1700000000.5, "3"], "scalar")) as (metrics, _):
        (series,) = metrics.vector("3")
        assert (series.labels, series.samples) == ({}, ((1700000000.5, 3.0),))


def test_a_string_is_not_a_number() -> None:
    with prometheus(data([1700000000.5, "text"], "string")) as (metrics, _), pytest.raises(BadInput):
        metrics.vector('"text"')


def test_raw_samples_are_asked_for_by_a_range_in_an_instant_query() -> None:
    matrix = [{"metric": {"a": "b"}, "values": [[1.001, "0"], [2.002, "1"]]}]
    with prometheus(data(matrix, "matrix")) as (metrics, server):
        (series,) = metrics.raw('ALERTS{alertname="X"}', 12.5)
        assert series.samples == ((1.001, 0.0), (2.002, 1.0))
        assert asked(server) == {"query": 'ALERTS{alertname="X"}[12500ms]'}


def test_a_grid_lies_on_the_whole_seconds_inside() -> None:
    with prometheus(data([], "matrix")) as (metrics, server):
        metrics.grid("up", 10.2, 20.9, 0.5)
        assert asked(server) == {"query": "up", "start": "11", "end": "20", "step": "0.500"}
        assert metrics.grid("up", 10.2, 10.9, 0.5) == []
        assert len(server.asked) == 1


def test_a_bad_expression_is_the_authors() -> None:
    refused = answer({"status": "error", "errorType": "bad_data", "error": "parse error: unexpected }"}, 400)
    with prometheus(refused) as (metrics, server):
        with pytest.raises(BadInput, match="parse error"):
            metrics.vector("up}")
        assert len(server.asked) == 1


def test_an_expression_that_fails_on_the_data_is_no_answer() -> None:
    refused = answer({"status": "error", "errorType": "execution", "error": "many-to-many"}, 422)
    with prometheus(refused) as (metrics, server):
        with pytest.raises(Unreachable, match="many-to-many"):
            metrics.vector("a * on() b")
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    "trouble", [answer({"error": "x"}, 503), cut, silence, answer(b"<html>"), answer({"status": "success"})]
)
def test_queries_survive_what_passes_and_give_up_on_what_does_not(trouble: Step) -> None:
    with prometheus(trouble, data([]), budget=20.0) as (metrics, _):
        assert metrics.vector("up") == []
    with prometheus(trouble) as (metrics, server):
        with pytest.raises(Unreachable, match="'up'"):
            metrics.vector("up")
        assert 1 <= len(server.asked) < 10


def test_a_warning_is_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    with prometheus(data([], warnings=["remote read failed"])) as (metrics, _):
        assert metrics.vector("up") == []
    assert "remote read failed" in caplog.text


def test_the_offset_is_bounded_to_the_round_trip_and_a_millisecond() -> None:
    def clock(handler: Any) -> None:
        now = math.floor((time.time() + 40.0) * 1000) / 1000
        data([now, str(now)], "scalar")(handler)

    with prometheus(clock) as (metrics, _):
        offset = metrics.offset()
    assert offset.earliest <= 40.0 <= offset.latest
    assert offset.width < 1.0


RULES = {
    "status": "success",
    "data": {
        "groups": [
            {
                "name": "queue",
                "file": "/etc/queue.yaml",
                "interval": 1,
                "rules": [
                    {
                        "type": "alerting",
                        "name": "HighQueueDepth",
                        "query": "max(depth) > 50",
                        "duration": 5,
                        "labels": {"severity": "page"},
                        "annotations": {"runbook_url": "r.md"},
                        "health": "ok",
                        "state": "firing",
                        "lastEvaluation": "2026-11-22T06:00:00.123456789Z",
                        "alerts": [
                            {
                                "labels": {"alertname": "HighQueueDepth"},
                                "annotations": {},
                                "state": "firing",
                                "activeAt": "2026-11-22T05:59:00.5Z",
                                "value": "1.15e+02",
                            }
                        ],
                    },
                    {
                        "type": "alerting",
                        "name": "Fresh",
                        "query": "up == 0",
                        "duration": 0,
                        "health": "unknown",
                        "state": "inactive",
                        "lastEvaluation": "0001-01-01T00:00:00Z",
                        "alerts": [],
                    },
                    {"type": "recording", "name": "a:b", "query": "1", "health": "ok"},
                ],
            }
        ]
    },
}


def test_alerting_rules_are_read_with_their_group() -> None:
    with prometheus(answer(RULES)) as (metrics, _):
        rule, fresh = metrics.rules()
    assert (rule.alert, rule.group, rule.file, rule.for_seconds, rule.interval) == (
        "HighQueueDepth",
        "queue",
        "/etc/queue.yaml",
        5.0,
        1.0,
    )
    assert rule.last_evaluation == pytest.approx(1795327200.123456, abs=1e-6)
    assert (rule.active[0].state, rule.active[0].value) == ("firing", 115.0)
    assert (fresh.last_evaluation, fresh.state, fresh.active, fresh.labels) == (None, "inactive", (), {})


@pytest.mark.parametrize("body", [[], {"status": "success"}, {"data": {"groups": [{"rules": [{"type": "alerting"}]}]}}])
def test_rules_that_cannot_be_read_are_no_answer(body: Any) -> None:
    with prometheus(answer(body)) as (metrics, _), pytest.raises(Unreachable):
        metrics.rules()


def test_the_longest_interval_of_a_pool_counts() -> None:
    targets = [
        {"scrapePool": "api", "scrapeInterval": "15s"},
        {"scrapePool": "api", "scrapeInterval": "1m30s"},
        {"scrapePool": "slow", "scrapeInterval": "500ms"},
    ]
    with prometheus(answer({"data": {"activeTargets": targets}})) as (metrics, _):
        assert metrics.scrape_intervals() == {"api": 90.0, "slow": 0.5}


def test_readiness_and_the_start_are_read() -> None:
    started = {"data": {"startTime": "2026-11-22T06:02:50.4100654Z"}}
    with prometheus(answer(b"ready"), answer({"data": {"version": "2.42.0"}}), answer(started)) as (metrics, server):
        assert metrics.ready() == "2.42.0"
        assert metrics.started_at() == pytest.approx(1795327370.410065, abs=1e-6)
        assert server.asked[0][1] == "/-/ready"


@pytest.mark.parametrize(("text", "seconds"), [("15s", 15.0), ("1h30m", 5400.0), ("0", 0.0), ("1d", 86400.0)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "15", "1x", "-1s", "1 s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration(text)


# ---------------------------------------------------------------------------------------- alertmanager

TREE = {
    "receiver": "root",
    "group_wait": "10s",
    "routes": [
        {
            "match": {"severity": "page"},
            "receiver": "old",
            "routes": [{"match_re": {"team": "a|b"}, "group_wait": "1s"}],
        },
        {"matchers": ['severity="log"'], "receiver": "logged", "group_interval": "1m30s", "continue": True},
        {"matchers": ['severity=~"log|note"', "team!=c"], "receiver": "noted"},
        {"matchers": ['{env!~"prod.*", zone="x, y"}'], "receiver": "listed"},
    ],
}


@pytest.mark.parametrize(
    ("labels", "routes"),
    [
        ({}, [Route("root", 10, 300)]),
        ({"severity": "page"}, [Route("old", 10, 300)]),
        ({"severity": "page", "team": "b"}, [Route("old", 1, 300)]),
        ({"severity": "page", "team": "bb"}, [Route("old", 10, 300)]),
        ({"severity": "log"}, [Route("logged", 10, 90), Route("noted", 10, 300)]),
        ({"severity": "log", "team": "c"}, [Route("logged", 10, 90)]),
        ({"severity": "note"}, [Route("noted", 10, 300)]),
        ({"zone": "x, y"}, [Route("listed", 10, 300)]),
        ({"zone": "x, y", "env": "production"}, [Route("root", 10, 300)]),
    ],
)
def test_the_routing_tree(labels: dict[str, str], routes: list[Route]) -> None:
    assert routed(TREE, labels) == routes


def test_the_default_timing() -> None:
    assert routed({"receiver": "r"}, {"a": "b"}) == [Route("r", 30.0, 300.0)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('a="b"', [Matcher("a", "b")]),
        ("a=b", [Matcher("a", "b")]),
        ('{ a != "b" , c=~"d|e" }', [Matcher("a", "b", is_equal=False), Matcher("c", "d|e", is_regex=True)]),
        (r'a!~"x\"y\\z"', [Matcher("a", r"x\"y\z".replace(r"\"", '"'), is_regex=True, is_equal=False)]),
        ('a=""', [Matcher("a", "")]),
    ],
)
def test_matchers_are_read(text: str, found: list[Matcher]) -> None:
    assert matchers(text) == found


@pytest.mark.parametrize("text", ["a", "=b", 'a="b', "a~b"])
def test_what_is_no_matcher(text: str) -> None:
    with pytest.raises(ValueError, match="not a list of matchers"):
        matchers(text)


def test_the_route_comes_from_the_running_configuration() -> None:
    status = {"config": {"original": json.dumps({"route": TREE})}, "versionInfo": {"version": "0.25.0"}}
    with transport(answer(status)) as (http, _):
        assert Alertmanager(http, now=time.time).route({"severity": "log"}) == Route("logged", 10, 90)
    for broken in ("route: [", "{}", "route: {group_wait: soon}"):
        with transport(answer({"config": {"original": broken}})) as (http, _), pytest.raises(Unreachable):
            Alertmanager(http, now=time.time).route({})


def test_alerts_are_asked_for_by_name() -> None:
    alert = {
        "fingerprint": "f",
        "labels": {"alertname": 'a"b'},
        "startsAt": "2026-11-22T06:06:19.600Z",
        "endsAt": "2026-11-22T06:10:19.600Z",
        "status": {"state": "suppressed", "silencedBy": ["s1"], "inhibitedBy": []},
    }
    with transport(answer([alert]), answer({"not": "a list"})) as (http, server):
        notifier = Alertmanager(http, now=time.time)
        (found,) = notifier.alerts('a"b')
        assert (found.state, found.silenced_by, found.starts_at) == ("suppressed", ("s1",), 1795327579.6)
        assert asked(server) == {"filter": 'alertname="a\\"b"'}
        with pytest.raises(Unreachable):
            notifier.alerts("x")


def test_a_route_tells_on_which_ways_its_receiver_tells_people() -> None:
    def through(receivers: Any) -> tuple[str, ...] | None:
        original = json.dumps({"route": {"receiver": "a"}, "receivers": receivers})
        with transport(answer({"config": {"original": original}})) as (http, _):
            return Alertmanager(http, now=time.time).route({"alertname": "X"}).through

    assert through([{"name": "b"}, {"name": "a", "webhook_configs": [{"url": "x"}], "email_configs": []}]) == (
        "webhook",
    )
    assert through([{"name": "a"}]) == ()
    assert through([{"name": "b"}]) is None
    assert through(None) is None


def test_prometheus_says_whom_it_tells() -> None:
    urls = ["http://a:9093/api/v2/alerts"]
    told = {"status": "success", "data": {"activeAlertmanagers": [{"url": url} for url in urls]}}
    with prometheus(answer(told)) as (metrics, _):
        assert metrics.notified() == urls
    strange = answer({"status": "success", "data": {"activeAlertmanagers": [7]}})
    with prometheus(strange) as (metrics, _), pytest.raises(Unreachable, match="cannot be read"):
        metrics.notified()


def test_a_silence_begins_now_and_ends_when_told() -> None:
    with transport(answer({"silenceID": "s1"})) as (http, server):
        notifier = Alertmanager(http, now=lambda: 1795327200.0)
        assert notifier.silence([Matcher("a", "b")], author="me", comment="why", seconds=120) == "s1"
        body = json.loads(server.asked[0][2])
    assert body["endsAt"] == "2026-11-22T06:02:00.000Z"
    assert body["startsAt"] <= "2026-11-22T06:00:00.000Z"
    assert body["matchers"] == [{"name": "a", "value": "b", "isRegex": False, "isEqual": True}]


def test_ending_an_ended_silence_is_fine_and_a_real_failure_is_not() -> None:
    refused = answer("silence s1 already expired", 500)
    with transport(refused, answer({"status": {"state": "expired"}})) as (http, server):
        Alertmanager(http, now=time.time).expire("s1")
        assert [(method, path) for method, path, _ in server.asked] == [
            ("DELETE", "/api/v2/silence/s1"),
            ("GET", "/api/v2/silence/s1"),
        ]
    with transport(refused, answer(b"", 404)) as (http, _):
        Alertmanager(http, now=time.time).expire("s1")
    with transport(refused, answer({"status": {"state": "active"}})) as (http, _), pytest.raises(Unreachable):
        Alertmanager(http, now=time.time).expire("s1")


# ----------------------------------------------------------------------------------------------- pager


def book(instance: str, *seqs: int) -> Step:
    alert = {"status": "firing", "labels": {"alertname": "X"}, "startsAt": "2026-11-22T06:06:19.6Z", "fingerprint": "f"}
    entries = [
        {"seq": seq, "received_ms": 1795327580123, "webhook": {"receiver": "pager", "alerts": [alert, alert]}}
        for seq in seqs
    ]
    return answer({"instance": instance, "last": max(seqs, default=0), "dropped": 0, "notifications": entries})


def test_every_alert_of_every_webhook_is_a_notification() -> None:
    with transport(book("one", 3)) as (http, server):
        found = WebhookPager(http).notifications(2)
        assert [one.seq for one in found] == [3, 3]
        assert (found[0].received_at, found[0].receiver, found[0].status) == (1795327580.123, "pager", "firing")
        assert found[0].starts_at == 1795327579.6
        assert asked(server) == {"since": "2"}


def test_a_restarted_pager_goes_on_counting() -> None:
    with transport(book("one", 1, 2), book("one", 1, 2), book("two"), book("two", 1), book("two", 2)) as (http, server):
        pager = WebhookPager(http)
        assert [one.seq for one in pager.notifications(0)] == [1, 1, 2, 2]
        assert [one.seq for one in pager.notifications(2)] == [3, 3]
        assert asked(server) == {"since": "0"}
        assert [one.seq for one in pager.notifications(3)] == [4, 4]
        assert asked(server) == {"since": "1"}


@pytest.mark.parametrize("body", [[], {"notifications": [{"seq": 1}]}, {"nothing": 1}])
def test_a_strange_pager_is_no_answer(body: Any) -> None:
    with transport(answer(body)) as (http, _), pytest.raises(Unreachable):
        WebhookPager(http).notifications(0)
