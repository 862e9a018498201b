"""One target of a fleet: looked at, started as a Job in its cluster, followed, and its result brought here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event as Flag
from threading import Timer
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from harness.core.clock import Instant
from harness.core.errors import DrillError, ExitCode, Internal, Unreachable, worst
from harness.core.experiment import Frozen, Name
from harness.core.transcript import Transcript
from harness.report.junit import Run
from harness.report.series import ENVIRONMENT, NOT_RUN, Outcome
from harness.wiring.history import fetch_run
from harness.wiring.judging import report_of
from harness.wiring.series import failed
from harness.wiring.settings import RunOutcome, Settings, connect, existing_access

if TYPE_CHECKING:
    from harness.adapters.kubernetes import KubeCluster
    from harness.core.event import Record
    from harness.engine.jobs import Attendance, Ended, Order
    from harness.ports.cluster import Cluster, Json

SWEPT_WITHIN = 90.0
"""Seconds for which the sweeper is waited for, once a pod has died without putting things back."""
LOG_BYTES = 256 * 1024 * 1024
"""How much is kept of what a pod says: as much as of a journal."""
_LINE_BYTES = 1024 * 1024


class Post(Frozen):
    """Where a target's drill is: all that it takes to find it again from its cluster."""

    target: Name
    experiment: Name
    namespace: Name
    job: str
    cluster: Literal["local", "kind", "context"]
    name: str = ""
    context: str | None = None
    kubeconfig: str | None = None
    since: Instant = Field(default=0.0, ge=0, allow_inf_nan=False)
    """When its cluster was last known to have no run of it, by the API server's clock."""

    def settings(self, runs: Path) -> Settings:
        """How the cluster is reached; what is fetched of it goes below `runs`."""
        return Settings(
            cluster=self.cluster, name=self.name, context=self.context, namespace=self.namespace, runs=runs,
            kubeconfig=Path(self.kubeconfig) if self.kubeconfig else None,
        )  # fmt: skip

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return f"{self.target}: {self.experiment}"


@dataclass(frozen=True, slots=True)
class Telling:
    """Where what happens is told to: facts of drills, sentences, and errors, each with its target."""

    record: Callable[[str, Record], None]
    said: Callable[[str, str], None]
    error: Callable[[str, DrillError], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a target: its row with its report or error, and its exit code. `final` says that there is no more to
    fetch."""

    run: Run
    code: ExitCode
    final: bool = True


@dataclass
class Posting:
    """One target's way. `look`, `go` and `take_up` are for one thread, `call_off` and `leave` for any."""

    post: Post
    folder: Path
    tell: Telling
    start_within: float
    result: Result | None = None
    uid: str = ""
    """What tells the cluster from others."""
    _cluster: KubeCluster | None = None
    _attendance: Attendance | None = None
    _called_off: Flag = field(default_factory=Flag)

    # ------------------------------------------------------------------------------------------- before

    def look(self) -> None:
        """Connect, and see that drills are wanted there. Raises DrillError."""
        from harness.engine import guards
        from harness.ports.cluster import Ref

        cluster = self._connected()
        self.uid = str(cluster.get(Ref("Namespace", "", "kube-system"))["metadata"]["uid"])
        guards.check_denied(guards.check_marker(cluster), self.post.namespace)
        guards.check_namespace(cluster, self.post.namespace)

    def body(self, order: Order, cronjob: Json) -> Json:
        """The Job, with the image that the cluster's sweeper runs; the API server was asked whether it would take it.
        Raises DrillError."""
        from harness.engine.jobs import image_of, job_of
        from harness.engine.undo_records import created_at

        cluster = self._connected()
        body = job_of(order, cronjob, image_of(cluster))
        since = created_at(cluster.create(body, dry_run=True))
        self.post = self.post.model_copy(update={"since": since})
        return body

    # ------------------------------------------------------------------------------------------- the drill

    def go(self, body: Json) -> None:
        """Start the Job and see it through; `result` is there afterwards, whatever happened."""
        from harness.engine.jobs import start

        def begin(cluster: Cluster) -> bool:
            if self._called_off.is_set():
                return False
            start(cluster, body)
            return True

        self._through(begin)

    def take_up(self) -> None:
        """See a Job through that was started before, or read what was kept of one that is gone."""
        from harness.engine.jobs import is_there

        self._through(lambda cluster: is_there(cluster, self.post.job))

    def call_off(self) -> None:
        """Let it end, everything undone. Raises DrillError."""
        self._called_off.set()
        if self._attendance is not None:
            self._attendance.call_off()

    def leave(self) -> None:
        """Look no longer; the drill goes on in its cluster."""
        if self._attendance is not None:
            self._attendance.leave()

    def close(self) -> None:
        """Give the connections back."""
        if self._cluster is not None:
            self._cluster.close()

    def fail(self, error: DrillError, *, final: bool = True) -> None:
        """End here, with an error that said it all."""
        self.tell.error(self.post.target, error)
        row = failed(self.post.label, error)
        code = ExitCode.UNDECIDED if row.verdict == ENVIRONMENT else error.exit_code
        self.result = Result(Run(row, error=error), code, final)

    # ------------------------------------------------------------------------------------------- help

    def _through(self, begin: Callable[[Cluster], bool]) -> None:
        try:
            try:
                self.result = self._result(begin)
            except DrillError as error:
                # It may go on in its cluster: its Job stays, and with it whatever it will have to say.
                self.fail(error, final=not isinstance(error, Unreachable))
            if self.result is not None and self.result.final and self._attendance is not None:
                self._attendance.remove()
        except DrillError as error:
            self.tell.said(self.post.target, f"its Job {self.post.job} could not be taken away: {error.fact}")
        except Exception as error:  # noqa: BLE001 - a thread that dies silently would leave a row out
            text = f"an error of the harness itself: {type(error).__name__}: {error}"
            self.fail(
                Internal("internal", text, expected="no such thing", remedy="report it; the drill ends by itself"),
                final=False,
            )

    def _result(self, begin: Callable[[Cluster], bool]) -> Result:
        from harness.engine.jobs import Attendance, Ended

        cluster, transcript = self._connected(), Transcript()
        self._attendance = Attendance(
            cluster, self.post.job, cluster.follow, self._listener(transcript), self._say, self.start_within
        )
        if begin(cluster):
            self._log.unlink(missing_ok=True)
            ended = self._attendance.attend()
        else:
            ended = Ended(None, "called-off" if self._called_off.is_set() else "job-gone", "there is no Job of it")
            _reread(self._log, transcript)
        return self._judged(cluster, transcript, ended)

    def _judged(self, cluster: Cluster, transcript: Transcript, ended: Ended) -> Result:
        """The drill's result: by the journal that its cluster keeps, or by its last words where it came to none."""
        if ended.slug == "left":
            return self._none(NOT_RUN, "it goes on in its cluster", final=False)
        died = transcript.exit_code is None
        if died and transcript.run_id:
            self._say(f"its pod ended without a word{f' ({ended.why})' if ended.why else ''}; the sweeper undoes it")
            _outwait_lock(cluster, self.post.namespace)
        outcome = self._reported(transcript.run_id) if transcript.run_id else None
        if outcome is not None:
            return self._of_run(outcome, transcript, ended)
        if transcript.error is not None:
            self.fail(transcript.error)
            assert self.result is not None  # noqa: S101 - `fail` has just set it
            return self.result
        if transcript.run_id:
            why = f"{transcript.run_id} is said to have run, and its cluster keeps no journal of it"
            return self._none(ENVIRONMENT, f"no-journal: {why}")
        if self._called_off.is_set():
            return self._none(NOT_RUN, ended.why or "it was called off before its run had begun")
        if ended.slug == "job-gone":
            return self._none(NOT_RUN, ended.why)
        why = ended.why or transcript.strange or f"its pod ended with exit code {ended.code}"
        return self._none(ENVIRONMENT, f"{ended.slug}: {why}" if ended.slug else why)

    def _of_run(self, outcome: RunOutcome, transcript: Transcript, ended: Ended) -> Result:
        """The result of a run that has a journal. What the pod says weighs only where it is worse."""
        died, error = transcript.exit_code is None, transcript.error
        said = [] if transcript.exit_code is None else [transcript.exit_code, *_known(ended.code)]
        code = worst([outcome.exit_code, *said])
        if error is None and code is not outcome.exit_code:
            error = Internal(
                "pod-disagrees",
                f"its pod ended with exit code {int(code)}, and its journal says {int(outcome.exit_code)}",
                expected="one word of both",
                remedy=f"see what it said in the end: {self._log}",
            )
        why = outcome.row.why or (f"{ended.slug}: {ended.why}" if died and ended.slug else error.slug if error else "")
        row = replace(outcome.row, experiment=self.post.label, why=why)
        return Result(Run(row, report_of(outcome.folder), error, str(outcome.folder)), code)

    def _reported(self, run_id: str) -> RunOutcome | None:
        """The run's judgement from the journal in its cluster; None where it keeps none of this drill."""
        from harness.core.errors import BadInput

        if run_id[16:-5] != self.post.experiment:
            return None
        try:
            return fetch_run(self.post.settings(self.folder / self.post.target), run_id, since=self.post.since)
        except BadInput as error:
            if error.slug != "no-such-run":
                raise
            return None

    def _none(self, word: str, why: str, *, final: bool = True) -> Result:
        return Result(Run(Outcome(self.post.label, word, why=why)), ExitCode.UNDECIDED, final)

    @property
    def _log(self) -> Path:
        return self.folder / f"{self.post.target}.jsonl"

    def _listener(self, transcript: Transcript) -> Callable[[str], None]:
        room = LOG_BYTES

        def on_line(line: str) -> None:
            nonlocal room
            raw = f"{line}\n".encode(errors="replace")
            room -= len(raw)
            if room >= 0:
                with self._log.open("ab") as file:
                    file.write(raw)
            found = transcript.read(line)
            if isinstance(found, str):
                self._say(found)
            elif found is not None:
                self.tell.record(self.post.target, found)

        return on_line

    def _say(self, text: str) -> None:
        self.tell.said(self.post.target, text)

    def _connected(self) -> KubeCluster:
        from harness.adapters.system_clock import SystemClock

        if self._cluster is None:
            settings = self.post.settings(self.folder)
            self._cluster = connect(settings, existing_access(settings), SystemClock())
        return self._cluster


def _reread(log: Path, transcript: Transcript) -> None:
    with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
        while raw := file.readline(_LINE_BYTES):
            transcript.read(raw.decode("utf-8", "replace"))


def _known(code: int | None) -> list[ExitCode]:
    return [one for one in ExitCode if one == code]


def _outwait_lock(cluster: Cluster, namespace: str) -> None:
    """Wait until nobody holds the namespace's lock any more, or it takes too long."""
    from harness.engine.lease import NAME

    enough = Flag()
    timer = Timer(SWEPT_WITHIN, enough.set)
    timer.daemon = True
    timer.start()
    try:
        for event in cluster.watch("Lease", namespace, "", enough, name=NAME):
            if event.type == "deleted" or (event.type == "sync" and not event.items):
                return
    finally:
        timer.cancel()
