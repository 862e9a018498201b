"""One game day: whether people may be drilled now, what is due, who is told, and then the drill."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag
from typing import TYPE_CHECKING

from harness.core.errors import DrillError, ExitCode
from harness.core.gameday import GameDay, Pick, announcement, pick
from harness.wiring.session import choose_profile, no_autopilot, terminable
from harness.wiring.settings import ROOT, RunOutcome, Settings, connect, existing_access, peers_of

if TYPE_CHECKING:
    from harness.adapters.kubernetes import KubeCluster
    from harness.core.experiment import AnyExperiment
    from harness.engine.waiting import Firing
    from harness.ports.cluster import Cluster
    from harness.ports.metrics import Metrics

Run = Callable[[str, str, str], RunOutcome]
"""Runs an experiment, given its file, profile and responder."""


@dataclass(frozen=True, slots=True)
class Held:
    """How a game day ended: with a run, or with a reason why there was none."""

    experiment: str
    why_not: str
    run: RunOutcome | None
    exit_code: ExitCode


def hold_gameday(
    settings: Settings, path: Path, run: Run, say: Callable[[str], None], *, how: Pick | None, seed: int | None
) -> Held:
    """Wait until a drill may begin, tell people, and run what is due.

    A day that the calendar keeps free is not held, and that is success. Raises BadInput where a file cannot be read,
    Refused where an incident is open, drills are halted or nobody could be told, and what the run raises.
    """
    with terminable():  # from the first moment: as a pod's first process nothing else would hear of its end
        return _held(settings, path, run, say, how, seed)


def _held(
    settings: Settings, path: Path, run: Run, say: Callable[[str], None], how: Pick | None, seed: int | None
) -> Held:
    from harness import loading
    from harness.adapters.system_clock import SystemClock
    from harness.engine import guards
    from harness.engine.waiting import NotToday, wait_for_start

    loaded = loading.load_gameday(path)
    day = loaded.gameday
    paths = {name: _file(name, day, loaded.beside) for name in day.experiments}
    known = {name: loading.load(file).experiment for name, file in paths.items()}
    for experiment in known.values():
        _check_can_run(experiment, day)
    webhook = _webhook(day, loaded.beside)
    clock, over = SystemClock(), Flag()
    cluster = connect(settings, existing_access(settings), clock)
    with contextlib.ExitStack() as held:
        held.callback(cluster.close)
        peers = held.enter_context(contextlib.closing(peers_of(settings, cluster, clock)))
        name = pick(day, _drilled(cluster, known), seed, how)
        experiment = known[name]
        say(f"due is {name}: {experiment.title}")
        # Nothing is written, not even an announcement, where drills are not wanted.
        guards.check_denied(guards.check_marker(cluster), experiment.namespace)
        guards.check_namespace(cluster, experiment.namespace)

        announced = contextlib.ExitStack()

        def tell(at: float) -> None:
            who = "people respond" if day.responder == "human" else "the autopilot responds"
            text = announcement(name, experiment.title, experiment.namespace, at, day.time_zone, who)
            _tell(cluster, experiment.namespace, at, text, webhook, announced, say)

        try:
            with announced:  # over as soon as the drill begins: then there is a lock to be seen
                wait_for_start(
                    day, clock, lambda seconds: not over.wait(seconds), firing=lambda: _firing(peers.metrics),
                    halted=lambda: _halted(cluster), tell=tell, say=say,
                )  # fmt: skip
        except NotToday as reason:
            return Held("", str(reason), None, ExitCode.MET)
        outcome = run(str(paths[name]), day.profile, day.responder)
    return Held(name, "", outcome, outcome.exit_code)


def _check_can_run(experiment: AnyExperiment, day: GameDay) -> None:
    """Raise BadInput where a run would be refused for what the file lacks, before anybody is told of it."""
    choose_profile(experiment, day.profile)
    if day.responder == "autopilot" and experiment.autopilot is None:
        raise no_autopilot(f"experiment {experiment.name}", "write `responder: human` in the game day's file")


def _file(name: str, day: GameDay, beside: Callable[[str], Path]) -> Path:
    from harness import loading

    own = beside(day.folder) / f"{name}.yaml" if day.folder else None
    return own.resolve() if own is not None and own.is_file() else loading.find(name, ROOT).resolve()


def _webhook(day: GameDay, beside: Callable[[str], Path]) -> Callable[[str], None] | None:
    if not day.announcement.webhook_file:
        return None
    from harness.adapters.webhook import post, url_of

    url = url_of(beside(day.announcement.webhook_file))
    return lambda text: post(url, text)


def _tell(
    cluster: Cluster,
    namespace: str,
    at: float,
    text: str,
    webhook: Callable[[str], None] | None,
    held: contextlib.ExitStack,
    say: Callable[[str], None],
) -> None:
    from harness.engine import announcements

    announced = announcements.announce(cluster, namespace, at, text)

    def withdraw() -> None:
        why = announcements.withdraw(cluster, namespace, announced)
        if why:
            say(f"the announcement could not be taken away: {why}")

    held.callback(withdraw)
    if webhook is not None:
        webhook(text)


def _drilled(cluster: KubeCluster, known: dict[str, AnyExperiment]) -> dict[str, float]:
    """When each experiment was drilled last, from the journals that the cluster keeps."""
    from harness.engine import results

    found: dict[str, float] = {}
    for run in results.stored(cluster, sorted({one.namespace for one in known.values()})):
        found[run.experiment] = max(run.created, found.get(run.experiment, 0.0))
    return found


def _firing(metrics: Metrics) -> Firing:
    return [(rule.alert, rule.labels.get("severity", "")) for rule in metrics.rules() if rule.state == "firing"]


def _halted(cluster: Cluster) -> str:
    from harness.engine.stopping import MARKER, marker_refuses
    from harness.ports.cluster import NotFound

    try:
        return marker_refuses(cluster.get(MARKER))
    except NotFound:
        return marker_refuses(None)
    except DrillError:
        return ""  # nobody called anything off; the drill's own checks ask again
