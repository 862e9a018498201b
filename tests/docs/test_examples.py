"""Every example of a fault and of an experiment on the pages is one: it is loaded like a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import catalog
from harness.loading import find, load
from tests.docs.pages import ROOT, pages

_YAML = re.compile(r"^```ya?ml\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [(f"{one.name} {n}", match[1]) for one in pages() for n, match in enumerate(_YAML.finditer(one.text))]
FAULTS = {name: text for name, text in BLOCKS if re.match(r"- id: ", text)}
EXPERIMENTS = {name: text for name, text in BLOCKS if re.match(r"name: ", text)}


def faults() -> list[dict[str, Any]]:
    return [fault for text in FAULTS.values() for fault in yaml.safe_load(text)]


def test_no_example_is_overlooked() -> None:
    assert {name for name, text in BLOCKS if "blast_radius" in text} == {*FAULTS, *EXPERIMENTS}


def test_every_kind_of_fault_has_one_example() -> None:
    assert sorted(fault["kind"] for fault in faults()) == sorted(catalog.KINDS)


def test_the_examples_of_faults_make_one_experiment(tmp_path: Path) -> None:
    data = yaml.safe_load(find("oom-workers", ROOT).read_text())
    data |= {"name": "examples", "faults": faults()}
    path = tmp_path / "examples.yaml"
    path.write_text(yaml.safe_dump(data))
    assert {fault.kind for fault in load(path).experiment.faults} == set(catalog.KINDS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_examples_of_experiments_are_loaded(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{yaml.safe_load(EXPERIMENTS[name])['name']}.yaml"
    path.write_text(EXPERIMENTS[name])
    assert load(path).experiment.name == path.stem


@pytest.mark.parametrize(("name", "text"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_what_is_called_yaml_is(name: str, text: str) -> None:
    assert list(yaml.parse(text)), name
