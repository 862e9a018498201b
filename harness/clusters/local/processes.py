"""Daemons that outlive the command that started them, and pids that cannot be mistaken for somebody else's.

A pid alone proves nothing: the kernel hands it out again. A process is known here by its pid and its start time, and
the record of both is written by the process itself before it becomes the daemon, so no kill can come in between.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.clusters.shell import clean_env
from harness.core.errors import Internal

_LAUNCH = '"$@" &'
_RECORD_THEN_BECOME = (
    "read -r stat </proc/$$/stat; read -r boot </proc/sys/kernel/random/boot_id; "
    'printf "%s\\n%s\\n" "$stat" "$boot" >"$0.new"; mv "$0.new" "$0"; exec "$@"'
)
_START_TIME_FIELD = 19  # of the fields that follow the command's closing bracket; starttime is field 22 of proc(5)
_POLL_SECONDS = 0.02
_END_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that cannot be confused with another: pid and start time in clock ticks since boot."""

    pid: int
    started: int


def parse_stat(line: str) -> tuple[Identity, str]:
    """Identity and one-letter state from a line of /proc/PID/stat. Raises ValueError on anything else."""
    pid, _, rest = line.partition(" ")
    fields = rest.rpartition(")")[2].split()
    if len(fields) <= _START_TIME_FIELD:
        raise ValueError(line)
    return Identity(int(pid), int(fields[_START_TIME_FIELD])), fields[0]


def identify(pid: int) -> Identity | None:
    """The living process behind a pid; a zombie does not live."""
    try:
        identity, state = parse_stat(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else identity


def command(pid: int) -> list[str]:
    """The words a process was started with; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def boot_id() -> str:
    """Names this run of the machine: start times count from its beginning, and nothing outlives its end."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def recorded(record: Path) -> Identity | None:
    """The living process that a record speaks of; None when it is gone or its pid belongs to another by now."""
    try:
        line, _, boot = record.read_text(errors="replace").partition("\n")
        identity, _ = parse_stat(line)
    except (OSError, ValueError):
        return None
    return identity if boot.strip() == boot_id() and identify(identity.pid) == identity else None


def launch(argv: Sequence[str], *, record: Path, log: Path, env: Mapping[str, str] | None = None) -> Identity:
    """Start a daemon: own session, no stdin, output appended to `log`, identity kept in `record`."""
    record.unlink(missing_ok=True)
    with log.open("ab") as out:
        subprocess.run(
            ["sh", "-c", _LAUNCH, "launch", "sh", "-c", _RECORD_THEN_BECOME, str(record), *argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            cwd="/",
            env=clean_env(env),
            check=True,
            timeout=30,
        )
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            return parse_stat(record.read_text().partition("\n")[0])[0]
        except (OSError, ValueError):
            time.sleep(_POLL_SECONDS)
    raise Internal(
        "no-pid-record",
        f"{argv[0]} left no record in {record}",
        expected="the record within 10 s of the start",
        remedy=f"look at {log} and at the load of the machine",
    )


def everyone() -> list[int]:
    """All pids of the machine."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def inside_namespace(netns: Path) -> list[Identity]:
    """All processes that live in the network namespace bound at `netns`."""
    try:
        wanted = netns.stat()
    except OSError:
        return []
    found = []
    for pid in everyone():
        identity = identify(pid)
        try:
            seen = Path(f"/proc/{pid}/ns/net").stat()
        except OSError:
            continue
        if identity is not None and (seen.st_dev, seen.st_ino) == (wanted.st_dev, wanted.st_ino):
            found.append(identity)
    return found


def kill(identity: Identity) -> None:
    """End exactly this process at once; nothing happens when it is gone or the pid is another's by now.

    On return it has let go of its ports and files: a process counts as a zombie when its first thread has ended, which
    is too early to start its successor.
    """
    if identity.pid == os.getpid():
        return
    try:
        handle = os.pidfd_open(identity.pid)
    except OSError:
        return
    try:
        if identify(identity.pid) == identity:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            ended = select.poll()
            ended.register(handle, select.POLLIN)
            ended.poll(_END_SECONDS * 1000)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def kill_all(find: Callable[[], Iterable[Identity]], *, seconds: float) -> list[Identity]:
    """Kill whatever `find` finds until it finds nothing; the survivors after `seconds`, normally none."""
    deadline = time.monotonic() + seconds
    while True:
        left = [identity for identity in find() if identity.pid != os.getpid()]
        if not left or time.monotonic() > deadline:
            return left
        for identity in left:
            kill(identity)
        time.sleep(_POLL_SECONDS)
