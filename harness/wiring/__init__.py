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
from harness.wiring.history import list_runs, report_run
from harness.wiring.judging import judge_run
from harness.wiring.series import run_series
from harness.wiring.session import run_drill
from harness.wiring.settings import RecoverOutcome, RunOutcome, SeriesOutcome, Settings, StatusReport, version

__all__ = [
    "RecoverOutcome",
    "RunOutcome",
    "SeriesOutcome",
    "Settings",
    "StatusReport",
    "cluster_down",
    "cluster_status",
    "cluster_up",
    "halt",
    "judge_run",
    "list_runs",
    "plan_drill",
    "recover",
    "report_run",
    "respond",
    "resume",
    "run_drill",
    "run_series",
    "status",
    "sweep",
    "version",
]
