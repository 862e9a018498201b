"""The exported schema is the one that editors have, and it agrees with the loader."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from harness import catalog
from harness.core.errors import BadInput
from harness.loading import find, load, parse

ROOT = Path(__file__).parents[2]


def test_the_committed_schema_is_fresh() -> None:
    committed = (ROOT / catalog.SCHEMA_PATH).read_text()
    assert committed == catalog.schema_text(), f"regenerate it: drill schema > {catalog.SCHEMA_PATH}"


def accepts(data: Any) -> bool:
    jsonschema = pytest.importorskip("jsonschema")
    checker = jsonschema.Draft7Validator(catalog.schema())
    return bool(checker.is_valid(data))


def test_it_is_a_draft_7_schema_that_takes_the_shipped_experiments() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft7Validator.check_schema(catalog.schema())
    yaml = pytest.importorskip("yaml")
    for path in (ROOT / "experiments").glob("*.yaml"):
        assert accepts(yaml.safe_load(path.read_text())), path


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("slas", 0, "within"), 300), (("slas", 0, "within"), "5 min"), (("slas", 0, "withn"), "5m"),
        (("faults", 0, "limit"), "64MB"), (("faults", 0, "kind"), "nothing"), (("severity",), "P9"),
        (("profiles", "smok"), {"timeout": "1m"}), (("why", "tests"), []), (("namespace",), "Nova"),
    ],
)  # fmt: skip
def test_it_refuses_what_the_loader_refuses(path: tuple[Any, ...], value: Any) -> None:
    data = copy.deepcopy(load(find("oom-workers", ROOT)).experiment.as_data())
    assert accepts(data)
    node = data
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    assert not accepts(data)
    with pytest.raises(BadInput):
        parse(data)


def test_durations_say_how_they_are_written() -> None:
    within = catalog.schema()["definitions"]["Sla"]["properties"]["within"]
    assert within["type"] == "string"
    assert within["pattern"].startswith("^")
    assert "90s" in within["description"]
    assert "$defs" not in json.dumps(catalog.schema())
