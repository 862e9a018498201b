"""Each command calls one function of the wiring with what flags and environment say, and hands its exit code on."""

from __future__ import annotations

import errno
import inspect
import json
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

import harness
from harness import wiring as real
from harness.cli import main
from harness.cli.app import drill
from harness.core.errors import BadInput, DrillError, ExitCode, Refused, RollbackIncomplete
from harness.loading import names
from harness.report.series import Outcome
from harness.wiring import Examination, RecoverOutcome, RunOutcome, SeriesOutcome, Settings, StatusReport
from harness.wiring.settings import ROOT
from tests.terminal.drill_history import Drill

VARIABLES = ("DRILL_CLUSTER", "CONTEXT", "PROFILE", "RESPONDER", "KUBECONFIG", "DRILL_PROMETHEUS",
             "DRILL_ALERTMANAGER", "DRILL_PAGER")  # fmt: skip


class Stub(ModuleType):
    """The wiring's doors, recording who came through."""

    def __init__(self) -> None:
        super().__init__("harness.wiring")
        vars(self)["Settings"] = Settings
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.error: BaseException | None = None
        self.exit_code = ExitCode.MET
        self.codes: dict[str, ExitCode] = {}
        """Exit codes by experiment."""
        self.ended = "complete"

    def _came(self, name: str, *args: Any, **kwargs: Any) -> None:
        self.calls.append((name, args, kwargs))
        if self.error is not None:
            raise self.error

    def run_drill(self, settings: Settings, experiment: str, **kwargs: Any) -> RunOutcome:
        for record in Drill().ended().history:
            kwargs["on_event"](record)
        self._came("run_drill", settings, experiment, **kwargs)
        name = Path(experiment).stem
        self.exit_code = self.codes.get(name, self.exit_code)
        row = Outcome(name, "MET", clean=True, run_id="r1", ended=self.ended)
        return RunOutcome("r1", Path("runs/r1"), "all MET", self.exit_code, row, {"drill": 92.0})

    def run_series(
        self,
        experiments: Sequence[str],
        profile: str | None,
        run: Callable[[str, int, int, Collection[str]], RunOutcome],
        tell: Callable[[DrillError], None],
    ) -> SeriesOutcome:
        self.calls.append(("run_series", (), {}))
        return real.run_series(experiments, profile, run, tell)

    def judge_run(self, path: Path) -> RunOutcome:
        self._came("judge_run", path)
        return RunOutcome("r1", path, "all MET", self.exit_code, Outcome("x", "MET"))

    def plan_drill(self, settings: Settings, experiment: str, profile: str | None) -> str:
        self._came("plan_drill", settings, experiment, profile)
        return "limit 256Mi -> 48Mi"

    def recover(self, settings: Settings, *, force: bool, progress: Any) -> RecoverOutcome:
        self._came("recover", settings, force=force)
        return RecoverOutcome(["memory: restored"], self.exit_code)

    def respond(self, settings: Settings, action: str, role: str = "", text: str = "", alert: str = "") -> str:
        self._came("respond", settings, action, role, text, alert)
        return f"{action}: recorded"

    def status(self, settings: Settings) -> StatusReport:
        self._came("status", settings)
        return StatusReport(["cluster   up"], self.exit_code, {"cluster": "up"})

    def examine(
        self, settings: Settings, experiments: Sequence[str], profile: str | None, progress: Any
    ) -> Examination:
        self._came("examine", settings, experiments, profile)
        return Examination("all there", {"doctor": []}, self.exit_code)

    def cluster_up(self, settings: Settings, progress: Any) -> str:
        self._came("cluster_up", settings)
        return "up"

    def cluster_down(self, settings: Settings, progress: Any) -> str:
        self._came("cluster_down", settings)
        return "down"

    def cluster_status(self, settings: Settings, progress: Any) -> str:
        self._came("cluster_status", settings)
        return "broken"


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stub:
    made = Stub()
    monkeypatch.setitem(sys.modules, "harness.wiring", made)
    monkeypatch.setattr(harness, "wiring", made)
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return made


def settings_of(stub: Stub) -> Settings:
    found = stub.calls[-1][1][0]
    assert isinstance(found, Settings)
    return found


def test_a_run_shows_its_events_its_summary_and_its_times(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "oom-workers"]) == 0
    name, args, kwargs = stub.calls[0]
    assert (name, args) == ("run_drill", (Settings(), "oom-workers"))
    assert (kwargs["profile"], kwargs["responder"], kwargs["setup"]) == (None, None, True)
    out = capsys.readouterr().out
    assert "ada (human) acknowledged the alert" in out
    assert "all MET\nexit code 0 (met)" in out
    assert "  drill    1 min 32.0 s\n  total" in out


def test_flags_reach_the_wiring(stub: Stub) -> None:
    arguments = (
        "run x --profile gameday --responder human --cluster kind --name other --runs elsewhere --no-setup "
        "--prometheus http://p --alertmanager http://a --pager none --context c --kubeconfig k --output json"
    )
    assert main(arguments.split()) == 0
    _, _, kwargs = stub.calls[0]
    assert (kwargs["profile"], kwargs["responder"], kwargs["setup"]) == ("gameday", "human", False)
    assert settings_of(stub) == Settings(
        cluster="kind", context="c", kubeconfig=Path("k"), name="other", runs=Path("elsewhere"), prometheus="http://p",
        alertmanager="http://a", pager="none", output="json",
    )  # fmt: skip


def test_where_to_drill_has_two_names(stub: Stub) -> None:
    for name in ("--cluster", "--provider"):
        assert main(["run", "x", name, "kind"]) == 0
        assert settings_of(stub).cluster == "kind"


def test_the_environment_fills_in_and_flags_win(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "DRILL_CLUSTER": "context", "CONTEXT": "staging", "PROFILE": "gameday", "RESPONDER": "human",
        "KUBECONFIG": "/k", "DRILL_PROMETHEUS": "http://p", "DRILL_ALERTMANAGER": "http://a", "DRILL_PAGER": "none",
    }  # fmt: skip
    assert set(values) == set(VARIABLES)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert main(["run", "x", "--responder", "autopilot"]) == 0
    assert settings_of(stub) == Settings(
        cluster="context", context="staging", kubeconfig=Path("/k"), prometheus="http://p", alertmanager="http://a",
        pager="none",
    )  # fmt: skip
    assert (stub.calls[0][2]["profile"], stub.calls[0][2]["responder"]) == ("gameday", "autopilot")
    assert main([]) == 0
    assert settings_of(stub).context == "staging"


def test_an_empty_variable_is_no_variable(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    assert main(["run", "x"]) == 0
    assert settings_of(stub) == Settings()
    assert stub.calls[0][2]["profile"] is None


@pytest.mark.parametrize("code", list(ExitCode))
@pytest.mark.parametrize("arguments", [["run", "x"], ["judge", "r1"], ["recover"], ["status"], ["doctor"], []])
def test_exit_codes_are_handed_on(stub: Stub, arguments: list[str], code: ExitCode) -> None:
    stub.exit_code = code
    assert main(arguments) == code


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ("ack", ("acknowledged", "", "", "")),
        ("ack QueueHigh", ("acknowledged", "", "", "QueueHigh")),
        ("join l2 --alert QueueHigh", ("joined", "l2", "", "QueueHigh")),
        ("assess P1", ("assessed", "", "P1", "")),
        ("escalate l2", ("escalated", "l2", "", "")),
        ("join l2", ("joined", "l2", "", "")),
        ("notify told", ("notified", "", "told", "")),
        ("root-cause deployment/worker limit", ("root_cause", "", "deployment/worker: limit", "")),
        ("all-clear", ("all_clear", "", "", "")),
        ("note looked", ("note", "", "looked", "")),
    ],
)
def test_responders_send_one_message(stub: Stub, arguments: str, sent: tuple[str, str, str, str]) -> None:
    assert main([*arguments.split(), "--namespace", "n"]) == 0
    name, args, _ = stub.calls[0]
    assert (name, args[1:]) == ("respond", sent)
    assert settings_of(stub).namespace == "n"


@pytest.mark.parametrize(("arguments", "door"), [
    (["cluster", "up"], "cluster_up"), (["cluster", "down"], "cluster_down"), (["cluster", "status"], "cluster_status"),
    ([], "status"), (["status"], "status"), (["plan", "x"], "plan_drill"), (["doctor", "x"], "examine"),
    (["recover", "--force"], "recover"),
])  # fmt: skip
def test_every_command_goes_through_one_door(stub: Stub, arguments: list[str], door: str) -> None:
    assert main(arguments) == 0
    assert [name for name, _, _ in stub.calls] == [door]


def drilled(stub: Stub) -> list[str]:
    return [args[1] for name, args, _ in stub.calls if name == "run_drill"]


def test_a_series_is_a_run_of_each_and_a_table(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["series", "oom-workers", "noop", "--profile", "smoke", "--no-setup"]) == 0
    assert drilled(stub) == ["oom-workers", "noop"]
    assert all((one["profile"], one["setup"]) == ("smoke", False) for _, _, one in stub.calls[1:])
    out = capsys.readouterr().out
    assert "experiment 2 of 2: noop" in out
    assert out.splitlines()[-3].split() == ["experiment", "effective", "firing", "recovered", "verdict", "clean"]
    assert [line.split()[0] for line in out.splitlines()[-2:]] == ["oom-workers", "noop"]


def test_a_series_of_nothing_is_all_there_are(stub: Stub) -> None:
    main(["series"])
    assert drilled(stub) == list(names(ROOT))


def test_a_series_ends_with_its_worst_and_goes_on_behind_it(stub: Stub) -> None:
    stub.codes = {"noop": ExitCode.MISSED, "oom-workers": ExitCode.UNDECIDED}
    assert main(["series", "noop", "oom-workers"]) == ExitCode.MISSED
    assert drilled(stub) == ["noop", "oom-workers"]


def test_nothing_more_is_drilled_where_something_is_not_back_or_somebody_said_stop(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.codes = {"noop": ExitCode.ROLLBACK_INCOMPLETE}
    assert main(["series", "noop", "oom-workers"]) == ExitCode.ROLLBACK_INCOMPLETE
    assert drilled(stub) == ["noop"]
    assert "not run" in capsys.readouterr().out
    stub.codes, stub.ended, stub.exit_code = {}, "stopped", ExitCode.UNDECIDED
    stub.calls.clear()
    assert main(["series", "noop", "oom-workers"]) == ExitCode.UNDECIDED
    assert drilled(stub) == ["noop"]


def test_a_refused_run_is_a_row_and_the_next_one_begins(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.error = Refused("busy", "somebody drills", expected="nobody", remedy="wait")
    assert main(["series", "noop", "oom-workers", "--output", "json"]) == ExitCode.REFUSED
    assert drilled(stub) == ["noop", "oom-workers"]
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [one["verdict"] for one in told["series"]] == ["REFUSED", "REFUSED"]
    assert {one["why"] for one in told["series"]} == {"busy"}


def test_a_series_begins_only_where_every_file_can_be_read(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["series", "oom-workers", "nowhere"]) == ExitCode.BAD_INPUT
    assert drilled(stub) == []
    assert "nowhere" in capsys.readouterr().err


def test_a_run_is_judged_by_folder_by_id_and_as_the_latest(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "runs" / "r1").mkdir(parents=True)
    for given in ("runs/r1", "r1"):
        main(["judge", given])
        assert stub.calls[-1][1] == (Path("runs/r1"),)
    main(["judge", "nowhere"])
    assert stub.calls[-1][1] == (Path("nowhere"),)


@pytest.mark.parametrize("error", [
    BadInput("unknown", "no experiment x", expected="one", remedy="write one", where="x.yaml:1:2"),
    Refused("not-staging", "this is production", expected="staging", remedy="go away"),
    RollbackIncomplete("dirty", "it is not back", expected="clean", remedy="drill recover"),
])  # fmt: skip
def test_known_errors_say_fact_expectation_and_remedy(
    stub: Stub, capsys: pytest.CaptureFixture[str], error: BadInput | Refused | RollbackIncomplete
) -> None:
    stub.error = error
    assert main(["run", "x"]) == error.exit_code
    assert capsys.readouterr().err == f"drill: {error}\n"
    assert main(["run", "x", "--output", "json"]) == error.exit_code
    assert json.loads(capsys.readouterr().err) == {**error.as_dict(), "exit_code": error.exit_code}


def test_a_run_that_was_refused_names_its_folder(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.error = Refused("not-staging", "this is production", expected="staging", remedy="go away")
    assert main(["run", "x", "--runs", "kept"]) == ExitCode.REFUSED
    assert "kept" not in capsys.readouterr().out, "there is no folder to look into"
    folder = Path("kept/r1")
    folder.mkdir(parents=True)
    (folder / "report.md").touch()
    (folder / "journal.jsonl").touch()
    assert main(["run", "x", "--runs", "kept"]) == ExitCode.REFUSED
    assert capsys.readouterr().out.endswith("\nreport   kept/r1/report.md\nbeside   journal.jsonl\n")
    assert main(["run", "x", "--runs", "kept", "--output", "json"]) == ExitCode.REFUSED
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == {"run": {"run_id": "r1", "folder": "kept/r1"}}


@pytest.mark.parametrize("arguments", [
    ["rnu"], ["run"], ["run", "x", "--profile", "slow"], ["run", "x", "--nope"], ["cluster"], ["assess", "P9"],
    ["run", "x", "--as", "me"], ["ack", "--as", "me"],
])  # fmt: skip
def test_a_command_line_that_cannot_be_meant_is_bad_input(
    stub: Stub, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(arguments) == ExitCode.BAD_INPUT
    assert "--help` shows all of it" in capsys.readouterr().err
    assert main([*arguments, "--output=json"]) == ExitCode.BAD_INPUT
    assert json.loads(capsys.readouterr().err)["error"] == "usage"
    assert stub.calls == []


def test_an_error_of_ours_is_one_line_and_a_file(
    stub: Stub, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stub.error = ZeroDivisionError("division by zero")
    assert main(["run", "x", "--runs", "kept"]) == ExitCode.INTERNAL
    (crash,) = (tmp_path / "kept").glob("crash-*.txt")
    err = capsys.readouterr().err
    assert err.startswith("drill: an error of the harness itself: ZeroDivisionError: division by zero\n")
    assert crash.name in err
    assert "Traceback" not in err
    assert "in run_drill" in crash.read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_the_machines_and_not_ours(stub: Stub, capsys: pytest.CaptureFixture[str], number: int) -> None:
    stub.error = OSError(number, os.strerror(number), "/cache/image.tar")
    assert main(["run", "x", "--output", "json"]) == ExitCode.BAD_INPUT
    told = json.loads(capsys.readouterr().err)
    assert told["error"] == "disk-full"
    assert "/cache/image.tar" in told["fact"]
    stub.error = OSError(errno.EIO, os.strerror(errno.EIO), "/cache/image.tar")
    assert main(["run", "x"]) == ExitCode.INTERNAL


def test_where_no_file_can_be_written_the_traceback_is_shown(
    stub: Stub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "file"))
    stub.error = ZeroDivisionError("division by zero")
    assert main(["run", "x", "--runs", "file/runs"]) == ExitCode.INTERNAL
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_outside_a_run_is_130(
    stub: Stub, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    stub.error = error
    assert main(["cluster", "up"]) == 130
    assert capsys.readouterr().err.strip() == "drill: interrupted"  # click ends the line after ^C
    assert main(["cluster", "up", "--output", "json"]) == 130
    assert json.loads(capsys.readouterr().err)["error"] == "interrupted"


def test_answers_are_json_where_it_was_asked_for(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    told: dict[str, Any] = {}
    for arguments in (["status"], ["plan", "x"], ["recover"], ["ack"], ["cluster", "status"], ["judge", "r1"]):
        assert main([*arguments, "--output", "json"]) == 0
        told[arguments[0]] = json.loads(capsys.readouterr().out)
    assert told["status"] == {"cluster": "up", "exit_code": 0}
    assert told["plan"] == {"plan": "limit 256Mi -> 48Mi"}
    assert told["recover"] == {"recovered": ["memory: restored"], "exit_code": 0}
    assert told["ack"] == {"message": "acknowledged: recorded"}
    assert told["cluster"] == {"cluster": "broken"}
    assert told["judge"]["outcome"]["run_id"] == "r1"


def test_experiments_are_listed_and_validated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--output", "json"]) == 0
    names = [json.loads(line)["experiment"] for line in capsys.readouterr().out.splitlines()]
    assert "oom-workers" in names
    assert main(["validate"]) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == names
    assert main(["validate", "oom-workers", "oom-wokers"]) == ExitCode.BAD_INPUT
    told = capsys.readouterr()
    assert "oom-workers: valid" in told.out
    assert "did you mean `oom-workers`?" in told.err


def test_schema_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Experiment"
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith("drill ")


def test_the_real_wiring_has_the_doors_that_are_called() -> None:
    for name, member in inspect.getmembers(Stub, inspect.isfunction):
        if name.startswith("_"):
            continue
        door: Callable[..., Any] = getattr(real, name)
        asked = [p for p in inspect.signature(member).parameters if p not in {"self", "kwargs"}]
        offered = inspect.signature(door).parameters
        assert asked == list(offered)[: len(asked)], name


def test_every_command_has_help() -> None:
    def all_of(group: click.Group) -> list[click.Command]:
        found: list[click.Command] = []
        for command in group.commands.values():
            found += all_of(command) if isinstance(command, click.Group) else [command]
        return found

    commands = all_of(drill)
    assert len(commands) > 15
    assert [command.name for command in commands if not command.help] == []
    options = [o for c in commands for o in c.params if isinstance(o, click.Option)]
    assert [option.name for option in options if not option.help] == []
