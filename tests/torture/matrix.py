"""The crash matrix on a real cluster: every fault of the catalog, killed at every step, then cleaned up by somebody.

A trial runs the product in a process of its own, kills it, and lets the next one come: `drill recover` on a machine
without the dead run's folder, the next run, or a sweeper. It ends when the target's objects equal, member for member,
what was there before, apart from what only the API server writes.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any, Literal

import yaml

from harness.adapters.kubernetes import KubeCluster
from harness.clusters.provider import Access
from harness.core.pods import pod_state
from harness.core.workload import pod_labels, unsettled
from harness.ports.cluster import Json, NotFound, Ref
from harness.report.wording import span
from tests.faults.targets import IMAGE_OF, OPT_IN, Row
from tests.hands import hand
from tests.torture.victim import MEASURED, nth

ROOT = Path(__file__).resolve().parents[2]
Rescuer = Literal["recover", "next run", "sweeper"]
RESCUERS: tuple[Rescuer, ...] = ("recover", "next run", "sweeper")
WITHIN = 120.0
"""Seconds after a death within which everything must be back; the figure that is told is what it took."""
_ANYTHING = {"query": "vector(1)", "above": 0}


@dataclass(frozen=True)
class Point:
    """Where a run dies: after a journal append, or before or after a write. `step` tells it as the victim does."""

    kind: Literal["append", "write"]
    step: str
    moment: Literal["", "before", "after"]

    def __str__(self) -> str:
        return f"{self.moment or 'after'} {self.kind} {self.step}"

    @property
    def what(self) -> str:
        """What the step is, whichever of its like."""
        return self.step.partition("#")[0]

    @property
    def argument(self) -> str:
        """The victim's first argument."""
        return ":".join(part for part in (self.kind, self.step, self.moment) if part)


@dataclass(frozen=True)
class Result:
    """One trial. `seconds` run from the death to the object's being as before; None where it never was."""

    fault: str
    point: Point
    rescuer: Rescuer
    died: bool
    was_broken: bool
    seconds: float | None
    leftovers: tuple[str, ...]
    told: str


@dataclass(frozen=True)
class Held:
    """A run that was held up. `code` is its exit code; `swept` and `clean` say whether the object was as before when
    the sweeper was done, and at the end; `journal` is the run's own."""

    code: int
    swept: bool
    clean: bool
    leftovers: tuple[str, ...]
    journal: str


@dataclass
class Pace:
    """How far a matrix of so many rows is. What a row holds is known once it has begun; those to come are taken for
    what the known ones hold on average."""

    rows: int
    planned: list[int] = field(default_factory=list)
    done: int = 0

    @property
    def total(self) -> float:
        """Trials in all, as far as is known."""
        known = sum(self.planned)
        return known * self.rows / len(self.planned) if self.planned else 0.0

    def left(self, seconds: float) -> float:
        """Seconds that it will still take, when what is done took `seconds`; of which there is some."""
        return max(0.0, self.total - self.done) * seconds / self.done

    def told(self, seconds: float) -> str:
        """Where it stands, as a clause."""
        about = "" if len(self.planned) == self.rows else "about "
        return f"{self.done} of {about}{self.total:.0f}, about {span(self.left(seconds), 0)} left"


@dataclass
class Torture:
    """The matrix over one cluster. `say` gets a sentence after each trial, and `keep` its result; so many rows
    `abreast` are tried at the same time, each in `jobs` namespaces. The folder of the journals goes when all went
    well."""

    access: Access
    say: Callable[[str], None]
    jobs: int = 6
    abreast: int = 1
    keep: Callable[[Result], None] = lambda _: None
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="drill-torture-")))

    def __post_init__(self) -> None:
        self._told = Lock()
        self._pace = Pace(0)
        self._began = time.monotonic()
        self.cluster = KubeCluster.from_kubeconfig(self.access.kubeconfig, self.access.context, now=time.time)
        self._leaving: list[str] = []
        self.image = str(self.cluster.get(IMAGE_OF)["spec"]["template"]["spec"]["containers"][0]["image"])

    def run(self, targets: Sequence[Row], choose: Callable[[list[Point]], list[Point]] = list) -> list[Result]:
        """Every target at the chosen points; the results in no particular order."""

        def one(target: Row) -> list[Result]:
            with self._rooms(target) as rooms:
                points = self._points(target, rooms)
                tasks = [(point, RESCUERS[i % len(RESCUERS)]) for i, point in enumerate(choose(points))]
                with self._told:
                    self._pace.planned.append(len(tasks))
                self.say(f"{title(target)}: {len(points)} steps, {len(tasks)} deaths")
                return self._all(target, tasks, rooms)

        self._pace, self._began = Pace(len(targets)), time.monotonic()
        with self._journals() as all_well:
            try:
                with ThreadPoolExecutor(self.abreast) as pool:
                    done = [result for results in pool.map(one, targets) for result in results]
            finally:
                self._wait_all_gone()
            all_well += [not any(map(is_bad, done))]
        return done

    @contextmanager
    def _journals(self) -> Iterator[list[bool]]:
        """Remove the folder of the journals where the block says that all went well; else say where it is."""
        said: list[bool] = []
        try:
            yield said
        finally:
            if said and all(said):
                shutil.rmtree(self.folder)
            else:
                self.say(f"the journals are kept in {self.folder}")

    def _all(self, target: Row, tasks: Iterable[tuple[Point, Rescuer]], rooms: SimpleQueue[str]) -> list[Result]:
        def one(task: tuple[Point, Rescuer]) -> Result:
            room = rooms.get()
            result = self._trial(target, *task, room)
            self._tell(target, result)
            if result.seconds is not None and not result.leftovers:
                rooms.put(room)
            else:
                self._fresh(target, room)
                rooms.put(room)
            return result

        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                return list(pool.map(one, tasks))
            except BaseException:  # Ctrl-C too: what has not begun is left alone
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _tell(self, target: Row, result: Result) -> None:
        took = "NEVER" if result.seconds is None else f"{result.seconds:.1f} s"
        with self._told:
            self._pace.done += 1
            self.keep(result)
            stands = self._pace.told(time.monotonic() - self._began)
        self.say(f"{title(target)}: killed {result.point}, {result.rescuer}: back after {took} ({stands})")

    # A trial

    def _trial(self, target: Row, point: Point, rescuer: Rescuer, room: str) -> Result:
        before = self._declared(target, room)
        sweeper = self._start("sweep", "--namespace", room) if rescuer == "sweeper" else None
        try:
            victim = self._victim(point.argument, target, room, "died")
            died_at = time.monotonic()
            broken = self._declared(target, room) != before
            told, good = self._rescue(rescuer, target, room)
            seconds = self._back_after(target, room, before, died_at)
            left = [] if good else [f"{rescuer} failed: {told}"]
            left += self._leftovers(room, died_at)
        finally:
            if sweeper is not None:
                sweeper.terminate()
                sweeper.wait()
        return Result(title(target), point, rescuer, victim == -9, broken, seconds, tuple(left), told.strip()[-400:])

    def _rescue(self, rescuer: Rescuer, target: Row, room: str) -> tuple[str, bool]:
        if rescuer == "sweeper":
            return "", True
        if rescuer == "recover":
            done = self._drill("recover", "--namespace", room, "--runs", str(self.folder / "elsewhere"))
        else:
            done = self.lives(target, room, "next")
        return done.stdout + done.stderr, done.returncode == 0

    def _back_after(self, target: Row, room: str, before: list[Json], died_at: float) -> float | None:
        while time.monotonic() - died_at < WITHIN:
            if self._declared(target, room) == before and not self._records(room):
                return time.monotonic() - died_at
            time.sleep(0.2)
        return None

    def _leftovers(self, room: str, died_at: float) -> list[str]:
        """What is still there that should not be: undo records and locks. A lock may be on its way out."""
        while True:
            locks = [f"lease/{one['metadata']['name']}" for one in self.cluster.list("Lease", room)]
            left = [*self._records(room), *locks]
            if not left or time.monotonic() - died_at > WITHIN:
                return left
            time.sleep(0.2)

    def _records(self, room: str) -> list[str]:
        found = self.cluster.list("ConfigMap", room, "drill.internal/undo=true")
        return [f"configmap/{one['metadata']['name']}" for one in found]

    def _declared(self, target: Row, room: str) -> list[Json]:
        """The target's objects without what only the API server and its controllers write, Secrets whole; the names of
        all objects of those kinds that the fault makes; and how many pods are ready, where the damage shows there."""
        bodies = [hand(self.cluster).read(ref) for ref in target.refs(room)]
        for body in bodies:
            body.pop("status", None)
            for name in ("resourceVersion", "generation", "managedFields"):
                body["metadata"].pop(name, None)
            (body["metadata"].get("annotations") or {}).pop("deployment.kubernetes.io/revision", None)
        names = {
            kind: sorted(one["metadata"]["name"] for one in self.cluster.list(kind, room)) for kind in target.kinds()
        }
        beside: Json = {"made": names}
        if target.counts_pods():
            labels = pod_labels(self.cluster.get(target.ref(room)))
            beside["ready"] = sum(pod_state(pod, "").ready for pod in self.cluster.list("Pod", room, labels))
        return [*bodies, beside]

    # Rooms and steps

    @contextmanager
    def _rooms(self, target: Row) -> Iterator[SimpleQueue[str]]:
        """Namespaces with the target in each, one for each job. Those of earlier rows may still be on their way out."""
        series = secrets.token_hex(3)
        names = [f"drill-torture-{series}-{number}" for number in range(self.jobs)]
        rooms: SimpleQueue[str] = SimpleQueue()
        try:
            for name in names:
                self._make(target, name)
            for name in names:
                self._wait_at_rest(target, name)
                rooms.put(name)
            yield rooms
        finally:
            for name in names:
                self._drop(name)
            self._leaving += names

    def _wait_all_gone(self) -> None:
        while self._leaving:
            self._wait_gone(self._leaving.pop())

    def _make(self, target: Row, room: str) -> None:
        self.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": room, "labels": OPT_IN}})
        for body in target.objects(room, self.image):
            self.cluster.create(body)

    def _fresh(self, target: Row, room: str) -> None:
        self._drop(room)
        self._wait_gone(room)
        self._make(target, room)
        self._wait_at_rest(target, room)

    def _drop(self, room: str) -> None:
        self.cluster.delete(Ref("Namespace", "", room))

    def _wait_gone(self, room: str) -> None:
        deadline = time.monotonic() + WITHIN
        while time.monotonic() < deadline:
            try:
                self.cluster.get(Ref("Namespace", "", room))
            except NotFound:
                return
            time.sleep(0.5)
        raise TimeoutError(f"namespace {room} does not go")

    def _wait_at_rest(self, target: Row, room: str) -> None:
        deadline = time.monotonic() + WITHIN
        while any(unsettled(self.cluster.get(ref)) for ref in target.workloads(room)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{target.ref(room)} does not come to rest")
            time.sleep(0.5)

    def _points(self, target: Row, rooms: SimpleQueue[str]) -> list[Point]:
        """Every step of a run that is left alone."""
        room, path = rooms.get(), self.folder / f"steps-{target.kind}-{target.name}.json"
        code = self._victim(f"count:{path}", target, room, "counted")
        rooms.put(room)
        if code != 0:
            raise RuntimeError(f"the run that should only be counted ended with {code}; see {self.folder}")
        steps = json.loads(path.read_text(encoding="utf-8"))
        points = [Point("append", step, "") for step in _told(steps["appends"])]
        return points + [
            Point("write", step, moment) for step in _told(steps["writes"]) for moment in ("before", "after")
        ]

    # Processes

    def _experiment(self, target: Row, room: str) -> Path:
        """The smallest experiment that breaks the target: it ends as soon as the effect is proved."""
        effective = f"{target.spec['id']}.effective"
        data: dict[str, Any] = {
            "name": f"torture-{target.kind}",
            "title": "Dies at every step",
            "why": {"probability": "high", "tests": ["the harness"]},
            "namespace": room,
            "narrative": "The harness is killed.",
            "facilitator": {"root_cause": {"object": "/".join(target.broken).lower(), "reason": "a test"}},
            "severity": "P4",
            "signal": {"query": "vector(1)", "title": "One", "unit": ""},
            "steady_state": [{"name": "Prometheus answers", "for": "1s", **_ANYTHING}],
            "faults": [self._provable(target.on(self.image).spec)],
            "mitigated": {"for": "1s", **_ANYTHING},
            "recovered": {"for": "1s", **_ANYTHING},
            "slas": [{"from": "injected", "to": effective, "within": "60s", "required": True}],
            "runbook": "runbooks/high-queue-depth.md",
            "profiles": {"smoke": {"timeout": "60s", "responder": "human"}},
        }
        path = self.folder / room / f"torture-{target.kind}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(data), encoding="utf-8")
        return path

    def _provable(self, spec: Json) -> Json:
        """The fault; nothing scrapes these targets, so of one that is measured the victim itself answers."""
        measured = {"query": MEASURED, "above": 0, "within": "60s"}
        return {**spec, "effect": measured} if "query" in spec["effect"] else spec

    def hold_up(self, target: Row, *, killed: bool) -> Held:
        """Let a run stand still between the renewal of its lock and its write until a sweeper took its record for
        undone; then let it go on, or be killed as soon as that write has its answer."""
        with self._journals() as all_well:
            try:
                held = self._held_up(target, killed=killed)
            finally:
                self._wait_all_gone()
            all_well += [held.swept and held.clean and not held.leftovers]
        return held

    def _held_up(self, target: Row, *, killed: bool) -> Held:
        with self._rooms(target) as rooms:
            write = next(p for p in self._points(target, rooms) if (p.kind, p.what) == ("write", target.breaks()))
            room = rooms.get()
            before = self._declared(target, room)
            fate = f"held:{write.step}" + (":killed" if killed else "")
            runs = self.folder / f"held-{target.kind}-{killed}"
            with (self.folder / f"{runs.name}.log").open("w", encoding="utf-8") as log:
                victim = subprocess.Popen(
                    self._command(fate, target, room, runs.name), stdout=log, stderr=subprocess.STDOUT, cwd=ROOT,
                    env=_environment(),
                )  # fmt: skip
            try:
                self._until(lambda: Path(f"/proc/{victim.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
                sweeper = self._start("sweep", "--namespace", room)
                try:
                    self._until(lambda: not self._records(room) and not self.cluster.list("Lease", room))
                finally:
                    sweeper.terminate()
                    sweeper.wait()
                undone = self._declared(target, room)
                os.kill(victim.pid, signal.SIGCONT)
                code = victim.wait(WITHIN)
            finally:
                victim.kill()
                victim.wait()
            left = [*self._records(room), *(one["metadata"]["name"] for one in self.cluster.list("Lease", room))]
            told = next(runs.glob("*/journal.jsonl")).read_text(encoding="utf-8")
            return Held(code, undone == before, self._declared(target, room) == before, tuple(left), told)

    def _until(self, what: Callable[[], bool]) -> None:
        began = time.monotonic()
        while not what():
            if time.monotonic() - began > WITHIN:
                raise TimeoutError(f"not within {WITHIN} s")
            time.sleep(0.1)

    def _victim(self, fate: str, target: Row, room: str, runs: str) -> int:
        with (self.folder / f"{room}.log").open("w", encoding="utf-8") as log:
            return subprocess.run(
                self._command(fate, target, room, runs),
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=WITHIN,
                cwd=ROOT,
                env=_environment(),
            ).returncode

    def _command(self, fate: str, target: Row, room: str, runs: str) -> list[str]:
        return [
            sys.executable, "-m", "tests.torture.victim", fate, "run", str(self._experiment(target, room)),
            "--no-setup", "--runs", str(self.folder / runs), *self._where(),
        ]  # fmt: skip

    def lives(self, target: Row, room: str, runs: str) -> subprocess.CompletedProcess[str]:
        """A run that nobody kills."""
        command = self._command(f"count:{self.folder / room / 'steps.json'}", target, room, runs)
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=2 * WITHIN, cwd=ROOT, env=_environment()
        )

    def drill(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the product that is about no cluster."""
        return subprocess.run(
            [sys.executable, "-m", "harness.cli", *arguments],
            capture_output=True, text=True, check=False, timeout=2 * WITHIN, cwd=ROOT, env=_environment(),
        )  # fmt: skip

    def _drill(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.drill(*arguments, *self._where())

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "harness.cli", *arguments, *self._where()], text=True, cwd=ROOT, env=_environment(),
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def _where(self) -> list[str]:
        return ["--cluster", "context", "--context", self.access.context, "--kubeconfig", str(self.access.kubeconfig)]


def _told(steps: Sequence[str]) -> list[str]:
    """Every step as the victim tells it."""
    return [nth(steps[:end]) for end in range(1, len(steps) + 1)]


def title(target: Row) -> str:
    """What a target's row is called."""
    return f"{target.kind} ({target.name})"


def is_bad(result: Result) -> bool:
    """Whether a trial left something."""
    return result.seconds is None or bool(result.leftovers)


def table(results: Sequence[Result]) -> str:
    """The matrix in eighty columns, a line per fault and one for all."""
    lines = [f"{'fault':<26} {'deaths':>6} {'in force':>8} {'back':>6} {'leftovers':>9} {'longest':>8} {'median':>7}"]
    faults = list(dict.fromkeys(result.fault for result in results))
    for name in [*faults, "all"]:
        rows = [result for result in results if name in {"all", result.fault}]
        took = sorted(result.seconds for result in rows if result.seconds is not None)
        longest, median = (f"{took[-1]:.1f} s", f"{took[len(took) // 2]:.1f} s") if took else ("-", "-")
        lines.append(
            f"{name:<26} {sum(r.died for r in rows):>6} {sum(r.was_broken for r in rows):>8} {len(took):>6} "
            f"{sum(len(r.leftovers) for r in rows):>9} {longest:>8} {median:>7}"
        )
    for rescuer in RESCUERS:
        took = sorted(r.seconds for r in results if r.rescuer == rescuer and r.was_broken and r.seconds is not None)
        if took:
            lines.append(
                f"{'  of these by ' + rescuer + ', in force':<42} {len(took):>6} {'':>9} "
                f"{f'{took[-1]:.1f} s':>8} {f'{took[len(took) // 2]:.1f} s':>7}"
            )
    return "\n".join(lines)


def _environment() -> dict[str, str]:
    mine = ("DRILL_", "KUBECONFIG", "CONTEXT", "PROFILE", "RESPONDER")
    return {**{k: v for k, v in os.environ.items() if not k.startswith(mine)}, "NO_COLOR": "1"}
