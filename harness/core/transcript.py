"""What a drill that ran elsewhere with `--output json` says of itself, line by line."""

from __future__ import annotations

import json
from typing import Any

from harness.core.errors import BadInput, DrillError, ExitCode, Internal, Refused, RollbackIncomplete, Unreachable
from harness.core.event import Record, RunStarted, decode

_FAMILY: dict[int, type[DrillError]] = {
    int(one.exit_code): one for one in (BadInput, Refused, RollbackIncomplete, Internal)
}


class Transcript:
    """Reads the lines. What is no line of ours (a crash of the interpreter, a newer version's event) counts for
    nothing; the last such one is kept, since it may be all that there is to go by."""

    def __init__(self) -> None:
        self.run_id = ""
        """The run that began; "" before."""
        self.error: DrillError | None = None
        """What ended it without anything to judge, or where its undo failed."""
        self.exit_code: ExitCode | None = None
        """How it ended by its own word; None where it never came to that."""
        self.strange = ""

    def read(self, line: str) -> Record | str | None:
        """What a line says: a fact, a sentence for people, or nothing worth a word."""
        try:
            body = json.loads(line)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            self.strange = line.strip()[:300] or self.strange
            return None
        if "event" in body:
            return self._fact(line)
        if isinstance(body.get("outcome"), dict):
            self.exit_code = _code(body["outcome"].get("exit_code"))
        elif "error" in body:
            self.error, self.exit_code = _error(body), _code(body.get("exit_code"))
        elif isinstance(body.get("progress"), dict) and body["progress"].get("state") == "said":
            return str(body["progress"].get("text", ""))
        return None

    def _fact(self, line: str) -> Record | None:
        try:
            record = decode(line)
        except ValueError:
            return None
        if isinstance(record.event, RunStarted):
            self.run_id = record.event.run_id
        return record


def _code(value: Any) -> ExitCode | None:
    try:
        return ExitCode(value)
    except ValueError:
        return None


def _error(body: dict[str, Any]) -> DrillError:
    number = body.get("exit_code")
    family = _FAMILY.get(number if isinstance(number, int) else -1, Internal)
    if family is Refused and body.get("unreachable") is True:
        family = Unreachable
    slug, fact, expected, remedy, where = (
        str(body.get(key) or "") for key in ("error", "fact", "expected", "remedy", "where")
    )
    return family(slug, fact or slug, expected=expected, remedy=remedy, where=where)
