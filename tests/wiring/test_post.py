"""One target's way with a cluster that is a fake: what its pod says is taken for no better than its journal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from harness.core.clock import utc
from harness.core.errors import ExitCode, Refused, RollbackIncomplete, Unreachable
from harness.engine.jobs import Order, job_name
from harness.engine.sweeper import HOME
from harness.ports.cluster import Json, Ref
from harness.report.job import Job, job_summary
from harness.report.junit import combined
from harness.report.series import ENVIRONMENT, NOT_RUN, table
from harness.wiring import history, post
from harness.wiring.fleet import _cronjob
from harness.wiring.post import Post, Posting, Result, Telling
from tests.fakes.fleet import AFTER, RUN, STAGING, Script, Site, Told, ended, failed, journal_of, nobody, started
from tests.hostile.texts import ESCAPES, MARKUP, NASTY, acting

FLEET = "fleet-20261126-100312-93fd"
ORDER = Order(FLEET, "one", "oom-workers", "name: oom-workers\n", (), 60.0)
OLDER = "20261125-101500-oom-workers-0000"


@dataclass
class Stage:
    """One posting on one site."""

    site: Site
    folder: Path
    told: Told = field(default_factory=Told)

    def __post_init__(self) -> None:
        told = self.told
        telling = Telling(
            lambda target, record: told.records.append((target, record)),
            lambda target, text: told.said.append((target, text)),
            lambda target, error: told.errors.append((target, error)),
        )
        where = Post(
            target="one", experiment="oom-workers", namespace=STAGING, job=job_name(FLEET, "one"), cluster="context",
            context="staging",
        )  # fmt: skip
        self.folder.mkdir()
        self.posting = Posting(where, self.folder, telling, start_within=5.0)

    def body(self) -> Json:
        self.posting.look()
        return self.posting.body(ORDER, _cronjob())

    def run(self) -> Result:
        self.posting.go(self.body())
        assert self.posting.result is not None
        return self.posting.result


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    site = Site()
    for module in (post, history):
        monkeypatch.setattr(module, "existing_access", lambda settings: settings)
        monkeypatch.setattr(module, "connect", lambda *_: site)
    return Stage(site, tmp_path / FLEET)


@pytest.fixture
def journal() -> bytes:
    return journal_of()


def test_a_run_with_a_journal_is_judged_by_it_and_its_job_is_taken_away(stage: Stage, journal: bytes) -> None:
    stage.site.script = Script([started(), ended(0)], journal=journal)
    done = stage.run()
    assert (done.code, done.final, done.run.error) == (ExitCode.MET, True, None)
    assert (done.run.row.experiment, done.run.row.verdict, done.run.row.why) == ("one: oom-workers", "MET", "")
    assert stage.site.jobs == []
    assert done.run.folder == str(stage.folder / "one" / RUN)
    assert (stage.folder / "one" / RUN / "report.md").is_file()
    assert (stage.folder / "one.jsonl").read_text().splitlines() == stage.site.script.lines
    assert [target for target, _ in stage.told.records] == ["one"]


# What a pod says for better than it is


def test_a_last_word_of_met_without_a_journal_is_nothing(stage: Stage) -> None:
    stage.site.script = Script([started(), ended(0)], code=0)
    done = stage.run()
    assert (done.code, done.run.row.verdict) == (ExitCode.UNDECIDED, ENVIRONMENT)
    assert done.run.row.why == f"no-journal: {RUN} is said to have run, and its cluster keeps no journal of it"
    assert done.run.report is None


def test_nor_is_one_without_a_run(stage: Stage) -> None:
    stage.site.script = Script([ended(0), json.dumps({"verdict": "MET"})], code=0)
    done = stage.run()
    assert (done.code, done.run.row.verdict) == (ExitCode.UNDECIDED, ENVIRONMENT)


def test_a_run_that_was_kept_before_is_not_this_one(stage: Stage, journal: bytes) -> None:
    stage.site.script = Script([started(), ended(0)])
    stage.site.keep(RUN, journal)
    for part in stage.site.list("ConfigMap", STAGING, "drill.internal/journal=true"):
        stage.site.drop(Ref("ConfigMap", STAGING, part["metadata"]["name"]))
        part["metadata"]["creationTimestamp"] = utc(time.time() + AFTER - 60)
        stage.site.put(part)
    done = stage.run()
    assert (done.code, done.run.row.verdict) == (ExitCode.UNDECIDED, ENVIRONMENT)


def test_a_run_of_another_experiment_is_not_this_one(stage: Stage) -> None:
    other = "20261126-101500-easy-0000"
    script = Script([started(other), ended(0)], journal=journal_of(other), run_id=other)
    stage.site.script = script
    assert stage.run().run.row.verdict == ENVIRONMENT


def test_a_journal_under_the_name_of_another_run_is_refused(stage: Stage) -> None:
    other = "20261126-101500-oom-workers-0000"
    stage.site.script = Script([started(), ended(0)], journal=journal_of(other))
    done = stage.run()
    assert (done.code, done.run.row.why) == (ExitCode.BAD_INPUT, "journal-tampered")


@pytest.mark.parametrize("where", ["path", "folder", "above", "absolute"])
def test_a_folder_of_this_machine_is_no_run_of_a_pod(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    for folder in (tmp_path / "runs" / OLDER, stage.folder / OLDER):
        folder.mkdir(parents=True)
        (folder / "journal.jsonl").write_bytes(journal_of(OLDER))
    monkeypatch.chdir(tmp_path)
    before = sorted(map(str, tmp_path.rglob("*")))
    named = {
        "path": f"runs/{OLDER}", "folder": OLDER, "above": f"../../runs/{OLDER}",
        "absolute": str(tmp_path / "runs" / OLDER),
    }  # fmt: skip
    stage.site.script = Script([started(named[where]), ended(0)])
    done = stage.run()
    assert (done.code, done.run.row.verdict) == (ExitCode.UNDECIDED, ENVIRONMENT)
    assert sorted(map(str, tmp_path.rglob("*"))) == sorted([*before, str(stage.folder / "one.jsonl")])


@pytest.mark.parametrize(("said", "code"), [(4, 4), (0, 4), (4, 0), (70, 1)])
def test_where_the_pod_says_worse_than_the_journal_it_is_worse(
    stage: Stage, journal: bytes, said: int, code: int
) -> None:
    stage.site.script = Script([started(), ended(said)], journal=journal, code=code)
    done = stage.run()
    assert done.code == max(said, code)
    assert (done.run.row.why, done.run.error is not None) == ("pod-disagrees", True)
    assert "one.jsonl" in str(done.run.error)
    summary = job_summary(Job((done.run,), done.code, "1 target.", {}, 1.0, "x", "y"))
    assert "### one: oom-workers: MET" in summary
    root = ET.fromstring(combined([done.run]))  # noqa: S314 - our own file
    assert [case.get("name") for case in root.iter("testcase") if case.find("error") is not None] == ["ends well"]


def test_a_missed_journal_is_missed_whatever_the_pod_says(stage: Stage) -> None:
    stage.site.script = Script([started(), ended(0)], journal=journal_of(act=nobody))
    assert stage.run().code is ExitCode.MISSED


def test_a_rollback_that_is_said_to_be_incomplete_is_told_with_its_run(stage: Stage, journal: bytes) -> None:
    error = RollbackIncomplete("rollback-incomplete", "not back", expected="clean", remedy="recover")
    stage.site.script = Script([started(), failed(error)], journal=journal, code=4)
    done = stage.run()
    assert (done.code, done.run.row.why) == (ExitCode.ROLLBACK_INCOMPLETE, "rollback-incomplete")
    assert b"not back" in combined([done.run])


def test_a_pod_that_dies_before_its_last_word_is_undecided(stage: Stage, journal: bytes) -> None:
    half = b"".join(line for line in journal.splitlines(keepends=True)[:-3])
    stage.site.script = Script([started()], journal=half, code=137, reason="OOMKilled")
    done = stage.run()
    assert done.code is not ExitCode.MET
    assert done.run.row.verdict == "UNDECIDED"
    assert done.run.row.why == "pod-ended: OOMKilled"
    assert ("one", "its pod ended without a word (OOMKilled); the sweeper undoes it") in stage.told.said


# What is refused, and what is nobody's


def test_a_refusal_is_the_targets_result(stage: Stage) -> None:
    error = Refused("halted", "drills are halted", expected="none", remedy="ask")
    stage.site.script = Script([failed(error)], code=3)
    done = stage.run()
    assert (done.code, done.run.row.verdict, done.run.row.why) == (ExitCode.REFUSED, "REFUSED", "halted")
    assert [(target, told.as_dict()) for target, told in stage.told.errors] == [("one", error.as_dict())]


@pytest.mark.parametrize("last", ["ImportError: no module", ""])
def test_what_a_pod_says_that_never_came_to_drill_is_all_there_is(stage: Stage, last: str) -> None:
    stage.site.script = Script([last] if last else [], code=1, reason="Error")
    done = stage.run()
    assert (done.code, done.run.row.verdict) == (ExitCode.UNDECIDED, ENVIRONMENT)
    assert done.run.row.why == (last or "its pod ended with exit code 1")


def test_what_is_interrupted_before_its_run_is_nobodys_mistake(stage: Stage) -> None:
    stage.site.script = Script([json.dumps({"error": "interrupted", "exit_code": 130})], code=130)
    done = stage.run()
    assert (done.code, done.run.row.verdict) == (ExitCode.UNDECIDED, ENVIRONMENT)


def test_where_it_was_called_off_before_its_run_it_was_not_run(stage: Stage) -> None:
    stage.site.script = Script([json.dumps({"error": "interrupted", "exit_code": 130})], code=130)
    stage.site.on_line = lambda _: stage.posting.call_off()
    done = stage.run()
    assert (done.code, done.run.row.verdict) == (ExitCode.UNDECIDED, NOT_RUN)
    assert done.run.row.why == "it was called off before its run had begun"


def test_what_was_called_off_before_it_started_is_never_started(stage: Stage) -> None:
    body = stage.body()
    stage.posting.call_off()
    stage.posting.go(body)
    assert stage.posting.result is not None
    assert stage.posting.result.run.row.verdict == NOT_RUN
    assert [call for call in stage.site.writes() if call.verb == "create"] == []


def test_a_cluster_that_is_lost_leaves_more_to_fetch(stage: Stage, journal: bytes) -> None:
    stage.site.script = Script([started(), ended(0)], journal=journal)
    body = stage.body()
    stage.site.fail_next("list", Unreachable("api-unreachable", "no answer", expected="one", remedy="look"))
    stage.posting.go(body)
    assert stage.posting.result is not None
    assert (stage.posting.result.final, stage.posting.result.run.row.verdict) == (False, ENVIRONMENT)
    assert len(stage.site.jobs) == 1, "whatever it will say is not lost"
    stage.posting.take_up()
    assert stage.posting.result.final
    assert (stage.posting.result.code, stage.site.jobs) == (ExitCode.MET, [])


def test_what_was_collected_is_read_again_where_the_job_is_gone(stage: Stage, journal: bytes) -> None:
    stage.site.script = Script([started(), ended(0)], journal=journal)
    stage.run()
    log = stage.folder / "one.jsonl"
    kept = log.read_bytes()
    stage.posting.take_up()
    assert stage.posting.result is not None
    assert stage.posting.result.code is ExitCode.MET
    assert log.read_bytes() == kept
    log.write_bytes(b"\xff\xfe\r" + "\u2028".join(["x", started(), ended(0)]).encode() + b"\n" + b"x" * 3_000_000)
    stage.posting.take_up()
    assert (stage.posting.result.code, stage.posting.result.run.row.why) == (
        ExitCode.UNDECIDED, "there is no Job of it",
    ), "a line is what it was when it came"  # fmt: skip
    log.unlink()
    stage.posting.take_up()
    assert stage.posting.result.run.row.verdict == NOT_RUN


def test_a_job_that_cannot_be_taken_away_is_told(stage: Stage, journal: bytes) -> None:
    stage.site.script = Script([started(), ended(0)], journal=journal)
    stage.site.denied = {("delete", "Job")}
    assert stage.run().code is ExitCode.MET
    assert any("could not be taken away" in text for _, text in stage.told.said)


def test_a_mistake_of_ours_is_told_and_the_job_stays(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(stage.site, "follow", broken)
    done = stage.run()
    assert (done.code, done.final, done.run.row.verdict) == (ExitCode.INTERNAL, False, "ERROR")
    assert len(stage.site.jobs) == 1


# Text that would act


FORGED = [
    NASTY,
    json.dumps({"error": "halted", "exit_code": 3, "fact": NASTY, "expected": NASTY, "remedy": NASTY, "where": NASTY}),
    json.dumps({"error": NASTY, "exit_code": 3}),
    json.dumps({"progress": {"state": "said", "text": f"{NASTY}\ud800\ufffe"}}),
    started(NASTY),
]


@pytest.mark.parametrize("line", FORGED, ids=range(len(FORGED)))
def test_nothing_that_a_pod_says_acts_in_a_file(stage: Stage, line: str) -> None:
    stage.site.script = Script([line], code=1, reason=f"Error{ESCAPES}")
    done = stage.run()
    xml = combined([done.run])
    ET.fromstring(xml)  # noqa: S314 - our own file
    assert acting(xml.decode(), "\n") == set()
    summary = job_summary(Job((done.run,), done.code, "1 target.", {}, 1.0, "x", "y"))
    assert acting(summary) == set()
    assert "<script" not in "".join(part for index, part in enumerate(summary.split("`")) if index % 2 == 0)
    assert MARKUP not in summary.replace("`", "")
    assert table([done.run.row])


def test_what_a_pod_says_has_an_end_on_disk(stage: Stage, journal: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "LOG_BYTES", 10_000)
    noise = ["x" * 1000] * 50
    stage.site.script = Script([started(), *noise, ended(0)], journal=journal)
    done = stage.run()
    assert done.code is ExitCode.MET, "what is not kept was read all the same"
    assert (stage.folder / "one.jsonl").stat().st_size <= 10_000


# Before anything is started


def test_what_would_not_be_taken_is_not_asked_for(stage: Stage) -> None:
    stage.site.drop(Ref("Deployment", HOME, "drill-sweeper"))
    with pytest.raises(Refused) as refused:
        stage.body()
    assert refused.value.slug == "harness-not-installed"
    assert stage.site.writes() == []


Spoil = Callable[[Site], object]


@pytest.mark.parametrize(
    ("spoil", "slug"),
    [
        (lambda site: site.drop(Ref("ConfigMap", HOME, "drills-allowed")), "cluster-not-marked"),
        (
            lambda site: site.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": STAGING}}),
            "namespace-not-opted-in",
        ),
    ],
)
def test_a_cluster_that_wants_no_drill_is_left_alone(stage: Stage, spoil: Spoil, slug: str) -> None:
    spoil(stage.site)
    with pytest.raises(Refused) as refused:
        stage.posting.look()
    assert refused.value.slug == slug
