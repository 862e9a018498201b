"""Foreign programs, run without a shell, with a deadline, and with their last words kept for the error."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.core.errors import Unreachable, disk_full, is_full

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENDING_SECONDS = 20.0
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
    """Run and answer stdout. Raises Unreachable with the program's own last words when it fails, BadInput where these
    say that a disk is full."""
    done = attempt(argv, timeout=timeout, stdin=stdin)
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip())[-2000:]
        if is_full(words):
            raise disk_full(
                f"`{argv[0]}` says: {words.splitlines()[-1]}",
                remedy="make room on the disk of the folder that it names, then the same command again",
            )
        raise Unreachable(
            "tool-failed",
            f"`{' '.join(argv)}` ended with exit code {done.returncode}: {words}",
            expected="exit code 0",
            remedy="remove what the message names; `drill cluster down` and `drill cluster up` start afresh",
        )
    return done.stdout


@contextmanager
def worker(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdout: int = subprocess.PIPE,
) -> Iterator[subprocess.Popen[str]]:
    """A program that works for minutes in folders of its own, which it removes when it is interrupted.

    It is interrupted where this process is, with all that it started, and waited for; what does not end within
    `_ENDING_SECONDS` is killed. Where this process is killed the kernel interrupts it. Its process group is its own:
    what it sends to its group, as mmdebstrap does on a full disk, does not end this process.
    """
    bound = shutil.which("setpriv")  # where there is none, a killed harness leaves the program to its own end
    words = [bound, "--pdeathsig=INT", "--", *argv] if bound else list(argv)
    with subprocess.Popen(
        words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True,
        errors="replace", process_group=0,
    ) as process:  # fmt: skip
        try:
            yield process
        except BaseException:
            _end(process)
            raise


def work(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a `worker` to its end and answer whatever came. Raises subprocess.TimeoutExpired after `timeout` seconds."""
    with worker(argv, env=env) as process:
        out, words = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(list(argv), process.returncode, out, words)


def _end(process: subprocess.Popen[str]) -> None:
    try:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=_ENDING_SECONDS)  # reads on: a program that nobody listens to does not end
    except subprocess.TimeoutExpired:
        _kill(process)
    except BaseException:
        _kill(process)
        raise


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
