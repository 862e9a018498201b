"""The family of errors, branched by who must act.

    DrillError
    ├── BadInput             the author of a file or a flag          exit 64
    ├── Refused              a guard said no; nothing was changed    exit 3
    ├── Unreachable          a peer did not answer; may be retried   exit 3
    ├── RollbackIncomplete   the cluster is not what it was          exit 4
    └── Internal             us                                      exit 70

Every message has three parts, so that nobody has to guess at the next step: the fact that was seen, what was
expected instead, and the remedy. Adapters translate foreign exceptions into this family and chain the original;
nothing above the adapters names a foreign exception.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells its caller; stable, documented in the README."""

    MET = 0
    MISSED = 1
    UNDECIDED = 2
    REFUSED = 3
    ROLLBACK_INCOMPLETE = 4
    BAD_INPUT = 64
    INTERNAL = 70


_WORST_FIRST = (
    ExitCode.ROLLBACK_INCOMPLETE, ExitCode.INTERNAL, ExitCode.BAD_INPUT, ExitCode.REFUSED, ExitCode.MISSED,
    ExitCode.UNDECIDED, ExitCode.MET,
)  # fmt: skip


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """The code that outweighs the others, of which there is at least one."""
    return min(codes, key=_WORST_FIRST.index)


class DrillError(Exception):
    """Root of the family. `slug` is stable and machine-readable; the three sentences are for people."""

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(self, slug: str, fact: str, *, expected: str, remedy: str, where: str = "") -> None:
        super().__init__(fact)
        self.slug = slug
        self.fact = fact
        self.expected = expected
        self.remedy = remedy
        self.where = where

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.fact}\n  expected: {self.expected}\n  remedy:   {self.remedy}"

    def as_dict(self) -> dict[str, str | bool]:
        """The error as plain data, for JSON output. `unreachable` tells what a peer did not answer from what a guard
        refused: they have one exit code."""
        return {
            "error": self.slug,
            "where": self.where,
            "fact": self.fact,
            "expected": self.expected,
            "remedy": self.remedy,
            **({"unreachable": True} if isinstance(self, Unreachable) else {}),
        }


class BadInput(DrillError):
    """A file, a flag or the machine is not usable as it is. `where` is file:line:column when a file is at fault."""

    exit_code = ExitCode.BAD_INPUT


class Refused(DrillError):
    """A guard refused before the first write."""

    exit_code = ExitCode.REFUSED


class Unreachable(DrillError):
    """A peer (API server, Prometheus, Alertmanager) did not answer in time or not sensibly."""

    exit_code = ExitCode.REFUSED


class RollbackIncomplete(DrillError):
    """Something that the run changed is not back; `drill recover` is the remedy."""

    exit_code = ExitCode.ROLLBACK_INCOMPLETE


class Internal(DrillError):
    """A broken invariant of our own."""

    exit_code = ExitCode.INTERNAL


_FULL = re.compile(r"no space left on device|disk quota exceeded|have enough free space", re.IGNORECASE)


def is_full(what: OSError | str) -> bool:
    """Whether an error, or what a program said as its reason, means that a disk or a quota is full."""
    return bool(_FULL.search(what)) if isinstance(what, str) else what.errno in {errno.ENOSPC, errno.EDQUOT}


def disk_full(
    fact: str,
    *,
    where: str = "",
    remedy: str = "make room (all of ~/.cache/drill may go), or point XDG_CACHE_HOME, TMPDIR or --runs to a larger "
    "disk; `drill status` says whether anything is left to undo",
) -> BadInput:
    """The error for a disk that is full, whoever found out."""
    return BadInput(
        "disk-full",
        f"the disk is full: {fact}",
        expected="room for what is built and kept, and for the journals of runs",
        remedy=remedy,
        where=where,
    )
