"""The faults that exist. A new fault adds one line to `ENTRIES`; nothing else here knows any of them. A package of
somebody else adds its own as entry points of the group `drill.faults`, each of which is an `Entry`.

Experiment files are validated against the union of the entries' specs, told apart by `kind`; the JSON Schema that
editors complete from is made from the same union.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, reduce
from importlib.metadata import entry_points
from operator import or_
from typing import Annotated, Any

from pydantic import Discriminator, Tag, TypeAdapter

from harness.core.configuration import Configuration
from harness.core.errors import BadInput
from harness.core.experiment import AnyExperiment, Experiment, FaultSpec, closest
from harness.core.fleet import Fleet
from harness.core.gameday import GameDay
from harness.core.quantity import format_duration
from harness.faults.config import Config, ConfigSpec
from harness.faults.cpu_limit import CpuLimit, CpuLimitSpec
from harness.faults.image import Image, ImageSpec
from harness.faults.job import Job, JobSpec
from harness.faults.manifest import Manifest, ManifestSpec
from harness.faults.memory_limit import MemoryLimit, MemoryLimitSpec
from harness.faults.patch import Patch, PatchSpec
from harness.faults.pod_kill import PodKill, PodKillSpec
from harness.faults.scale import Scale, ScaleSpec
from harness.faults.secret import Secret, SecretSpec
from harness.ports.fault import Fault

SCHEMA_PATH = "docs/schema/experiment.schema.json"
"""Where the exported schema is committed, relative to the root of the repository."""
CONFIGURATION_SCHEMA_PATH = "docs/schema/drill.schema.json"
"""The same for the schema of `drill.yaml`."""
GAMEDAY_SCHEMA_PATH = "docs/schema/gameday.schema.json"
"""The same for the schema of a game day's file."""
FLEET_SCHEMA_PATH = "docs/schema/fleet.schema.json"
"""The same for the schema of a fleet's file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A fault and the spec that files give it."""

    fault: Fault[Any]
    spec: type[FaultSpec]


ENTRIES: tuple[Entry, ...] = (
    Entry(Config(), ConfigSpec),
    Entry(CpuLimit(), CpuLimitSpec),
    Entry(Image(), ImageSpec),
    Entry(Job(), JobSpec),
    Entry(Manifest(), ManifestSpec),
    Entry(MemoryLimit(), MemoryLimitSpec),
    Entry(Patch(), PatchSpec),
    Entry(PodKill(), PodKillSpec),
    Entry(Scale(), ScaleSpec),
    Entry(Secret(), SecretSpec),
)  # fmt: skip

KINDS: tuple[str, ...] = tuple(entry.fault.kind for entry in ENTRIES)
"""The kinds that ship with the harness."""
GROUP = "drill.faults"
"""The group of entry points under which installed packages offer faults of their own."""


@cache
def entries() -> tuple[Entry, ...]:
    """The faults that ship, and those of installed packages, by the names of their entry points. Raises BadInput where
    one of those cannot be loaded, is no Entry, or has a kind that is taken."""
    found = list(ENTRIES)
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        whose = f"entry point {point.name} of {point.dist.name if point.dist else 'an unknown package'}"
        try:
            entry = point.load()
        except Exception as error:
            raise _unfit(whose, f"cannot be loaded: {type(error).__name__}: {error}") from error
        if not isinstance(entry, Entry):
            raise _unfit(whose, f"is a {type(entry).__name__}, not an Entry")
        if entry.fault.kind in {one.fault.kind for one in found}:
            raise _unfit(whose, f"offers the kind {entry.fault.kind!r}, which another fault has")
        found.append(entry)
    return tuple(found)


def kinds() -> tuple[str, ...]:
    """Every kind that experiments may name."""
    return tuple(entry.fault.kind for entry in entries())


def _unfit(whose: str, what: str) -> BadInput:
    return BadInput(
        "fault-package",
        f"{whose} (group {GROUP}) {what}",
        expected="a harness.catalog.Entry with a kind of its own",
        remedy="mend or remove that package; docs/adding-a-fault.md shows how one is made",
    )


def faults() -> dict[str, Fault[Any]]:
    """Every fault by its kind."""
    return {entry.fault.kind: entry.fault for entry in entries()}


def fault_of(kind: str) -> Fault[Any]:
    """The fault called `kind`. Raises BadInput with the kinds that exist."""
    for entry in entries():
        if entry.fault.kind == kind:
            return entry.fault
    raise BadInput(
        "unknown-fault",
        f"there is no fault of kind {kind!r}{closest(kind, kinds())}",
        expected=f"one of: {', '.join(sorted(kinds()))}",
        remedy="name one of these kinds, or install the package that has it; a journal of a newer harness is read by "
        "that harness",
    )


def kind_of(spec: object) -> object:
    """The tag by which specs are told apart: what `kind` says, in a file's data or in a parsed spec."""
    return spec.get("kind") if isinstance(spec, dict) else getattr(spec, "kind", None)


@cache
def experiments() -> TypeAdapter[AnyExperiment]:
    """The type of every experiment: generic in the core, closed here over the faults that exist."""
    specs: Any = reduce(or_, (Annotated[entry.spec, Tag(entry.fault.kind)] for entry in entries()))
    closed: Any = Experiment[Annotated[specs, Discriminator(kind_of)]]
    return TypeAdapter(closed)


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (draft 7, which yaml-language-server takes) of an experiment file."""
    return _titled("Experiment", experiments().json_schema(by_alias=True))


@cache
def configuration_schema() -> dict[str, Any]:
    """The JSON Schema (draft 7) of `drill.yaml`."""
    return _titled("Configuration", Configuration.model_json_schema(by_alias=True))


def gameday_schema() -> dict[str, Any]:
    """The JSON Schema (draft 7) of a game day's file."""
    return _titled("GameDay", GameDay.model_json_schema(by_alias=True))


def gameday_schema_text() -> str:
    """The schema as it is committed at `GAMEDAY_SCHEMA_PATH`."""
    return json.dumps(gameday_schema(), indent=2, ensure_ascii=False) + "\n"


def fleet_schema() -> dict[str, Any]:
    """The JSON Schema (draft 7) of a fleet's file."""
    return _titled("Fleet", Fleet.model_json_schema(by_alias=True))


def fleet_schema_text() -> str:
    """The schema as it is committed at `FLEET_SCHEMA_PATH`."""
    return json.dumps(fleet_schema(), indent=2, ensure_ascii=False) + "\n"


def _titled(title: str, written: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = _draft7(written)
    definitions = body.pop("$defs")
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        **body,
        "definitions": definitions,
    }


def schema_text() -> str:
    """The schema as it is committed at `SCHEMA_PATH`."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def configuration_schema_text() -> str:
    """The schema as it is committed at `CONFIGURATION_SCHEMA_PATH`."""
    return json.dumps(configuration_schema(), indent=2, ensure_ascii=False) + "\n"


def _draft7(node: Any) -> Any:
    """2020-12, which pydantic writes, in the words of draft 7; titles that only repeat a name are dropped."""
    if isinstance(node, list):
        return [_draft7(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: value for key, value in node.items() if key != "discriminator"}  # OpenAPI's, not JSON Schema's
    kept = {key: _draft7(value) for key, value in node.items() if not (key == "title" and isinstance(value, str))}
    if "$ref" in kept:  # draft 7 ignores whatever stands beside a reference
        return {"$ref": kept["$ref"].replace("#/$defs/", "#/definitions/")}
    if kept.get("type") == "string" and isinstance(kept.get("default"), float):
        kept["default"] = format_duration(kept["default"])
    return kept
