"""Runs both tools through the same deaths and troubles, and looks at the cluster from outside.

A case is one tool, with its options, in a namespace of its own with one Deployment of three pods. The tool scales it
to none; once that is seen with kubectl, something happens to the tool or to the cluster; a minute later it is looked
at again, and then the tool's own next command may tell and repair what it can.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.clusters.provider import Access
from harness.core.event import InjectDone, RunEnded, decode
from harness.ports.cluster import Json
from tests.faults.targets import IMAGE_OF, OPT_IN, TARGETS
from tests.peers import toolkit
from tests.peers.relay import Relay

NAME, BEFORE, AFTER = "crowd", 3, 0
WATCHED = 60.0
"""Seconds from the blow to the look at what is left."""
FROZEN = 30.0
ENDS_WITHIN = 180.0
"""Seconds that a tool then has to end by itself, for its exit code."""
AT_ONCE = 6
"""Cases that run side by side: the machine has few processors, and most of a case is waiting."""


@dataclass(frozen=True)
class Case:
    """One tool in one trouble. `strategy` is Chaos Toolkit's rollback strategy; empty is its default."""

    trouble: str
    tool: str
    strategy: str = ""

    @property
    def title(self) -> str:
        """The tool as the table names it."""
        if self.tool == "drill":
            return "drill"
        return f"Chaos Toolkit, `--rollback-strategy={self.strategy}`" if self.strategy else "Chaos Toolkit"


@dataclass(frozen=True)
class Row:
    """What was seen. Counts are of declared replicas, seconds from the blow; None where it did not come about."""

    trouble: str
    tool: str
    title: str
    exit_code: int | None
    """The tool's; negative for the signal that killed it, None where it did not end at all."""
    replicas: int
    """After the time watched."""
    back_after: float | None
    journal: str
    next_command: str
    next_exit_code: int | None
    next_said: str
    next_replicas: int
    extra: dict[str, Any] = field(default_factory=dict)


PEERS = (("toolkit", ""), ("toolkit", "always"), ("drill", ""))
TROUBLES = ("SIGTERM", "SIGKILL", "second run at once", "somebody else scales to 5, then SIGTERM",
            "API server frozen for 30 s, SIGTERM meanwhile", "reply to the write lost, SIGTERM 5 s later")  # fmt: skip
CASES = tuple(Case(trouble, tool, strategy) for trouble in TROUBLES for tool, strategy in PEERS)


class Bench:
    """One case on the cluster."""

    def __init__(self, case: Case, access: Access, image: str, chaos: Path, work: Path) -> None:
        self.case = case
        self._access = access
        self._image = image
        self._chaos = chaos
        self.work = work
        self.namespace = f"peers-{secrets.token_hex(4)}"
        self._relay: Relay | None = None

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Independent eyes and hands, never through the relay. Raises RuntimeError where kubectl fails."""
        assert self._access.kubectl is not None
        done = subprocess.run(
            [str(self._access.kubectl), "--kubeconfig", str(self._access.kubeconfig), "--context",
             self._access.context, *arguments],
            input=stdin, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def deployment(self) -> Json:
        found: Json = json.loads(self.kubectl("-n", self.namespace, "get", "deployment", NAME, "-o", "json"))
        return found

    def replicas(self) -> int:
        return int(self.deployment()["spec"]["replicas"])

    def ready(self) -> int:
        return int(self.deployment().get("status", {}).get("readyReplicas", 0))

    def until(self, what: Callable[[], bool], seconds: float, process: subprocess.Popen[str] | None = None) -> float:
        """Seconds until it was so. Raises RuntimeError with the tool's output where it did not come about."""
        begun = time.monotonic()
        while not what():
            ended = process is not None and process.poll() is not None
            if ended or time.monotonic() - begun > seconds:
                said = "\n".join(path.read_text()[-3000:] for path in sorted(self.work.glob("output-*.log")))
                raise RuntimeError(f"{self.case}: {'it ended' if ended else f'not within {seconds} s'}\n{said}")
            time.sleep(0.2)
        return time.monotonic() - begun

    @contextmanager
    def stage(self) -> Iterator[None]:
        """The namespace with the Deployment at rest; gone afterwards."""
        target = next(one for one in TARGETS if one.broken == ("Deployment", NAME))
        namespace = {
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": OPT_IN},
        }  # fmt: skip
        self.work.mkdir(parents=True)
        self._write_kubeconfig()
        bodies = [namespace, *target.objects(self.namespace, self._image)]
        self.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies}))
        try:
            self.until(lambda: self.ready() == BEFORE, 120)
            if self.case.tool == "toolkit":
                plan = toolkit.experiment(self.namespace, NAME, BEFORE, AFTER)
                (self.work / "experiment.json").write_text(json.dumps(plan))
            else:
                (self.work / f"{NAME}.yaml").write_text(json.dumps(drill(self.namespace)))  # JSON is YAML
            yield
        finally:
            self.kubectl("delete", "namespace", self.namespace, "--wait=false")

    @contextmanager
    def relayed(self) -> Iterator[Relay]:
        """Let the tool reach the API server through a relay from here on."""
        server = urlsplit(self.kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"))
        assert server.hostname is not None
        with Relay(server.hostname, server.port or 443) as relay:
            self._write_kubeconfig(f"https://127.0.0.1:{relay.port}")
            yield relay

    def _write_kubeconfig(self, server: str = "") -> None:
        config = json.loads(self.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
        if server:
            config["clusters"][0]["cluster"]["server"] = server  # a local API server's certificate names loopback
        path = self.work / "kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))

    def command(self, *arguments: str, runs: str = "elsewhere") -> list[str]:
        """The tool's run; with arguments, another command of `drill`, which has nothing of the run's own folder unless
        it is named."""
        if self.case.tool == "toolkit":
            return toolkit.command(self._chaos, self.work, self.case.strategy)
        where = ("--cluster", "context", "--context", self._access.context, "--kubeconfig",
                 str(self.work / "kubeconfig"), "--runs", str(self.work / (runs if arguments else "runs")))  # fmt: skip
        words = arguments or ("run", str(self.work / f"{NAME}.yaml"), "--no-setup")
        return [sys.executable, "-m", "harness.cli", *words, *where]

    def start(self, label: str, command: list[str]) -> subprocess.Popen[str]:
        log = (self.work / f"output-{label}.log").open("w")
        try:
            return subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, text=True, env=self._environment(),
                cwd=self.work if self.case.tool == "toolkit" else toolkit.ROOT,
            )  # fmt: skip
        finally:
            log.close()

    def finish(self, label: str, command: list[str], seconds: float = 240.0) -> tuple[int | None, str]:
        """Run to the end, or kill it after `seconds`; its exit code and what it printed."""
        process = self.start(label, command)
        try:
            code: int | None = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = None
            _end(process)
        return code, self.output(label)

    def output(self, label: str) -> str:
        return (self.work / f"output-{label}.log").read_text()

    def _environment(self) -> dict[str, str]:
        """As little as possible: neither proxies nor anybody's settings, and a home that is the case's own."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
        home = {"HOME": str(self.work), "KUBECONFIG": str(self.work / "kubeconfig")}
        return {**kept, **home, "KUBERNETES_CONTEXT": self._access.context, "NO_COLOR": "1"}

    def journal(self) -> str:
        """What is left of the tool's own record of the run."""
        if self.case.tool == "toolkit":
            path = self.work / "journal.json"
            if not path.exists():
                return "none"
            written = json.loads(path.read_text())
            return f"{written['status']}, the action {written['run'][0]['status']}"
        runs = sorted((self.work / "runs").glob("2*/journal.jsonl"))
        if not runs:
            return "none"
        events = [decode(line).event for line in runs[0].read_text().splitlines() if line.endswith("}")]
        ended = next((event.reason for event in reversed(events) if isinstance(event, RunEnded)), "not ended")
        write = next((event.outcome for event in events if isinstance(event, InjectDone)), "not begun")
        return f"{ended}, the write {write}"

    def leftovers(self) -> list[str]:
        """Objects of ours that are still in the namespace."""
        names = self.kubectl("-n", self.namespace, "get", "configmaps,leases,secrets", "-o", "name").split()
        return [name for name in names if "/drill" in name]


def drill(namespace: str) -> Json:
    """The same fault for this harness. The alert never fires for it: that holds the fault until the run is stopped."""
    anything = {"query": "vector(1)", "above": 0}
    return {
        "name": NAME,
        "title": "Too few pods for the work",
        "why": {"probability": "low", "tests": ["the harness"]},
        "namespace": namespace,
        "narrative": "Nobody is told anything.",
        "facilitator": {"root_cause": {"object": f"deployment/{NAME}", "reason": "scaled down"}},
        "severity": "P4",
        "signal": {"query": "vector(1)", "title": "Nothing"},
        "steady_state": [{"name": "Prometheus scrapes", "query": "max(up)", "above": 0, "for": "2s"}],
        "faults": [
            {
                "id": "fewer",
                "kind": "scale",
                "target": f"deployment/{NAME}",
                "replicas": AFTER,
                "effect": {"ready_at_most": AFTER, "within": "60s"},
                "blast_radius": {"pods": BEFORE},
            }
        ],
        "alerts": [{"name": "HighQueueDepth", "within": "10m", "of": "fewer.effective"}],
        "mitigated": anything,
        "recovered": anything,
        "slas": [{"from": "injected", "to": "fewer.effective", "within": "1m"}],
        "runbook": "runbooks/high-queue-depth.md",
        "profiles": {"smoke": {"timeout": "15m", "responder": "human"}},
    }


def run(case: Case, access: Access, image: str, chaos: Path, work: Path) -> Row:
    """One case from nothing to its row."""
    bench = Bench(case, access, image, chaos, work)
    with bench.stage():
        trouble = {
            "SIGTERM": _signalled,
            "SIGKILL": _signalled,
            "second run at once": _second,
            "somebody else scales to 5, then SIGTERM": _foreign,
            "API server frozen for 30 s, SIGTERM meanwhile": _frozen,
            "reply to the write lost, SIGTERM 5 s later": _lost,
        }[case.trouble]
        return _next(bench, trouble(bench))


def _down(bench: Bench, process: subprocess.Popen[str]) -> None:
    """The blow falls when the scale-down is seen from outside."""
    bench.until(lambda: bench.replicas() == AFTER and bench.ready() == AFTER, 120, process)


def _watch(bench: Bench, process: subprocess.Popen[str], since: float, seconds: float, **extra: Any) -> Row:
    """Look on for `seconds` since the blow; what is then the case."""
    back: float | None = None
    ended: float | None = None
    while time.monotonic() < since + seconds:
        if ended is None and process.poll() is not None:
            ended = round(time.monotonic() - since, 1)
        if back is None and bench.replicas() == BEFORE and bench.ready() == BEFORE:
            back = round(time.monotonic() - since, 1)
        time.sleep(0.5)
    left, case = bench.replicas(), bench.case
    code = _wait(process, ENDS_WITHIN)
    if ended is None and code is not None:
        ended = round(time.monotonic() - since, 1)
    extra["ended_after"] = ended
    return Row(case.trouble, case.tool, case.title, code, left, back, bench.journal(), "", None, "", 0, extra)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()


def _signalled(bench: Bench) -> Row:
    process = bench.start("run", bench.command())
    try:
        _down(bench, process)
        process.send_signal(signal.Signals[bench.case.trouble])
        return _watch(bench, process, time.monotonic(), WATCHED)
    finally:
        _end(process)


def _second(bench: Bench) -> Row:
    """A second run of the same while the first one's fault is in force; then the first one is asked to stop."""
    process = bench.start("run", bench.command())
    try:
        _down(bench, process)
        code, said = bench.finish("second", bench.command(), 90.0)
        extra = {
            "second_exit_code": code,
            "second_said": _last(said),
            "replicas_under_the_first": bench.replicas(),
            "first_still_runs": process.poll() is None,
        }
        process.send_signal(signal.SIGTERM)
        return _watch(bench, process, time.monotonic(), WATCHED, **extra)
    finally:
        _end(process)


def _foreign(bench: Bench) -> Row:
    process = bench.start("run", bench.command())
    try:
        _down(bench, process)
        bench.kubectl("-n", bench.namespace, "scale", f"deployment/{NAME}", "--replicas=5")
        bench.until(lambda: bench.ready() == 5, 60)
        process.send_signal(signal.SIGTERM)
        return _watch(bench, process, time.monotonic(), WATCHED)
    finally:
        _end(process)


def _frozen(bench: Bench) -> Row:
    """Nothing of the API server reaches the tool for a while, and in that while it is told to stop."""
    with bench.relayed() as relay:
        process = bench.start("run", bench.command())
        try:
            _down(bench, process)
            relay.freeze()
            frozen_at = time.monotonic()
            process.send_signal(signal.SIGTERM)
            bench.until(lambda: time.monotonic() - frozen_at >= FROZEN, FROZEN + 10)
            meanwhile = {"replicas_while_frozen": bench.replicas(), "ran_while_frozen": process.poll() is None}
            relay.thaw()
            return _watch(bench, process, time.monotonic(), WATCHED, **meanwhile)
        finally:
            _end(process)


def _lost(bench: Bench) -> Row:
    """The write happens and its reply never comes; the fault is then held, or not, as the tool decides."""
    with bench.relayed() as relay:
        process = bench.start("run", bench.command())
        try:
            if bench.case.tool == "drill":  # its preflight asks much; only the write is to be slow
                journals = bench.work / "runs"
                planned = lambda: any("injection.planned" in j.read_text() for j in journals.glob("2*/*.jsonl"))  # noqa: E731
                bench.until(planned, 60, process)
            relay.slow(2.0)
            bench.until(lambda: bench.replicas() == AFTER, 120, process)
            relay.cut()
            cut_at = time.monotonic()
            relay.slow(0.0)
            bench.until(lambda: time.monotonic() - cut_at >= 5.0, 10)
            meanwhile = {"ran_on_after_the_loss": process.poll() is None}
            if meanwhile["ran_on_after_the_loss"]:
                process.send_signal(signal.SIGTERM)
            return _watch(bench, process, time.monotonic(), WATCHED, **meanwhile)
        finally:
            _end(process)


def _next(bench: Bench, row: Row) -> Row:
    """What the tool's own next command tells and repairs, without the dead run's folder."""
    bench._write_kubeconfig()
    if bench.case.tool == "toolkit":
        (bench.work / "journal.json").unlink(missing_ok=True)
        if row.replicas == BEFORE:
            return replace(row, next_replicas=row.replicas)
        process = bench.start("next", bench.command())
        try:
            ended = _wait(process, 120.0)
            told = _last(bench.output("next"))
            return replace(
                row, next_command="the same `chaos run` again", next_exit_code=ended, next_said=told,
                next_replicas=bench.replicas(),
            )  # fmt: skip
        finally:
            _end(process)
    status, told = bench.finish("status", bench.command("status", "--namespace", bench.namespace))
    force = ("--force",) if bench.case.trouble.startswith("somebody else") else ()
    code, said = bench.finish("recover", bench.command("recover", "--namespace", bench.namespace, *force))
    home = bench.command("recover", "--namespace", bench.namespace, runs="runs")
    at_home, _ = bench.finish("home", home)  # takes the note that `recover` left into the dead run's journal
    extra = {
        **row.extra,
        "status_exit_code": status,
        "status_said": told.strip(),
        "home_exit_code": at_home,
        "journal_in_the_end": bench.journal(),
        "leftovers": bench.leftovers(),
    }
    words = " ".join(("drill", "recover", *force))
    return replace(
        row, next_command=f"`{words}`", next_exit_code=code, next_said=_last(said), next_replicas=bench.replicas(),
        extra=extra,
    )  # fmt: skip


def _wait(process: subprocess.Popen[str], seconds: float) -> int | None:
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None


def _last(said: str) -> str:
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def compare(access: Access, work: Path, say: Callable[[str], None], cases: tuple[Case, ...] = CASES) -> Json:
    """All cases, a few at once; the figures with what they were measured on."""
    chaos = toolkit.environment()
    probe = Bench(cases[0], access, "", chaos, work)
    image = json.loads(probe.kubectl("-n", IMAGE_OF.namespace, "get", "deployment", IMAGE_OF.name, "-o", "json"))
    ref = str(image["spec"]["template"]["spec"]["containers"][0]["image"])
    server = json.loads(probe.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]

    def one(index: int, case: Case) -> Row:
        row = run(case, access, ref, chaos, work / f"{index:02}-{case.tool}{case.strategy}")
        say(f"{row.trouble}: {row.title}: {row.replicas} replicas, exit {row.exit_code}")
        return row

    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        rows = list(pool.map(one, range(len(cases)), cases))
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"drill": version("drill-harness"), "kubernetes": server, **toolkit.versions(chaos)},
        "replicas_before": BEFORE,
        "replicas_under_the_fault": AFTER,
        "watched_seconds": WATCHED,
        "rows": [asdict(row) for row in rows],
    }
