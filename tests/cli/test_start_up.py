"""`drill --help` answers at once: nothing heavy is loaded before a command needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"pydantic", "rich", "kubernetes", "yaml", "jinja2", "httpx2", "requests", "prometheus_api_client", "asyncio"}


@pytest.mark.parametrize("arguments", [None, ["--help"], ["run", "--help"], ["cluster", "up", "--help"]])
def test_nothing_heavy_is_loaded(arguments: list[str] | None) -> None:
    code = f"import sys\nfrom harness.cli import main\narguments = {arguments!r}\n"
    code += "if arguments is not None: main(arguments)\nprint(*sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "harness.cli" in loaded
    assert loaded & HEAVY == set()


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "nope"], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 64
    assert done.stderr.startswith("drill: no such command 'nope'")


def test_a_reader_that_leaves_ends_nothing_loudly() -> None:
    command = f"{sys.executable} -m harness.cli schema | head -c 10"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
