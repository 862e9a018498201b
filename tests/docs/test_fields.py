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
def test_closed_choices_are_named(kind: str) -> None:
    for name, field in kinds()[kind]["properties"].items():
        choices = field.get("enum") or ([field["const"]] if "const" in field else [])
        named = choices if len(choices) <= 3 else (choices[0], choices[-1])  # a row says "P1 to P4"
        row = next(line for line in PAGE.section(kind).splitlines() if re.match(rf"\| (\*\*)?`{name}`", line))
        assert [word for word in named if f"`{word}`" not in row] == []


def test_every_fixed_milestone_is_named() -> None:
    from harness.core.experiment import _FIXED_MILESTONES

    missing = {name for name in _FIXED_MILESTONES if f"`{name}`" not in PAGE.section("Sla")}
    assert not missing
