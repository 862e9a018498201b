"""`drill doctor`: everything that a drill needs is looked at, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from harness.core.clock import Clock
from harness.core.configuration import PEERS
from harness.core.diagnosis import State, counts
from harness.core.errors import DrillError, ExitCode
from harness.ports.progress import Progress
from harness.wiring.session import choose_profile
from harness.wiring.settings import (
    ROOT,
    Doors,
    Settings,
    autopilot_needs,
    connect,
    existing_access,
    peer_needs,
)

if TYPE_CHECKING:
    from harness.adapters.kubernetes import KubeCluster
    from harness.engine.doctor import Case

T = TypeVar("T")
_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Examination:
    """What the doctor says: the table for people, the same for machines, and the exit code: REFUSED where something
    that a drill needs is missing."""

    text: str
    data: dict[str, Any]
    exit_code: ExitCode


def examine(settings: Settings, experiments: Sequence[str], profile: str | None, progress: Progress) -> Examination:
    """Look at the cluster, the alerting chain, and what each of these experiments needs of them. Whatever cannot be
    reached or read becomes a line of the table."""
    from harness import catalog
    from harness.adapters.system_clock import SystemClock
    from harness.engine.doctor import Doctor, Patient
    from harness.report.diagnosis import headline, table

    clock = SystemClock()
    cluster = _or_why(lambda: _connected(settings, clock))
    doors = Doors(settings, None if isinstance(cluster, DrillError) else cluster.server(), clock)
    try:
        patient = Patient(
            cluster=cluster,
            metrics=_or_why(doors.prometheus),
            notifier=_or_why(doors.alertmanager),
            pager=_or_why(doors.pager),
            addresses={name: getattr(settings, name) for name in PEERS},
            doubts=doors.doubts(),
            needs=peer_needs(settings),
        )
        cases = [_case(name, profile) for name in experiments]
        with progress.step("Looking at the cluster and the alerting chain", expect_seconds=_SECONDS):
            found = Doctor(patient, cases, catalog.faults(), clock, settings.namespace).examine()
    finally:
        doors.close()
        if not isinstance(cluster, DrillError):
            cluster.close()
    code = ExitCode.REFUSED if any(one.state is State.MISSING for one in found) else ExitCode.MET
    file = str(settings.configuration) if settings.configuration is not None else None
    read = f"{file} was read\n\n" if file is not None else ""
    data = {
        "doctor": [one.as_dict() for one in found],
        "configuration": file,
        "counts": counts(found),
        "summary": headline(found),
        "exit_code": int(code),
    }
    return Examination(read + table(found), data, code)


def _connected(settings: Settings, clock: Clock) -> KubeCluster:
    return connect(settings, existing_access(settings), clock)


def _or_why(make: Callable[[], T]) -> T | DrillError:
    try:
        return make()
    except DrillError as error:
        return error


def _case(name: str, profile: str | None) -> Case:
    from harness import loading
    from harness.engine.doctor import Case

    try:
        experiment = loading.load(loading.find(name, ROOT)).experiment
        chosen = choose_profile(experiment, profile)
    except DrillError as error:
        return Case(name, error)
    needs = autopilot_needs() if experiment.profiles[chosen].responder == "autopilot" else ()
    return Case(experiment.name, experiment.tuned(chosen), needs)
