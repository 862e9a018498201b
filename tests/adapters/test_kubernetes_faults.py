"""The Kubernetes adapter against an API server that misbehaves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Event as Flag
from threading import Timer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from harness.adapters.kubernetes import KubeCluster, Timing
from harness.adapters.kubernetes.client import LOG_LINE
from harness.core.errors import BadInput, DrillError, Unreachable
from harness.ports.cluster import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    Json,
    NotFound,
    OutcomeUnknown,
    Ref,
)
from harness.ports.retry import Transient
from tests.adapters.server import Peer, Step, answer, cut, peer, silence, stream

QUICK = Timing(connect=1.0, read=0.3, budget=1.0, watch=1.0, grace=0.2, give_up=1.0)
THERE = Ref("ConfigMap", "shop", "settings")


@contextmanager
def cluster(*steps: Step, timing: Timing = QUICK, stop: Flag | None = None) -> Iterator[tuple[KubeCluster, Peer]]:
    from kubernetes.client.configuration import Configuration

    with peer(*steps) as server:
        configuration = Configuration(host=server.url)
        configuration.api_key["BearerToken"] = "Bearer abc"
        made = KubeCluster(configuration, now=time.time, timing=timing, stop=stop)
        try:
            yield made, server
        finally:
            made.close()


def config(version: int, name: str = "settings", **data: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": str(version), "uid": "u"},
        "data": data,
    }


def listing(version: int, *items: Json) -> Step:
    bare = [{key: value for key, value in item.items() if key not in ("apiVersion", "kind")} for item in items]
    return answer({"kind": "ConfigMapList", "metadata": {"resourceVersion": str(version)}, "items": bare})


def told(type_: str, body: Json) -> Json:
    return {"type": type_, "object": body}


def refusal(code: int, reason: str, message: str, details: Json | None = None) -> Step:
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return answer(body | ({"details": details} if details else {}), code)


GONE = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}


# ----------------------------------------------------------------------------------------------- reads


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(answer({"message": "try later"}, 503), id="503"),
        pytest.param(answer({"message": "busy"}, 429, {"Retry-After": "0"}), id="429"),
        pytest.param(answer(b"{not json"), id="malformed"),
        pytest.param(answer([1]), id="no object"),
        pytest.param(cut, id="cut"),
        pytest.param(silence, id="silence"),
    ],
)
def test_a_read_survives_what_passes(trouble: Step) -> None:
    patient = replace(QUICK, budget=20.0)
    with cluster(trouble, answer(config(7, color="red")), timing=patient) as (kube, server):
        assert kube.get(THERE)["data"] == {"color": "red"}
        assert len(server.asked) == 2


@pytest.mark.parametrize("trouble", [answer({}, 500), cut, silence, answer(b"")])
def test_a_read_gives_up_within_its_budget(trouble: Step) -> None:
    with cluster(trouble) as (kube, server):
        begun = time.monotonic()
        with pytest.raises(Unreachable) as caught:
            kube.get(THERE)
        assert not isinstance(caught.value, OutcomeUnknown)
        assert time.monotonic() - begun < QUICK.budget + QUICK.read + 1.0
        assert 2 <= len(server.asked) < 20


def test_a_stop_ends_the_repeats() -> None:
    stop = Flag()
    timing = Timing(connect=1.0, read=0.3, budget=60.0)
    with cluster(answer({}, 503, {"Retry-After": "50"}), timing=timing, stop=stop) as (kube, server):
        Timer(0.2, stop.set).start()
        begun = time.monotonic()
        with pytest.raises(Unreachable):
            kube.get(THERE)
        assert time.monotonic() - begun < 5.0
        assert len(server.asked) <= 2


def test_an_absent_server_is_unreachable_and_a_write_to_it_surely_did_not_happen() -> None:
    from kubernetes.client.configuration import Configuration

    with peer(cut) as server:
        url = server.url
    kube = KubeCluster(Configuration(host=url), now=time.time, timing=QUICK)
    with pytest.raises(Unreachable) as caught:
        kube.create(config(1))
    assert not isinstance(caught.value, OutcomeUnknown)
    with pytest.raises(Unreachable, match="did not answer get configmap/settings in shop"):
        kube.get(THERE)
    kube.close()


@pytest.mark.parametrize(
    ("status", "reason", "message", "details", "error"),
    [
        (400, "BadRequest", "strict decoding error: unknown field", None, Invalid),
        (401, "Unauthorized", "Unauthorized", None, Forbidden),
        (403, "Forbidden", 'pods "x" is forbidden: User "a" cannot get', None, Forbidden),
        (404, "NotFound", 'configmaps "x" not found', None, NotFound),
        (409, "AlreadyExists", 'configmaps "x" already exists', {"name": "x"}, AlreadyExists),
        (409, "Conflict", "the object has been modified", {"name": "x"}, Conflict),
        (422, "Invalid", "the server rejected our request due to an error in our request", {}, Conflict),
        (422, "Invalid", 'ConfigMap "a" is invalid: data: x', {"name": "a", "causes": [{"field": "data"}]}, Invalid),
        (422, "Invalid", "uid", {"name": "a", "causes": [{"field": "metadata.uid"}]}, Conflict),
        (
            422,
            "Invalid",
            "deployments.apps \"w\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
            {"name": "w", "causes": [{"message": "no"}]},
            Forbidden,
        ),
        (413, "RequestEntityTooLarge", "configmaps \"w\" is forbidden: ValidatingAdmissionPolicy 'p'", {}, Forbidden),
        (422, "Invalid", 'admission webhook "w.x" denied the request: no', {"name": "w"}, Forbidden),
        (
            422,
            "Invalid",
            "ConfigMap \"a\" is invalid: data[x is forbidden: ValidatingAdmissionPolicy 'p' denied]: bad",
            {"name": "a", "causes": [{"field": "data"}]},
            Invalid,
        ),
    ],
)
def test_refusals_are_told_apart(
    status: int, reason: str, message: str, details: Json | None, error: type[DrillError]
) -> None:
    with cluster(refusal(status, reason, message, details)) as (kube, server):
        with pytest.raises(error) as caught:
            kube.create(config(1))
        assert type(caught.value) is error
        assert message in caught.value.fact
        assert len(server.asked) == 1


def test_the_identity_is_sent_and_can_be_exchanged() -> None:
    review = answer({"status": {"userInfo": {"username": "robot", "groups": ["machines"]}}})
    with cluster(review) as (kube, server):
        assert kube.whoami().username == "robot"
        assert server.headers[-1]["authorization"] == "Bearer abc"
        other = kube.with_token("xyz")
        assert other.whoami().groups == ("machines",)
        assert server.headers[-1]["authorization"] == "Bearer xyz"
        assert other.server().authorization() == "Bearer xyz"
        other.close()


def test_a_responder_writes_under_a_name_of_its_own() -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "shop"}}
    with cluster(answer(body), answer(body)) as (kube, server):
        other = kube.with_token("xyz", manager="drill-autopilot")
        ref = Ref("ConfigMap", "shop", "c")
        kube.patch(ref, [])
        other.patch(ref, [])
        managers = [parse_qs(urlsplit(asked[1]).query)["fieldManager"] for asked in server.asked]
        assert managers == [["drill"], ["drill-autopilot"]]
        other.close()


def test_the_first_container_is_the_one_whose_logs_are_read() -> None:
    pod = {"spec": {"containers": [{"name": "main"}, {"name": "proxy"}]}}
    with cluster(answer(pod), answer(b"a\nb\n")) as (kube, server):
        assert kube.logs("shop", "worker-1", previous=True, lines=2) == "a\nb\n"
        query = parse_qs(urlsplit(server.asked[1][1]).query)
        assert (query["container"], query["tailLines"], query["previous"]) == (["main"], ["2"], ["true"])


# ---------------------------------------------------------------------------------------------- writes


@pytest.mark.parametrize("trouble", [cut, silence, answer({}, 500), answer(b"{torn")])
def test_a_lost_reply_to_a_write_is_unknown_and_never_repeated(trouble: Step) -> None:
    with cluster(trouble) as (kube, server):
        writes: list[Callable[[], Json]] = [
            lambda: kube.create(config(1)),
            lambda: kube.replace(config(1)),
            lambda: kube.patch(THERE, [{"op": "remove", "path": "/data"}]),
        ]
        for write in writes:
            before = len(server.asked)
            with pytest.raises(OutcomeUnknown):
                write()
            assert len(server.asked) == before + 1


def test_a_dry_run_that_is_lost_changed_nothing() -> None:
    with cluster(cut) as (kube, server):
        with pytest.raises(Unreachable) as caught:
            kube.create(config(1), dry_run=True)
        assert not isinstance(caught.value, OutcomeUnknown)
        assert len(server.asked) == 1


def test_a_throttled_write_did_not_happen() -> None:
    with cluster(answer({}, 429)) as (kube, server):
        with pytest.raises(Transient):
            kube.create(config(1))
        assert len(server.asked) == 1


def test_a_patch_is_strict_and_signed() -> None:
    operations = [{"op": "test", "path": "/data/color", "value": "red"}]
    with cluster(answer(config(2))) as (kube, server):
        kube.patch(THERE, operations, dry_run=True)
        method, path, body = server.asked[0]
        assert (method, urlsplit(path).path) == ("PATCH", "/api/v1/namespaces/shop/configmaps/settings")
        assert parse_qs(urlsplit(path).query) == {
            "fieldManager": ["drill"],
            "fieldValidation": ["Strict"],
            "dryRun": ["All"],
        }
        assert server.headers[0]["Content-Type"] == "application/json-patch+json"
        assert json.loads(body) == operations


@pytest.mark.parametrize(
    ("kind", "words"),
    [("ConfigMap", '/data/color is "blue" and not "red"'), ("Secret", "answered 422 to patch secret/settings in shop")],
)
def test_a_failed_test_says_which_value_was_another_but_not_a_secret(kind: str, words: str) -> None:
    generic = refusal(422, "Invalid", "the server rejected our request due to an error in our request", {})
    with cluster(generic, answer(config(2, color="blue") | {"kind": kind})) as (kube, _):
        with pytest.raises(Conflict, match=words) as caught:
            kube.patch(Ref(kind, "shop", "settings"), [{"op": "test", "path": "/data/color", "value": "red"}])
        assert kind == "ConfigMap" or "blue" not in str(caught.value)


HUSH = "aHVzaA=="
ECHO = f'Secret "keys" is invalid: patch: Invalid value: {{"data":{{"key":"{HUSH}"}}}}'
CAUSES = {"causes": [{"field": "data[key]", "reason": "FieldValueInvalid", "message": HUSH}]}


POLICY = "secrets \"keys\" is forbidden: ValidatingAdmissionPolicy '{}' with binding 'b' denied request: {}"


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        (refusal(422, "Invalid", ECHO, CAUSES), "data[key] (FieldValueInvalid)"),
        (refusal(400, "BadRequest", ECHO), "BadRequest, no field named"),
        (refusal(500, "InternalError", ECHO), "InternalError, no field named"),
        (answer(ECHO.encode(), 502), "no reason, no field named"),
        (refusal(403, "Forbidden", f'admission webhook "w.example.org" denied the request: {HUSH}'), '"w.example.org"'),
        (refusal(422, "Invalid", POLICY.format("theirs", HUSH)), "ValidatingAdmissionPolicy 'theirs'"),
        (refusal(422, "Invalid", POLICY.format("drill-guard-secrets", "a drill moves")), "a drill moves"),
        (refusal(403, "Forbidden", 'secrets "keys" is forbidden: User "u" cannot patch'), "cannot patch"),
    ],
)
def test_no_refusal_about_a_secret_tells_what_is_in_it(step: Step, kept: str) -> None:
    ref = Ref("Secret", "shop", "keys")
    with cluster(step) as (kube, _):
        for call in (
            lambda: kube.patch(ref, [{"op": "add", "path": "/data/key", "value": HUSH}]),
            lambda: kube.get(ref),
            lambda: kube.list("Secret", "shop"),
            lambda: kube.create({"kind": "Secret", "metadata": {"name": "keys", "namespace": "shop"}}),
        ):
            with pytest.raises(DrillError) as caught:
                call()
            assert HUSH not in f"{caught.value}{caught.value.as_dict()}"
            assert kept in caught.value.fact


def test_a_server_that_answers_with_a_whole_secret_is_not_believed() -> None:
    whole = {**config(3), "kind": "Secret", "data": {"key": HUSH}, "type": "Opaque"}
    with cluster(answer(whole)) as (kube, server):
        assert HUSH not in str(kube.get(Ref("Secret", "shop", "keys")))
        assert HUSH not in str(kube.patch(Ref("Secret", "shop", "keys"), []))
    assert {headers["Accept"] for headers in server.headers} == {
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    }


# ----------------------------------------------------------------------------------------------- watch


def names(events: Any) -> list[tuple[str, tuple[str, ...]]]:
    return [(event.type, tuple(body["metadata"]["name"] for body in event.items)) for event in events]


def take(kube: KubeCluster, count: int) -> list[tuple[str, tuple[str, ...]]]:
    stop = Flag()
    events = kube.watch("ConfigMap", "shop", "app=x", stop)
    try:
        return names(islice(events, count))
    finally:
        stop.set()
        events.close()  # type: ignore[attr-defined]


def versions(server: Peer) -> list[str]:
    """The versions that watches asked for; "list" for a list."""
    queries = [parse_qs(urlsplit(path).query) for _, path, _ in server.asked]
    return [query.get("resourceVersion", ["list"])[0] for query in queries]


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param("cut", id="cut between lines"),
        pytest.param("torn", id="cut inside a line"),
        pytest.param("garbage", id="a line that is not JSON"),
        pytest.param("500", id="an error in the stream"),
        pytest.param("end", id="a clean end"),
    ],
)
def test_a_watch_resumes_from_the_last_version(trouble: str) -> None:
    first = told("MODIFIED", config(11))
    broken = {
        "cut": stream(first, then="cut"),
        "torn": stream(first, b'{"type":"ADD', then="cut"),
        "garbage": stream(first, b"<html>\n"),
        "500": stream(first, {"type": "ERROR", "object": {"code": 500, "message": "etcd"}}),
        "end": stream(first),
    }[trouble]
    rest = stream(told("DELETED", config(12)), then="silence")
    with cluster(listing(10, config(9)), broken, rest) as (kube, server):
        assert take(kube, 3) == [("sync", ("settings",)), ("modified", ("settings",)), ("deleted", ("settings",))]
        assert versions(server) == ["list", "10", "11"]
        assert all(parse_qs(urlsplit(path).query)["labelSelector"] == ["app=x"] for _, path, _ in server.asked)


@pytest.mark.parametrize(
    "gone", [stream(GONE), refusal(410, "Expired", "too old resource version")], ids=["in the stream", "as a status"]
)
def test_a_forgotten_version_lists_again(gone: Step) -> None:
    last = stream(told("ADDED", config(21, "late")), then="silence")
    with cluster(listing(10), gone, listing(20, config(15, "new")), last) as (kube, server):
        assert take(kube, 3) == [("sync", ()), ("sync", ("new",)), ("added", ("late",))]
        assert versions(server) == ["list", "10", "list", "20"]


def test_a_bookmark_moves_the_version_and_is_not_told() -> None:
    bookmark = {"type": "BOOKMARK", "object": {"kind": "ConfigMap", "metadata": {"resourceVersion": "50"}}}
    rest = stream(told("ADDED", config(51)), then="silence")
    with cluster(listing(10), stream(bookmark, b"\n"), rest) as (kube, server):
        assert take(kube, 2) == [("sync", ()), ("added", ("settings",))]
        assert versions(server) == ["list", "10", "50"]


def test_a_silent_link_is_given_up_and_resumed() -> None:
    rest = stream(told("ADDED", config(11)), then="silence")
    with cluster(listing(10), stream(then="silence"), rest) as (kube, server):
        begun = time.monotonic()
        assert take(kube, 2)[1] == ("added", ("settings",))
        assert time.monotonic() - begun >= QUICK.watch
        assert versions(server) == ["list", "10", "10"]


@pytest.mark.parametrize("quiet", [stream(then="silence"), silence], ids=["after headers", "before headers"])
def test_a_quiet_watch_stops_at_once(quiet: Step) -> None:
    stop = Flag()
    with cluster(listing(10), quiet, timing=Timing()) as (kube, _):
        events = kube.watch("ConfigMap", "shop", "", stop)
        assert next(events).type == "sync"
        Timer(0.2, stop.set).start()
        begun = time.monotonic()
        assert list(events) == []
        assert time.monotonic() - begun < 1.0


def test_a_server_that_always_closes_is_not_hammered() -> None:
    stop = Flag()
    with cluster(listing(10), stream()) as (kube, server):
        Timer(1.5, stop.set).start()
        assert names(kube.watch("ConfigMap", "shop", "", stop)) == [("sync", ())]
        assert 2 <= len(server.asked) < 15


def test_a_lasting_loss_is_told() -> None:
    with cluster(listing(10), answer({}, 503)) as (kube, server):
        events = kube.watch("ConfigMap", "shop", "", Flag())
        assert next(events).type == "sync"
        with pytest.raises(Unreachable, match="no connection for 1 s"):
            next(events)
        assert len(server.asked) < 15


@pytest.mark.parametrize(("status", "error"), [(403, Forbidden), (404, NotFound), (401, Forbidden)])
def test_a_watch_that_is_not_allowed_says_so(status: int, error: type[DrillError]) -> None:
    with cluster(listing(10), answer({"message": "no"}, status)) as (kube, _):
        events = kube.watch("ConfigMap", "shop", "", Flag())
        assert next(events).type == "sync"
        with pytest.raises(error):
            next(events)


# ---------------------------------------------------------------------------------------------- set-up


def test_an_unusable_kubeconfig_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "config"
    with pytest.raises(BadInput) as caught:
        KubeCluster.from_kubeconfig(path, None, now=time.time)
    assert caught.value.where == str(path)
    path.write_text("contexts: [", encoding="utf-8")
    with pytest.raises(BadInput):
        KubeCluster.from_kubeconfig(path, None, now=time.time)
    path.write_text("apiVersion: v1\nkind: Config\ncontexts: []\nclusters: []\nusers: []\n", encoding="utf-8")
    with pytest.raises(BadInput, match="staging"):
        KubeCluster.from_kubeconfig(path, "staging", now=time.time)


def test_outside_of_a_pod_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(BadInput):
        KubeCluster.in_cluster(now=time.time)


# A pod's log as it comes


def followed(made: KubeCluster, skip: int = 0) -> list[str]:
    return list(made.follow("shop", "till-1", skip, Flag()))


def test_a_log_is_followed_line_by_line_and_taken_up_behind_what_was_read() -> None:
    log = stream(b"one\ntw", b"o\n\n  \nthr", b"\xc3\xa9e\xff\n")
    with cluster(log) as (made, server):
        assert followed(made) == ["one", "two", "thr\u00e9e\ufffd"]
        assert followed(made, 2) == ["thr\u00e9e\ufffd"]
        assert followed(made, 3) == []
    path, query = urlsplit(server.asked[0][1]).path, parse_qs(urlsplit(server.asked[0][1]).query)
    assert (path, query) == ("/api/v1/namespaces/shop/pods/till-1/log", {"follow": ["true"]})


def test_a_log_that_breaks_hands_on_what_came_and_no_half_line() -> None:
    for log in (stream(b"one\ntwo\nthr", then="cut"), stream(b"one\ntwo\nthr")):
        with cluster(log) as (made, _):
            lines = made.follow("shop", "till-1", 0, Flag())
            assert list(islice(lines, 2)) == ["one", "two"]
            with pytest.raises(Unreachable):
                next(lines)


def test_of_a_line_without_end_the_beginning_is_kept_and_the_next_one_whole() -> None:
    long = b"x" * (LOG_LINE // 4)
    with cluster(stream(b"one\n", *[long] * 40, b"y\ntwo\n")) as (made, _):
        found = followed(made)
    assert [len(line) for line in found] == [3, LOG_LINE, 3]
    assert set(found[1]) == {"x"}


def test_whoever_follows_a_log_may_stop_between_two_lines() -> None:
    stop = Flag()
    with cluster(stream(b"one\n", b"two\n", then="silence")) as (made, _):
        lines = made.follow("shop", "till-1", 0, stop)
        assert next(lines) == "one"
        stop.set()
        assert list(lines) == []


def test_a_log_of_no_pod_is_told() -> None:
    missing = {"kind": "Status", "reason": "NotFound", "message": 'pods "till-1" not found', "code": 404}
    with cluster(answer(missing, 404)) as (made, _), pytest.raises(NotFound):
        followed(made)
