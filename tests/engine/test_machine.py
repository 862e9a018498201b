"""A Hypothesis state machine over several controllers in one fake world.

Each controller (a run, `drill recover`, a sweeper) is the real engine in a thread of its own, and exactly one thread
runs at a time: a controller gives the baton back at every tenth of a virtual second, and in the middle of a write that
is held up. The engine is a blocking loop, so nothing less lets two of them truly interleave; who goes on, and when, is
the machine's choice alone, so an example replays to the letter.

What must not happen is noted by the machine, not raised inside an engine that would take it for a trouble like others.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from harness.core.errors import BadInput, DrillError, Internal
from harness.core.event import EffectProved, InjectDone, PodsSeen, Record, ResponderActed, decode, encode
from harness.core.history import History
from harness.core.verdict import Verdict, judge
from harness.engine import undo_records
from harness.engine.lease import DURATION
from harness.engine.lease import NAME as LOCK
from harness.ports.kinds import called
from tests.fakes import drill as drills
from tests.fakes.cluster import FakeCluster, copied, lost_reply
from tests.fakes.comers import COMERS, declared, leftovers
from tests.fakes.drill import FAULTS, Drill, MemoryJournal, broken_by, experiment_data, set_replicas
from tests.fakes.world import CHAOS, KEY, KEYS, NAMESPACE, SETTINGS, STEP, Killed, World

WRITES = {"create", "replace", "patch", "delete"}
TARGETED = {
    ("create", CHAOS),
    ("delete", CHAOS),
    ("delete", "Deployment"),
    ("delete", "Job"),
    ("delete", "Pod"),
    ("delete", "Secret"),
}
"""Writes to what a fault breaks or makes, beside patches of anything. A Job is made suspended, which breaks nothing."""
FOREIGN = 4
"""Replicas that neither a drill nor the snapshot has."""
FOREIGN_KEY = "c29tZWJvZHkncw=="
ENDS_WITHIN = 900.0
"""Virtual seconds in which every controller ends once everything answers: timeout, grace, a lock's life, settling."""
OVERTAKES_WITHIN = 240
"""Virtual seconds that a second run has to take the lock, bring back, see the alert resolved, and inject."""
HELD_WITHIN = 60
"""Virtual seconds in which a run that has begun comes to its fault's write."""
SEEN: Counter[str] = Counter()


class Watcher(Protocol):
    """Who looks at the world after every write, and keeps what was wrong."""

    wrong: list[str]

    def written(self, by: str) -> None: ...


class Seat:
    """The world as one controller has it: its own connection, which can die or lose replies, and its own turn."""

    def __init__(self, world: World, name: str, give_back: Callable[[], None], watcher: Watcher) -> None:
        self._world, self._give_back = world, give_back
        self.cluster = Connection(world, name, give_back, watcher)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def step(self) -> None:
        self._give_back()
        if self.cluster.killed:
            raise Killed

    def run_for(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self.step()


class Connection:
    """One controller's calls to the API server that all share."""

    def __init__(self, world: World, name: str, give_back: Callable[[], None], watcher: Watcher) -> None:
        self._world, self._name, self._give_back, self._watcher = world, name, give_back, watcher
        self.killed = False
        self.order = ""
        self.only = ""
        """The kind of object whose next write is meant by the order; any where it is empty."""
        self.held = False

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._world.cluster, name)
        if not callable(act):
            return act

        def call(*args: Any, **options: Any) -> Any:
            if self.killed:
                raise Killed
            if name not in WRITES or options.get("dry_run"):
                return act(*args, **options)
            about = args[0]
            kind = called(about.get("apiVersion", ""), about["kind"]) if isinstance(about, dict) else about.kind
            order = ""
            if self.only in {"", kind}:
                order, self.order = self.order, ""
            if order == "hold":
                self._hold()
            if order == "die before" or self.killed:
                self.killed = True
                raise Killed
            if order == "lose before":
                SEEN["lost reply"] += 1
                raise lost_reply()
            answer = act(*args, **options)
            self._watcher.written(self._name)
            if (name == "patch" or (name, kind) in TARGETED) and order != "hold":
                self._has_lock()  # a write that was held up is known by what it may do: nothing, once it was undone
            if order == "die after":
                self.killed = True
                raise Killed
            if order == "lose after":
                SEEN["lost reply"] += 1
                raise lost_reply()
            return answer

        return call

    def _hold(self) -> None:
        SEEN["held write"] += 1
        self.held = True
        while self.held:
            self._give_back()

    def _has_lock(self) -> None:
        """No run that lost the lock injects or undoes, and nobody else without it does."""
        holders = [
            lock["spec"].get("holderIdentity", "")
            for lock in self._world.cluster.listing("Lease", NAMESPACE)
            if lock["metadata"]["name"] == LOCK
        ]
        if not any(self._name in holder for holder in holders):
            self._watcher.wrong.append(f"{self._name} writes under the lock of {holders or 'nobody'}")


class MortalJournal(MemoryJournal):
    """A journal to which the dead write nothing."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def append(self, record: Record) -> None:
        if self._connection.killed:
            raise Killed
        super().append(record)


class Actor:
    """One controller in its thread."""

    def __init__(
        self,
        world: World,
        what: str,
        name: str,
        kind: str,
        untouched: Callable[[], bool],
        watcher: Watcher,
    ) -> None:
        self.what, self.name = what, name
        self.over = False
        self.broke: BaseException | None = None
        self._mine, self._theirs = threading.Semaphore(0), threading.Semaphore(0)
        self.seat: Any = Seat(world, name, self._give_back, watcher)
        self.drill: Drill | None = None
        if what == "run":
            journal = MortalJournal(self.seat.cluster)
            self.drill = Drill(
                world=cast("World", self.seat),
                data=experiment_data(kind),
                journal=journal,
                run_id=name,
                step=self.seat.step,
            )
            self.drill.respond()
            # People have connections of their own, and nobody mends what a colleague has just set.
            people = self.drill.feed._script
            mend = people[-1][1]
            for index, (when, act) in enumerate(people):

                def people_act(_: World, act: Callable[[World], Any] = act) -> None:
                    if not world.cluster.unreachable and (act is not mend or untouched()):
                        act(world)

                people[index] = (when, people_act)
            body: Callable[[], object] = self.drill.run
        else:
            body = lambda: COMERS[what](self.seat, name)  # noqa: E731
        self._thread = threading.Thread(target=self._live, args=(body,), daemon=True)
        self._thread.start()

    def _live(self, body: Callable[[], object]) -> None:
        self._mine.acquire()
        try:
            body()
        except (Killed, DrillError) as error:
            if isinstance(error, Internal | BadInput):  # a trouble is refused or unreachable, never a mistake of ours
                self.broke = error
        except BaseException as error:  # noqa: BLE001 - handed to the machine, which fails with it
            self.broke = error
        self.over = True
        self._theirs.release()

    def _give_back(self) -> None:
        self._theirs.release()
        self._mine.acquire()

    def turn(self) -> None:
        """Let it go on until it gives the baton back."""
        self._mine.release()
        self._theirs.acquire()
        if self.broke is not None:
            raise self.broke

    def kill(self) -> None:
        self.seat.cluster.killed, self.seat.cluster.held = True, False
        while not self.over:
            self.turn()


class Machine(RuleBasedStateMachine):
    """Controllers, troubles and people, in any order."""

    @initialize(
        kind=st.sampled_from(sorted(FAULTS)),
        head_start=st.sampled_from([12, 20, 0, 30, 60]),
        trouble=st.sampled_from(
            ["", "overtaken", "stands still", "lose after", "lose before", "die after", "die before", "hold"]
        ),
        what=st.sampled_from(["run", *sorted(COMERS)]),
        record=st.booleans(),
    )
    def begin(self, kind: str, head_start: int, trouble: str, what: str, *, record: bool) -> None:
        """A run, alone for a while; `trouble` comes with its write to the target."""
        self.kind, self.target, self.world = kind, broken_by(kind), World()
        self.breaks = drills.WRITES[kind].split()[1]
        """The kind of object whose write breaks something."""
        self.before = declared(self.world)
        self.actors: list[Actor] = []
        self.runs: list[Actor] = []
        self.foreign = False
        self.kept: object = None
        """What somebody else made of the target, and nobody may change."""
        self.frozen: list[Actor] = []
        """Processes that stand still, as under SIGSTOP or on a machine that is paused."""
        self.wrong: list[str] = []
        self.lock: tuple[str, str, float] = ("", "", 0.0)
        """Whose the lock is, its last renewal as it says, and when that was seen."""
        self.count = 0
        self.start("run")
        if trouble == "overtaken":
            self.held_up_before_its_fault(what, "ConfigMap" if record else self.breaks)
            return
        if trouble == "stands still":
            self.pass_until(lambda: not self.living or self.changed(), HELD_WITHIN)
            if self.living and self.changed():
                self.overtaken_while_it_stood_still()
            return
        self.runs[0].seat.cluster.order, self.runs[0].seat.cluster.only = trouble, self.breaks
        self.pass_time(head_start)

    def held_up_before_its_fault(self, what: str, kind: str) -> None:
        """The write of the fault, or the record before it, is under way for longer than somebody else needs."""
        connection = self.living[0].seat.cluster
        connection.order, connection.only = "hold", kind
        self.pass_until(lambda: not self.living or connection.held, HELD_WITHIN)
        self.pass_time(DURATION)
        self.start(what)
        other = self.actors[-1]
        self.pass_until(
            lambda: other.over or (other.drill is not None and bool(other.drill.history.all(InjectDone))),
            OVERTAKES_WITHIN,
        )
        SEEN["held up before its fault"] += connection.held
        connection.held = False
        self.pass_time(5)

    @property
    def living(self) -> list[Actor]:
        return [actor for actor in self.actors if not actor.over]

    def start(self, what: str) -> None:
        self.count += 1
        actor = Actor(self.world, what, f"{what}-{self.count}", self.kind, lambda: not self.foreign, self)
        self.actors.append(actor)
        if actor.drill is not None:
            self.runs.append(actor)

    def tick(self) -> None:
        for actor in [one for one in self.living if one not in self.frozen]:
            actor.turn()
            self.locked(actor)
            self.recorded()
            if actor.over:
                self.ended(actor)
        self.world.step()

    def locked(self, actor: Actor) -> None:
        """Nobody takes a lock from a living run that renews it, unless the run is past its deadline."""
        lock = next(
            (one for one in self.world.cluster.listing("Lease", NAMESPACE) if one["metadata"]["name"] == LOCK), None
        )
        holder, renewed = ("", "") if lock is None else (lock["spec"]["holderIdentity"], lock["spec"]["renewTime"])
        before, stamp, since = self.lock
        now = self.world.clock.now()
        if holder and before and holder != before:
            SEEN["lock taken"] += 1
            alive = any(one.name in before and one is not actor for one in self.living)
            if alive and now - since < DURATION and not self.overdue():
                self.wrong.append(f"{holder} took the lock of {before}, which renewed it {now - since:.1f} s ago")
        if (holder, renewed) != (before, stamp):
            self.lock = (holder, renewed, now)

    def overdue(self) -> bool:
        found = self.world.cluster.listing("ConfigMap", NAMESPACE, f"{undo_records.LABEL}=true")
        now = self.world.clock.now()
        due = [undo_records.created_at(one) + json.loads(one["data"]["record"])["overdue_after"] for one in found]
        return any(now > at - 1.0 for at in due)

    def ended(self, actor: Actor) -> None:
        """A run that ends by itself has undone what it wrote, whatever became of the replies."""
        if actor.drill is None or actor.seat.cluster.killed or actor.drill.history.ended is None:
            return
        own = f"{undo_records.RUN_LABEL}={actor.name}"
        if actor.drill.history.open_faults():
            SEEN["ended with its fault open"] += 1
            if not self.world.cluster.listing("ConfigMap", NAMESPACE, own):
                self.wrong.append(f"{actor.name} ended with its fault open, and took its record away")
        if self.foreign:
            return
        if (self.changed() or self.configured()) and self.world.cluster.listing("ConfigMap", NAMESPACE, own):
            self.wrong.append(f"{actor.name} ended and left its fault in force: {actor.drill.history.ended}")

    @rule(what=st.sampled_from(["run", *sorted(COMERS)]))
    @precondition(lambda self: len(self.living) < 3)
    def another_comes(self, what: str) -> None:
        SEEN["second controller"] += bool(self.living)
        self.start(what)

    @rule(seconds=st.sampled_from([1, 5, 15, 40]))
    def time_passes(self, seconds: int) -> None:
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self.tick()

    def pass_until(self, what: Callable[[], bool], within: int) -> None:
        for _ in range(within):
            if what():
                return
            self.pass_time(1)

    @rule(data=st.data())
    @precondition(lambda self: self.living)
    def killed(self, data: st.DataObject) -> None:
        actor = data.draw(st.sampled_from(self.living))
        actor.kill()

    @rule()
    @precondition(lambda self: self.changed() and any(run in self.living for run in self.runs))
    def killed_with_the_fault_in_force(self) -> None:
        SEEN["death with a fault in force"] += 1
        next(run for run in self.runs if run in self.living).kill()

    @rule(
        data=st.data(),
        order=st.sampled_from(["die before", "die after", "lose before", "lose after", "hold"]),
        only=st.booleans(),
    )
    @precondition(lambda self: self.living)
    def trouble_at_the_next_write(self, data: st.DataObject, order: str, *, only: bool) -> None:
        connection = data.draw(st.sampled_from(self.living)).seat.cluster
        connection.order, connection.only = order, self.breaks if only else ""

    @rule()
    @precondition(lambda self: self.changed() and len(self.living) == 1 and self.living[0].drill is not None)
    def overtaken_while_it_stood_still(self) -> None:
        """What goes on after its lock went to another run must leave alone what is now that run's."""
        self.frozen = self.living
        self.start("run")
        other = self.runs[-1].drill
        assert other is not None
        self.pass_until(lambda: self.runs[-1].over or bool(other.history.all(InjectDone)), OVERTAKES_WITHIN)
        SEEN["overtaken"] += bool(other.history.open_faults())
        self.frozen = []
        self.pass_time(5)

    @rule()
    def held_writes_go_on(self) -> None:
        for actor in self.living:
            actor.seat.cluster.held = False

    @rule(down=st.booleans(), seconds=st.sampled_from([1, 5, 20]))
    def metrics_flap(self, *, down: bool, seconds: int) -> None:
        """Prometheus answers not at all, or with what it had."""
        SEEN["flap"] += bool(self.living)
        self.world.metrics_down, self.world.metrics_frozen = down, not down
        self.pass_time(seconds)
        self.world.metrics_down = self.world.metrics_frozen = False

    @rule(seconds=st.sampled_from([1, 5, 40]))
    def api_server_flaps(self, seconds: int) -> None:
        SEEN["no answer"] += bool(self.living)
        self.world.cluster.unreachable = True
        self.pass_time(seconds)
        self.world.cluster.unreachable = False

    @rule()
    def watch_events_come_again(self) -> None:
        for run in self.runs:
            assert run.drill is not None
            run.drill.feed._pods_told = None
            for watch in run.drill.feed._watches:
                watch.told = -1
        SEEN["replay"] += 1

    @rule()
    @precondition(lambda self: self.changed() and not self.foreign and not self.world.is_harmed())
    def somebody_edits(self) -> None:
        SEEN["foreign edit"] += 1
        self.foreign = True
        if self.target == KEYS:  # the old value is thrown away, and a new one is there
            body = copied(self.world.cluster.peek(KEYS))
            self.world.cluster.put({**body, "data": {KEY: FOREIGN_KEY}})
        else:
            set_replicas(self.world, FOREIGN)
        self.kept = self.parts()

    @rule()
    @precondition(lambda self: self.changed() and not self.foreign and not self.world.is_harmed())
    def somebody_makes_it_anew(self) -> None:
        """A copy of the broken object under its name: still broken, and no longer the one that drills may write to."""
        SEEN["made anew"] += 1
        self.foreign = True
        body = copied(self.world.cluster.peek(self.target))
        FakeCluster.delete(self.world.cluster, self.target)
        kept = {key: value for key, value in body["metadata"].items() if key not in {"uid", "resourceVersion"}}
        self.world.cluster.put({**body, "metadata": {**kept, "uid": "made-anew"}})
        self.kept = self.parts()

    def parts(self) -> object:
        """What is declared in the target: of a workload that others scaled, how far."""
        body = self.world.cluster.peek(self.target)
        if self.target == KEYS:
            return body.get("data")
        return body["spec"]["replicas"] if body["spec"]["replicas"] == FOREIGN else body["spec"]

    def changed(self) -> bool:
        """Whether a drill's change is in force: a target's, or something that it made and that runs."""
        body = next(body for body in self.before if body["kind"] == self.target.kind)
        now = self.world.cluster.peek(self.target)
        return any(now.get(part) != body.get(part) for part in ("spec", "data")) or self.world.is_harmed()

    def configured(self) -> bool:
        data = next(
            body["data"] for body in self.before if body["metadata"]["name"] == SETTINGS.name and "data" in body
        )
        return bool(self.world.cluster.peek(SETTINGS)["data"] != data)

    def written(self, by: str) -> None:
        """Whatever differs because of a drill has its record, after every single write."""
        records = self.world.cluster.listing("ConfigMap", NAMESPACE, f"{undo_records.LABEL}=true")
        if not records and not self.foreign and (self.changed() or self.configured()):
            self.wrong.append(f"no record behind a write of {by}")

    @invariant()
    def recorded(self) -> None:
        """The same at every instant, whoever changed it."""
        self.written("nobody")
        self.nothing_went_wrong()

    @invariant()
    def nothing_went_wrong(self) -> None:
        assert self.wrong == []
        assert not self.foreign or self.parts() == self.kept, "what somebody else made was trampled"

    def judged(self, run: Actor) -> None:
        """The journal can be read and says again what was said; nobody is MET by luck; nothing is told twice."""
        assert run.drill is not None
        records, experiment = run.drill.journal.read(), run.drill.experiment
        again = History(decode(encode(record)) for record in records)
        if not len(again):
            return
        verdict = judge(experiment, again)
        assert verdict == judge(experiment, History(records))
        ended = again.ended
        whole = ended is not None and ended.reason in {"complete", "timeout"} and bool(again.all(EffectProved))
        assert whole or verdict.verdict is not Verdict.MET
        SEEN["met"] += verdict.verdict is Verdict.MET
        acts = [act.key for act in again.all(ResponderActed)]
        assert len(acts) == len(set(acts)), "an act was told twice"
        pods = again.all(PodsSeen)
        assert all(one != other for one, other in pairwise(pods)), "the same pods were told twice"

    def teardown(self) -> None:
        if not hasattr(self, "actors"):
            return
        try:
            self.settle()
        finally:
            for actor in self.living:
                actor.kill()

    def settle(self) -> None:
        self.world.metrics_down = self.world.metrics_frozen = self.world.cluster.unreachable = False
        for actor in self.living:
            actor.seat.cluster.order, actor.seat.cluster.held = "", False
        deadline = self.world.clock.now() + ENDS_WITHIN
        while self.living and self.world.clock.now() < deadline:
            self.tick()
        assert not self.living, f"still there: {[actor.what for actor in self.living]}"
        for run in self.runs:
            self.judged(run)
        said = COMERS["recover"](self.world, "whoever comes last")
        SEEN["take-over"] += any("restored: " in text for text in said)
        self.nothing_went_wrong()
        if self.foreign:
            assert self.world.cluster.listing("ConfigMap", NAMESPACE, f"{undo_records.LABEL}=true"), "no record"
            with pytest.raises(DrillError):
                COMERS["next run"](self.world, "the next run")
            return
        assert declared(self.world) == self.before
        assert leftovers(self.world) == []


@pytest.mark.timeout(600)
def test_whatever_mixes_the_way_back_stays_open() -> None:
    SEEN.clear()
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=160, stateful_step_count=25, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    wanted = {
        "second controller", "death with a fault in force", "lost reply", "flap", "replay", "foreign edit",
        "take-over", "held write", "no answer", "made anew", "lock taken", "met",
        "overtaken", "ended with its fault open", "held up before its fault",
    }  # fmt: skip
    assert wanted <= {what for what, count in SEEN.items() if count}, SEEN
