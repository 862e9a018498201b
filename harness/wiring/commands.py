"""The commands beside `run`: each function is one command's work."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event as Flag
from typing import TYPE_CHECKING, Any

from harness.core.clock import Clock
from harness.core.errors import BadInput, DrillError, ExitCode, Refused, worst
from harness.core.event import Action
from harness.ports.cluster import Cluster, NotFound, Ref
from harness.ports.progress import Progress
from harness.report.wording import inert_line
from harness.wiring.judging import fetch_notes, told
from harness.wiring.session import choose_profile, terminable
from harness.wiring.settings import (
    ROOT,
    Phases,
    RecoverOutcome,
    Settings,
    StatusReport,
    choose,
    connect,
    existing_access,
    peers_of,
    set_up,
)

if TYPE_CHECKING:
    from harness.engine.recovery import Recovered
    from harness.engine.undo_records import UndoRecord


def plan_drill(settings: Settings, experiment: str, profile: str | None = None) -> str:
    """What a run would change and how it would be undone; changes nothing."""
    from harness import catalog, loading
    from harness.adapters.system_clock import SystemClock
    from harness.engine.preflight import Preflight, checked_plan, checked_restart

    loaded = loading.load(loading.find(experiment, ROOT))
    profile_name = choose_profile(loaded.experiment, profile)
    tuned = loaded.experiment.tuned(profile_name)
    clock = SystemClock()
    access = existing_access(settings)
    cluster = connect(settings, access, clock)
    kind = "cluster" if access.provider == "context" else f"{access.provider} cluster"
    lines = [
        f"{tuned.title} in namespace {tuned.namespace}, profile {profile_name}",
        f"on {kind} {access.name} (context {access.context})",
        "",
    ]
    peers = peers_of(settings, cluster, clock)
    try:
        preflight = Preflight(
            tuned, peers, catalog.faults(), clock, lambda _: None,
            lambda _: True, lambda _: None,
        )  # fmt: skip
        preflight.guards()
        faults = catalog.faults()
        for spec in tuned.faults:
            plan = checked_plan(spec, faults[spec.kind], tuned.namespace, cluster, preflight.marker)
            lines.append(f"fault {spec.id} ({spec.kind}): {plan.summary}")
            for change in plan.changes:
                lines.append(f"  {change.object} {change.path}")
                lines.append(f"    now   {change.before}")
                lines.append(f"    drill {change.after}")
                lines.append(f"    undo  {change.before}, if it still is {change.after} by then")
            lines.append(f"  blast radius: {plan.pods} of at most {spec.blast_radius.pods} pods")
            lines.append("  the API server accepts the change (dry run)")
        for alert, proof in tuned.restart_proofs().items():
            told = checked_restart(alert, proof, tuned.namespace, cluster, preflight.marker)
            lines.append(f"recovery: {told}")
    finally:
        peers.close()
        cluster.close()
    return "\n".join(map(inert_line, lines))


def recover(settings: Settings, *, force: bool, progress: Progress) -> RecoverOutcome:
    """Undo what dead runs left in the namespace, or in each that opted in, from the records in the cluster. SIGTERM
    ends the waiting, never a write: what is not clean by then keeps its record. What goes wrong in one of several
    namespaces, such as a run that is alive there, keeps none of the others from being brought back."""
    from harness.adapters.system_clock import SystemClock

    clock = SystemClock()
    access = existing_access(settings)
    cluster = connect(settings, access, clock)
    lines: list[str] = []
    codes = [ExitCode.MET]
    try:
        with terminable():
            namespaces = namespaces_of(settings, cluster)
            for namespace in namespaces:
                try:
                    told_here, clean = _recover_in(settings, cluster, namespace, clock, force=force, progress=progress)
                except DrillError as error:
                    if len(namespaces) == 1:
                        raise
                    told_here, clean = [f"{namespace}: {line}" for line in str(error).splitlines()], True
                    codes.append(error.exit_code)
                lines += told_here
                if not clean:
                    codes.append(ExitCode.ROLLBACK_INCOMPLETE)
    finally:
        cluster.close()
    return RecoverOutcome(list(map(inert_line, lines)), worst(codes))


def _recover_in(
    settings: Settings, cluster: Cluster, namespace: str, clock: Clock, *, force: bool, progress: Progress
) -> tuple[list[str], bool]:
    """What to tell of one namespace, and whether nothing is left to undo in it."""
    from harness import catalog
    from harness.engine.lease import RECOVERING, Keeper, Lease
    from harness.engine.notes import note
    from harness.engine.recovery import recover as bring_back

    over = Flag()
    holder = f"recover by {os.getpid()} on {os.uname().nodename}"
    lease = Lease(cluster, clock, namespace, holder, phase=RECOVERING)
    lease.acquire(lambda seconds: not over.wait(seconds), progress.say)
    lines = []

    def tell(one: Recovered) -> None:
        with contextlib.suppress(DrillError):  # a journal that cannot be read must not hide the undo
            told(settings, cluster, namespace, note(one, holder, clock.now()), clock)

    with Keeper(lease, lambda _: over.set()):
        done = bring_back(
            cluster, namespace, catalog.faults(), clock, lambda seconds: not over.wait(seconds), progress.say,
            force=force, on_done=tell,
        )  # fmt: skip
    for one in done:
        state = "clean" if one.clean else "accepted as it is" if one.accepted else "NOT CLEAN"
        lines.append(f"{namespace}: {one.record.fault} of run {one.record.run_id}: {one.outcome}, {one.detail}")
        lines.append(f"  {state} after {one.seconds:.1f} s")
        lines += [f"  {difference}" for difference in one.differences]
    with contextlib.suppress(DrillError):
        lines += [f"{namespace}: {earlier}" for earlier in fetch_notes(settings, cluster, namespace, clock)]
    if not done:
        lines.append(f"{namespace}: nothing to recover; no undo record is open")
    return lines, all(one.clean or one.accepted for one in done)


def halt(settings: Settings, reason: str) -> str:
    """Throw the stop switch of the cluster: running drills end with everything undone, new ones are refused."""
    from harness.adapters.system_clock import SystemClock

    cluster = connect(settings, existing_access(settings), SystemClock())
    try:
        who = cluster.whoami().username
        why = f"{reason} ({who})" if reason else f"halted by {who}"
        _switch(cluster, {"halted": "true", "reason": why})
        running = [name for name in namespaces_of(settings, cluster) if _is_alive(cluster, name)]
    finally:
        cluster.close()
    where = f"drills in {', '.join(running)} are ending now; `drill` shows when they are" if running else "none is on"
    return f"drills are halted on this cluster: {why}\n{where}; `drill resume` allows them again"


def resume(settings: Settings) -> str:
    """Take the stop switch back."""
    from harness.adapters.system_clock import SystemClock

    cluster = connect(settings, existing_access(settings), SystemClock())
    try:
        was = _switch(cluster, {"halted": None, "reason": None})
    finally:
        cluster.close()
    return "drills are allowed again on this cluster" if was.get("halted") == "true" else "drills were not halted"


def _switch(cluster: Cluster, wanted: dict[str, str | None]) -> dict[str, str]:
    """Set or remove keys of the marker; its data as it was. Raises Refused where the cluster carries no mark."""
    from harness.engine.stopping import MARKER

    try:
        marker = cluster.get(MARKER)
    except NotFound as error:
        raise Refused(
            "cluster-not-marked",
            f"{MARKER} does not exist, so no drill can run on this cluster anyway",
            expected="a cluster that is marked for drills",
            remedy="nothing is to be halted here",
        ) from error
    data: dict[str, str] = dict(marker.get("data") or {})
    changed = {**data, **{key: value for key, value in wanted.items() if value is not None}}
    for key in [key for key, value in wanted.items() if value is None]:
        changed.pop(key, None)
    if changed != data:
        cluster.replace({**marker, "data": changed})
    return data


def sweep(settings: Settings, say: Callable[[str], None], *, once: bool) -> ExitCode:
    """Watch over the drills of a cluster and undo what dead or overdue runs left, until SIGTERM or SIGINT. With
    `once` a single look, which also waits out the lock of a run that does not renew it."""
    import signal

    from harness import catalog
    from harness.adapters.system_clock import SystemClock
    from harness.engine.lease import DURATION
    from harness.engine.sweeper import EVERY, Sweeper

    clock, over = SystemClock(), Flag()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    cluster = connect(settings, existing_access(settings), clock)
    try:
        name = f"sweeper by {os.getpid()} on {os.uname().nodename}"
        sweeper = Sweeper(
            cluster,
            catalog.faults(),
            clock,
            name,
            lambda seconds: not over.wait(seconds),
            say,
            settings.namespace or "",
        )
        if not once:
            sweeper.run()
            return ExitCode.MET
        until = clock.now() + DURATION + 2 * EVERY
        done = sweeper.sweep()
        while clock.now() < until and not over.wait(EVERY):
            done += sweeper.sweep()
        return ExitCode.MET if all(one.clean for one in done) else ExitCode.ROLLBACK_INCOMPLETE
    finally:
        cluster.close()


def respond(settings: Settings, action: Action, role: str = "", text: str = "", alert: str = "") -> str:
    """Send a responder's message under the identity that the API server sees; one sentence of what was sent."""
    from harness.adapters.system_clock import SystemClock
    from harness.core.inbox import message

    clock = SystemClock()
    cluster = connect(settings, existing_access(settings), clock)
    try:
        actor = cluster.whoami().username
        namespace = _drilled(settings, cluster)
        try:
            body = message(namespace, actor=actor, action=action, role=role, text=text, alert=alert)
        except ValueError as error:
            raise BadInput(
                "message-invalid", str(error), expected="a message that can be kept", remedy="mend it and send it again"
            ) from error
        created = cluster.create(body)
    finally:
        cluster.close()
    what = " ".join(part for part in (action.replace("_", " "), role, alert) if part)
    return f"{what}: recorded for {actor} in {namespace} ({created['metadata']['name']})"


def _drilled(settings: Settings, cluster: Cluster) -> str:
    """The namespace in which a drill runs. Raises Refused where none does, BadInput where several do: a message must
    reach the drill that it is meant for, and none may lie about when there is no drill to hear it."""
    running = [namespace for namespace in namespaces_of(settings, cluster) if _is_alive(cluster, namespace)]
    if not running:
        raise Refused(
            "no-drill-running",
            "no drill is running, so there is nothing to respond to",
            expected="a drill that holds the lock of its namespace",
            remedy="start one (make drill EXP=oom-workers RESPONDER=human); `drill` shows what is running",
        )
    if len(running) > 1:
        raise BadInput(
            "several-drills-running",
            f"drills run in {', '.join(running)}",
            expected="one of them",
            remedy="name it with --namespace",
        )
    return running[0]


def status(settings: Settings) -> StatusReport:
    """The cluster, what is open in it, and the newest run."""
    from harness.adapters.system_clock import SystemClock
    from harness.engine import notes, undo_records

    provider = choose(settings)
    state = provider.status()
    lines = [f"cluster   {state.provider} {state.name}: {state.state} ({state.detail})"]
    data: dict[str, Any] = {"cluster": {"provider": state.provider, "name": state.name, "state": state.state}}
    exit_code = ExitCode.MET
    if state.state == "up" and state.access is not None:
        cluster = connect(settings, state.access, SystemClock())
        try:
            lines += _watched_over(cluster, data)
            for namespace in namespaces_of(settings, cluster):
                records = undo_records.load(cluster, namespace)
                held, silent, phase = _lock_holder(cluster, namespace)
                clean = not records
                alive = bool(held) and not silent
                lines.append(f"namespace {namespace}: {_standing(records, held, silent, phase)}")
                lines += [f"          {note}" for note in notes.read(cluster, namespace)]
                data.setdefault("namespaces", {})[namespace] = {
                    "clean": clean, "lock": held, "lock_alive": alive, "phase": phase,
                }  # fmt: skip
                if not clean and not alive:
                    lines.append("          run `drill recover` to undo it")
                    exit_code = ExitCode.ROLLBACK_INCOMPLETE
        finally:
            cluster.close()
    latest = settings.runs / "latest"
    if (latest / "journal.jsonl").exists():
        run_id, outcome = latest.resolve().name, _headline(latest)
        lines.append(f"last run  {run_id}: {outcome}")
        data["last_run"] = {"run_id": run_id, "outcome": outcome}
    else:
        lines.append("last run  none yet; try: make drill EXP=oom-workers")
    return StatusReport(list(map(inert_line, lines)), exit_code, data)


def _watched_over(cluster: Cluster, data: dict[str, Any]) -> list[str]:
    """Whether drills are halted, and whether a sweeper is there."""
    from harness.core.clock import parse_utc
    from harness.engine.stopping import HALTED, MARKER
    from harness.engine.sweeper import HEARTBEAT, HOME

    lines = []
    with contextlib.suppress(DrillError):
        marker = cluster.get(MARKER).get("data") or {}
        data["halted"] = marker.get(HALTED) == "true"
        if data["halted"]:
            lines.append(f"HALTED    {marker.get('reason') or 'no reason given'}; `drill resume` allows drills again")
    data["sweeper_silent_s"] = None
    with contextlib.suppress(DrillError, ValueError):
        spec = cluster.get(Ref("Lease", HOME, HEARTBEAT)).get("spec") or {}
        data["sweeper_silent_s"] = max(0.0, round(time.time() - parse_utc(str(spec.get("renewTime"))), 1))
    silent = data["sweeper_silent_s"]
    lines.append("sweeper   none in this cluster" if silent is None else f"sweeper   heard of {silent:.0f} s ago")
    return lines


def _standing(records: Sequence[UndoRecord], held: str, silent: float, phase: str) -> str:
    """What is going on in a namespace. A fault in force is a drill while its run lives, and an accident after."""
    holder = held.partition(" on ")[0]
    if held and not silent:
        faults = [r.fault if r.run_id == holder else f"{r.fault} of run {r.run_id}" for r in records]
        state = "; ".join(f"fault {fault} is in force" for fault in faults) or "no fault is in force"
        command, separator, _ = holder.partition(" by ")  # recover or set-up, by a process id
        now = f"{phase}; {state}" if phase else state
        return f"{command} is at work ({state})" if separator else f"a drill is running: run {holder} ({now})"
    unheard = f"a run that was not heard of for {silent:.0f} s holds the lock: {held}" if held else ""
    if not records:
        return f"clean ({unheard})" if unheard else "clean"
    left = [
        f"run {r.run_id} {'died' if holder == r.run_id else 'is over'}: fault {r.fault} is in force, it is not undone"
        for r in records
    ]
    return "; ".join(left) + (f" ({unheard})" if unheard else "")


def cluster_up(settings: Settings, progress: Progress) -> str:
    """Bring the cluster up, with the staging system on it where the cluster is ours."""
    phases = Phases()
    with terminable():
        access = set_up(settings, "smoke", setup=True, progress=progress, phases=phases)
    return f"{access.provider} cluster {access.name} is up: kubectl --kubeconfig {access.kubeconfig} get pods -A"


def cluster_down(settings: Settings, progress: Progress) -> str:
    """Take the cluster down and leave nothing behind."""
    provider = choose(settings)
    provider.down(progress)
    state = provider.status()
    return f"{state.provider} cluster {state.name} is {state.state}: {state.detail}"


def cluster_status(settings: Settings, progress: Progress | None = None) -> str:
    """One sentence on the cluster."""
    del progress
    state = choose(settings).status()
    where = f"\nkubeconfig {state.access.kubeconfig}, context {state.access.context}" if state.access else ""
    return f"{state.provider} cluster {state.name} is {state.state}: {state.detail}{where}"


def namespaces_of(settings: Settings, cluster: Cluster) -> list[str]:
    """The namespace that was asked for, or all that opted in."""
    if settings.namespace:
        return [settings.namespace]
    from harness.engine.stopping import OPT_IN_LABEL

    found = [body["metadata"]["name"] for body in cluster.list("Namespace", "", f"{OPT_IN_LABEL}=true")]
    if not found:
        raise BadInput(
            "no-namespace",
            "no namespace of this cluster has opted in to drills",
            expected=f"a namespace with the label {OPT_IN_LABEL}=true",
            remedy="name one with --namespace, or let its owners label it",
        )
    return sorted(found)


def _is_alive(cluster: Cluster, namespace: str) -> bool:
    holder, silent, _ = _lock_holder(cluster, namespace)
    return bool(holder) and not silent


def _lock_holder(cluster: Cluster, namespace: str) -> tuple[str, float, str]:
    """See `looked_at`; by this machine's clock, and nobody where it cannot be looked at."""
    from harness.engine.lease import looked_at

    try:
        return looked_at(cluster, namespace, time.time())
    except DrillError:
        return "", 0.0, ""


def _headline(run: Path) -> str:
    import json

    try:
        body = json.loads((run / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "no report; `drill judge` writes it"
    headline = body.get("headline", {})
    return f"{headline.get('verdict', 'unknown')}. {headline.get('sentence', '')}".strip()
