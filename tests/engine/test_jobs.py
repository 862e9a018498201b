"""A drill as a Job: how it is made of the game day's template, and followed whatever becomes of its pod."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any

import pytest
import yaml

from harness.core.errors import BadInput, DrillError, Refused, Unreachable
from harness.engine import jobs
from harness.engine.jobs import (
    EXPERIMENT,
    EXPERIMENT_BYTES,
    FLEET_LABEL,
    LEFT,
    SWEEPER,
    TARGET_LABEL,
    Attendance,
    Ended,
    Order,
    check_size,
    image_of,
    is_there,
    job_name,
    job_of,
    pod_state,
    start,
)
from harness.engine.sweeper import HOME
from harness.ports.cluster import AlreadyExists, Json, OutcomeUnknown, Ref
from tests.fakes.cluster import lost_reply, no_answer
from tests.fakes.fleet import IMAGE, Script, Site

CRONJOB = Path(__file__).parents[2] / "manifests" / "gameday" / "cronjob.yaml"
FLEET = "fleet-20261126-100312-93fd"
ORDER = Order(FLEET, "one", "oom-workers", "name: oom-workers\n", ("--profile=smoke",), 240.5)
JOB = job_name(FLEET, "one")
HERE = Ref("Job", HOME, JOB)
POD = Ref("Pod", HOME, f"{JOB}-x")


def cronjob() -> Json:
    body: Json = yaml.safe_load(CRONJOB.read_text(encoding="utf-8"))
    return body


def besides(body: Json, *names: str) -> Json:
    return {name: value for name, value in body.items() if name not in names}


def made() -> Json:
    return job_of(ORDER, cronjob(), IMAGE)


# The Job


def test_the_job_is_the_game_days_pod_with_the_experiment_of_the_target() -> None:
    body, template = made(), cronjob()["spec"]["jobTemplate"]["spec"]
    pod, before = body["spec"]["template"]["spec"], template["template"]["spec"]
    (container,), (as_it_was,) = pod["containers"], before["containers"]
    assert container["image"] == IMAGE
    assert container["args"] == [
        "run", "/etc/drill/oom-workers.yaml", "--no-setup", "--cluster=pod", "--keep=cluster", "--runs=/var/run/drill",
        "--output=json", "--profile=smoke",
    ]  # fmt: skip
    assert besides(container, "image", "args", "volumeMounts") == besides(as_it_was, "image", "args", "volumeMounts")
    assert besides(pod, "containers", "volumes") == besides(before, "containers", "volumes")
    ours = ("template", "activeDeadlineSeconds")
    assert besides(body["spec"], *ours) == besides(template, *ours)
    assert body["spec"]["activeDeadlineSeconds"] == 240 + 15 * 60


def test_its_experiment_goes_with_it_and_no_volume_of_the_game_days_own() -> None:
    body = made()
    template = body["spec"]["template"]
    assert template["metadata"]["annotations"] == {EXPERIMENT: ORDER.text}
    volumes = {one["name"]: one for one in template["spec"]["volumes"]}
    (item,) = volumes.pop("config")["downwardAPI"]["items"]
    assert item == {
        "path": "oom-workers.yaml", "fieldRef": {"fieldPath": "metadata.annotations['drill.internal/experiment']"},
    }  # fmt: skip
    assert volumes
    assert all("emptyDir" in one for one in volumes.values())
    mounts = {one["name"]: one["mountPath"] for one in template["spec"]["containers"][0]["volumeMounts"]}
    assert mounts == {"config": "/etc/drill", "runs": "/var/run/drill", "tmp": "/tmp"}  # noqa: S108 - in its pod


def test_it_is_labelled_so_that_it_is_found() -> None:
    body = made()
    labels = {"app": "drill-fleet", FLEET_LABEL: FLEET, TARGET_LABEL: "one"}
    assert body["metadata"] == {"name": "drill-fleet-93fd-one", "namespace": HOME, "labels": labels}
    assert body["spec"]["template"]["metadata"]["labels"] == labels
    assert len(job_name(FLEET, "x" * 40)) <= 63


def test_the_template_is_left_as_it_was() -> None:
    template = cronjob()
    job_of(ORDER, template, IMAGE)
    assert template == cronjob()


def test_an_experiment_that_fits_into_no_annotation_is_refused() -> None:
    check_size("x", "\u00e9" * (EXPERIMENT_BYTES // 2))
    with pytest.raises(BadInput) as refused:
        check_size("x", "\u00e9" * (EXPERIMENT_BYTES // 2) + "y")
    assert refused.value.slug == "experiment-too-large"


def test_its_image_is_that_of_the_sweeper() -> None:
    site = Site()
    assert image_of(site) == IMAGE
    site.drop(SWEEPER)
    with pytest.raises(Refused) as refused:
        image_of(site)
    assert refused.value.slug == "harness-not-installed"


# Its start


def test_a_job_is_made_once_also_where_the_reply_was_lost() -> None:
    site = Site()
    site.fail_next("create", after=True)
    start(site, made())
    assert is_there(site, JOB)
    assert len([call for call in site.calls if call.verb == "create"]) == 1
    start(site, made())  # it is ours, and there


def test_where_the_reply_was_lost_and_no_job_is_there_it_is_an_error() -> None:
    site = Site()
    site.fail_next("create", lost_reply())
    with pytest.raises(OutcomeUnknown):
        start(site, made())
    assert not is_there(site, JOB)


@pytest.mark.parametrize("labels", [{FLEET_LABEL: "fleet-20261126-100312-0000"}, {}])
def test_a_job_of_another_fleet_is_not_ours(labels: dict[str, str]) -> None:
    site, body = Site(), made()
    body["metadata"]["labels"] = labels
    site.put(body)
    with pytest.raises(AlreadyExists):
        start(site, made())


# Where a pod stands

STATES: dict[str, tuple[Json, tuple[str, str, int | None]]] = {
    "nothing yet": ({}, ("waiting", "", None)),
    "no node": (
        {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"},
        ]},
        ("waiting", "0/3 nodes are available", None),
    ),
    "a node": ({"conditions": [{"type": "PodScheduled", "status": "True", "message": "x"}]}, ("waiting", "", None)),
    "no image": (
        {"containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]},
        ("waiting", "ErrImagePull: not found", None),
    ),
    "running": ({"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}, ("running", "", None)),
    "running, and no state": ({"phase": "Running", "containerStatuses": [{"state": None}]}, ("waiting", "", None)),
    "ended": (
        {"containerStatuses": [{"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]},
        ("ended", "Completed", 0),
    ),
    "out of memory": (
        {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]},
        ("ended", "OOMKilled", 137),
    ),
    "evicted": (
        {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"},
        ("ended", "Evicted: The node was low on memory", None),
    ),
    "evicted, with a container that never ran": (
        {"phase": "Failed", "reason": "Evicted", "containerStatuses": [{"state": {"waiting": {"reason": "Creating"}}}]},
        ("ended", "Evicted", None),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_where_a_pod_stands(name: str) -> None:
    status, expected = STATES[name]
    assert pod_state({"status": status}) == expected


def test_a_pod_without_a_status_waits() -> None:
    assert pod_state({}) == ("waiting", "", None)


# Attendance


@dataclass
class Watched:
    """One Job and who attends it."""

    site: Site
    within: float = 5.0
    lines: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.attendance = Attendance(
            self.site, JOB, self.site.follow, self.lines.append, self.said.append, self.within, again=0.001
        )

    def attend(self) -> Ended:
        start(self.site, made())
        return self.attendance.attend()


def site(*lines: str, **script: Any) -> Site:
    return Site(Script(list(lines), **script))


def change(where: Site, **script: Any) -> None:
    """Let the pod come into another state."""
    for name, value in script.items():
        setattr(where.script, name, value)
    uid = where.peek(HERE)["metadata"]["uid"] if where.holds(HERE) else ""
    where.pod(JOB, uid)


def test_a_pod_is_followed_to_its_end() -> None:
    watched = Watched(site("one", "two", code=1, reason="Error"))
    assert watched.attend() == Ended(1)
    assert (watched.lines, watched.attendance.lines, watched.said) == (["one", "two"], 2, [])
    assert is_there(watched.site, JOB), "who reads its result takes it away"


def test_a_pod_that_died_says_of_what() -> None:
    assert Watched(site(code=137, reason="OOMKilled")).attend() == Ended(137, "pod-ended", "OOMKilled")


def test_what_a_pod_waits_for_is_told_once_and_it_is_waited_for() -> None:
    watched = Watched(site("one", waits="ErrImagePull"))

    def say(text: str) -> None:
        watched.said.append(text)
        for reason in ("ErrImagePull", "ImagePullBackOff") if text.endswith("ErrImagePull") else ("",):
            change(watched.site, waits=reason)

    watched.attendance.say = say
    assert watched.attend() == Ended(0)
    assert watched.said == ["its pod waits: ErrImagePull", "its pod waits: ImagePullBackOff"]


def test_a_pod_that_never_starts_is_given_up_and_its_job_removed() -> None:
    watched = Watched(site(waits="ErrImagePull"), within=0.05)
    assert watched.attend() == Ended(None, "pod-not-started", "no pod within 0 s: ErrImagePull")
    assert not is_there(watched.site, JOB)
    assert not watched.site.holds(POD)


def test_so_is_a_job_without_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(site(), within=0.05)
    monkeypatch.setattr(watched.site, "begin", lambda _: None)
    assert watched.attend() == Ended(None, "pod-not-started", "no pod within 0 s: it has none")
    assert not is_there(watched.site, JOB)


def test_a_pod_that_began_while_its_job_was_removed_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(site("one", waits="Creating"), within=0.05)
    delete = watched.site.delete

    def begins(ref: Ref, **options: Any) -> bool:
        watched.site.pod(JOB)  # it has no owner here: it is still there when its Job is gone
        done = delete(ref, **options)
        assert [pod_state(pod)[0] for pod in watched.site.listing("Pod", HOME)] == ["waiting"]
        change(watched.site, waits="", code=2, reason="Error")
        return done

    monkeypatch.setattr(watched.site, "delete", begins)
    assert watched.attend() == Ended(2)
    assert watched.lines == ["one"]


def test_a_pod_that_neither_begins_nor_goes_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LOST_AFTER", 0.02)
    watched = Watched(site(waits="Creating"), within=0.02)
    start(watched.site, made())
    watched.site.pod(JOB)
    with pytest.raises(Unreachable) as lost:
        watched.attendance.attend()
    assert lost.value.slug == "pod-stays"
    assert not is_there(watched.site, JOB)


def test_a_log_that_breaks_is_taken_up_behind_the_last_line() -> None:
    watched = Watched(site("one", "two", "three", code=None, breaks=[1, 2, 2]))
    watched.site.on_line = lambda line: change(watched.site, code=0) if line == "three" else None
    assert watched.attend() == Ended(0)
    assert watched.lines == ["one", "two", "three"]
    assert watched.site.followed[:4] == [0, 1, 2, 2]


def test_what_a_pod_said_while_its_log_was_broken_is_read_when_it_has_ended() -> None:
    watched = Watched(site("one", "two", "last words", code=1, breaks=[1, 1]))
    assert watched.attend() == Ended(1)
    assert watched.lines == ["one", "two", "last words"]


def test_so_is_what_it_said_behind_a_log_that_ended_too_early() -> None:
    watched = Watched(site("one", "last words", code=None))
    follow = watched.site.follow

    def short(namespace: str, pod: str, skip: int, stop: Flag) -> Iterator[str]:
        if skip == 0:
            yield "one"
            change(watched.site, code=0)
        else:
            yield from follow(namespace, pod, skip, stop)

    watched.attendance.follow = short
    assert watched.attend() == Ended(0)
    assert watched.lines == ["one", "last words"]


def test_a_log_that_can_no_longer_be_read_keeps_nobody_waiting_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LOST_AFTER", 0.02)
    watched = Watched(site("one", code=137, reason="OOMKilled", breaks=[0] * 100_000))
    assert watched.attend() == Ended(137, "pod-ended", "OOMKilled")
    assert watched.lines == []


def test_a_pod_that_is_to_go_and_does_not_is_not_followed_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LOST_AFTER", 0.02)
    watched = Watched(site("one", code=None))
    start(watched.site, made())
    pod = watched.site.get(POD)
    pod["metadata"] |= {"deletionTimestamp": "2026-11-26T10:15:00Z", "deletionGracePeriodSeconds": 0}
    pod["metadata"]["finalizers"] = ["x"]
    watched.site.put(pod)
    with pytest.raises(Unreachable) as lost:
        watched.attendance.attend()
    assert lost.value.slug == "pod-stays"
    assert watched.lines == ["one"]


def test_a_pod_that_is_removed_by_somebody_else_is_told() -> None:
    watched = Watched(site("one", code=None))
    watched.site.on_line = lambda _: watched.site.drop(POD)
    assert watched.attend() == Ended(None, "pod-removed", "its pod was removed")
    assert watched.lines == ["one"]


def test_a_server_that_is_away_for_a_while_is_waited_for() -> None:
    watched = Watched(site("one"))
    start(watched.site, made())
    watched.site.on_line = lambda _: watched.site.fail_next("get", times=5)
    assert watched.attendance.attend() == Ended(0)


def test_one_that_is_away_for_long_is_lost_and_the_job_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LOST_AFTER", 0.02)
    watched = Watched(site("one"))
    watched.site.on_line = lambda _: watched.site.fail_next("get", times=100_000)
    with pytest.raises(Unreachable):
        watched.attend()
    assert watched.site.holds(HERE)
    assert [call for call in watched.site.calls if call.verb == "delete"] == []


def test_what_the_server_refuses_is_not_tried_again() -> None:
    watched = Watched(site("one"))
    refused = Refused("forbidden", "no", expected="yes", remedy="ask")
    watched.site.on_line = lambda _: watched.site.fail_next("get", refused)
    with pytest.raises(DrillError) as told:
        watched.attend()
    assert told.value is refused


# Called off, and left


def test_called_off_before_it_began_it_never_does() -> None:
    watched = Watched(site(waits="Creating"))
    start(watched.site, made())
    watched.attendance.call_off()
    assert watched.attendance.attend() == Ended(None, "called-off", "it was called off before its pod had started")
    assert not watched.site.holds(HERE)


def test_called_off_while_its_pod_is_waited_for_it_never_begins() -> None:
    watched = Watched(site(waits="Creating"), within=50.0)
    watched.attendance.say = lambda _: Thread(target=watched.attendance.call_off).start()
    assert watched.attend().slug == "called-off"
    assert not watched.site.holds(HERE)


def test_called_off_while_it_drills_it_is_followed_until_it_has_undone_everything() -> None:
    watched = Watched(site("one", "undone", code=None))
    watched.site.on_line = lambda line: watched.attendance.call_off() if line == "one" else None
    assert watched.attend() == Ended(None)
    assert watched.lines == ["one", "undone"]
    assert not watched.site.holds(HERE)


def test_one_that_was_made_behind_the_back_of_whoever_called_it_off_goes_too() -> None:
    watched = Watched(site("one", code=None))
    watched.attendance.call_off()  # there is no Job yet
    assert watched.attend() == Ended(None)
    assert not watched.site.holds(HERE)


def test_calling_off_is_tried_again_where_the_server_is_away_and_told_where_it_stays_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(site())
    start(watched.site, made())
    watched.site.fail_next("delete", times=3)
    watched.attendance.call_off()
    assert not watched.site.holds(HERE)
    monkeypatch.setattr(jobs, "LOST_AFTER", 0.0)
    watched.site.fail_next("delete", times=1000)
    with pytest.raises(Unreachable):
        watched.attendance.call_off()


def test_left_while_it_drills_it_goes_on() -> None:
    watched = Watched(site("one", "two", code=None))
    watched.site.on_line = lambda _: watched.attendance.leave()
    assert watched.attend() == LEFT
    assert watched.lines == ["one"]
    assert watched.site.holds(HERE)


def test_left_while_its_pod_is_waited_for_its_job_stays() -> None:
    watched = Watched(site(waits="Creating"), within=50.0)
    watched.attendance.say = lambda _: watched.attendance.leave()
    assert watched.attend() == LEFT
    assert watched.site.holds(HERE)


def test_left_while_the_server_is_away_it_is_not_insisted() -> None:
    watched = Watched(site("one"))

    def gone(_: str) -> None:
        watched.site.fail_next("get", no_answer(), times=100_000)
        watched.attendance.leave()

    watched.site.on_line = gone
    assert watched.attend() == LEFT


def test_whether_a_job_is_there() -> None:
    where = site()
    assert not is_there(where, JOB)
    start(where, made())
    assert is_there(where, JOB)
    where.fail_next("get")
    with pytest.raises(Unreachable):
        is_there(where, JOB)
