"""Several drills at the same time, each as a Job in the cluster that it breaks, and one table of what came of them.

Kubernetes is the engine: it starts the pods, ends them after their deadlines, and goes on where this process does not.
What was started is written down first, so that a fleet that was left can be taken up again from the same folder.
"""

from __future__ import annotations

import importlib
import re
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from harness.core.errors import BadInput, DrillError, ExitCode, Refused, worst
from harness.core.experiment import Frozen
from harness.core.fleet import MOST_TARGETS
from harness.ports.progress import Progress
from harness.report.wording import plural
from harness.wiring.post import Post, Posting, Telling
from harness.wiring.series import expected_seconds
from harness.wiring.session import choose_profile, no_autopilot, terminable
from harness.wiring.settings import PROMETHEUS, ROOT, Phases, Settings

if TYPE_CHECKING:
    from harness.core.experiment import AnyExperiment
    from harness.engine.jobs import Order
    from harness.loading import LoadedFleet
    from harness.ports.cluster import Json
    from harness.report.series import Outcome

STATE = "fleet.json"
_STATE_BYTES = 1024 * 1024
_FLEET = re.compile(r"fleet-[0-9]{8}-[0-9]{6}-[0-9a-f]{4}")
CRONJOB = ("manifests", "gameday", "cronjob.yaml")
_POD = 5.0
"""Seconds until a pod runs, and until its result is here."""
_CIRCLES = ("kubernetes.client.api.version_api", "kubernetes.client.models.version_info", "jinja2")
_HEARD = 0.2
"""Seconds after which a signal is heard at the latest."""


@dataclass(frozen=True, slots=True)
class FleetOutcome:
    """How a fleet ended. `files` are what CI reads."""

    fleet: str
    rows: tuple[Outcome, ...]
    table: str
    word: str
    exit_code: ExitCode
    phases: Mapping[str, float]
    seconds: float
    files: tuple[Path, ...]
    open_: tuple[str, ...]
    """Targets whose drills go on, or may: there is more to fetch."""


@dataclass(frozen=True, slots=True)
class _Planned:
    """A target with what it takes to start it."""

    posting: Posting
    order: Order
    experiment: AnyExperiment
    prometheus: str
    expected: float
    """Seconds that it takes where all goes well."""


class _State(Frozen):
    """What a fleet writes down before it starts: all that it takes to take it up again."""

    fleet: str
    start_within: float = Field(gt=0, le=threading.TIMEOUT_MAX, allow_inf_nan=False)
    posts: tuple[Post, ...] = Field(min_length=1, max_length=MOST_TARGETS)


def run_fleet(settings: Settings, path: Path, tell: Telling, progress: Progress) -> FleetOutcome:
    """Start every target's drill that its cluster lets start, follow them all, and collect the results.

    Raises BadInput and Refused before anything is started, where a file cannot be used or two targets would be in each
    other's way. What one cluster refuses, or does not answer, is that target's result, and the others go on.
    """
    from harness import loading

    began, phases = time.monotonic(), Phases()
    loaded = loading.load_fleet(path)
    _import_circles()
    fleet = f"fleet-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
    folder = settings.runs / fleet
    planned = [_planned(loaded, index, fleet, folder, tell) for index in range(len(loaded.fleet.targets))]
    job = _Fleet(
        fleet, folder, [one.posting for one in planned], phases, progress, shlex.join(["./drill", "fleet", str(path)])
    )
    with terminable():
        try:
            bodies = job.checked(planned)
            if begun := [one for one in planned if one.posting.post.target in bodies]:
                job.write_down()
                longest = max(one.order.timeout for one in begun)
                progress.say(f"{fleet}: {job.told()}; each ends by itself within {longest / 60:.0f} min and its undo")
                ways = {name: partial(posting.go, body) for name, (posting, body) in bodies.items()}
                job.see_through(ways, max(one.expected for one in begun))
        finally:
            job.close()
    return job.outcome(time.monotonic() - began)


def resume_fleet(settings: Settings, fleet: str, tell: Telling, progress: Progress) -> FleetOutcome:
    """Take up a fleet that was started before: follow what still runs, collect what has ended.

    Raises BadInput where there is no such fleet in the folder of runs.
    """
    began, phases = time.monotonic(), Phases()
    state = _written_down(settings.runs, fleet)
    _import_circles()
    folder = settings.runs / fleet
    postings = [Posting(post, folder, tell, state.start_within) for post in state.posts]
    job = _Fleet(fleet, folder, postings, phases, progress, shlex.join(["./drill", "fleet", "--resume", fleet]))
    with terminable():
        try:
            progress.say(f"{fleet} is taken up again: {job.told()}")
            job.see_through({one.post.target: one.take_up for one in postings}, None)
        finally:
            job.close()
    return job.outcome(time.monotonic() - began)


# Before


def _planned(loaded: LoadedFleet, index: int, fleet: str, folder: Path, tell: Telling) -> _Planned:
    """A target with its experiment read. Raises BadInput with the file and the line that is at fault."""
    from harness import loading
    from harness.engine.jobs import Order, check_size, job_name

    target = loaded.fleet.targets[index]
    where = loaded.where("targets", index, "experiment")
    try:
        file = _file(loaded, index)
    except BadInput as error:
        raise BadInput(error.slug, error.fact, expected=error.expected, remedy=error.remedy, where=where) from error
    experiment = loading.load(file).experiment
    profile = choose_profile(experiment, target.profile or loaded.fleet.profile)
    responder = target.responder or loaded.fleet.responder or experiment.profiles[profile].responder
    if responder == "autopilot" and experiment.autopilot is None:
        raise no_autopilot(
            f"target {target.name}: experiment {experiment.name}", "write `responder: human` at the target", where
        )
    text = file.read_text(encoding="utf-8")
    check_size(experiment.name, text)
    peers = [
        f"--{name}={value}"
        for name in ("prometheus", "alertmanager", "pager")
        if (value := getattr(target, name)) is not None
    ]
    order = Order(
        fleet, target.name, experiment.name, text,
        (f"--profile={profile}", f"--responder={responder}", *peers), experiment.profiles[profile].timeout,
    )  # fmt: skip
    post = Post(
        target=target.name, experiment=experiment.name, namespace=experiment.namespace,
        job=job_name(fleet, target.name), cluster="local" if target.local else "kind" if target.kind else "context",
        name=target.local or target.kind or "", context=target.context,
        kubeconfig=_beside(loaded, index, "kubeconfig", target.kubeconfig) if target.kubeconfig else None,
    )  # fmt: skip
    posting = Posting(post, folder, tell, loaded.fleet.start_within)
    expected = _POD + expected_seconds(experiment, profile)
    return _Planned(posting, order, experiment, target.prometheus or PROMETHEUS, expected)


def _file(loaded: LoadedFleet, index: int) -> Path:
    from harness import loading

    named = loaded.fleet.targets[index].experiment
    is_path = named.endswith((".yaml", ".yml"))
    return loading.find(_beside(loaded, index, "experiment", named) if is_path else named, ROOT)


def _beside(loaded: LoadedFleet, index: int, field: str, path: str) -> str:
    """The absolute path that a target means. Raises BadInput where there can be none."""
    try:
        return str(loaded.beside(path).resolve())
    except (OSError, RuntimeError, ValueError) as error:  # no such user, a loop of links, a character that none has
        raise BadInput(
            "unreadable",
            f"there is no way to {path[:200]!r}: {getattr(error, 'strerror', None) or error}",
            expected="the path of a file, which starts beside this one",
            remedy="correct the path",
            where=loaded.where("targets", index, field),
        ) from error


def _cronjob() -> Json:
    import yaml

    from harness.clusters.kubectl import checkout

    body: Json = yaml.safe_load(checkout().joinpath(*CRONJOB).read_text(encoding="utf-8"))
    return body


def _written_down(runs: Path, fleet: str) -> _State:
    """What a fleet wrote down. Raises BadInput where it is none of this folder, or not what was written."""
    from harness.engine.jobs import job_name

    if not _FLEET.fullmatch(fleet):
        raise _no_fleet(runs, fleet, f"{fleet[:80]!r} is not what a fleet is called")
    path = runs / fleet / STATE
    try:
        with path.open("rb") as file:
            raw = file.read(_STATE_BYTES + 1)
        state = _State.model_validate_json(raw, strict=True)
    except OSError as error:
        raise _no_fleet(runs, fleet, f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        why = f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
        raise _no_fleet(runs, fleet, f"{path} is not what a fleet writes down: {why}") from error
    targets = [post.target for post in state.posts]
    ours = [job_name(fleet, target) for target in targets]
    if state.fleet != fleet or len({*targets}) < len(targets) or [post.job for post in state.posts] != ours:
        raise _no_fleet(runs, fleet, f"{path} is not what {fleet} wrote down: another fleet's, or changed since")
    return state


def _no_fleet(runs: Path, fleet: str, fact: str) -> BadInput:
    jobs = f"-l drill.internal/fleet={fleet}" if _FLEET.fullmatch(fleet) else "-l app=drill-fleet"
    return BadInput(
        "no-such-fleet",
        fact,
        expected="the id of a fleet that was started from here, like fleet-20261126-100312-93fd",
        remedy=f"`ls -d {runs}/fleet-*` lists them; the Jobs in a cluster: kubectl -n drill-system get jobs {jobs}",
    )


# The fleet


@dataclass
class _Fleet:
    fleet: str
    folder: Path
    postings: Sequence[Posting]
    phases: Phases
    progress: Progress
    command: str

    def told(self) -> str:
        """Who is in it and may go on, as one sentence."""
        return ", ".join(f"{one.post.target} ({one.post.experiment})" for one in self.postings if one.result is None)

    def checked(self, planned: Sequence[_Planned]) -> dict[str, tuple[Posting, Json]]:
        """The Jobs of those targets whose clusters let them start. Raises Refused where two would collide."""
        from harness.core.fleet import Ground, collisions

        cronjob = _cronjob()
        with self.phases.time("checks"), self.progress.step("the clusters are looked at", expect_seconds=3):
            with ThreadPoolExecutor(max_workers=16) as pool:
                list(pool.map(lambda one: _tried(one.posting, one.posting.look), planned))
            there = [one for one in planned if one.posting.result is None]
            grounds = (
                Ground(
                    one.posting.post.target, one.posting.uid, one.posting.post.namespace, one.prometheus,
                    tuple(alert.name for alert in one.experiment.alerts),
                )
                for one in there
            )  # fmt: skip
            if found := collisions(grounds):
                raise Refused(
                    "targets-collide",
                    "; ".join(found),
                    expected="targets that can be drilled at the same time",
                    remedy="put them into fleets of their own, one after another",
                )
            bodies: dict[str, tuple[Posting, Json]] = {}

            def prepare(one: _Planned) -> None:
                def made() -> None:
                    bodies[one.posting.post.target] = one.posting, one.posting.body(one.order, cronjob)

                _tried(one.posting, made)

            with ThreadPoolExecutor(max_workers=16) as pool:
                list(pool.map(prepare, there))
        return bodies

    def write_down(self) -> None:
        """Say in a file what is about to be started. Raises BadInput where it cannot be written."""
        from harness.report.render import keep

        # What was refused before is no part of it.
        posts = tuple(one.post for one in self.postings if one.result is None)
        if not posts:
            return
        state = _State(fleet=self.fleet, start_within=self.postings[0].start_within, posts=posts)
        try:
            keep({STATE: state.model_dump_json(indent=2).encode()}, self.folder)
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def see_through(self, ways: Mapping[str, Callable[[], None]], expect: float | None) -> None:
        """Let every target go its way, and wait for all of them.

        The first Ctrl-C (SIGTERM, SIGHUP) calls the drills off: their pods undo everything, and are waited for. The
        next one leaves them to themselves. Raises KeyboardInterrupt then.
        """
        if not ways:
            return
        ended = [Flag() for _ in ways]
        with self.phases.time("drills"), self.progress.step(plural(len(ways), "drill"), expect_seconds=expect):
            try:
                for (name, way), over in zip(ways.items(), ended, strict=True):
                    Thread(target=_gone, args=(way, over), name=f"drill-fleet-{name}", daemon=True).start()
                _await(ended)
            except KeyboardInterrupt:
                try:
                    self._call_off()
                    _await(ended)
                except KeyboardInterrupt:
                    for one in self.postings:
                        one.leave()
                    self.progress.say(f"left to themselves; they undo what they did: drill fleet --resume {self.fleet}")
                    raise

    def _call_off(self) -> None:
        self.progress.say("called off: every drill is asked to undo what it did; Ctrl-C again leaves them alone")

        def off(one: Posting) -> None:
            try:
                one.call_off()
            except DrillError as error:
                one.tell.said(one.post.target, f"it could not be called off: {error.fact}; {error.remedy}")

        for one in self.postings:
            Thread(target=off, args=(one,), daemon=True).start()

    def close(self) -> None:
        """Give the connections back."""
        for one in self.postings:
            one.close()

    def outcome(self, seconds: float) -> FleetOutcome:
        """The table, and the files for CI. Raises BadInput where they cannot be written."""
        from harness.report.job import Job, job_summary, word
        from harness.report.junit import combined
        from harness.report.render import keep
        from harness.report.series import table

        results = [one.result for one in self.postings if one.result is not None]
        runs = tuple(one.run for one in results)
        open_ = tuple(one.post.target for one in self.postings if one.result is None or not one.result.final)
        more = f" There is more to fetch of {', '.join(open_)}: drill fleet --resume {self.fleet}" if open_ else ""
        job = Job(
            runs, worst(one.code for one in results), f"{plural(len(runs), 'target')}, drilled at the same time.{more}",
            self.phases.seconds, seconds, str(self.folder), self.command, title="Drill fleet",
        )  # fmt: skip
        try:
            files = keep({"junit.xml": combined(runs), "summary.md": job_summary(job).encode()}, self.folder)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        rows = tuple(run.row for run in runs)
        return FleetOutcome(
            self.fleet, rows, table(rows, first="target: experiment"), word(job), job.exit_code, self.phases.seconds,
            seconds, files, open_,
        )  # fmt: skip


def _import_circles() -> None:
    """Import here what targets need on threads of their own. The modules of these packages import each other in
    circles, and where several threads begin such a circle at once, Python may break it with an error
    (`_DeadlockError` in importlib._bootstrap)."""
    for name in _CIRCLES:
        importlib.import_module(name)


def _tried(posting: Posting, act: Callable[[], None]) -> None:
    """Do something for a target; what goes wrong with it is its result."""
    if posting.result is None:
        try:
            act()
        except DrillError as error:
            posting.fail(error)


def _gone(way: Callable[[], None], over: Flag) -> None:
    try:
        way()
    finally:
        over.set()


def _await(ended: Sequence[Flag]) -> None:
    """Wait for all of them. Not by `Thread.join`: one that a signal's handler interrupts takes the thread for ended, in
    Python 3.11 (bpo-45274 in its threading.py)."""
    for over in ended:
        while not over.wait(_HEARD):
            pass


def _unwritable(folder: Path, error: OSError) -> BadInput:
    return BadInput(
        "results-unwritable",
        f"{folder} cannot be written to: {error.strerror}",
        expected="a folder for the fleet's results",
        remedy="name another with --runs",
    )
