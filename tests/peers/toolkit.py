"""Chaos Toolkit in an environment of its own, pinned by requirements/peers.lock and kept in the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from harness.ports.cluster import Json

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "peers.lock"
HELD = 900
"""Seconds that its method holds the fault: longer than any case takes."""


class NotInstalled(RuntimeError):
    """pip could not make the environment; the message is pip's last word."""


def environment() -> Path:
    """The environment's folder, made where it is not cached yet: one per content of the lock and Python."""
    key = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:16]
    base = os.environ.get("XDG_CACHE_HOME")
    caches = (Path(base) if base else Path.home() / ".cache") / "drill" / "peers"
    caches.mkdir(parents=True, exist_ok=True)
    folder = caches / key
    with (caches / f"{key}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            _run(sys.executable, "-m", "venv", "--clear", str(folder))
            pip = (str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet")
            _run(*pip, "install", "--require-hashes", "-r", str(LOCK))
            (folder / "ready").touch()
    return folder


def versions(folder: Path) -> dict[str, str]:
    """What is installed there of Chaos Toolkit."""
    program = (
        "import importlib.metadata as m, json; "
        "print(json.dumps({n: m.version(n) for n in ('chaostoolkit', 'chaostoolkit-lib', 'chaostoolkit-kubernetes')}))"
    )
    found: dict[str, str] = json.loads(_run(str(folder / "bin" / "python"), "-c", program))
    return found


def experiment(namespace: str, name: str, before: int, after: int) -> Json:
    """Scale a Deployment down and, by rollback, up again. As in its documentation: a steady-state hypothesis with a
    tolerance, an action as method, the opposite action under `rollbacks`, with the number that its author knows."""

    def scale(count: int) -> Json:
        where = {"name": name, "ns": namespace, "replicas": count}
        return {
            "type": "action",
            "name": f"scale-to-{count}",
            "provider": {
                "type": "python", "module": "chaosk8s.deployment.actions", "func": "scale_deployment",
                "arguments": where,
            },
        }  # fmt: skip

    running = {"label_selector": f"app={name}", "phase": "Running", "ns": namespace}
    probe = {
        "type": "probe",
        "name": "all-pods-run",
        "tolerance": before,
        "provider": {
            "type": "python", "module": "chaosk8s.pod.probes", "func": "count_pods", "arguments": running,
        },
    }  # fmt: skip
    return {
        "title": "Too few pods for the work",
        "description": "The same fault as the drill beside it.",
        "steady-state-hypothesis": {"title": "All pods run", "probes": [probe]},
        "method": [{**scale(after), "pauses": {"after": HELD}}],
        "rollbacks": [scale(before)],
    }


def command(folder: Path, work: Path, strategy: str) -> list[str]:
    """`chaos run` of work/experiment.json; an empty strategy leaves its default. Nothing outside `work` is written, and
    nobody is asked for a newer version."""
    options = [f"--rollback-strategy={strategy}"] if strategy else []
    return [
        str(folder / "bin" / "chaos"), "--no-version-check", "--settings", str(work / "settings.yaml"),
        "--log-file", str(work / "chaostoolkit.log"), "run", "--journal-path", str(work / "journal.json"), *options,
        str(work / "experiment.json"),
    ]  # fmt: skip


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise NotInstalled((done.stderr or done.stdout).strip()[-2000:])
    return done.stdout
