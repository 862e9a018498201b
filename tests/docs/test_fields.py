"""Every field of an experiment file and of `drill.yaml` is explained, under the heading of its own kind, and no field
that is not there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness import catalog
from tests.docs.pages import ROOT, Page, page

EXPERIMENT = page("docs/writing-an-experiment.md")
CONFIGURATION = page("docs/your-own-cluster.md")
GAMEDAY = page("docs/gameday.md")
FLEET = page("docs/fleet.md")
SCHEMAS = (
    (EXPERIMENT, catalog.schema()),
    (CONFIGURATION, catalog.configuration_schema()),
    (GAMEDAY, catalog.gameday_schema()),
    (FLEET, catalog.fleet_schema()),
)
_ROW = re.compile(r"^\| (\*\*)?`([a-z_]+)`(?:\*\*)? \| \S", re.MULTILINE)


def kinds() -> dict[str, tuple[Page, dict[str, Any]]]:
    found: dict[str, tuple[Page, dict[str, Any]]] = {}
    for where, schema in SCHEMAS:
        found |= {name: (where, body) for name, body in {schema["title"]: schema, **schema["definitions"]}.items()}
    return found


def test_no_two_kinds_share_a_name() -> None:
    named = [name for _, schema in SCHEMAS for name in (schema["title"], *schema["definitions"])]
    assert sorted(named) == sorted(set(named))


@pytest.mark.parametrize("kind", kinds())
def test_every_field_has_its_row_and_says_whether_it_is_required(kind: str) -> None:
    where, body = kinds()[kind]
    explained = {match[2]: bool(match[1]) for match in _ROW.finditer(where.section(kind))}
    assert explained == {name: name in body.get("required", []) for name in body["properties"]}


@pytest.mark.parametrize("kind", kinds())
def test_closed_choices_are_named(kind: str) -> None:
    where, body = kinds()[kind]
    for name, field in body["properties"].items():
        options = [field, *field.get("anyOf", ())]
        choices: list[Any] = next((one["enum"] for one in options if "enum" in one), [])
        choices = choices or ([field["const"]] if "const" in field else [])
        named = choices if len(choices) <= 3 else (choices[0], choices[-1])  # a row says "P1 to P4"
        row = next(line for line in where.section(kind).splitlines() if re.match(rf"\| (\*\*)?`{name}`", line))
        assert [word for word in named if f"`{word}`" not in row] == []


def test_every_fixed_milestone_is_named() -> None:
    from harness.core.experiment import _FIXED_MILESTONES

    missing = {name for name in _FIXED_MILESTONES if f"`{name}`" not in EXPERIMENT.section("Sla")}
    assert not missing


def test_the_example_of_a_configuration_is_one(tmp_path: Path) -> None:
    from harness.loading import load_configuration

    (text,) = [block for block in CONFIGURATION.blocks if block.startswith("# yaml-language-server")]
    (tmp_path / "drill.yaml").write_text(text)
    found = load_configuration(tmp_path / "drill.yaml").configuration
    assert found.context == "my-staging"


def test_the_slugs_of_peers_are_explained_with_their_codes() -> None:
    raised: dict[str, int] = {"configuration-invalid": 64}
    text = (ROOT / "harness" / "ports" / "trust.py").read_text()
    codes = {"BadInput": 64, "Unreachable": 3}
    for kind, slugs in re.findall(r"\b(BadInput|Unreachable)\(\s*((?:\"[a-z-]+\"(?: if status == 401 else )?)+)", text):
        raised |= dict.fromkeys(re.findall(r'"([a-z-]+)"', slugs), codes[kind])
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| \S", CONFIGURATION.section("Secrets"), re.MULTILINE)
    assert {slug: int(code) for slug, code in rows} == raised
