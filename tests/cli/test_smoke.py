"""`drill smoke`: what it refuses, what it leaves, what it tells, and that its cluster is gone whatever happened.

The cluster is a fake; the drills are runs of the engine in the fake world, with their journals and reports on disk.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

import harness.wiring
from harness.adapters.file_journal import FileJournal
from harness.cli import main
from harness.clusters.provider import Access, ClusterStatus
from harness.core.errors import BadInput, DrillError, ExitCode, Internal, Refused, RollbackIncomplete, Unreachable
from harness.core.event import StopAsked
from harness.ports.progress import Progress, Silent
from harness.report.series import ENVIRONMENT
from harness.wiring import Settings, smoke
from harness.wiring.judging import judge_run
from harness.wiring.settings import Phases, RunOutcome
from harness.wiring.smoke import EXPERIMENTS, SmokeOutcome, run_smoke
from tests.fakes.drill import Drill, fired


@dataclass
class Cloud:
    """A place in which clusters are made, and everything that can go wrong with one."""

    made: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    up_fails: BaseException | None = None
    staging_fails: BaseException | None = None
    down_fails: BaseException | None = None
    stays: bool = False
    name: str = ""

    def choose(self, settings: Settings) -> Cloud:
        self.name = settings.name
        return self

    def up(self, progress: Progress) -> Access:
        self.calls.append(f"up {self.name}")
        self.made[self.name] = "up"
        if self.up_fails is not None:
            raise self.up_fails
        return Access("local", self.name, Path("kubeconfig"), self.name, None)

    def down(self, progress: Progress) -> None:
        self.calls.append(f"down {self.name}")
        if self.down_fails is not None:
            raise self.down_fails
        if not self.stays:
            self.made.pop(self.name, None)

    def status(self) -> ClusterStatus:
        there = self.made.get(self.name)
        return ClusterStatus("local", self.name, "up" if there else "down", "as it is")

    def load_image(self, archive: Path, ref: str) -> None:
        raise AssertionError("no image is loaded here")

    def set_up(self, settings: Settings, profile: str, *, setup: bool, progress: Progress, phases: Phases) -> None:
        assert (settings.name, profile, setup) == (self.name, "smoke", True)
        with phases.time("cluster"):
            self.up(progress)
        with phases.time("staging system"):
            if self.staging_fails is not None:
                raise self.staging_fails


class Heard(Silent):
    """Progress of which only the plain lines are of interest."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def say(self, text: str) -> None:
        self._said.append(text)


Act = Callable[[Drill], Any]


def met(drill: Drill) -> None:
    drill.respond()


def nobody(drill: Drill) -> None:
    """Nobody responds."""


def lost(drill: Drill) -> None:
    drill.feed.when(fired(1.0), lambda world: setattr(world.cluster, "unreachable", True))


def blind(drill: Drill) -> None:
    drill.feed.when(fired(1.0), lambda world: setattr(world, "metrics_down", True))


def stopped(drill: Drill) -> None:
    drill.feed.stop_when(fired(1.0))


def drilled(settings: Settings, name: str, act: Act) -> RunOutcome:
    """A run of the engine in the fake world, with its folder."""
    drill = Drill(run_id=f"run-{name}", undo_for=settings.undo_for)
    drill.data["name"] = name
    drill.__post_init__()
    drill.begin()
    act(drill)
    folder = settings.runs / drill.run_id
    history = drill.run()
    journal = FileJournal(folder)
    for record in history:
        journal.append(record)
    return judge_run(folder)


@dataclass
class Job:
    """One smoke run. `acts` say how each experiment goes."""

    cloud: Cloud
    runs: Path
    acts: dict[str, Act | BaseException] = field(default_factory=dict)
    told: list[DrillError] = field(default_factory=list)
    drilled: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def each(self, settings: Settings, name: str, number: int, of: int, fading: Collection[str]) -> RunOutcome:
        assert self.cloud.made.get(settings.name) == "up"
        self.drilled.append(name)
        act = self.acts.get(name, met)
        if isinstance(act, BaseException):
            raise act
        return drilled(settings, name, act)

    def run(self, *experiments: str, keep: bool = False, name: str | None = "one") -> SmokeOutcome:
        return run_smoke(
            Settings(runs=self.runs), experiments, name=name, results=None, keep=keep, run=self.each,
            tell=self.told.append, progress=Heard(self.said), env=self.env,
        )  # fmt: skip

    def file(self, name: str) -> str:
        (found,) = self.runs.glob(f"*/{name}")
        return found.read_text(encoding="utf-8")

    def suites(self) -> dict[str, ET.Element]:
        root = ET.fromstring(self.file("junit.xml"))  # noqa: S314 - our own file
        for key in ("tests", "failures", "errors", "skipped"):
            assert int(root.get(key, "")) == sum(int(suite.get(key, "0")) for suite in root)
        return {suite.get("name", "").split()[1]: suite for suite in root}


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Job:
    cloud = Cloud()
    monkeypatch.setattr(smoke, "choose", cloud.choose)
    monkeypatch.setattr(smoke, "set_up", cloud.set_up)
    return Job(cloud, tmp_path / "runs")


def test_all_is_met_told_by_phase_and_gone(job: Job) -> None:
    done = job.run("noop", "oom-workers")
    assert (done.exit_code, done.word) == (ExitCode.MET, "MET")
    assert job.cloud.calls == ["up one", "down one"]
    assert job.cloud.made == {}
    assert list(done.phases) == ["cluster up", "staging system", "drill noop", "drill oom-workers", "cluster down"]
    assert 0 < sum(done.phases.values()) <= done.seconds
    assert done.table.splitlines()[1].split()[0] == "noop"
    assert re.search(r"smoke: noop, oom-workers on local cluster one, .*; about 2 min 5 s, and", job.said[0])
    suites = job.suites()
    assert list(suites) == ["noop", "oom-workers"]
    assert all(suite.get("failures") == suite.get("errors") == "0" for suite in suites.values())
    assert {path.name for path in done.files} == {"junit.xml", "summary.md"}


def test_the_summary_says_the_verdict_first_and_how_to_see_it_again(job: Job) -> None:
    job.acts = {"oom-workers": nobody}
    job.env = {smoke.SUMMARY: str(job.runs.parent / "step.md")}
    Path(job.env[smoke.SUMMARY]).write_text("before\n", encoding="utf-8")
    done = job.run("noop", "oom-workers")
    assert (done.exit_code, done.word) == (ExitCode.MISSED, "MISSED")
    text = job.file("summary.md")
    first, second = text.split("\n\n")[:2]
    assert first == "# Drill smoke: MISSED"
    assert second == "**MISSED** (exit code 1). 1 MET, 1 NOT REACHED. The local cluster one was taken away."
    assert "| `noop` |" in text
    assert "## What failed\n\n### oom-workers: NOT REACHED\n" in text
    assert re.search(r"- firing → acknowledged: NOT REACHED, over .* against 5 min.* \[e\d+", text)
    assert "/run-oom-workers/report.md`" in text
    assert "`./drill smoke --cluster local oom-workers`" in text
    assert "| cluster down |" in text
    assert "| **total** |" in text
    assert Path(job.env[smoke.SUMMARY]).read_text(encoding="utf-8") == f"before\n{text}"
    assert job.suites()["oom-workers"].get("failures") != "0"


def test_a_summary_that_cannot_be_appended_is_told_and_fails_nothing(job: Job) -> None:
    job.env = {smoke.SUMMARY: str(job.runs / "nowhere" / "step.md")}
    assert job.run("noop").exit_code is ExitCode.MET
    assert smoke.SUMMARY in job.said[-1]


def test_without_a_name_a_few_are_run_on_a_cluster_called_at_random(job: Job) -> None:
    first = job.run(name=None)
    second = job.run(name=None)
    assert job.drilled == [*EXPERIMENTS, *EXPERIMENTS]
    assert first.cluster != second.cluster
    assert re.fullmatch(r"smoke-[0-9a-f]{6}", first.cluster)


@pytest.mark.parametrize("act", [lost, blind])
def test_a_lost_source_is_the_environment_and_not_a_verdict(job: Job, act: Act) -> None:
    job.acts = {"oom-workers": act}
    done = job.run("oom-workers", "noop")
    assert (done.exit_code, done.word) == (ExitCode.UNDECIDED, ENVIRONMENT)
    assert [row.verdict for row in done.rows] == [ENVIRONMENT, "MET"], (
        "the cluster is repaired, and the next one begins"
    )
    (case,) = job.suites()["oom-workers"].findall("testcase")
    (error,) = case.findall("error")
    assert error.get("type") == ENVIRONMENT
    assert "did not answer" in error.get("message", "") or "has been lost" in error.get("message", "")
    assert "# Drill smoke: ENVIRONMENT" in job.file("summary.md")
    assert "neither met nor missed" in job.file("summary.md")
    assert job.cloud.made == {}


def test_on_a_cluster_that_is_kept_what_is_not_back_goes_before_all_and_ends_the_series(job: Job) -> None:
    job.acts = {"oom-workers": lost}
    done = job.run("oom-workers", "noop", keep=True)
    assert done.exit_code is ExitCode.ROLLBACK_INCOMPLETE
    assert [row.verdict for row in done.rows] == [ENVIRONMENT, "not run"]
    assert job.cloud.made == {"one": "up"}
    assert "`drill cluster down --cluster local --name one`" in done.fate


def test_what_never_came_up_is_not_kept(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(progress: Progress) -> Access:
        raise UNFIT

    monkeypatch.setattr(job.cloud, "up", refuse)
    assert job.run("noop", keep=True).fate == "There is no local cluster one to keep."


def test_a_miss_weighs_more_than_the_environment(job: Job) -> None:
    job.acts = {"noop": nobody, "oom-workers": lost}
    done = job.run("noop", "oom-workers")
    assert (done.exit_code, done.word) == (ExitCode.MISSED, "MISSED")


UNANSWERED = Unreachable("api-unreachable", "nobody answers", expected="an answer", remedy="look")
UNFIT = BadInput("not-root", "this command runs as user id 7", expected="root", remedy="sudo")


@pytest.mark.parametrize(("error", "code"), [(UNANSWERED, ExitCode.UNDECIDED), (UNFIT, ExitCode.BAD_INPUT)])
@pytest.mark.parametrize("where", ["cluster up", "staging system"])
def test_a_cluster_that_does_not_come_up_is_the_environment(
    job: Job, where: str, error: DrillError, code: ExitCode
) -> None:
    if where == "cluster up":
        job.cloud.up_fails = error
    else:
        job.cloud.staging_fails = error
    done = job.run("noop", "oom-workers")
    assert (done.exit_code, done.word) == (code, ENVIRONMENT)
    assert [(row.experiment, row.verdict) for row in done.rows] == [
        (where, ENVIRONMENT), ("noop", "not run"), ("oom-workers", "not run"),
    ]  # fmt: skip
    assert job.told == [error]
    assert (job.drilled, job.cloud.made) == ([], {})
    suites = job.suites()
    assert suites[where.split(maxsplit=1)[0]].find("testcase/error") is not None
    assert suites["noop"].find("testcase/skipped") is not None
    assert error.remedy in job.file("summary.md")


def test_a_peer_that_does_not_answer_a_drill_is_the_environment_and_a_guard_is_not(job: Job) -> None:
    refused = Refused("steady-state", "the queue is long", expected="a short one", remedy="wait")
    job.acts = {"noop": UNANSWERED, "oom-workers": refused}
    done = job.run("noop", "oom-workers")
    assert [(row.verdict, row.why) for row in done.rows] == [
        (ENVIRONMENT, "api-unreachable"), ("REFUSED", "steady-state"),
    ]  # fmt: skip
    assert (done.exit_code, done.word) == (ExitCode.REFUSED, "REFUSED")
    assert "the queue is long" in job.file("summary.md")


@pytest.mark.parametrize("fails", [
    Internal("cluster-remains", "processes are still there", expected="none", remedy="kill them"),
    OSError(16, "Device or resource busy"),
])  # fmt: skip
def test_what_cannot_be_taken_down_is_told_with_its_remedy(job: Job, fails: BaseException) -> None:
    job.cloud.down_fails = fails
    done = job.run("noop")
    assert (done.exit_code, done.word) == (ExitCode.UNDECIDED, ENVIRONMENT)
    assert [row.experiment for row in done.rows] == ["noop", "cluster down"]
    assert "NOT be taken away: drill cluster down --cluster local --name one" in done.fate
    (told,) = job.told
    assert told.slug == "cluster-remains"
    assert told.remedy in job.file("summary.md").replace("\\", "")


def test_a_cluster_that_says_it_went_and_is_still_there_is_not_believed(job: Job) -> None:
    job.cloud.stays = True
    done = job.run("noop")
    assert done.word == ENVIRONMENT
    assert "it is up" in job.told[0].fact


def test_where_nothing_could_be_made_nothing_is_left(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = BadInput("no-docker", "there is no docker", expected="docker", remedy="install it")

    def refuse(progress: Progress) -> Access:
        raise docker

    monkeypatch.setattr(job.cloud, "up", refuse)
    job.cloud.down_fails = docker
    done = job.run("noop")
    assert [row.experiment for row in done.rows] == ["cluster up", "noop"]
    assert (job.told, done.exit_code) == ([docker], ExitCode.BAD_INPUT)


def test_an_incomplete_rollback_goes_before_all_verdicts(job: Job) -> None:
    job.acts = {"noop": RollbackIncomplete("rollback-incomplete", "not back", expected="clean", remedy="recover")}
    done = job.run("noop", "oom-workers")
    assert (done.exit_code, done.word) == (ExitCode.ROLLBACK_INCOMPLETE, "NOT PUT BACK")
    assert [row.verdict for row in done.rows] == ["NOT BACK", "not run"]
    assert job.cloud.made == {}


def test_a_stopped_drill_ends_the_series_and_the_cluster_goes(job: Job) -> None:
    job.acts = {"noop": stopped}
    done = job.run("noop", "oom-workers")
    assert [row.verdict for row in done.rows] == ["UNDECIDED", "not run"]
    assert (done.exit_code, job.cloud.made) == (ExitCode.UNDECIDED, {})


@pytest.mark.parametrize("where", ["up", "drill"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a mistake of ours")])
def test_whatever_is_raised_the_cluster_goes_and_the_files_are_written(
    job: Job, where: str, error: BaseException
) -> None:
    if where == "up":
        job.cloud.up_fails = error
    else:
        job.acts = {"oom-workers": error}
    with pytest.raises(type(error)):
        job.run("noop", "oom-workers")
    assert job.cloud.calls[-1] == "down one"
    assert job.cloud.made == {}
    word = "INTERRUPTED" if isinstance(error, KeyboardInterrupt) else "INTERNAL ERROR"
    assert f"# Drill smoke: {word}" in job.file("summary.md")
    assert "skipped" in job.file("junit.xml")


def test_a_mistake_of_ours_is_not_the_environments(job: Job) -> None:
    mistake = Internal("reply", "not JSON", expected="JSON", remedy="report it")
    job.acts = {"noop": mistake}
    done = job.run("noop", "oom-workers")
    assert [row.verdict for row in done.rows] == ["ERROR", "MET"]
    assert (done.exit_code, done.word) == (ExitCode.INTERNAL, "INTERNAL ERROR")
    job.cloud.staging_fails = mistake
    with pytest.raises(Internal):
        job.run("noop")
    assert job.cloud.made == {}


def test_sigterm_outside_a_drill_interrupts_and_the_cluster_goes(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def up(progress: Progress) -> Access:
        job.cloud.made["one"] = "half up"
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it was not heard")

    monkeypatch.setattr(job.cloud, "up", up)
    with pytest.raises(KeyboardInterrupt):
        job.run("noop")
    assert job.cloud.made == {}
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_signal_cuts_the_taking_away_short(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    down = job.cloud.down

    def interrupted(progress: Progress) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        down(progress)

    monkeypatch.setattr(job.cloud, "down", interrupted)
    assert job.run("noop").exit_code is ExitCode.MET
    assert job.cloud.made == {}


# What is refused before anything is started


def test_a_cluster_of_that_name_is_left_alone(job: Job) -> None:
    job.cloud.made = {"one": "broken"}
    with pytest.raises(Refused) as refused:
        job.run("noop")
    assert refused.value.slug == "cluster-left-behind"
    assert "drill cluster down --cluster local --name one" in refused.value.remedy
    assert (job.cloud.calls, job.runs.exists()) == ([], False)


def test_every_experiment_is_read_before_anything_is_started(job: Job) -> None:
    with pytest.raises(BadInput):
        job.run("noop", "nowhere")
    assert job.cloud.calls == []


def test_results_that_cannot_be_written_are_refused_before_anything_is_started(job: Job) -> None:
    job.runs.write_text("a file", encoding="utf-8")
    with pytest.raises(BadInput) as refused:
        job.run("noop")
    assert refused.value.slug == "results-unwritable"
    assert job.cloud.calls == []


def test_files_of_an_earlier_run_are_not_taken_for_this_ones(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "junit.xml").touch()

    def each(settings: Settings, *_: Any) -> RunOutcome:
        assert not (folder / "junit.xml").exists()
        assert settings.runs == folder
        return drilled(settings, "noop", met)

    run_smoke(
        Settings(), ["noop"], name="one", results=folder, keep=False, run=each, tell=job.told.append,
        progress=Silent(), env={},
    )  # fmt: skip
    assert (folder / "run-noop" / "report.md").exists()
    assert (folder / "junit.xml").stat().st_size > 0


# The command line


@pytest.fixture
def asked(job: Job, monkeypatch: pytest.MonkeyPatch) -> Job:
    """The command, with drills of the fake world."""

    def run_drill(settings: Settings, experiment: str, **asked: Any) -> RunOutcome:
        assert (asked["profile"], asked["setup"], asked["responder"]) == ("smoke", True, None)
        return replace(job.each(settings, experiment, 0, 0, ()), phases={"drill": 1.0})

    monkeypatch.setattr(harness.wiring, "run_drill", run_drill)
    monkeypatch.chdir(job.runs.parent)
    for name in ("DRILL_CLUSTER", "CONTEXT", smoke.SUMMARY):
        monkeypatch.delenv(name, raising=False)
    return job


def test_the_command_prints_the_table_the_times_and_what_became_of_the_cluster(
    asked: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.acts = {"oom-workers": blind}
    assert main(["smoke", "noop", "oom-workers", "--name", "one", "--results", "there"]) == ExitCode.UNDECIDED
    out = capsys.readouterr().out
    assert "experiment 2 of 2: oom-workers" in out
    last = out.splitlines()
    assert last[-1] == "smoke: ENVIRONMENT, exit code 2. The local cluster one was taken away."
    assert "wall time by phase" in last
    assert re.search(r"^  drill oom-workers +\d", out, re.MULTILINE)
    assert "there/junit.xml" in last


def test_for_programs_it_is_one_object_a_line(asked: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["smoke", "noop", "--name", "one", "--output", "json"]) == ExitCode.MET
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["exit_code"] == 0
    assert [row["experiment"] for row in lines[-1]["series"]] == ["noop"]
    assert list(lines[-1]["phases"]) == ["cluster up", "staging system", "drill noop", "cluster down"]
    assert (lines[-1]["outcome"], lines[-1]["cluster"]) == ("MET", "one")


def test_an_interruption_is_an_exit_code_of_its_own(asked: Job) -> None:
    asked.acts = {"noop": KeyboardInterrupt()}
    assert main(["smoke", "noop", "--name", "one"]) == 130
    assert asked.cloud.made == {}


@pytest.mark.parametrize("arguments", [["--cluster", "context"], ["--context", "x"], ["--profile", "gameday"]])
def test_it_makes_its_own_cluster_and_has_one_pace(asked: Job, arguments: list[str]) -> None:
    assert main(["smoke", "noop", *arguments]) == ExitCode.BAD_INPUT
    assert asked.cloud.calls == []


def test_names_from_files_act_on_no_summary(job: Job) -> None:
    nasty = "x|`<b>[l](u)` @team"

    def named(drill: Drill) -> None:
        drill.feed.when(fired(0.5), lambda _: drill.feed.put(StopAsked(by="the lock", detail=nasty)))

    job.acts = {"noop": named, "oom-workers": Unreachable(nasty, nasty, expected=nasty, remedy=nasty)}
    job.run("noop", "oom-workers")
    text = job.file("summary.md")
    assert "<b>" not in re.sub(r"`[^`]*`|``.*?``", "", text)
    assert "@team" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7, 3}
