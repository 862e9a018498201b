"""The parts of pages that are made from code, between two marks each: `python -m tests.docs.generate` renews them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import click

from harness.cli.app import drill
from harness.core.clock import Bounds
from harness.core.event import Event, Fact
from tests.docs.pages import ROOT, Page, pages

WIDTH = 100
_BLOCK = re.compile(r"(<!-- generated: ([a-z]+) -->\n).*?(<!-- end of generated -->)", re.DOTALL)


def commands() -> Iterator[tuple[str, str]]:
    """Every command with its help, as a terminal of a fixed width shows it, groups before their members."""
    yield from _commands(drill, click.Context(drill, info_name="drill", terminal_width=WIDTH))


def _commands(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            member = command.commands[name]
            yield from _commands(member, click.Context(member, info_name=name, parent=context, terminal_width=WIDTH))


def events() -> tuple[type[Fact], ...]:
    """Every event class, in the order of the union."""
    union, *_ = get_args(Event)
    return get_args(union)


def type_of(event: type[Fact]) -> str:
    """The name under which an event stands in a journal."""
    return str(event.model_fields["type"].default)


def _cli() -> str:
    return "\n".join(f"## {path}\n\n```text\n{text.rstrip()}\n```\n" for path, text in commands())


def _events() -> str:
    rows = ["| Event | What it says | Fields |", "| --- | --- | --- |"]
    for event in events():
        meaning = " ".join((event.__doc__ or "").split()).replace("|", "\\|")
        fields = ", ".join(_field(name, info.annotation) for name, info in event.model_fields.items() if name != "type")
        rows.append(f"| `{type_of(event)}` | {meaning} | {fields} |")
    return "\n".join(rows) + "\n"


def _field(name: str, annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return f"`{name}` ({', '.join(filter(None, get_args(annotation)))})"
    return f"`{name}` (bounds)" if annotation is Bounds else f"`{name}`"


def _tills() -> str:
    text = (ROOT / "docs" / "examples" / "few-tills.yaml").read_text(encoding="utf-8")
    return f"```yaml\n{text.rstrip()}\n```\n"


GENERATORS: dict[str, Callable[[], str]] = {"commands": _cli, "events": _events, "tills": _tills}


def renewed(text: str) -> str:
    """A page's text with its generated parts as they must be now."""
    return _BLOCK.sub(lambda match: f"{match[1]}\n{GENERATORS[match[2]]()}\n{match[3]}", text)


def generated(page: Page) -> list[str]:
    """The names of a page's generated parts."""
    return [match[2] for match in _BLOCK.finditer(page.text)]


if __name__ == "__main__":
    for one in pages():
        if generated(one):
            one.path.write_text(renewed(one.text), encoding="utf-8")
