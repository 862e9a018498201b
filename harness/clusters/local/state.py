"""What `up` has decided and how far it came, kept in the state folder; and the lock around every change."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.clusters.local.layout import Layout
from harness.clusters.local.network import Cable


@dataclass(frozen=True, slots=True)
class State:
    """`complete` once the cluster has answered; before that it is remains, never a cluster."""

    subnet: str
    boot: str
    binaries: str
    complete: bool

    @property
    def cable(self) -> Cable:
        """The cluster's /30."""
        return Cable(ipaddress.IPv4Network(self.subnet))


def load(layout: Layout) -> State | None:
    """The state, or None where there is none or it cannot be read, which is the same: start afresh."""
    try:
        return State(**json.loads(layout.state_file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def save(layout: Layout, state: State) -> None:
    """Replace the state as a whole."""
    partial = layout.state_file.with_suffix(".new")
    partial.write_text(json.dumps(asdict(state)) + "\n")
    partial.replace(layout.state_file)


@contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """One change at a time for this cluster; the kernel lets go when the holder dies, however it dies."""
    layout.base.mkdir(parents=True, exist_ok=True)
    while True:
        with layout.lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_still(layout.lock, lock.fileno()):
                continue  # its last holder has taken the file away
            try:
                yield
            finally:
                if not layout.root.exists():
                    layout.lock.unlink(missing_ok=True)
            return


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def subnets_locked(layout: Layout) -> Iterator[None]:
    """Held from the choice of a subnet until it is on the wire, so that two clusters never choose the same."""
    with (layout.base / ".subnets.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
