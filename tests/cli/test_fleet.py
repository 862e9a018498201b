"""`drill fleet` as it is called: what it refuses, what it prints, its exit codes, and how it is taken up again.

The clusters are fakes whose pods say what a test lets them say; the journals are runs of the engine in the fake world.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from harness.cli import main
from harness.core.errors import BadInput, ExitCode, Refused, RollbackIncomplete, Unreachable
from harness.engine import jobs
from harness.ports.cluster import Ref
from harness.wiring import fleet, history, post
from harness.wiring.post import Post, Posting
from harness.wiring.settings import Settings
from tests.fakes.fleet import RUN, STAGING, Script, Site, ended, failed, journal_of, met, nobody, started
from tests.hostile.texts import NASTY, acting


def drilled(act: Any = met, code: int = 0) -> Script:
    return Script([started(), ended(code)], journal=journal_of(act=act), code=code)


@dataclass
class Clusters:
    """Contexts by their names, and the command's working directory."""

    folder: Path
    sites: dict[str, Site | BadInput | Unreachable] = field(default_factory=dict)

    def access(self, settings: Settings) -> Settings:
        found = self.sites[settings.context or settings.name]
        if not isinstance(found, Site):
            raise found
        return settings

    def connect(self, settings: Settings, *_: Any) -> Site:
        found = self.sites[settings.context or settings.name]
        assert isinstance(found, Site)
        return found

    def file(self, *targets: dict[str, Any], **fields: Any) -> str:
        (self.folder / "fleet.yaml").write_text(yaml.safe_dump({"targets": list(targets), **fields}))
        return "fleet.yaml"

    def of(self, **scripts: Script | BadInput | Unreachable) -> str:
        """A fleet of one target in each of these clusters."""
        for name, script in scripts.items():
            self.sites[name] = Site(script) if isinstance(script, Script) else script
        return self.file(*({"name": name, "context": name, "experiment": "oom-workers"} for name in scripts))

    @property
    def fleet(self) -> Path:
        (found,) = (self.folder / "runs").glob("fleet-*")
        return found

    def created(self) -> list[str]:
        """What was asked of any cluster to be made, for real or as a dry run."""
        sites = [site for site in self.sites.values() if isinstance(site, Site)]
        return [str(call.ref) for site in sites for call in site.calls if call.verb == "create"]


@pytest.fixture
def clusters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clusters:
    made = Clusters(tmp_path)
    for module in (post, history):
        monkeypatch.setattr(module, "existing_access", made.access)
        monkeypatch.setattr(module, "connect", made.connect)
    monkeypatch.setattr(fleet, "_HEARD", 0.01)
    monkeypatch.setattr(jobs, "AGAIN", 0.01)
    monkeypatch.chdir(tmp_path)
    for name in ("DRILL_CONFIG", "CONTEXT", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    return made


def rows(out: str) -> dict[str, list[str]]:
    """The verdict and what is clean by target."""
    found = re.findall(r"^(\w+): oom-workers.*? (NOT \w+|BAD INPUT|not run|[A-Z]+) +(yes|NO|-)$", out, re.MULTILINE)
    return {name: cells for name, *cells in found}


# What comes of it


def test_every_target_is_drilled_and_there_is_one_table(clusters: Clusters, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fleet", clusters.of(berlin=drilled(), oslo=drilled())]) == ExitCode.MET
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "fleet: MET, exit code 0"
    head = next(index for index, line in enumerate(out) if line.startswith("target: experiment"))
    assert [line.split()[0] for line in out[head + 1 : head + 3]] == ["berlin:", "oslo:"]
    assert all(line.endswith(" yes") and " MET " in line for line in out[head + 1 : head + 3])
    assert "wall time by phase" in out
    folder = clusters.fleet
    assert {str(folder.relative_to(clusters.folder) / name) for name in ("junit.xml", "summary.md")} <= {*out}
    for name in ("berlin", "oslo"):
        assert (folder / name / RUN / "report.html").is_file(), "of two runs of one name each has its own folder"
        assert (folder / f"{name}.jsonl").read_text().count("\n") == 2
    suites = ET.fromstring((folder / "junit.xml").read_text())  # noqa: S314 - our own file
    assert [suite.get("name") for suite in suites] == ["drill oom-workers (smoke)"] * 2
    assert all(site.jobs == [] for site in clusters.sites.values() if isinstance(site, Site))


def test_a_job_is_told_what_its_target_says(clusters: Clusters) -> None:
    site = clusters.sites["a"] = Site(drilled())
    (clusters.folder / "mine").mkdir()
    shipped = Path(__file__).parents[2] / "experiments" / "oom-workers.yaml"
    text = f"{shipped.read_text()}# mine\n"
    (clusters.folder / "mine" / "oom-workers.yaml").write_text(text)
    file = clusters.file(
        {
            "name": "one", "local": "a", "experiment": "mine/oom-workers.yaml", "profile": "gameday", "pager": "none",
            "prometheus": "service:shop/prometheus:9090", "responder": "human",
        },
        responder="autopilot",
    )  # fmt: skip
    assert main(["fleet", file]) == ExitCode.MET
    dry, real = [call for call in site.calls if call.verb == "create" and call.ref.kind == "Job"]
    assert (dry.dry_run, real.dry_run) == (True, False)
    assert dry.body == real.body
    template = real.body["spec"]["template"]
    assert [*template["metadata"]["annotations"].values()] == [text]
    assert template["spec"]["containers"][0]["args"][-4:] == [
        "--profile=gameday", "--responder=human", "--prometheus=service:shop/prometheus:9090", "--pager=none",
    ]  # fmt: skip
    (kept,) = json.loads((clusters.fleet / "fleet.json").read_text())["posts"]
    assert (kept["target"], kept["cluster"], kept["name"], kept["namespace"]) == ("one", "local", "a", STAGING)


HALTED = Refused("halted", "drills are halted", expected="none", remedy="ask")
NOT_BACK = RollbackIncomplete("rollback-incomplete", "not back", expected="clean", remedy="recover")
GONE = Unreachable("cluster-down", "the cluster is broken", expected="an answer", remedy="look")
NOWHERE = BadInput("cluster-down", "there is no such context", expected="one", remedy="kubectl config get-contexts")


def refused() -> Script:
    return Script([failed(HALTED)], code=3)


@pytest.mark.parametrize(
    ("one", "two", "code", "word", "cells"),
    [
        (drilled, lambda: drilled(nobody, 1), 1, "MISSED", ["NOT REACHED", "yes"]),
        (drilled, lambda: Script([started(), ended(0)]), 2, "ENVIRONMENT", ["ENVIRONMENT", "-"]),
        (drilled, lambda: GONE, 2, "ENVIRONMENT", ["ENVIRONMENT", "-"]),
        (lambda: drilled(nobody, 1), lambda: GONE, 1, "MISSED", ["ENVIRONMENT", "-"]),
        (lambda: drilled(nobody, 1), refused, 3, "REFUSED", ["REFUSED", "-"]),
        (refused, lambda: NOWHERE, 64, "BAD INPUT", ["BAD INPUT", "-"]),
        (lambda: NOWHERE, lambda: Script([failed(NOT_BACK)], code=4), 4, "NOT PUT BACK", ["NOT BACK", "-"]),
        (drilled, lambda: drilled(code=4), 4, "NOT PUT BACK", ["MET", "yes"]),
    ],
)  # fmt: skip
def test_its_exit_code_is_that_of_the_worst(
    clusters: Clusters, capsys: pytest.CaptureFixture[str], one: Any, two: Any, code: int, word: str, cells: list[str]
) -> None:
    assert main(["fleet", clusters.of(one=one(), two=two())]) == code
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"fleet: {word}, exit code {code}"
    assert rows(out)["two"] == cells
    assert f"# Drill fleet: {word}" in (clusters.fleet / "summary.md").read_text()
    root = ET.fromstring((clusters.fleet / "junit.xml").read_text())  # noqa: S314 - our own file
    assert int(root.get("failures", "0")) + int(root.get("errors", "0")) > 0


def test_what_one_cluster_refuses_keeps_none_of_the_others_from_drilling(
    clusters: Clusters, capsys: pytest.CaptureFixture[str]
) -> None:
    file = clusters.of(one=drilled(), two=drilled(), three=drilled())
    two = clusters.sites["two"]
    assert isinstance(two, Site)
    two.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": STAGING}})
    assert main(["fleet", file]) == ExitCode.REFUSED
    said = capsys.readouterr()
    assert rows(said.out) == {"one": ["MET", "yes"], "two": ["REFUSED", "-"], "three": ["MET", "yes"]}
    assert "  namespace-not-opted-in" in said.out
    assert "kubectl label namespace nova-staging" in said.err
    assert "one (oom-workers), three (oom-workers); each ends by itself" in " ".join("".join(said).split())
    assert [call for call in two.calls if call.verb == "create"] == []
    kept = json.loads((clusters.fleet / "fleet.json").read_text())["posts"]
    assert [one["target"] for one in kept] == ["one", "three"]


def test_where_nothing_is_started_there_is_nothing_to_take_up(
    clusters: Clusters, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fleet", clusters.of(one=GONE)]) == ExitCode.UNDECIDED
    assert "each ends by itself" not in " ".join("".join(capsys.readouterr()).split())
    assert not (clusters.fleet / "fleet.json").exists()
    assert main(["fleet", "--resume", clusters.fleet.name]) == ExitCode.BAD_INPUT


def test_for_programs_it_is_one_object_a_line(clusters: Clusters, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["fleet", clusters.of(one=drilled(), two=GONE), "--output", "json"])
    assert code == ExitCode.UNDECIDED
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    (event,) = [line for line in lines if "event" in line]
    assert (event["target"], event["event"]["run_id"]) == ("one", RUN)
    last = lines[-1]
    assert (last["exit_code"], last["outcome"], last["open"]) == (2, "ENVIRONMENT", [])
    assert [(row["experiment"], row["verdict"]) for row in last["targets"]] == [
        ("one: oom-workers", "MET"), ("two: oom-workers", "ENVIRONMENT"),
    ]  # fmt: skip
    assert last["fleet"] == clusters.fleet.name
    assert all(Path(file).is_file() for file in last["files"])
    (error,) = [json.loads(line) for line in said.err.splitlines()]
    assert (error["error"], error["unreachable"]) == ("cluster-down", True)


# What is refused before anything is started


def test_targets_that_would_collide_are_refused_before_anything_is_asked(
    clusters: Clusters, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two", "three"):
        clusters.sites[name] = Site(drilled(), uid="the same" if name != "three" else "another")
    file = clusters.file(*(
        {"name": name, "context": name, "experiment": "oom-workers"} for name in clusters.sites
    ))  # fmt: skip
    assert main(["fleet", file]) == ExitCode.REFUSED
    assert "one and two both drill namespace nova-staging of one cluster" in capsys.readouterr().err
    assert clusters.created() == []
    assert not (clusters.folder / "runs").exists()


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ({"experiment": "nowhere"}, "fleet.yaml:4:15: there is no experiment 'nowhere'"),
        ({"experiment": "nowhere.yaml"}, "fleet.yaml:4:15: there is no file"),
        ({"experiment": "a\0.yaml"}, "fleet.yaml:4:15: there is no way to"),
        ({"experiment": "~nobody-at-all/x.yaml"}, "fleet.yaml:4:15: there is no way to"),
        ({"experiment": "loop.yaml"}, "fleet.yaml:4:15: there is no"),
        ({"experiment": "x" * 5000 + ".yaml"}, "fleet.yaml:4:15: there is no way to"),
        ({"experiment": "oom-workers", "kubeconfig": "~nobody-at-all/k"}, "fleet.yaml:5:15: there is no way to"),
        ({"experiment": "oom-workers", "kubeconfig": "a\0b"}, "fleet.yaml:5:15: there is no way to"),
        ({"experiment": "oom-workers", "name": "good"}, "fleet.yaml:7:9: targets.1.name: another target is called"),
        ({"experiment": "bad.yaml"}, "bad.yaml:1:1: "),
    ],
)
def test_a_mistake_in_one_target_refuses_all_of_them(
    clusters: Clusters, capsys: pytest.CaptureFixture[str], target: dict[str, Any], told: str
) -> None:
    (clusters.folder / "loop.yaml").symlink_to("loop.yaml")
    (clusters.folder / "bad.yaml").write_text("- 1\n")
    clusters.sites = {"a": Site(drilled())}
    good = {"name": "good", "context": "a", "experiment": "oom-workers"}
    file = clusters.folder / "fleet.yaml"
    bad = {"context": "a", **target, "name": target.get("name", "bad")}
    file.write_text(
        "targets:\n" + "".join(
            "- " + "\n  ".join(f"{key}: {json.dumps(value)}" for key, value in sorted(one.items())) + "\n"
            for one in ([good, bad] if target.get("name") else [{**bad, "alertmanager": "service:a/b:1"}, good])
        )
    )  # fmt: skip
    assert main(["fleet", "fleet.yaml"]) == ExitCode.BAD_INPUT
    err = capsys.readouterr().err
    assert told in err, err
    assert "an error of the harness" not in err
    site = clusters.sites["a"]
    assert isinstance(site, Site)
    assert site.calls == []
    assert not (clusters.folder / "runs").exists()


def test_results_that_cannot_be_written_are_refused_before_anything_is_started(clusters: Clusters) -> None:
    file = clusters.of(one=drilled())
    (clusters.folder / "runs").write_text("a file")
    assert main(["fleet", file]) == ExitCode.BAD_INPUT
    site = clusters.sites["one"]
    assert isinstance(site, Site)
    assert [call for call in site.writes() if call.ref.kind == "Job"] == []


# Taken up again


def broken_off(clusters: Clusters) -> str:
    """A fleet of two of which one cluster was lost when its result was to be fetched."""
    file = clusters.of(one=drilled(), two=drilled())
    two = clusters.sites["two"]
    assert isinstance(two, Site)
    two.on_line = lambda _: two.fail_next("list", GONE) if two.script.lines[-1] == _ else None
    assert main(["fleet", file]) == ExitCode.UNDECIDED
    two.on_line = lambda _: None
    return clusters.fleet.name


def test_what_is_missing_is_fetched_later(clusters: Clusters, capsys: pytest.CaptureFixture[str]) -> None:
    name = broken_off(clusters)
    assert f"there is more to fetch: drill fleet --resume {name}" in capsys.readouterr().out
    two = clusters.sites["two"]
    assert isinstance(two, Site)
    assert len(two.jobs) == 1
    assert main(["fleet", "--resume", name, "--output", "json"]) == ExitCode.MET
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ([row["verdict"] for row in last["targets"]], last["open"]) == (["MET", "MET"], [])
    assert two.jobs == []


def test_whatever_is_asked_for_nothing_beside_the_folder_of_runs_is_taken_up(
    clusters: Clusters, capsys: pytest.CaptureFixture[str]
) -> None:
    name = broken_off(clusters)
    elsewhere = clusters.folder / "elsewhere"
    clusters.fleet.rename(elsewhere)
    (clusters.folder / "runs" / "latest").symlink_to(elsewhere)
    calls = len(clusters.created())
    for again in (
        "../elsewhere", str(elsewhere), f"../runs/{name}", "..", ".", "", "latest", f"{name}\n", f"{name}/", name,
        "x" * 10_000, "a\0b", NASTY,
    ):  # fmt: skip
        capsys.readouterr()
        assert main(["fleet", f"--resume={again}"]) == ExitCode.BAD_INPUT
        err = capsys.readouterr().err
        assert len(err) < 1500
        assert "an error of the harness" not in err
        assert acting(err) == set()
    assert len(clusters.created()) == calls


NAME = "fleet-20261126-100312-93fd"


def written_down(clusters: Clusters) -> dict[str, Any]:
    """What a fleet of two wrote down, of which nothing else is known."""
    clusters.sites = {"one": Site(), "two": Site()}
    posts = [
        Post(
            target=name, experiment="oom-workers", namespace=STAGING, job=f"drill-fleet-93fd-{name}", cluster="context",
            context=name,
        ).model_dump()
        for name in clusters.sites
    ]  # fmt: skip
    return {"fleet": NAME, "start_within": 120.0, "posts": posts}


def resumed(clusters: Clusters, raw: bytes) -> int:
    (clusters.folder / "runs" / NAME).mkdir(parents=True)
    (clusters.fleet / "fleet.json").write_bytes(raw)
    return main(["fleet", "--resume", NAME])


def test_of_jobs_that_are_gone_without_a_word_nothing_is_known(
    clusters: Clusters, capsys: pytest.CaptureFixture[str]
) -> None:
    state = written_down(clusters)
    state["posts"][0].pop("since")
    assert resumed(clusters, json.dumps(state).encode()) == ExitCode.UNDECIDED
    assert rows(capsys.readouterr().out) == {"one": ["not run", "-"], "two": ["not run", "-"]}


def tampered(state: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**state, "posts": [{**state["posts"][0], **changes}, *state["posts"][1:]]}


TAMPERED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another fleet": lambda state: {**state, "fleet": "fleet-20261126-100312-0000"},
    "no posts": lambda state: {**state, "posts": []},
    "no list": lambda state: {**state, "posts": {"a": 1}},
    "a text": lambda state: {**state, "posts": ["one"]},
    "a target that is a path": lambda state: tampered(state, target="../../victim"),
    "a target of another": lambda state: tampered(state, target="two", job=state["posts"][1]["job"]),
    "an experiment that is a path": lambda state: tampered(state, experiment="../x"),
    "a namespace that is none": lambda state: tampered(state, namespace="a/b"),
    "another job": lambda state: tampered(state, job="drill-sweeper"),
    "a job of none": lambda state: tampered(state, job=None),
    "another kind of cluster": lambda state: tampered(state, cluster="pod"),
    "a field of none": lambda state: tampered(state, more=1),
    "a number": lambda state: tampered(state, context=7),
    "no time": lambda state: {**state, "start_within": 0},
    "a time without end": lambda state: {**state, "start_within": 1e300},
    "a time that is none": lambda state: {**state, "start_within": "120"},
    "too many": lambda state: {**state, "posts": state["posts"] * 60},
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_written_down_and_changed_since_is_refused(
    clusters: Clusters, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    victim = clusters.folder / "victim.jsonl"
    victim.touch()
    state = TAMPERED[what](written_down(clusters))
    assert resumed(clusters, json.dumps(state).encode()) == ExitCode.BAD_INPUT
    err = capsys.readouterr().err
    assert "fleet.json is not what" in err
    assert "ls -d runs/fleet-*" in err
    assert victim.exists()
    assert [site.calls for site in clusters.sites.values() if isinstance(site, Site)] == [[], []]


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"posts": [{"target": ', b" " * 1_100_000]
)
def test_what_was_not_written_whole_is_refused(
    clusters: Clusters, capsys: pytest.CaptureFixture[str], raw: bytes
) -> None:
    assert resumed(clusters, raw) == ExitCode.BAD_INPUT
    err = capsys.readouterr().err
    assert "fleet.json is not what a fleet writes down" in err
    assert len(err) < 1000


# What is told


def test_nothing_that_a_pod_says_acts_on_a_terminal(clusters: Clusters, capsys: pytest.CaptureFixture[str]) -> None:
    forged = {"error": "halted", "exit_code": 3, "fact": NASTY, "expected": NASTY, "remedy": NASTY, "where": NASTY}
    said = json.dumps({"progress": {"state": "said", "text": f"{NASTY}\ud800"}})
    file = clusters.of(one=Script([NASTY, said, json.dumps(forged)], code=3), two=Script([NASTY], code=1, reason=NASTY))
    for output in ("text", "json"):
        assert main(["fleet", file, f"--output={output}"]) == ExitCode.REFUSED
        shown = capsys.readouterr()
        assert acting(shown.out, "\n") == acting(shown.err, "\n") == set()
        if output == "json":
            assert all(json.loads(line) for line in (shown.out + shown.err).splitlines())
        else:
            assert shown.out.splitlines()[-1] == "fleet: REFUSED, exit code 3"
            assert "exit code 0" not in shown.out.splitlines()


# Called off


def test_the_first_interruption_calls_all_of_them_off(clusters: Clusters, capsys: pytest.CaptureFixture[str]) -> None:
    going_on = Script([started()], code=None)
    file = clusters.of(one=going_on, two=Script(waits="Creating"))
    one, two = (clusters.sites[name] for name in ("one", "two"))
    assert isinstance(one, Site)
    assert isinstance(two, Site)
    one.on_line = lambda _: os.kill(os.getpid(), signal.SIGTERM)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["fleet", file]) == ExitCode.UNDECIDED
    out = capsys.readouterr().out
    assert "called off: every drill is asked to undo what it did" in out
    assert rows(out) == {"one": ["ENVIRONMENT", "-"], "two": ["not run", "-"]}
    assert one.jobs == two.jobs == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_second_leaves_them_to_themselves(
    clusters: Clusters, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = clusters.of(one=Script([started()], code=None))
    one = clusters.sites["one"]
    assert isinstance(one, Site)
    one.on_line = lambda _: os.kill(os.getpid(), signal.SIGTERM)
    monkeypatch.setattr(Posting, "call_off", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["fleet", file]) == 130
    assert f"left to themselves; they undo what they did: drill fleet --resume {clusters.fleet.name}" in re.sub(
        r"\s+", " ", capsys.readouterr().out
    )
    assert one.holds(Ref("Job", "drill-system", f"drill-fleet-{clusters.fleet.name[-4:]}-one"))
