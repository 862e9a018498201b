"""The main job, `drill run oom-workers`, on a real Kubernetes with a real kernel, Prometheus and Alertmanager."""

from __future__ import annotations

import json
import os
import re
import signal
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.adapters.system_clock import SystemClock
from harness.core.event import AlertTransition, EffectProved, PodsSeen, ResponderActed, UndoDone
from harness.ports.metrics import Matcher
from harness.wiring.settings import Settings, connect, peers_of
from tests.e2e.conftest import NAMESPACE, ROOT, Product

pytestmark = pytest.mark.cluster

SEVEN = {
    "acknowledged", "assessed", "l2.joined", "engineering.joined", "client.notified", "mitigated", "recovered",
}  # fmt: skip
REPORTS = ("report.md", "report.html", "report.json", "junit.xml")


def kernel_log(after: int = -1) -> list[tuple[int, str]]:
    """The kernel's own records with a sequence number above `after` (/dev/kmsg, one record per read)."""
    handle = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    found: list[tuple[int, str]] = []
    try:
        while True:
            try:
                record = os.read(handle, 8192).decode(errors="replace")
            except BlockingIOError:
                return found
            except BrokenPipeError:  # the ring buffer overtook us; the next read goes on
                continue
            head, _, text = record.partition(";")
            number = int(head.split(",")[1])
            if number > after:
                found.append((number, text))
    finally:
        os.close(handle)


def test_the_drill_is_met_from_evidence_and_leaves_nothing(product: Product) -> None:
    before = product.deployment()
    newest = max((number for number, _ in kernel_log()), default=-1)
    done = product.drill("run", "oom-workers")
    assert done.returncode == 0, done.stdout + done.stderr

    run = (product.runs / "latest").resolve()
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    rows = report["slas"]
    assert {row["to"] for row in rows} >= SEVEN | {"firing"}
    assert {row["verdict"] for row in rows} == {"MET"}
    assert all(row["evidence"] for row in rows)
    assert "AUTOMATION" in done.stdout

    # The kernel's own word: at least three distinct pods of ours were killed, by their cgroup.
    uids = {pod.uid for event in product.events(run) if isinstance(event, PodsSeen) for pod in event.pods}
    kills = [text for _, text in kernel_log(newest) if "oom-kill:" in text and "CONSTRAINT_MEMCG" in text]
    killed = {uid for uid in uids for text in kills if uid in text or uid.replace("-", "_") in text}
    assert len(killed) >= 3, kills

    assert product.deployment() == before
    assert product.leftovers() == ""
    status = product.drill("status")
    assert status.returncode == 0
    assert "clean" in status.stdout

    suite = ET.parse(run / "junit.xml").getroot()  # noqa: S314 - written by us a moment ago
    assert len(list(suite.iter("testcase"))) >= len(rows)
    assert not list(suite.iter("failure"))

    bytes_before = {name: (run / name).read_bytes() for name in REPORTS}
    for name in REPORTS:
        (run / name).unlink()
    assert product.drill("judge", str(run)).returncode == 0
    assert {name: (run / name).read_bytes() for name in REPORTS} == bytes_before

    firing = next(e for e in product.events(run) if isinstance(e, AlertTransition) and e.to == "firing")
    assert firing.at.width < 0.5
    assert re.search(r"cluster +\d", done.stdout), "wall time by phase is printed"


def test_sigkill_in_the_middle_then_recover(product: Product) -> None:
    before = product.deployment()
    process = product.start("run", "oom-workers")
    product.until(product.saw(EffectProved), process)
    process.kill()
    process.wait()
    assert product.limit() == "64Mi"
    status = product.drill("status")
    assert status.returncode in {0, 4}
    assert "fault memory is in force" in status.stdout

    recovered = product.drill("recover")
    assert recovered.returncode == 0, recovered.stdout + recovered.stderr
    assert "clean" in recovered.stdout
    assert product.deployment() == before
    assert product.leftovers() == ""
    report = json.loads((product.runs / "latest" / "report.json").read_text(encoding="utf-8"))
    assert report["headline"]["verdict"] == "UNDECIDED"

    again = product.drill("recover")
    assert again.returncode == 0
    assert "nothing to recover" in again.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_undoes_and_a_second_run_is_refused_meanwhile(product: Product, number: signal.Signals) -> None:
    before = product.deployment()
    process = product.start("run", "oom-workers")
    product.until(product.saw(EffectProved), process)

    if number is signal.SIGINT:
        second = product.drill("run", "oom-workers", "--no-setup")
        assert second.returncode == 3, second.stdout + second.stderr
        assert "another run holds the lock" in second.stdout + second.stderr

    process.send_signal(number)
    process.send_signal(number)
    assert process.wait(timeout=120) == 2, product.output(process)
    assert product.deployment() == before
    assert product.leftovers() == ""


def variant(folder: Path, old: str, new: str) -> str:
    """The shipped experiment with one thing changed, as a file of the same name."""
    text = (ROOT / "experiments" / "oom-workers.yaml").read_text(encoding="utf-8")
    assert old in text
    folder.mkdir()
    path = folder / "oom-workers.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return str(path)


def test_an_abort_condition_undoes(product: Product, tmp_path: Path) -> None:
    before = product.deployment()
    done = product.drill("run", variant(tmp_path / "abort", "above: 20000", "above: 30"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "abort condition" in done.stdout
    assert product.deployment() == before
    assert product.leftovers() == ""


def test_people_respond_by_silence_commands_and_kubectl(product: Product) -> None:
    process = product.start("run", "oom-workers", "--responder", "human")

    def fired() -> bool:
        return any(isinstance(e, AlertTransition) and e.to == "firing" for e in product.events())

    product.until(fired, process)
    with silenced(product, "alice"):
        for words in (("assess", "P1"), ("join", "l2"), ("join", "engineering"), ("notify", "We are on it.")):
            sent = product.drill(*words)
            assert sent.returncode == 0, sent.stdout + sent.stderr
        product.kubectl(
            "-n", NAMESPACE, "set", "resources", "deployment/worker", "--containers=worker", "--limits=memory=128Mi"
        )
        assert process.wait(timeout=200) == 0, product.output(process)
    acts = [event for event in product.events() if isinstance(event, ResponderActed)]
    acknowledged = next(act for act in acts if act.action == "acknowledged")
    assert (acknowledged.actor, acknowledged.verified, acknowledged.actor_kind) == ("alice", "claimed", "human")
    assert {act.actor for act in acts if act.action != "acknowledged"} == {"admin"}
    assert {act.verified for act in acts if act.action != "acknowledged"} == {"admission policy"}
    undone = next(event for event in product.events() if isinstance(event, UndoDone))
    assert undone.outcome == "already"


@contextmanager
def silenced(product: Product, author: str) -> Iterator[None]:
    """What a person clicks in Alertmanager, and takes back afterwards: a silence would rightly block the next drill."""
    clock = SystemClock()
    settings = Settings()
    cluster = connect(settings, product.access, clock)
    peers = peers_of(settings, cluster, clock)
    try:
        matchers = [Matcher("alertname", "HighQueueDepth")]
        silence = peers.notifier.silence(matchers, author=author, comment="mine", seconds=600)
        yield
        peers.notifier.expire(silence)
    finally:
        peers.close()
        cluster.close()


def test_bad_input_is_refused_and_changes_nothing(product: Product, tmp_path: Path) -> None:
    before = product.deployment()
    cases = [
        (("run", "oom-worker", "--no-setup"), 64, "oom-workers"),
        (("run", variant(tmp_path / "field", "narrative:", "narative:"), "--no-setup"), 64, "narative"),
        (("run", variant(tmp_path / "unit", "limit: 64Mi", "limit: 64"), "--no-setup"), 64, "unit"),
        (("run", variant(tmp_path / "rule", "HighQueueDepth", "NoSuchAlert"), "--no-setup"), 3, "NoSuchAlert"),
        (
            ("run", variant(tmp_path / "missing", "namespace: nova-staging", "namespace: nowhere"), "--no-setup"),
            64,
            "nowhere",
        ),
        (
            ("run", variant(tmp_path / "optout", "namespace: nova-staging", "namespace: default"), "--no-setup"),
            3,
            "opted in",
        ),
        (("run", "oom-workers", "--no-setup", "--prometheus", "service:monitoring/gone:9090"), 3, "gone"),
    ]
    for arguments, code, words in cases:
        done = product.drill(*arguments)
        said = done.stdout + done.stderr
        assert (done.returncode, words in said) == (code, True), (arguments, said)
        assert "expected:" in said
        assert "remedy:" in said
    marker = ("configmap", "drills-allowed")
    product.kubectl("-n", "drill-system", "delete", *marker)
    try:
        unmarked = product.drill("run", "oom-workers", "--no-setup")
    finally:
        product.kubectl("-n", "drill-system", "create", *marker, "--from-literal=environment=staging")
    assert unmarked.returncode == 3
    assert "no mark that drills are allowed" in unmarked.stdout + unmarked.stderr
    assert product.deployment() == before
    assert product.leftovers() == ""
