"""A machine with Docker, kind and nothing else of what the product could want, and the product on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.clusters.kind import IMAGE_VARIABLE
from harness.core.errors import DrillError
from harness.terminal.progress import LineProgress
from harness.terminal.stream import Lines
from tests.rigs.kind import rig
from tests.rigs.kind.rig import Rig

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Desk:
    """Where somebody types: `docker` and `kind` on PATH, a state folder and a folder of runs of one's own."""

    rig: Rig
    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def runs(self) -> Path:
        """The folder of runs."""
        return self.folder / "runs"

    @property
    def bin(self) -> Path:
        """All of PATH."""
        return self.folder / "bin"

    @property
    def calls(self) -> Path:
        """What `kind` was called with, a line for each time."""
        return self.folder / "calls-of-kind"

    def real(self, name: str) -> str:
        """Where a program of the rig is."""
        found = shutil.which(name, path=self.rig.engine.path)
        assert found is not None
        return found

    def lay(self, name: str, script: str) -> None:
        """Put a program on PATH."""
        file = self.bin / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of this desk; programs of the machine itself are found only where PATH is given."""
        mine = ("DRILL_", "KUBECONFIG", "CONTEXT", "PROFILE", "RESPONDER", "DOCKER_", "PYTEST_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
        return kept | {
            "PATH": str(self.bin),
            "DOCKER_HOST": f"unix://{self.rig.engine.socket}",
            IMAGE_VARIABLE: self.rig.node.ref,
            "XDG_STATE_HOME": str(self.folder / "state"),
            "DRILL_CLUSTER": "kind",
            "NO_COLOR": "1",
            **more,
        }

    def run(
        self, *argv: str, within: float = 600.0, more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command line to its end, where the engine's ports are."""
        return subprocess.run(
            self.rig.engine.inside(argv), capture_output=True, text=True, errors="replace", timeout=within, check=False,
            cwd=ROOT, env=self.environment(**(more or {})),
        )  # fmt: skip

    def drill(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the product."""
        return self.run(*self.command(*arguments), more=environment)

    def command(self, *arguments: str) -> list[str]:
        """The product with these arguments; commands that know runs are pointed at this desk's folder."""
        runs = ("--runs", str(self.runs)) if arguments[0] in {"run", "recover", "status"} else ()
        return [sys.executable, "-m", "harness.cli", *arguments, *runs]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the product and go on."""
        with self.log.open("w") as log:
            process = subprocess.Popen(
                self.rig.engine.inside(self.command(*arguments)), stdout=log, stderr=subprocess.STDOUT, text=True,
                cwd=ROOT, env=self.environment(),
            )  # fmt: skip
        self.started.append(process)
        return process

    @property
    def log(self) -> Path:
        """What the last started command has printed."""
        return self.folder / "output.log"

    def until(self, what: Callable[[], object], process: subprocess.Popen[str], seconds: float = 240.0) -> None:
        """Wait until `what` is true while `process` lives."""
        deadline = time.monotonic() + seconds
        while not what():
            assert process.poll() is None, f"it ended too early:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"nothing within {seconds} s:\n{self.log.read_text()}"
            time.sleep(0.05)

    def docker(self, *arguments: str) -> str:
        """What `docker` says; fails the test where it fails."""
        done = self.run("docker", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def kubectl(self, cluster: str, *arguments: str) -> str:
        """Independent eyes and hands: the node's own kubectl, in the node."""
        inside = ("exec", f"{cluster}-control-plane", "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf")
        return self.docker(*inside, *arguments)

    def clusters(self) -> list[str]:
        """What kind itself knows."""
        return self.run("kind", "get", "clusters").stdout.split()

    def report(self) -> dict[str, Any]:
        """The newest run's report."""
        text = (self.runs / "latest" / "report.json").read_text(encoding="utf-8")
        return dict(json.loads(text))


@pytest.fixture(scope="session")
def the_rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """The rig. Where it cannot be had the tests are skipped with the reason, and with CI=true that is a failure."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with ExitStack() as stack:
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            try:
                made = stack.enter_context(rig.ready(LineProgress(Lines(sys.stderr))))
            except DrillError as error:
                (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"no kind: {error}")
        yield made


@pytest.fixture
def desk(the_rig: Rig, tmp_path: Path) -> Iterator[Desk]:
    """A desk at an engine without clusters; what the test leaves is deleted."""
    desk = Desk(the_rig, tmp_path)
    desk.bin.mkdir()
    desk.lay("docker", f'exec {desk.real("docker")} "$@"')
    desk.lay("kind", f'echo "$@" >>{desk.calls}; exec {desk.real("kind")} "$@"')
    yield desk
    for process in desk.started:
        if process.poll() is None:
            process.kill()
            process.wait()
    left = desk.clusters()
    if left:
        desk.run("kind", "delete", "clusters", *left)
    containers = desk.docker("ps", "--all", "--quiet").split()
    if containers:
        desk.docker("rm", "--force", "--volumes", *containers)
