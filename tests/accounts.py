"""Ways into a cluster as one of its ServiceAccounts, as a pod of it would have them: by a token and nothing else."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from harness.clusters.provider import Access

SYSTEM = "drill-system"


def kubeconfig_of(access: Access, account: str, folder: Path, *, namespace: str = SYSTEM) -> Path:
    """A kubeconfig with a fresh token of the account as the only identity; its one context is named for the account."""
    raw = json.loads(_kubectl(access, "config", "view", "--raw", "--minify", "--output=json"))
    token = _kubectl(access, "--namespace", namespace, "create", "token", account, "--duration=2h").strip()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": raw["clusters"],
        "users": [{"name": account, "user": {"token": token}}],
        "contexts": [{"name": account, "context": {"cluster": raw["clusters"][0]["name"], "user": account}}],
        "current-context": account,
    }
    path = folder / f"{account}.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def _kubectl(access: Access, *words: str) -> str:
    argv = [str(access.kubectl or "kubectl"), f"--kubeconfig={access.kubeconfig}", f"--context={access.context}"]
    done = subprocess.run([*argv, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
