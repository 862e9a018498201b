"""The figures of a comparison as Markdown, for the terminal and for docs/safety.md."""

from __future__ import annotations

from typing import Any


def table(figures: dict[str, Any]) -> str:
    """One row per trouble and tool."""
    named = figures["versions"]
    watched = f"{figures['watched_seconds']:g} s"
    head = (
        f"Measured on {figures['date']}: drill {named['drill']}, Chaos Toolkit {named['chaostoolkit']} "
        f"(lib {named['chaostoolkit-lib']}, kubernetes {named['chaostoolkit-kubernetes']}), Kubernetes "
        f"{named['kubernetes']}; {figures['replicas_before']} replicas scaled to {figures['replicas_under_the_fault']}."
    )
    titles = (
        "Trouble", "Tool", "Exit", f"Back to {figures['replicas_before']} after", f"Replicas after {watched}",
        "Its journal", "Its next command", "Replicas then",
    )  # fmt: skip
    lines = [head, "", f"| {' | '.join(titles)} |", f"| {' | '.join('---' for _ in titles)} |"]
    for row in figures["rows"]:
        cells = [
            row["trouble"],
            row["title"],
            _exit(row["exit_code"]),
            _back(row, figures["replicas_before"]),
            str(row["replicas"]),
            row["journal"],
            f"{row['next_command']}: exit {_exit(row['next_exit_code'])}" if row["next_command"] else "not needed",
            str(row["next_replicas"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def figures_only(figures: dict[str, Any]) -> dict[str, Any]:
    """What is kept in the repository: no text that tools printed, which names machines, namespaces and runs."""

    def plain(row: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in row.items() if not name.endswith("_said") and name != "extra"}
        numbers = {name: value for name, value in row["extra"].items() if not isinstance(value, str)}
        return {**kept, "extra": numbers}

    return {**figures, "rows": [plain(row) for row in figures["rows"]]}


def _back(row: dict[str, Any], before: int) -> str:
    if row["extra"].get("replicas_under_the_first") == before:
        return "at once, under the first run"
    return "never" if row["back_after"] is None else f"{row['back_after']:.1f} s"


def _exit(code: int | None) -> str:
    if code is None:
        return "does not end"
    return f"killed by {-code}" if code < 0 else str(code)
