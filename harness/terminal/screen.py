"""One command's display, from its first step to its last line."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from harness.core.clock import utc
from harness.core.errors import ExitCode
from harness.core.event import Record, RunStarted, encode
from harness.core.view import View
from harness.report.wording import inert, span
from harness.terminal.displays import live_for, progress_for
from harness.terminal.sentences import Teller
from harness.terminal.stream import Lines, Mode, mode_of, quietly

MEANINGS = {
    ExitCode.MET: "met",
    ExitCode.MISSED: "missed",
    ExitCode.UNDECIDED: "undecided",
    ExitCode.REFUSED: "refused",
    ExitCode.ROLLBACK_INCOMPLETE: "rollback incomplete",
    ExitCode.BAD_INPUT: "bad input",
    ExitCode.INTERNAL: "internal error",
}
_REPORTS = ("report.html", "report.md", "report.json", "junit.xml", "journal.ndjson", "journal.jsonl")

_FROM_AFAR = frozenset({"run", "inject", "effect", "alert", "page", "stop", "warning", "undo", "clean", "ended"})
"""What is told of each of several drills: the rest is in its journal."""


class Screen:
    """Progress and live display on one stream. Leaving it stops everything that moves."""

    def __init__(
        self,
        stream: TextIO,
        output: str,
        env: Mapping[str, str] = os.environ,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.mode = mode_of(stream, output, env)
        self.progress = progress_for(stream, self.mode)
        self._live = live_for(stream, self.mode)
        self._lines = Lines(stream)
        self._monotonic = monotonic
        self._began = monotonic()
        self._run_id = ""
        self._tellers: dict[str, Teller] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything that moves."""
        self.progress.close()
        self._live.close()

    def on_event(self, record: Record) -> None:
        """Show a fact that was just journalled. Never raises."""
        if isinstance(record.event, RunStarted):
            self._run_id = record.event.run_id
        self._live.event(record)

    def on_view(self, view: View) -> None:
        """Show where things stand. Never raises."""
        self._live.view(view)

    def answer(self, text: str, data: Mapping[str, Any]) -> None:
        """A command's result: as text for people, as one object for programs. What others wrote cannot act in it."""
        self.close()
        if self.mode is Mode.JSON:
            self._lines.json(data)
        elif text:
            self._lines.write(inert(text.rstrip("\n")))

    def line(self, text: str) -> None:
        """One line of a command that goes on: with its UTC stamp for people, as one object for programs."""
        stamp = utc(time.time())
        if self.mode is Mode.JSON:
            self._lines.json({"utc": stamp, "said": text})
        else:
            self._lines.write(f"{stamp}  {text}")

    def of(self, whose: str, record: Record) -> None:
        """Show a fact of one of several drills that go on elsewhere. Never raises."""
        quietly(lambda: self._of(whose, record))

    def _of(self, whose: str, record: Record) -> None:
        if self.mode is Mode.JSON:
            self._lines.json({"target": whose, **json.loads(encode(record))})
            return
        for _, topic, text in self._tellers.setdefault(whose, Teller()).tell(record):
            if topic in _FROM_AFAR:
                self.progress.say(f"{whose}: {topic}: {text}")

    def broken_off(self, runs: Path) -> None:
        """Where to read on about a run that an error ended; nothing where none had begun. The error speaks itself."""
        folder = runs / self._run_id
        if self._run_id and folder.is_dir():
            text = "\n".join(["", *_reports(folder), ""])
            self.answer(text, {"run": {"run_id": self._run_id, "folder": str(folder)}})

    def outcome(
        self,
        *,
        run_id: str,
        folder: Path,
        summary: str,
        exit_code: ExitCode,
        phases: Mapping[str, float] | None = None,
    ) -> None:
        """How a run ended, where its report is, and where the time went."""
        spent = self._monotonic() - self._began
        times = dict(phases or {}) or dict(self.progress.phases)
        data = {
            "run_id": run_id,
            "folder": str(folder),
            "summary": summary,
            "exit_code": int(exit_code),
            "exit_meaning": MEANINGS[exit_code],
            "phases": {name: round(seconds, 3) for name, seconds in times.items()},
            "seconds": round(spent, 3),
        }
        self.answer(outcome_text(folder, summary, exit_code, times, spent), {"outcome": data})


def outcome_text(folder: Path, summary: str, exit_code: ExitCode, phases: Mapping[str, float], seconds: float) -> str:
    """The last words of a run. Pure but for a look at which report files exist."""
    last = f"exit code {int(exit_code)} ({MEANINGS[exit_code]})"
    lines = ["", summary.rstrip("\n")]
    lines += [line for line in [last] if f"exit code {int(exit_code)}" not in summary]
    lines += ["", *_reports(folder)]
    lines += ["", *wall_times(phases, seconds)] if phases else []
    return "\n".join(lines)


def wall_times(phases: Mapping[str, float], seconds: float) -> list[str]:
    """A table of wall seconds by phase, of which there are some, and in all."""
    width = max(len("total"), *map(len, phases))
    lines = [f"  {name:<{width}}  {span(spent):>14}" for name, spent in phases.items()]
    return ["wall time by phase", *lines, f"  {'total':<{width}}  {span(seconds):>14}"]


def _reports(folder: Path) -> list[str]:
    shown = _short(folder)
    first, *others = [name for name in _REPORTS if (folder / name).is_file()] or [""]
    if not first:
        return [f"run      {shown}"]
    also = f"\nbeside   {', '.join(others)}" if others else ""
    return [f"report   {shown / first}{also}"]


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
