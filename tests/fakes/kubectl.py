"""A kubectl that answers from a folder, for what fills a cluster."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

from harness.clusters.provider import Access, ClusterStatus
from harness.ports.progress import Progress

_PROGRAM = """#!{python}
import json, pathlib, sys
here = pathlib.Path({here!r})
words = [a for a in sys.argv[1:] if not a.startswith("--kubeconfig") and not a.startswith("--context")]
with (here / "calls").open("a") as calls:
    calls.write(" ".join(words) + "\\n")
for rule in json.loads((here / "rules.json").read_text()):
    if " ".join(words).startswith(rule["on"]):
        sys.stdout.write(rule.get("out", ""))
        sys.stderr.write(rule.get("err", ""))
        sys.exit(rule.get("rc", 0))
"""


class FakeKubectl:
    """`answer(prefix, ...)` sets what the first matching call says; the latest answer wins."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rules: list[dict[str, Any]] = []
        self._binary = folder / "kubectl"
        self._binary.write_text(_PROGRAM.format(python=sys.executable, here=str(folder)), encoding="utf-8")
        self._binary.chmod(self._binary.stat().st_mode | stat.S_IXUSR)
        (folder / "calls").touch()
        self.answer("")
        self.access = Access("local", "t", folder / "config", "t", self._binary)

    def answer(self, on: str, *, out: str = "", err: str = "", rc: int = 0) -> None:
        """What calls that begin with `on` get from now on."""
        self._rules.insert(0, {"on": on, "out": out, "err": err, "rc": rc})
        (self._folder / "rules.json").write_text(json.dumps(self._rules), encoding="utf-8")

    @property
    def calls(self) -> list[str]:
        """All calls so far, without the options that name the cluster."""
        return (self._folder / "calls").read_text(encoding="utf-8").splitlines()

    @property
    def writes(self) -> list[str]:
        """Those of them that change something."""
        return [c for c in self.calls if c.split()[0] in {"apply", "create", "delete", "annotate"}]


class FakeProvider:
    """A cluster that counts the images it is given."""

    loaded = 0

    def up(self, progress: Progress) -> Access:
        raise NotImplementedError

    def down(self, progress: Progress) -> None:
        raise NotImplementedError

    def status(self) -> ClusterStatus:
        raise NotImplementedError

    def load_image(self, archive: Path, ref: str) -> None:
        self.loaded += 1
