"""Every field of every fault and of every step, wrong in turn: each mistake is told at its own place, by its own name.

The faults are those whose kinds and fields are called alike where such there are (`secret`, `manifest`, `image`): what
pydantic calls an alternative is never taken for a field of the file, nor the other way round.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import catalog
from harness.core.errors import BadInput
from harness.core.experiment import Loc
from harness.loading import find, load

ROOT = Path(__file__).parents[2]
BASE = yaml.safe_load(find("registry-and-llm", ROOT).read_text())
MEASURED = {"query": "sum(errors)", "above": 1, "for": "5s", "within": "60s"}
SHARED = {"blast_radius": {"pods": 3, "objects": 2}, "accepted_owners": ["helm"], "at": "5s"}
FAULTS: dict[str, dict[str, Any]] = {
    "config": {
        "target": "configmap/api", "set": {"MODE": "slow"}, "unset": ["BATCH"], "effect": MEASURED,
        "restart": ["deployment/reader"],
    },
    "cpu-limit": {"target": "deployment/api", "container": "api", "limit": "100m", "effect": MEASURED},
    "image": {
        "target": "deployment/api", "container": "api", "image": "registry.invalid/api:2",
        "effect": {"failing": 2, "ready_at_most": 1, "within": "60s"},
    },
    "job": {
        "image_of": "deployment/api", "container": "api", "command": ["/bin/load"], "args": ["--hard"],
        "env": {"RATE": "5"}, "parallelism": 2, "cpu": "100m", "memory": "64Mi", "run_as_user": 1000, "writable": True,
        "backoff_limit": 1, "grace": "5s", "deadline": "1h", "effect": MEASURED,
    },
    "manifest": {
        "manifest": {"apiVersion": "chaos-mesh.org/v1alpha1", "kind": "NetworkChaos", "metadata": {"name": "cut"}},
        "effect": {"field": "status.phase", "equals": "Running", "within": "60s"},
        "over_when": {"field": "status.phase", "equals": "Finished"},
    },
    "memory-limit": {
        "deployment": "worker", "container": "worker", "limit": "64Mi",
        "effect": {"oom_killed": 3, "ready_at_most": 2, "within": "60s"},
    },
    "patch": {
        "target": "service/api", "effect": MEASURED,
        "operations": [{"op": "replace", "path": "/spec/selector/app", "value": "nobody"}],
    },
    "pod-kill": {
        "target": "deployment/api", "count": 2, "seed": 7, "grace": "5s", "every": "20s", "times": 3,
        "effect": {"ready_at_most": 1, "within": "60s"},
    },
    "scale": {
        "target": "deployment/api", "replicas": 1, "effect": {"ready_at_most": 1, "within": "60s"},
    },
    "secret": {
        "secret": "llm-key", "key": "key-current", "how": "rotate", "consumers": ["deployment/api"],
        "replacement": "discard", "effect": MEASURED,
    },
}  # fmt: skip
"""A fault of each kind in which every field is used, but what excludes another."""
EXCLUDED = {
    "config": {"container"}, "image": {"tag"}, "job": {"image"}, "pod-kill": {"labels", "percent"},
}  # fmt: skip
STEPS: dict[str, dict[str, Any]] = {
    "restore-memory-limit": {"limit": "128Mi", "scale_to": 8},
    "scale": {"target": "deployment/api", "replicas": 3},
    "set-env": {"target": "deployment/api", "container": "api", "set": {"MODE": "fast"}},
    "set-config": {"configmap": "sync", "set": {"MODE": "fast"}},
    "set-image": {"target": "deployment/api", "container": "api", "image": "api:1"},
    "restart": {"target": "deployment/api"},
    "delete-jobs": {"labels": {"app": "load"}},
    "new-key": {"secret": "llm-key", "key": "key-current"},
}
WRONG = {"a": ["wrong", "thing"]}
"""A value that fits no field but a free one."""
FREE = ("manifest", "value")
TAGS = ("kind", "do")
"""By them the alternatives are told apart: they have tests of their own."""
TEXTS = ("set", "env", "labels")
"""Mappings whose keys are the author's."""


def fault(kind: str) -> dict[str, Any]:
    return {"id": "one", "kind": kind, **copy.deepcopy({**FAULTS[kind], **SHARED})}


def experiment(one: dict[str, Any]) -> dict[str, Any]:
    """A good one that breaks only what is given."""
    base: dict[str, Any] = copy.deepcopy(BASE)
    base |= {
        "name": "x",
        "faults": [one],
        "alerts": [{"name": "Slow", "within": "3m", "of": "one.injected"}],
        "slas": [{"from": "firing", "to": "acknowledged", "within": "5m"}],
        "profiles": {"smoke": {"timeout": "5m", "range": "10s"}},
    }
    del base["facilitator"]["of_alerts"]
    base["autopilot"]["responses"] = base["autopilot"]["responses"][:1]
    return base


def answering(step: dict[str, Any]) -> dict[str, Any]:
    data = experiment(fault("scale"))
    data["autopilot"]["responses"][0]["steps"] = [step]
    return data


def written(tmp_path: Path, data: dict[str, Any]) -> tuple[Path, str]:
    path = tmp_path / "x.yaml"
    text = yaml.safe_dump(data, sort_keys=False, width=1000)
    path.write_text(text)
    return path, text


def place(text: str, loc: Loc, *, key: bool = False) -> str:
    """line:column of the value at a path (of its key, where asked for), as YAML's own parser has it."""
    node, name = yaml.compose(text), None
    for part in loc:
        if isinstance(node, yaml.SequenceNode):
            node = node.value[part]
        else:
            assert isinstance(node, yaml.MappingNode)
            name, node = next((k, v) for k, v in node.value if k.value == part)
    mark = (name if key else node).start_mark  # type: ignore[union-attr]
    return f"{mark.line + 1}:{mark.column + 1}"


def told(path: Path) -> list[tuple[str, str, str]]:
    """(line:column, path of the field, message) of each problem."""
    with pytest.raises(BadInput) as caught:
        load(path)
    error = caught.value
    assert all((error.slug, error.fact, error.expected, error.remedy, error.where))
    found = []
    for line in error.fact.splitlines()[1:]:
        where, loc, message = line.split(": ", 2)
        found.append((where.removeprefix(f"{path}:"), loc, message))
    return found


def fields(value: Any, at: Loc = ()) -> Iterator[Loc]:
    """The path of every field, those of lists' items included; what is the author's own is left out."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        here = (*at, key)
        if not isinstance(key, int):
            yield here
        if isinstance(inner, dict | list) and key not in {*FREE, *TEXTS}:
            yield from fields(inner, here)


CASES = [
    *(("fault", kind, at) for kind in FAULTS for at in fields(fault(kind))),
    *(("step", do, at) for do in STEPS for at in fields({"do": do, **STEPS[do]})),
]


def holder(what: str, kind: str) -> tuple[dict[str, Any], Loc, dict[str, Any]]:
    """An experiment, where the fault or step stands in it, and the fault or step itself."""
    if what == "fault":
        one = fault(kind)
        return experiment(one), ("faults", 0), one
    one = {"do": kind, **copy.deepcopy(STEPS[kind])}
    return answering(one), ("autopilot", "responses", 0, "steps", 0), one


def inside(one: Any, at: Loc) -> Any:
    for part in at:
        one = one[part]
    return one


def schema_of(what: str, kind: str, at: Loc) -> dict[str, Any]:
    """The definition of the model that holds the field at a path."""
    schema = catalog.schema()
    key = "kind" if what == "fault" else "do"
    body: dict[str, Any] = next(
        one for one in schema["definitions"].values() if one.get("properties", {}).get(key, {}).get("const") == kind
    )
    for part in at[:-1]:
        body = body["items"] if isinstance(part, int) else body["properties"][part]
        body = next((one for one in body.get("anyOf", [body]) if one.get("type") != "null"), body)
        body = schema["definitions"][body["$ref"].rpartition("/")[2]] if "$ref" in body else body
    return body


def each(*but: str, required: bool = False) -> pytest.MarkDecorator:
    """All cases but those of some fields; where asked for, those of required fields only."""
    cases = [
        (what, kind, at)
        for what, kind, at in CASES
        if at[-1] not in but and (not required or at[-1] in schema_of(what, kind, at).get("required", []))
    ]
    names = [f"{what} {kind} {'.'.join(map(str, at))}" for what, kind, at in cases]
    return pytest.mark.parametrize(("what", "kind", "at"), cases, ids=names)


@pytest.mark.parametrize("kind", FAULTS)
def test_the_good_faults_are_good(tmp_path: Path, kind: str) -> None:
    assert load(written(tmp_path, experiment(fault(kind)))[0]).experiment.faults[0].kind == kind


@pytest.mark.parametrize("do", STEPS)
def test_the_good_steps_are_good(tmp_path: Path, do: str) -> None:
    assert load(written(tmp_path, answering({"do": do, **STEPS[do]}))[0])


def test_every_kind_and_every_field_is_tried() -> None:
    assert set(FAULTS) == set(catalog.KINDS)
    for what, kinds in (("fault", FAULTS), ("step", STEPS)):
        for kind in kinds:
            tried = {at[0] for which, one, at in CASES if (which, one) == (what, kind)}
            left_out = {"after"} | EXCLUDED.get(kind, set()) if what == "fault" else set()
            assert tried == set(schema_of(what, kind, ("x",))["properties"]) - left_out


@each(*TAGS)
def test_a_misspelt_field_is_told_at_its_key_with_the_one_that_was_meant(
    tmp_path: Path, what: str, kind: str, at: Loc
) -> None:
    data, root, one = holder(what, kind)
    parent, name, odd = inside(one, at[:-1]), str(at[-1]), f"{at[-1]}x"
    items = [(odd if key == name else key, value) for key, value in parent.items()]
    parent.clear()
    parent.update(items)
    path, text = written(tmp_path, data)
    problems = told(path)
    loc = (*root, *at[:-1], odd)
    found = [(where, message) for where, field, message in problems if field == ".".join(map(str, loc))]
    assert [where for where, _ in found] == [place(text, loc, key=True)]
    assert re.match(rf"there is no field `{odd}` here; did you mean `{name}`\?", found[0][1])
    missing = ".".join(map(str, (*root, *at)))
    required = name in schema_of(what, kind, at).get("required", [])
    assert [(where, message) for where, field, message in problems if field == missing] == (
        [(place(text, loc[:-1]), f"`{name}` is missing; it is required here")] if required else []
    )
    assert len(problems) == 1 + required, problems


@each(*TAGS, *FREE)
def test_a_value_of_the_wrong_type_is_told_where_it_stands(tmp_path: Path, what: str, kind: str, at: Loc) -> None:
    data, root, one = holder(what, kind)
    inside(one, at[:-1])[at[-1]] = copy.deepcopy(WRONG)
    path, text = written(tmp_path, data)
    loc = (*root, *at)
    problems = told(path)
    name = ".".join(map(str, loc))
    assert problems
    for where, field, message in problems:
        assert field == name or field.startswith(f"{name}."), problems
        assert where == place(text, loc) or field != name, problems
        assert re.search(r"expected |is not |there is no field|is missing|write ", message), problems
        assert "function-" not in message
        assert "validation" not in message


@each(*TAGS, required=True)
def test_a_required_field_that_is_missing_is_told_at_what_should_hold_it(
    tmp_path: Path, what: str, kind: str, at: Loc
) -> None:
    name = str(at[-1])
    data, root, one = holder(what, kind)
    del inside(one, at[:-1])[name]
    path, text = written(tmp_path, data)
    assert told(path) == [
        (place(text, (*root, *at[:-1])), ".".join(map(str, (*root, *at))), f"`{name}` is missing; it is required here")
    ]


# What is said, in words


def edited(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    kept = {key: value for key, value in base.items() if changes.get(key, "") is not None}
    return kept | {key: value for key, value in changes.items() if value is not None}


@pytest.mark.parametrize(
    ("kind", "changes", "at", "key", "words"),
    [
        ("secret", {"secret": 5}, ("secret",), False,
         'expected text, found 5; if it is meant as text, put it into quotes: "5"'),
        ("secret", {"secret": None}, (), False, "`secret` is missing; it is required here"),
        ("secret", {"how": "rotat"}, ("how",), False,
         '"rotat" is not one of revoke, rotate, remove, garble; did you mean `rotate`?'),
        ("secret", {"key": ""}, ("key",), False, "does not fit"),
        ("image", {"image": 5}, ("image",), False, "expected text, found 5"),
        ("image", {"effect": {"failing": 0, "within": "1m"}}, ("effect", "failing"), False,
         "0 is out of bounds; write a number greater than or equal to 1"),
        ("manifest", {"manifest": 5}, ("manifest",), False, "expected a mapping, found 5"),
        ("manifest", {"effect": {"feild": "a", "equals": "b", "within": "1m"}}, ("effect", "feild"), True,
         "there is no field `feild` here; did you mean `field`?"),
        ("manifest", {"effect": {"field": "a", "equals": "b"}}, ("effect",), False, "`within` is missing"),
        ("manifest", {"effect": {"query": "a", "above": "b", "within": "1m"}}, ("effect", "above"), False,
         'expected a number, found "b"'),
        ("manifest", {"effect": {"query": "a", "within": "1m"}}, ("effect",), False,
         "exactly one of `below` and `above`"),
        ("manifest", {"effect": {"within": "1m"}}, ("effect",), False,
         "it is not clear what is meant; write either `field`, `equals`, `within` or else `query`, `within`"),
        ("manifest", {"effect": {"field": "a", "equals": [], "within": "1m"}}, ("effect", "equals"), False,
         "expected text, true or false, a whole number or a number, found []"),
        ("manifest", {"effect": 5}, ("effect",), False, "expected a mapping, found 5"),
        ("cpu-limit", {"limit": 0.1}, ("limit",), False, "0.1 has no unit; write thousandths of a core, like 100m"),
        ("cpu-limit", {"limit": "0.5"}, ("limit",), False, "write thousandths of a core, like 250m"),
        ("memory-limit", {"limit": "48MB"}, ("limit",), False, "write 48Mi (powers of 1024) or 48M"),
        ("job", {"memory": "64"}, ("memory",), False, "write a unit, like 64Mi"),
        ("scale", {"at": {}}, ("at",), False, "{} is not a duration; write a number with its unit"),
        ("job", {"deadline": "5 min"}, ("deadline",), False, "write 5m"),
        ("job", {"parallelism": 21}, ("parallelism",), False,
         "21 is out of bounds; write a number less than or equal to 20"),
        ("job", {"parallelism": 1.5}, ("parallelism",), False, "expected a whole number, found 1.5"),
        ("job", {"command": []}, ("command",), False, "`command` is empty; write at least one"),
        ("job", {"command": "load --hard"}, ("command",), False, "expected a list, found \"load --hard\""),
        ("job", {"env": {"RATE": 5}}, ("env", "RATE"), False, 'put it into quotes: "5"'),
        ("job", {"env": {"9X": "a"}}, ("env", "9X"), True, "does not fit"),
        ("config", {"set": {"MODE": 5}}, ("set", "MODE"), False,
         "MODE is 5, which is no text; write text, and put it into quotes"),
        ("config", {"target": "worker"}, ("target",), False,
         "does not fit; write kind/name, such as configmap/my-name; the kinds are configmap, deployment, statefulset"),
        ("scale", {"target": "Deployment/worker"}, ("target",), False,
         "does not fit; did you mean `deployment/worker`?; w"),
        ("patch", {"operations": [{"op": "swap", "path": "/spec/x"}]}, ("operations", 0, "op"), False,
         '"swap" is not one of add, replace, remove'),
        ("pod-kill", {"percent": 0, "count": None}, ("percent",), False,
         "0 is out of bounds; write a number greater than 0"),
        ("pod-kill", {"percent": 50}, (), False, "exactly one of `count` and `percent`"),
        ("pod-kill", {"times": None}, (), False, "needs both `every` and `times`; write both, or neither"),
        ("pod-kill", {"times": 1}, ("times",), False, "1 is out of bounds; write a number "),
        ("pod-kill", {"times": 21}, ("times",), False, "21 is out of bounds; write a number "),
        ("pod-kill", {"every": "0s"}, ("every",), False,
         '"0s" is out of bounds; write a number greater than 0'),
        ("pod-kill", {"id": "a" * 39}, (), False, "the last kill would be called " + "a" * 39 + "-3; shorten `id`"),
        ("scale", {"blast_radius": {"pod": 1}}, ("blast_radius", "pod"), True, "did you mean `pods`?"),
        ("scale", {"kind": "scal"}, ("kind",), False,
         "there is no fault of kind 'scal'; did you mean `scale`?; known: "),
        ("scale", {"kind": 5}, ("kind",), False, "there is no fault of kind '5'; known: config, "),
    ],
)  # fmt: skip
def test_a_mistake_in_a_fault_is_told_in_plain_words(
    tmp_path: Path, kind: str, changes: dict[str, Any], at: Loc, key: bool, words: str
) -> None:
    path, text = written(tmp_path, experiment(edited(fault(kind), **changes)))
    loc = ("faults", 0, *at)
    problems = told(path)
    assert [one for one in problems if one[0] == place(text, loc, key=key) and words in one[2]], problems


@pytest.mark.parametrize(
    ("step", "at", "words"),
    [
        ({"do": "restrat", "target": "deployment/api"}, ("do",),
         "there is no step 'restrat'; did you mean `restart`?; known: restore-memory-limit, scale, "),
        ({"do": "memory-limit"}, ("do",), "there is no step 'memory-limit'; "),
        ({"target": "deployment/api"}, (), "`do` is missing; one of: restore-memory-limit, scale, set-env"),
        ({"do": None}, ("do",), "`do` has no value; one of: restore-memory-limit"),
        ({"do": "restart", "target": "api"}, ("target",), "does not fit; write kind/name"),
        ("restart", (), "expected a mapping, found \"restart\""),
    ],
)  # fmt: skip
def test_a_mistake_in_a_step_is_told_in_plain_words(tmp_path: Path, step: Any, at: Loc, words: str) -> None:
    path, text = written(tmp_path, answering(step))
    loc = ("autopilot", "responses", 0, "steps", 0, *at)
    problems = told(path)
    assert len(problems) == 1
    assert problems[0][0] == place(text, loc)
    assert words in problems[0][2]


def test_nonsense_is_refused_at_its_place_when_a_file_is_loaded(tmp_path: Path) -> None:
    path, text = written(tmp_path, experiment(edited(fault("pod-kill"), count=4)))
    assert told(path) == [
        (
            place(text, ("faults", 0, "count")),
            "faults.0.count",
            "4 pods are killed, and `blast_radius` allows 3; write at most 3, or raise `blast_radius` on purpose",
        )
    ]


def test_behind_a_fault_that_is_repeated_every_place_is_still_the_files(tmp_path: Path) -> None:
    def behind(**changes: Any) -> tuple[Path, str]:
        data = experiment(edited(fault("pod-kill"), id="kill"))
        data["faults"].append(edited(fault("scale"), **changes))
        data["alerts"][0]["of"] = "kill.injected"
        return written(tmp_path, data)

    for changes, name in (({"id": "kill-3"}, "id"), ({"replicas": []}, "replicas")):
        path, text = behind(**changes)
        assert [(where, loc) for where, loc, _ in told(path)] == [
            (place(text, ("faults", 1, name)), f"faults.1.{name}")
        ]
    data = experiment(edited(fault("pod-kill"), id="kill"))
    data["faults"].append(edited(fault("config"), set={"MODE": 5}))
    path, text = written(tmp_path, data)
    assert (place(text, ("faults", 1, "set", "MODE")), "faults.1.set.MODE") in [one[:2] for one in told(path)]
    path, text = behind()
    loaded = load(path)
    assert [one.id for one in loaded.experiment.faults] == ["kill", "kill-2", "kill-3", "one"]
    assert loaded.where("faults", 3, "replicas") == f"{path}:{place(text, ('faults', 1, 'replicas'))}"
