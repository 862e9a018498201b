"""What a drill that ran elsewhere with `--output json` says of itself, line by line.

Whoever can write into that pod's log says it. So nothing here is a verdict, what was said first or worst is not taken
back by a later line, and what would become a path or a name has the form of one of ours.
"""

from __future__ import annotations

import json
import re
from typing import Any

from harness.core.errors import (
    BadInput,
    DrillError,
    ExitCode,
    Internal,
    Refused,
    RollbackIncomplete,
    Unreachable,
    worst,
)
from harness.core.event import RUN_ID, Record, RunStarted, decode

MAX_TEXT = 4000
"""Characters that are kept of a sentence."""
_MAX_STRANGE = 300
_FAMILY: dict[int, type[DrillError]] = {
    int(one.exit_code): one for one in (BadInput, Refused, RollbackIncomplete, Internal)
}
_SLUG = re.compile(r"[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?")


class Transcript:
    """Reads the lines. What is no line of ours (a crash of the interpreter, a newer version's event) counts for
    nothing; the last such one is kept, since it may be all that there is to go by."""

    def __init__(self) -> None:
        self.run_id = ""
        """The run that began; "" before."""
        self.error: DrillError | None = None
        """What ended it without anything to judge, or where its undo failed; the worst, where there were several."""
        self.exit_code: ExitCode | None = None
        """How it ended by its own word, the worst of several; None where it never came to that."""
        self.strange = ""

    def read(self, line: str) -> Record | str | None:
        """What a line says: a fact, a sentence for people, or nothing worth a word."""
        try:
            return self._read(line)
        except (ValueError, RecursionError):
            self.strange = line.strip()[:_MAX_STRANGE] or self.strange
            return None

    def _read(self, line: str) -> Record | str | None:
        body = json.loads(line)
        if not isinstance(body, dict):
            raise ValueError("not an object")
        if "event" in body:
            return self._fact(line)
        if isinstance(body.get("outcome"), dict):
            self._ended(_code(body["outcome"].get("exit_code")))
        elif "error" in body:
            self._failed(_error(body))
        elif isinstance(body.get("progress"), dict):
            if body["progress"].get("state") == "said":
                return str(body["progress"].get("text", ""))[:MAX_TEXT]
        else:
            raise ValueError("none of ours")
        return None

    def _fact(self, line: str) -> Record:
        record = decode(line)
        if isinstance(record.event, RunStarted):
            if not RUN_ID.fullmatch(record.event.run_id):
                raise ValueError("no run is called so")
            self.run_id = self.run_id or record.event.run_id
        return record

    def _ended(self, code: ExitCode) -> None:
        self.exit_code = code if self.exit_code is None else worst((code, self.exit_code))

    def _failed(self, error: DrillError) -> None:
        if self.error is None or worst((error.exit_code, self.error.exit_code)) is error.exit_code:
            self.error = error
        self._ended(error.exit_code)


def _code(value: Any) -> ExitCode:
    if type(value) is not int:
        raise ValueError("not a number")
    return ExitCode(value)


def _error(body: dict[str, Any]) -> DrillError:
    """The error of a line. A code that no error has is our own mistake."""
    slug, family = body["error"], _FAMILY.get(_code(body.get("exit_code")), Internal)
    if not isinstance(slug, str) or not _SLUG.fullmatch(slug):
        raise ValueError("no error is called so")
    if family is Refused and body.get("unreachable") is True:
        family = Unreachable
    fact, expected, remedy, where = (
        str(body.get(key) or "")[:MAX_TEXT] for key in ("fact", "expected", "remedy", "where")
    )
    return family(slug, fact or slug, expected=expected, remedy=remedy, where=where)
