"""Run a command where `docker` and `kind` are real: python -m tests.rigs.kind COMMAND...

Ends with the command's exit code, and the engine with it.
"""

from __future__ import annotations

import subprocess
import sys

from harness.clusters.kind import IMAGE_VARIABLE
from harness.core.errors import DrillError
from harness.terminal.progress import LineProgress
from harness.terminal.stream import Lines
from tests.rigs.kind import rig

if __name__ == "__main__":
    try:
        with rig.ready(LineProgress(Lines(sys.stderr))) as made:
            command = made.engine.inside(sys.argv[1:] or ["bash"])
            env = made.engine.env(**{IMAGE_VARIABLE: made.node.ref, "DRILL_CLUSTER": "kind"})
            raise SystemExit(subprocess.run(command, env=env, check=False).returncode)
    except DrillError as error:
        sys.exit(str(error))
