"""Every field of an experiment file is explained, under the heading of its own kind, and no field that is not there."""

from __future__ import annotations

import re
from typing import Any

import pytest

from harness import catalog
from tests.docs.pages import page

PAGE = page("docs/writing-an-experiment.md")
_ROW = re.compile(r"^\| (\*\*)?`([a-z_]+)`(?:\*\*)? \| \S", re.MULTILINE)


def kinds() -> dict[str, dict[str, Any]]:
    schema = catalog.schema()
    return {"Experiment": schema, **schema["definitions"]}


@pytest.mark.parametrize("kind", kinds())
def test_every_field_has_its_row_and_says_whether_it_is_required(kind: str) -> None:
    body = kinds()[kind]
    explained = {match[2]: bool(match[1]) for match in _ROW.finditer(PAGE.section(kind))}
    assert explained == {name: name in body.get("required", []) for name in body["properties"]}


@pytest.mark.parametrize("kind", kinds())
def test_closed_choices_are_all_named(kind: str) -> None:
    section = PAGE.section(kind)
    for name, field in kinds()[kind]["properties"].items():
        ends = {"P1", "P4"} if name == "severity" else {*field.get("enum", ()), field.get("const", "")} - {""}
        row = next(line for line in section.splitlines() if re.match(rf"\| (\*\*)?`{name}`", line))
        default = field.get("default")
        missing = {word for word in ends if f"`{word}`" not in row and word != default} if name != "severity" else ()
        assert not missing, (kind, name, missing)


def test_every_fixed_milestone_is_named() -> None:
    from harness.core.experiment import _FIXED_MILESTONES

    missing = {name for name in _FIXED_MILESTONES if f"`{name}`" not in PAGE.section("Sla")}
    assert not missing
