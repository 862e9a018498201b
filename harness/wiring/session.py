"""One run from connection to report: set-up, preflight, observers, runner, responder, and the way out of each."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING

from harness.core.clock import Instant
from harness.core.errors import BadInput, DrillError
from harness.core.event import (
    ChannelChanged,
    Event,
    InjectStarted,
    PhaseTimed,
    Record,
    ResponderActed,
    RunEnded,
    RunStarted,
    StopAsked,
)
from harness.core.experiment import AnyExperiment, ProfileName
from harness.core.history import History
from harness.core.inbox import INBOX_LABEL
from harness.ports.cluster import Cluster, Ref
from harness.ports.progress import Progress
from harness.wiring.judging import fetch_notes, judge_run, point_latest, told
from harness.wiring.settings import (
    AUTOPILOT,
    ROOT,
    RUNNER,
    Phases,
    RunOutcome,
    Settings,
    autopilot_needs,
    connect,
    peer_needs,
    peers_of,
    set_up,
    version,
)

if TYPE_CHECKING:
    from harness.adapters.kubernetes import KubeCluster
    from harness.clusters.provider import Access
    from harness.core.event import RestartPlanned
    from harness.core.view import View
    from harness.engine.lease import Keeper, Lease
    from harness.engine.preflight import Peers, Ready
    from harness.engine.recovery import Recovered
    from harness.engine.runner import Recorder

TOKEN_SECONDS = 7200
VIEW_EVERY = 0.25


def run_drill(
    settings: Settings,
    experiment: str,
    *,
    profile: str | None,
    responder: str | None,
    setup: bool,
    progress: Progress,
    on_event: Callable[[Record], None],
    on_view: Callable[[View], None] | None = None,
    fading: Collection[str] = (),
) -> RunOutcome:
    """Set up what is missing, run one experiment, undo it, judge it, write its reports.

    `fading` are alerts that a drill before this one raised: they are given time to resolve.

    Raises DrillError where the run was refused or could not be undone; the journal and the report of what happened
    are written all the same.
    """
    from harness import loading

    loaded = loading.load(loading.find(experiment, ROOT))
    profile_name = choose_profile(loaded.experiment, profile)
    mode = responder or loaded.experiment.profiles[profile_name].responder
    phases = Phases()
    with terminable():
        access = set_up(settings, profile_name, setup=setup, progress=progress, phases=phases)
        session = _Session(
            settings, access, loaded.experiment, str(loaded.path), profile_name, mode, phases, progress, fading
        )
        return session.run(on_event, on_view)


class _Session:
    """One run from connection to report."""

    def __init__(
        self,
        settings: Settings,
        access: Access,
        experiment: AnyExperiment,
        path: str,
        profile: ProfileName,
        responder: str,
        phases: Phases,
        progress: Progress,
        fading: Collection[str] = (),
    ) -> None:
        from harness import catalog
        from harness.adapters.system_clock import SystemClock

        self._settings = settings
        self._access = access
        self._declared = experiment
        self._experiment = experiment.tuned(profile)
        self._path = path
        self._profile = profile
        self._responder = responder
        self._phases = phases
        self._progress = progress
        self._fading = fading
        self._faults = catalog.faults()
        self._clock = SystemClock()
        self._stop = Flag()

    def run(self, on_event: Callable[[Record], None], on_view: Callable[[View], None] | None) -> RunOutcome:
        """See `run_drill`."""
        from harness.adapters.file_journal import FileJournal
        from harness.engine.runner import Recorder

        with self._phases.time("connect"):
            cluster = self._connected()
            peers = peers_of(self._settings, cluster, self._clock)
        run_id = _run_id(self._clock.now(), self._declared.name)
        folder = self._settings.runs / run_id
        recorder = Recorder(FileJournal(folder), History(), self._clock, on_event)
        self._finish_keeping: Callable[[RunOutcome | None], None] = lambda _: None
        self._outcome: RunOutcome | None = None
        with contextlib.ExitStack() as last:
            last.callback(lambda: self._finish_keeping(self._outcome))
            return self._ran(run_id, folder, cluster, peers, recorder, on_view)

    def _ran(
        self,
        run_id: str,
        folder: Path,
        cluster: KubeCluster,
        peers: Peers,
        recorder: Recorder,
        on_view: Callable[[View], None] | None,
    ) -> RunOutcome:
        failure: DrillError | None = None
        try:
            self._drill(run_id, cluster, peers, recorder, on_view)
        except DrillError as error:
            failure = error
            if recorder.history.ended is None:
                begun = recorder.history.all(InjectStarted)
                with contextlib.suppress(DrillError):  # a journal that is broken must not hide what broke it
                    recorder.add(RunEnded(reason="error" if begun else "refused", detail=error.fact))
        except KeyboardInterrupt:
            if recorder.history.ended is None:
                recorder.add(RunEnded(reason="stopped", detail="stopped during the preflight; nothing was injected"))
        finally:
            self._stop.set()
            peers.close()
            cluster.close()
        if failure is not None:
            with contextlib.suppress(DrillError, OSError):  # what happened is told either way
                self._outcome = judge_run(folder, phases=self._phases.seconds)
            raise failure
        with self._phases.time("report"):
            outcome = self._outcome = judge_run(folder, phases=self._phases.seconds)
            point_latest(self._settings.runs, folder)
        return outcome

    def _keep(self, run_id: str) -> None:
        """Begin to keep the journal in the cluster, where that was asked for. Nothing is written to a namespace before
        all checks have passed, so a run that was refused is kept nowhere but in its folder."""
        if self._settings.keep != "cluster":
            return
        from harness.wiring.keeping import Keeping

        folder = self._settings.runs / run_id
        keeping = Keeping(self._connected, self._experiment.namespace, folder, self._progress.say)
        keeping.start()
        self._finish_keeping = keeping.finish

    def _connected(self) -> KubeCluster:
        """The cluster under the identity that drills: where the cluster is ours that is the runner's ServiceAccount,
        which may do what a drill needs and no more; elsewhere it is whoever the context says."""
        cluster = connect(self._settings, self._access, self._clock)
        if self._access.provider in {"context", "pod"}:
            return cluster
        timeout = self._experiment.profiles[self._profile].timeout
        try:
            return cluster.with_token(cluster.token(*RUNNER, max(TOKEN_SECONDS, int(2 * timeout))))
        finally:
            cluster.close()

    def _drill(
        self,
        run_id: str,
        cluster: KubeCluster,
        peers: Peers,
        recorder: Recorder,
        on_view: Callable[[View], None] | None,
    ) -> None:
        from harness.engine import messages
        from harness.engine.lease import Keeper, Lease
        from harness.engine.notes import note
        from harness.engine.preflight import Preflight

        recorder.add(self._started(run_id, cluster))
        for phase, seconds in self._phases.seconds.items():
            recorder.add(PhaseTimed(phase=phase, seconds=round(seconds, 3)))
        began = self._clock.now()
        wait = self._wait
        preflight = Preflight(
            self._experiment, peers, self._faults, self._clock, recorder.add, wait, self._progress.say,
            peer_needs(self._settings) + (autopilot_needs() if self._responder == "autopilot" else ()),
            self._fading,
        )  # fmt: skip
        namespace = self._experiment.namespace
        with contextlib.ExitStack() as held:
            with self._phases.time("preflight"), self._progress.step("Preflight", expect_seconds=8):
                identity = preflight.guards()
                holder = f"{run_id} on {os.uname().nodename}"
                lease = Lease(cluster, self._clock, namespace, holder, phase="preparing")
                lease.acquire(wait, self._progress.say)
                keeper = held.enter_context(Keeper(lease, lambda _: self._stop.set()))

                def tell(one: Recovered) -> None:
                    with contextlib.suppress(DrillError):  # a dead run's journal must not stop the living
                        told(self._settings, cluster, namespace, note(one, holder, self._clock.now()), self._clock)

                preflight.leftovers(tell)
                with contextlib.suppress(DrillError):  # they count for nothing, and only pile up
                    messages.sweep(cluster, namespace)
                with contextlib.suppress(DrillError):
                    fetch_notes(self._settings, cluster, namespace, self._clock)
                ready = preflight.run(identity)
                keeper.require()
            self._keep(run_id)
            recorder.add(PhaseTimed(phase="preflight", seconds=round(self._clock.now() - began, 3)))
            with self._phases.time("drill"):
                self._injected(run_id, cluster, peers, recorder, ready, lease, keeper, on_view)

    def _injected(
        self,
        run_id: str,
        cluster: KubeCluster,
        peers: Peers,
        recorder: Recorder,
        ready: Ready,
        lease: Lease,
        keeper: Keeper,
        on_view: Callable[[View], None] | None,
    ) -> None:
        from harness.core.restart import watch_of
        from harness.engine.observe import (
            ClockRound,
            InboxTracker,
            NotifierRound,
            ObjectTracker,
            PagerRound,
            PrometheusRound,
            ThreadedFeed,
            pods_of_fault,
            pods_of_restart,
        )
        from harness.engine.runner import Context, Runner
        from harness.engine.stopping import MARKER, marker_switch, opt_in_switch
        from harness.ports.fault import ShowsInObject

        feed = ThreadedFeed(self._clock)
        experiment, since = self._experiment, self._clock.now()
        namespace = experiment.namespace

        def on_injected(fault_id: str) -> None:
            plan = recorder.history.plans()[fault_id]
            fault = self._faults[plan.kind]
            selector = fault.pods(plan.undo)
            if selector is not None:
                pods = pods_of_fault(fault_id, selector)
                feed.watch(f"pods of {fault_id}", cluster, "Pod", namespace, selector.labels, pods.update)
            if isinstance(fault, ShowsInObject):
                shown = fault.object(plan.undo)
                seen = ObjectTracker(fault_id, shown)
                where = shown.ref.namespace
                feed.watch(str(shown.ref), cluster, shown.ref.kind, where, "", seen.update, only=shown.ref.name)

        watched: set[str] = set()

        def on_restart(plan: RestartPlanned) -> None:
            if plan.workload not in watched:
                watched.add(plan.workload)
                pods = pods_of_restart(plan)
                feed.watch(watch_of(plan.workload), cluster, "Pod", namespace, plan.selector, pods.update)

        context = Context(
            experiment=experiment,
            profile=experiment.profiles[self._profile],
            run_id=run_id,
            cluster=cluster,
            clock=self._clock,
            feed=feed,
            faults=self._faults,
            on_tick=self._ticker(recorder.history, on_view),
            on_injected=on_injected,
            on_restart=on_restart,
            lock=lease,
            undo_for=self._settings.undo_for,
        )
        offsets = ready.offsets
        feed.poll(
            PrometheusRound(
                peers.metrics, experiment, offsets.prometheus, ready.scrape_interval, since, ready.prometheus_started_at
            )
        )
        feed.poll(NotifierRound(peers.notifier, experiment, offsets.alertmanager, since))
        if peers.pager is not None and offsets.pager is not None:
            feed.poll(PagerRound(peers.pager, offsets.pager, since))
            feed.poll(ClockRound("pager", peers.pager.offset, offsets.pager, "its own stamp"))
        by_date = "HTTP Date header, whole seconds"
        feed.poll(ClockRound("API server", cluster.offset, offsets.api, by_date))
        feed.poll(ClockRound("Alertmanager", peers.notifier.offset, offsets.alertmanager, by_date))
        inbox = InboxTracker(verified=ready.inbox_verified, offset=offsets.api, since=since, clock=self._clock)
        feed.watch("inbox", cluster, "ConfigMap", namespace, f"{INBOX_LABEL}=true", inbox.update)
        marker, opted_in = marker_switch(), opt_in_switch(namespace)
        feed.watch("stop switch", cluster, MARKER.kind, MARKER.namespace, "", marker.update, only=MARKER.name)
        feed.watch("opt-in", cluster, "Namespace", "", "", opted_in.update, only=namespace)
        keeper.on_lost = lambda why: feed.put(StopAsked(by=keeper.lost_by, detail=why))
        try:
            keeper.require()
            with _stop_signals(feed.put), self._autopilot(cluster, feed.put):
                Runner(context, recorder).run()
        finally:
            self._stop.set()
            feed.close()
        _sweep_inbox(cluster, namespace, recorder.history)

    @contextlib.contextmanager
    def _autopilot(self, cluster: KubeCluster, put: Callable[[Event], None]) -> Iterator[None]:
        """The automated responder on a thread of its own, with its own identity and nothing of the engine."""
        if self._responder != "autopilot":
            yield
            return
        if self._experiment.autopilot is None:
            raise no_autopilot(f"experiment {self._experiment.name}", "run with RESPONDER=human")
        token = cluster.token(*AUTOPILOT, TOKEN_SECONDS)
        own = cluster.with_token(token, manager=AUTOPILOT[1])
        thread = Thread(target=self._respond, args=(own, put), name="drill-autopilot", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(timeout=10)
            own.close()

    def _respond(self, own: KubeCluster, put: Callable[[Event], None]) -> None:
        from harness.autopilot.responder import run as respond

        try:
            peers = peers_of(self._settings, own, self._clock)
            with contextlib.closing(peers):
                outcome = respond(
                    self._experiment,
                    self._experiment.namespace,
                    own,
                    peers.metrics,
                    peers.notifier,
                    clock=self._clock,
                    stop=self._stop,
                    say=lambda _: None,  # what it does comes back through the inbox, as any responder's acts do
                )
        except Exception as error:  # noqa: BLE001 - a responder that dies silently would be judged as people who did nothing
            put(ChannelChanged(channel="autopilot", up=False, detail=f"{type(error).__name__}: {error}"[:400]))
            return
        if not outcome.finished and not self._stop.is_set():
            self._progress.say(f"the autopilot gave up: {outcome.detail}")

    def _started(self, run_id: str, cluster: Cluster) -> RunStarted:
        identity = cluster.whoami()
        return RunStarted(
            run_id=run_id,
            experiment=self._declared.as_data(),
            experiment_path=_relative(self._path),
            digest=self._declared.digest(),
            profile=self._profile,
            responder=self._responder,
            harness_version=version(),
            cluster={
                "provider": self._access.provider,
                "name": self._access.name,
                "context": self._access.context,
                "version": cluster.server_version(),
            },
            identity=identity.username,
        )

    def _wait(self, seconds: float) -> bool:
        return not self._stop.wait(seconds)

    def _ticker(self, history: History, on_view: Callable[[View], None] | None) -> Callable[[Instant], None]:
        from harness.core.view import view

        shown = [0.0]

        def tick(now: Instant) -> None:
            due = now - shown[0] >= VIEW_EVERY or history.ended is not None
            if on_view is not None and due:
                shown[0] = now
                on_view(view(self._experiment, history, now))

        return tick


def no_autopilot(which: str, instead: str, where: str = "") -> BadInput:
    """The error for an experiment without steps that is to run unattended, and what may be done instead."""
    return BadInput(
        "no-autopilot",
        f"{which} has no `autopilot` section",
        expected="the runbook's steps for unattended runs",
        remedy=f"add the section, or {instead}",
        where=where,
    )


def choose_profile(experiment: AnyExperiment, asked: str | None) -> ProfileName:
    """The profile that was asked for, or smoke. Raises BadInput where the experiment has none of that name."""
    names = list(experiment.profiles)
    profile = asked or ("smoke" if "smoke" in names else names[0])
    if profile not in names:
        raise BadInput(
            "unknown-profile",
            f"experiment {experiment.name} has no profile {profile!r}",
            expected=f"one of: {', '.join(names)}",
            remedy="choose one of those with PROFILE= or --profile",
        )
    return profile


def _run_id(now: Instant, name: str) -> str:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    return f"{stamp}-{name}-{secrets.token_hex(2)}"


def _relative(path: str) -> str:
    try:
        return str(Path(path).resolve().relative_to(ROOT))
    except ValueError:
        return Path(path).name


@contextlib.contextmanager
def _stop_signals(put: Callable[[Event], None]) -> Iterator[None]:
    """SIGINT, SIGTERM and the loss of the terminal become stop requests; a second one cuts nothing short."""

    def ask(number: int, frame: object) -> None:
        del frame
        put(StopAsked(by=signal.Signals(number).name))

    with handled(ask, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        yield


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Outside the injected part SIGTERM and SIGHUP are like Ctrl-C: nothing is broken yet, so stop where we are."""

    def interrupt(number: int, frame: object) -> None:
        del frame
        raise KeyboardInterrupt(signal.Signals(number).name)

    with handled(interrupt, signal.SIGTERM, signal.SIGHUP):
        yield


@contextlib.contextmanager
def handled(handler: Callable[[int, object], None], *numbers: signal.Signals) -> Iterator[None]:
    """Let `handler` have these signals, those aside that are to be ignored; give them back afterwards."""
    before = {number: signal.signal(number, handler) for number in _heeded(*numbers)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _heeded(*numbers: signal.Signals) -> list[signal.Signals]:
    """Without those that whoever started us wants ignored: nohup must outlive its terminal."""
    return [n for n in numbers if n is not signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]


def _sweep_inbox(cluster: Cluster, namespace: str, history: History) -> None:
    """Remove the messages that the journal holds; what cannot be removed is harmless and told by the next status."""
    keys = {act.key for act in history.all(ResponderActed)}
    with contextlib.suppress(DrillError):
        for body in cluster.list("ConfigMap", namespace, f"{INBOX_LABEL}=true"):
            if body["metadata"]["uid"] in keys:
                cluster.delete(Ref("ConfigMap", namespace, body["metadata"]["name"]), uid=body["metadata"]["uid"])
