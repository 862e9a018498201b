"""Every format of a report, and the one function that writes them.

The door to this room: `build` a report from a journal, `render` or `write` it, `summary` for the terminal.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from harness.report.html import render_html
from harness.report.jsonform import render_json
from harness.report.junit import render_junit
from harness.report.markdown import render_markdown
from harness.report.model import build
from harness.report.summary import summary
from harness.report.values import Report

__all__ = ["build", "keep", "render", "summary", "write"]


def render(report: Report) -> dict[str, bytes]:
    """File name -> content. The same report gives the same bytes."""
    return {
        "report.md": render_markdown(report).encode(),
        "report.html": render_html(report).encode(),
        "report.json": render_json(report).encode(),
        "junit.xml": render_junit(report),
    }


def write(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write every format into `folder`, as `keep` does. The paths written."""
    return keep(render(report), folder)


def keep(files: Mapping[str, bytes], folder: Path) -> tuple[Path, ...]:
    """Write files into `folder` (made if need be); each is whole or not there. The paths written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in files.items():
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(folder / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        written.append(folder / name)
    return tuple(written)
