"""Foreign programs, run without a shell, with a deadline, and with their last words kept for the error."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.core.errors import Unreachable

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = ("HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR")


def clean_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment without proxies and other surprises, in which the system tools are found."""
    kept = {key: os.environ[key] for key in _KEPT if key in os.environ}
    return {"PATH": _SYSTEM_PATH} | kept | dict(extra or {})


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log, or a word on why there are none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"(no log: {error.strerror})"
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"


def attempt(argv: Sequence[str], *, timeout: float, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run and answer whatever came; for questions whose "no" is an exit code. `timeout` in seconds."""
    try:
        return subprocess.run(
            list(argv),
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=clean_env(),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unreachable(
            "tool-too-slow",
            f"`{' '.join(argv)}` did not end within {timeout:g} s",
            expected="an answer in time",
            remedy="look at the load of the machine, then try again",
        ) from error


def run(argv: Sequence[str], *, timeout: float = 30, stdin: str | None = None) -> str:
    """Run and answer stdout. Raises Unreachable with the program's own last words when it fails."""
    done = attempt(argv, timeout=timeout, stdin=stdin)
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise Unreachable(
            "tool-failed",
            f"`{' '.join(argv)}` ended with exit code {done.returncode}: {words}",
            expected="exit code 0",
            remedy="remove what the message names; `drill cluster down` and `drill cluster up` start afresh",
        )
    return done.stdout
