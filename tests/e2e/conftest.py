"""Driving the product as its users do: the command line in a process of its own, against the real local cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.clusters.provider import Access
from harness.core.event import Event, decode
from harness.core.history import History
from harness.core.snapshot import snapshot

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "nova-staging"
EXAMPLES = ROOT / "docs" / "examples"
SHOP = "shop"
KEPT = "drill.internal/journal=true"
"""What journals carry that runs keep in the cluster: they outlive the run on purpose, and end with its test."""


@dataclass
class Product:
    """The command line and the cluster behind it. `runs` is this test's own folder of runs."""

    access: Access
    runs: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a user who has set nothing."""
        mine = ("DRILL_", "KUBECONFIG", "CONTEXT", "PROFILE", "RESPONDER")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(mine)}
        return {**kept, "DRILL_CLUSTER": "local", "NO_COLOR": "1", **more}

    def command(self, *arguments: str) -> list[str]:
        """`drill` with these arguments; commands that know runs are pointed at this test's folder."""
        runs = (
            ("--runs", str(self.runs))
            if arguments[0] in {"run", "series", "judge", "recover", "status", "runs", "report", "fleet"}
            else ()
        )
        name = ("--name", self.access.name) if arguments[0] not in {"judge", "fleet"} else ()
        return [sys.executable, "-m", "harness.cli", *arguments, *runs, *name]

    def drill(self, *arguments: str, within: float = 400.0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, which comes `within` so many seconds."""
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=within, check=False, cwd=ROOT,
            env=self.environment(**environment),
        )  # fmt: skip

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command and go on."""
        log = (self.runs.parent / f"output-{len(self.started)}.log").open("w")
        process = subprocess.Popen(
            self.command(*arguments), stdout=log, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
            env=self.environment(**environment),
        )  # fmt: skip
        log.close()
        self.started.append(process)
        return process

    def output(self, process: subprocess.Popen[str]) -> str:
        """What a started command has printed so far."""
        return (self.runs.parent / f"output-{self.started.index(process)}.log").read_text()

    def kubectl(self, *arguments: str) -> str:
        """Independent eyes and hands on the cluster. Fails the test where kubectl does."""
        assert self.access.kubectl is not None
        done = subprocess.run(
            [str(self.access.kubectl), "--kubeconfig", str(self.access.kubeconfig), *arguments],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def deployment(self) -> dict[str, Any]:
        """The worker Deployment's declared part."""
        return snapshot(json.loads(self.kubectl("-n", NAMESPACE, "get", "deployment", "worker", "-o", "json")))

    def limit(self) -> str:
        """The memory limit that workers have by declaration."""
        containers = self.deployment()["spec"]["template"]["spec"]["containers"]
        return str(containers[0]["resources"]["limits"]["memory"])

    def leftovers(self) -> str:
        """Whatever of ours is still in the namespace: undo records, messages, the lock."""
        kinds = "configmaps,leases"
        found = self.kubectl("-n", NAMESPACE, "get", kinds, "-o", "name")
        return "\n".join(line for line in found.splitlines() if "/drill" in line)

    def events(self, run: Path | None = None) -> list[Event]:
        """The events of a run's journal: the given one, else the newest."""
        folders = [run] if run is not None else sorted(p for p in self.runs.glob("2*") if p.is_dir())
        lines = (folders[-1] / "journal.jsonl").read_text(encoding="utf-8").splitlines() if folders else []
        return [decode(line).event for line in lines if line.endswith("}")]

    def history(self) -> History:
        """The newest run's journal so far."""
        newest = max(path for path in self.runs.glob("2*") if path.is_dir())
        lines = (newest / "journal.jsonl").read_text(encoding="utf-8").splitlines()
        return History(decode(line) for line in lines if line.endswith("}"))

    def until(self, what: Callable[[], object], process: subprocess.Popen[str], seconds: float = 240.0) -> None:
        """Wait until `what` is true while `process` lives; otherwise fail with what it printed."""
        deadline = time.monotonic() + seconds
        while not what():
            assert process.poll() is None, f"it ended too early:\n{self.output(process)}"
            assert time.monotonic() < deadline, f"nothing within {seconds} s:\n{self.output(process)}"
            time.sleep(0.1)

    def saw(self, kind: type) -> Callable[[], bool]:
        """A condition for `until`: the newest run's journal holds such an event."""
        return lambda: any(isinstance(event, kind) for event in self.events())


@pytest.fixture
def product(local_access: Access, tmp_path: Path) -> Iterator[Product]:
    """The product with the staging system up; whatever the test started is ended, and nothing may be left broken."""
    product = Product(local_access, tmp_path / "runs")
    up = product.drill("cluster", "up")
    assert up.returncode == 0, up.stdout + up.stderr
    yield product
    for process in product.started:
        if process.poll() is None:
            process.kill()
            process.wait()
    product.kubectl("-n", NAMESPACE, "delete", "configmaps", "-l", KEPT)
    left = product.drill("recover")
    assert left.returncode == 0, left.stdout + left.stderr
    assert product.limit() == "128Mi"


@pytest.fixture
def shop(product: Product) -> Iterator[Product]:
    """The shop of the documentation, at work; its images are those that are on the cluster already."""
    worker = json.loads(product.kubectl("-n", NAMESPACE, "get", "deployment", "worker", "-o", "json"))
    image = worker["spec"]["template"]["spec"]["containers"][0]["image"]
    documents: list[dict[str, Any]] = list(yaml.safe_load_all((EXAMPLES / "shop.yaml").read_text(encoding="utf-8")))
    for body in documents:
        for container in body.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
            container["image"] = image
    path = product.runs.parent / "shop.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    product.kubectl("apply", "-f", str(path))
    try:
        for name in ("till", "prometheus", "alertmanager"):
            product.kubectl("-n", SHOP, "rollout", "status", f"deployment/{name}", "--timeout=50s")
        deadline = time.monotonic() + 60
        while not at_work(product):
            assert time.monotonic() < deadline, "the shop's Prometheus does not see three tills at rest"
            time.sleep(0.5)
        yield product
    finally:
        product.kubectl("delete", "namespace", SHOP, "--wait=false")
        product.kubectl("wait", "--for=delete", f"namespace/{SHOP}", "--timeout=55s")


def at_work(product: Product) -> bool:
    """Whether three tills are watched and no alert is active: one is pending while the first of them are found."""
    proxy = f"/api/v1/namespaces/{SHOP}/services/prometheus:9090/proxy/api/v1"
    seen = json.loads(product.kubectl("get", "--raw", f"{proxy}/query?query=sum(till_open)"))["data"]["result"]
    alerts = json.loads(product.kubectl("get", "--raw", f"{proxy}/alerts"))["data"]["alerts"]
    return bool(seen) and seen[0]["value"][1] == "3" and not alerts
