"""What a fleet's threads may do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

NAME = "fleet-20261126-100312-93fd"
SERVER = {"cluster": {"server": "https://127.0.0.1:9"}, "name": "c"}
CONTEXTS = ("one", "two")
KUBECONFIG = {
    "apiVersion": "v1", "kind": "Config", "clusters": [SERVER], "users": [{"name": "u", "user": {"token": "t"}}],
    "contexts": [{"name": name, "context": {"cluster": "c", "user": "u"}} for name in CONTEXTS],
}  # fmt: skip
WATCHED = """
import importlib.abc, json, sys, threading
packages, elsewhere = ("kubernetes", "jinja2"), []

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in packages and threading.current_thread() is not threading.main_thread():
            elsewhere.append(name)

sys.meta_path.insert(0, Watch())
from harness.cli import main
code = main(sys.argv[1:])
print(json.dumps([code, elsewhere, [name for name in packages if name in sys.modules]]))
"""


@pytest.mark.parametrize("again", [False, True], ids=["started", "taken up"])
def test_packages_whose_modules_import_each_other_are_imported_by_one_thread(tmp_path: Path, *, again: bool) -> None:
    """Several that import them at once have met `_DeadlockError`."""
    config = tmp_path / "kubeconfig"
    config.write_text(json.dumps(KUBECONFIG))
    where = {"experiment": "noop", "kubeconfig": str(config)}
    (tmp_path / "fleet.yaml").write_text(
        json.dumps({"targets": [{"name": name, "context": name, **where} for name in CONTEXTS]})
    )
    posts = [
        {
            "target": name, "namespace": "nova-staging", "job": f"drill-fleet-93fd-{name}", "cluster": "context",
            "context": name, **where,
        }
        for name in CONTEXTS
    ]  # fmt: skip
    folder = tmp_path / "runs" / NAME
    folder.mkdir(parents=True)
    (folder / "fleet.json").write_text(json.dumps({"fleet": NAME, "start_within": 1.0, "posts": posts}))
    words = ("--resume", NAME) if again else (str(tmp_path / "fleet.yaml"),)
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, "fleet", *words, "--runs", str(tmp_path / "runs")],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.stderr.count("did not answer") == len(CONTEXTS), done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [2, [], ["kubernetes", "jinja2"]]
