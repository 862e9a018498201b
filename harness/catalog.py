"""The faults that exist. A new fault adds one line to `ENTRIES`; nothing else here knows any of them.

Experiment files are validated against the union of the entries' specs, told apart by `kind`; the JSON Schema that
editors complete from is made from the same union.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any

from pydantic import Discriminator, Tag, TypeAdapter

from harness.core.errors import BadInput
from harness.core.experiment import AnyExperiment, Experiment, FaultSpec, closest
from harness.core.quantity import format_duration
from harness.faults.job import Job, JobSpec
from harness.faults.manifest import Manifest, ManifestSpec
from harness.faults.memory_limit import MemoryLimit, MemoryLimitSpec
from harness.faults.pod_kill import PodKill, PodKillSpec
from harness.faults.scale import Scale, ScaleSpec
from harness.ports.fault import Fault

SCHEMA_PATH = "docs/schema/experiment.schema.json"
"""Where the exported schema is committed, relative to the root of the repository."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A fault and the spec that files give it."""

    fault: Fault[Any]
    spec: type[FaultSpec]


ENTRIES: tuple[Entry, ...] = (
    Entry(MemoryLimit(), MemoryLimitSpec),
    Entry(Scale(), ScaleSpec),
    Entry(Job(), JobSpec),
    Entry(PodKill(), PodKillSpec),
    Entry(Manifest(), ManifestSpec),
)  # fmt: skip

KINDS: tuple[str, ...] = tuple(entry.fault.kind for entry in ENTRIES)


def faults() -> dict[str, Fault[Any]]:
    """Every fault by its kind."""
    return {entry.fault.kind: entry.fault for entry in ENTRIES}


def fault_of(kind: str) -> Fault[Any]:
    """The fault called `kind`. Raises BadInput with the kinds that exist."""
    for entry in ENTRIES:
        if entry.fault.kind == kind:
            return entry.fault
    raise BadInput(
        "unknown-fault",
        f"there is no fault of kind {kind!r}{closest(kind, KINDS)}",
        expected=f"one of: {', '.join(sorted(KINDS))}",
        remedy="name one of these kinds; a journal of a newer harness is read by that harness",
    )


def kind_of(spec: object) -> object:
    """The tag by which specs are told apart: what `kind` says, in a file's data or in a parsed spec."""
    return spec.get("kind") if isinstance(spec, dict) else getattr(spec, "kind", None)


@cache
def experiments() -> TypeAdapter[AnyExperiment]:
    """The type of every experiment: generic in the core, closed here over the faults that exist."""
    specs: Any = reduce(or_, (Annotated[entry.spec, Tag(entry.fault.kind)] for entry in ENTRIES))
    closed: Any = Experiment[Annotated[specs, Discriminator(kind_of)]]
    return TypeAdapter(closed)


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (draft 7, which yaml-language-server takes) of an experiment file."""
    body: dict[str, Any] = _draft7(experiments().json_schema(by_alias=True))
    definitions = body.pop("$defs")
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Experiment",
        **body,
        "definitions": definitions,
    }


def schema_text() -> str:
    """The schema as it is committed at `SCHEMA_PATH`."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _draft7(node: Any) -> Any:
    """2020-12, which pydantic writes, in the words of draft 7; titles that only repeat a name are dropped."""
    if isinstance(node, list):
        return [_draft7(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _draft7(value) for key, value in node.items() if not (key == "title" and isinstance(value, str))}
    if "$ref" in kept:  # draft 7 ignores whatever stands beside a reference
        return {"$ref": kept["$ref"].replace("#/$defs/", "#/definitions/")}
    if kept.get("type") == "string" and isinstance(kept.get("default"), float):
        kept["default"] = format_duration(kept["default"])
    return kept
