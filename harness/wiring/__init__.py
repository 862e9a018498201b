"""The composition root: settings in, adapters chosen, engine run, report written.

Heavy libraries are imported inside the functions, so that a command loads what it needs and `drill --help` none of it.
"""

from harness.wiring.commands import (
    cluster_down,
    cluster_status,
    cluster_up,
    halt,
    plan_drill,
    recover,
    respond,
    resume,
    status,
    sweep,
)
from harness.wiring.diagnosing import Examination, examine
from harness.wiring.fleet import FleetOutcome, resume_fleet, run_fleet
from harness.wiring.gameday import hold_gameday
from harness.wiring.history import list_runs, report_run
from harness.wiring.judging import judge_run
from harness.wiring.post import Telling
from harness.wiring.series import run_series
from harness.wiring.session import run_drill
from harness.wiring.settings import RecoverOutcome, RunOutcome, SeriesOutcome, Settings, StatusReport, version
from harness.wiring.smoke import SmokeOutcome, run_smoke

__all__ = [
    "Examination",
    "FleetOutcome",
    "RecoverOutcome",
    "RunOutcome",
    "SeriesOutcome",
    "Settings",
    "SmokeOutcome",
    "StatusReport",
    "Telling",
    "cluster_down",
    "cluster_status",
    "cluster_up",
    "examine",
    "halt",
    "hold_gameday",
    "judge_run",
    "list_runs",
    "plan_drill",
    "recover",
    "report_run",
    "respond",
    "resume",
    "resume_fleet",
    "run_drill",
    "run_fleet",
    "run_series",
    "run_smoke",
    "status",
    "sweep",
    "version",
]
