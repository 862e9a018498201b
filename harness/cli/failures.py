"""From any exception to an exit code and a message that says what to do. The only place that does so.

People read the fact, the expectation and the remedy on stderr; programs that asked for JSON read one object there.
What is our own mistake ends as one line and the path of a file with the traceback.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from harness.core.errors import BadInput, DrillError, ExitCode, Internal, disk_full, is_full

INTERRUPTED = 130


@dataclass
class Invocation:
    """What failures need to know of the command line, as far as it was read."""

    output: str = "text"
    runs: Path = Path("runs")


def guarded(act: Callable[[], object], known: Invocation) -> int:
    """The exit code of `act`: what it returns, or what its exception means."""
    try:
        code = act()
    except DrillError as error:
        return tell(error, known)
    except click.UsageError as error:
        return tell(_usage(error), known)
    except click.ClickException as error:
        return tell(_other_usage(error), known)
    except (KeyboardInterrupt, click.Abort):
        return _interrupted(known)
    except OSError as error:
        return tell(_disk_full(error) if is_full(error) else _internal(error, known), known)
    except Exception as error:  # noqa: BLE001 - the last resort: it becomes a message and a file
        return tell(_internal(error, known), known)
    return int(code) if isinstance(code, int) else int(ExitCode.MET)


def tell(error: DrillError, known: Invocation) -> int:
    """Say what went wrong; the exit code."""
    code = int(error.exit_code)
    _say({**error.as_dict(), "exit_code": code} if known.output == "json" else f"drill: {error}")
    return code


def wants_json(arguments: list[str]) -> bool:
    """Whether JSON was asked for, also where the command line cannot be parsed."""
    asked = [after for before, after in zip(["", *arguments], arguments, strict=False) if before == "--output"]
    asked += [one.partition("=")[2] for one in arguments if one.startswith("--output=")]
    return bool(asked) and asked[-1] == "json"


def _usage(error: click.UsageError) -> BadInput:
    path = error.ctx.command_path if error.ctx is not None else "drill"
    usage = error.ctx.command.collect_usage_pieces(error.ctx) if error.ctx is not None else []
    first, *more = (error.format_message() if not _is_help(error) else "a command is missing").splitlines() or [""]
    return BadInput(
        "usage",
        "\n".join([first[:1].lower() + first[1:].rstrip("."), *more]),
        expected=" ".join([path, *usage]),
        remedy=f"`{path} --help` shows all of it",
    )


def _is_help(error: click.UsageError) -> bool:
    return isinstance(error, click.exceptions.NoArgsIsHelpError)


def _other_usage(error: click.ClickException) -> BadInput:
    return BadInput("usage", error.format_message(), expected="usable options", remedy="`drill --help` shows them")


def _interrupted(known: Invocation) -> int:
    if known.output == "json":
        _say({"error": "interrupted", "exit_code": INTERRUPTED})
    else:
        _say("drill: interrupted")
    return INTERRUPTED


def _internal(error: Exception, known: Invocation) -> Internal:
    text = "".join(traceback.format_exception(error))
    place = _kept(text, known.runs)
    remedy = f"report it with {place}" if place else "report it with the traceback above"
    return Internal(
        "internal",
        f"an error of the harness itself: {type(error).__name__}: {error}",
        expected="no such thing",
        remedy=f"{remedy}; `drill status` says whether anything is left to undo",
    )


def _disk_full(error: OSError) -> BadInput:
    return disk_full(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))


def _kept(text: str, runs: Path) -> Path | None:
    """The file that now holds `text`; None where no file could be written, and then it is on stderr."""
    name = f"crash-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.getpid()}.txt"
    for folder in (runs, Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / name
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return path
    _say(text)
    return None


def _say(words: str | dict[str, Any]) -> None:
    from harness.core.inert import escaped
    from harness.report.wording import inert

    text = inert(words) if isinstance(words, str) else escaped(json.dumps(words, ensure_ascii=False))
    try:
        click.echo(text, err=True)
    except (OSError, ValueError):
        sys.stderr = None  # nobody listens any more; the exit code still speaks
