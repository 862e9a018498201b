"""What the CronJob of a game day promises, read from its manifest and held against the code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.clusters.harness_image import RECIPE
from harness.clusters.kubectl import Kubectl
from harness.clusters.provider import Access
from harness.core.decide import CLEAN_WITHIN, UNDO_FOR
from harness.loading import find, load, load_gameday
from tests.docs.pages import ROOT

FOLDER = ROOT / "manifests" / "gameday"


def cronjob() -> dict[str, Any]:
    body: dict[str, Any] = yaml.safe_load((FOLDER / "cronjob.yaml").read_text(encoding="utf-8"))
    return body


def job() -> dict[str, Any]:
    spec: dict[str, Any] = cronjob()["spec"]["jobTemplate"]["spec"]
    return spec


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = job()["template"]["spec"]
    return spec


def test_one_drill_at_a_time_on_time_and_never_again() -> None:
    spec = cronjob()["spec"]
    assert (spec["concurrencyPolicy"], spec["startingDeadlineSeconds"]) == ("Forbid", 600)
    assert spec["timeZone"]
    assert (job()["backoffLimit"], pod()["restartPolicy"]) == (0, "Never")


def test_a_pod_that_is_told_to_go_has_the_time_to_undo() -> None:
    assert pod()["terminationGracePeriodSeconds"] >= UNDO_FOR + CLEAN_WITHIN + 30


def test_the_deadline_leaves_time_for_all_that_may_come_before_and_after() -> None:
    day = load_gameday(FOLDER / "gameday.yaml").gameday
    profiles = [load(find(name, ROOT)).experiment.profiles[day.profile] for name in day.experiments]
    longest = max(profile.timeout for profile in profiles)
    waits = day.announcement.before + day.gate.patience
    assert job()["activeDeadlineSeconds"] >= waits + longest + UNDO_FOR + CLEAN_WITHIN


def test_the_shipped_day_is_one_and_its_experiments_exist() -> None:
    day = load_gameday(FOLDER / "gameday.yaml").gameday
    assert day.time_zone == cronjob()["spec"]["timeZone"], "one time zone for the schedule and for the window"
    assert all(load(find(name, ROOT)).experiment.profiles[day.profile] for name in day.experiments)


def test_the_pod_can_do_nothing_but_drill() -> None:
    (container,) = pod()["containers"]
    security = {**pod()["securityContext"], **container["securityContext"]}
    assert security["runAsNonRoot"] is True
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == RECIPE.user
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any(pod().get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))
    assert not any("hostPath" in volume or "secret" in volume for volume in pod()["volumes"])
    assert (pod()["serviceAccountName"], container["image"]) == ("drill-runner", RECIPE.repository)
    assert container["resources"].keys() == {"requests", "limits"}


def test_the_volumes_reader_can_do_nothing_but_show_it_from_its_own_loopback() -> None:
    body = yaml.safe_load((FOLDER / "volume" / "reader.yaml").read_text(encoding="utf-8"))
    assert body["spec"]["suspend"] is True, "no clock starts it"
    reader = body["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (shows,), (drills,) = reader["containers"], pod()["containers"]
    assert reader["securityContext"] == pod()["securityContext"]
    assert shows["securityContext"] == drills["securityContext"]
    assert reader["automountServiceAccountToken"] is False
    assert "--bind=127.0.0.1" in shows["command"]
    assert shows["image"] == drills["image"] == RECIPE.repository
    (mount,) = shows["volumeMounts"]
    assert mount["readOnly"] is True
    assert {"name": "runs", "mountPath": mount["mountPath"]} in drills["volumeMounts"]


@pytest.mark.cluster  # for its kubectl, the one that renders the manifests when they are deployed
def test_the_volume_takes_the_place_of_the_pods_own_folder_and_changes_nothing_else(
    local_access: Access, tmp_path: Path
) -> None:
    def rendered(**more: list[str]) -> dict[str, Any]:
        # kustomize takes relative folders only.
        body = {"resources": [os.path.relpath(FOLDER, tmp_path.resolve())], **more}
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(body), encoding="utf-8")
        text = Kubectl(local_access).render(tmp_path, f"{RECIPE.repository}:1")
        return {f"{one['kind']}/{one['metadata']['name']}": one for one in yaml.safe_load_all(text)}

    without = rendered()
    found = rendered(components=[os.path.relpath(FOLDER / "volume", tmp_path.resolve())])
    assert found.keys() - without.keys() == {"PersistentVolumeClaim/drill-runs", "CronJob/drill-results"}
    drills, before = found["CronJob/drill-gameday"], without["CronJob/drill-gameday"]
    template = drills["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (runs,) = [volume for volume in template["volumes"] if volume["name"] == "runs"]
    assert runs.pop("persistentVolumeClaim") == {"claimName": "drill-runs"}
    assert runs == {"name": "runs"}, "a volume has one source"
    runs["emptyDir"] = next(volume["emptyDir"] for volume in pod()["volumes"] if volume["name"] == "runs")
    assert drills == before
    reader = found["CronJob/drill-results"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert reader["volumes"] == [{"name": "runs", "persistentVolumeClaim": {"claimName": "drill-runs"}}]
    assert reader["containers"][0]["image"] == f"{RECIPE.repository}:1", "the image that drills shows what came of it"


def test_what_it_is_started_with_is_a_command_and_finds_its_files() -> None:
    import click

    from harness.cli.app import drill

    (container,) = pod()["containers"]
    command, file, runs = container["args"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert command in drill.list_commands(click.Context(drill))
    assert file == f"{mounts['config']['mountPath']}/gameday.yaml"
    assert runs == f"--runs={mounts['runs']['mountPath']}"
    assert "readOnly" not in mounts["runs"]
    assert load_gameday(FOLDER / "gameday.yaml").gameday.folder == mounts["experiments"]["mountPath"]
