"""From a file to a checked experiment, or to the configuration that `drill.yaml` is.

Whoever writes a file learns everything that is wrong with it at once, each with its line and column, what was
expected and what to write instead. The file is data from outside: its size, depth and number of values are bounded,
anchors, aliases and tags are refused, and the words that YAML 1.1 reads as something else than they say (`no`, `on`,
`1:30`, `012`) are explained and not guessed at.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import catalog
from harness.core.configuration import NO_SECRETS, PEERS, SEALED, Configuration
from harness.core.errors import BadInput
from harness.core.experiment import AnyExperiment, Loc, SelfCheckError, closest, renewed
from harness.core.fleet import Fleet
from harness.core.gameday import GameDay
from harness.core.quantity import WRITTEN
from harness.core.sense import nonsense

if TYPE_CHECKING:
    import yaml
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_NODES = 10_000
_REMEDY = "correct these lines; editors that read the yaml-language-server line complete and check the file"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


class Mark(NamedTuple):
    """A place in a file, counted from one."""

    line: int
    column: int


class _Problem(NamedTuple):
    mark: Mark
    loc: Loc
    message: str


@dataclass(frozen=True, slots=True)
class _Form:
    """What a file is to be. `sealed` are the fields in which a secret may have been written by mistake: what is found
    there is never shown."""

    noun: str
    a_noun: str
    example: str
    slug: str
    schema_path: str
    schema: Callable[[], dict[str, Any]]
    check: Callable[[str], Any]
    sealed: tuple[str, ...] = ()

    def seals(self, loc: Loc) -> bool:
        """Whether the value at `loc` is not to be shown."""
        return bool(loc) and loc[0] in self.sealed and loc[-1] != "insecure_skip_verify"

    def refuses(self, loc: Loc) -> bool:
        """Whether the field at `loc` is one that would hold a secret."""
        return self.seals(loc) and len(loc) > 1 and loc[-1] in SEALED


_EXPERIMENT = _Form(
    "experiment", "an experiment", "name: my-drill", "experiment-invalid", catalog.SCHEMA_PATH, catalog.schema,
    lambda body: catalog.experiments().validate_json(body, strict=True, context=WRITTEN),
)  # fmt: skip
_CONFIGURATION = _Form(
    "configuration", "a configuration", "context: my-staging", "configuration-invalid",
    catalog.CONFIGURATION_SCHEMA_PATH, catalog.configuration_schema,
    lambda body: Configuration.model_validate_json(body, strict=True), PEERS,
)  # fmt: skip


_GAMEDAY = _Form(
    "game day", "a game day", "experiments: [oom-workers]", "gameday-invalid", catalog.GAMEDAY_SCHEMA_PATH,
    catalog.gameday_schema, lambda body: GameDay.model_validate_json(body, strict=True, context=WRITTEN),
)  # fmt: skip
_FLEET = _Form(
    "fleet", "a fleet", "targets: [{name: one, context: my-staging, experiment: oom-workers}]", "fleet-invalid",
    catalog.FLEET_SCHEMA_PATH, catalog.fleet_schema,
    lambda body: Fleet.model_validate_json(body, strict=True, context=WRITTEN),
)  # fmt: skip


@dataclass(slots=True)
class _Document:
    """A file's plain data with the places of its values and of its keys, and what is wrong with it so far."""

    form: _Form = _EXPERIMENT
    data: Any = None
    marks: dict[Loc, Mark] = field(default_factory=dict)
    keys: dict[Loc, Mark] = field(default_factory=dict)
    problems: list[_Problem] = field(default_factory=list)

    def written(self, loc: Loc) -> Loc:
        """A path in the checked experiment, in which a fault that is repeated stands once for each time, as the path
        in the file."""
        if loc[:1] != ("faults",) or len(loc) == 1:
            return loc
        index = [index for index, fault in enumerate(self.data["faults"]) for _ in range(_times(fault))]
        return ("faults", index[int(loc[1])], *loc[2:])


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A file that holds what it should. What it names by a relative path lies beside it."""

    path: Path
    document: _Document

    def where(self, *loc: str | int) -> str:
        """file:line:column of the value at `loc`, or of the nearest value around it."""
        return _where(self.path, _nearest(self.document.marks, self.document.written(loc)))

    def beside(self, text: str) -> Path:
        """The path that the file means by `text`; `~` is the home folder."""
        return self.path.parent / Path(text).expanduser()


@dataclass(frozen=True, slots=True)
class LoadedExperiment(_Loaded):
    """An experiment with the file that it came from."""

    experiment: AnyExperiment


@dataclass(frozen=True, slots=True)
class LoadedConfiguration(_Loaded):
    """A configuration with the file that it came from."""

    configuration: Configuration


@dataclass(frozen=True, slots=True)
class LoadedGameDay(_Loaded):
    """A game day with the file that it came from."""

    gameday: GameDay


@dataclass(frozen=True, slots=True)
class LoadedFleet(_Loaded):
    """A fleet with the file that it came from."""

    fleet: Fleet


def find(name_or_path: str, root: Path) -> Path:
    """The file of an experiment given by its name or by a path.

    A name is looked up in `root`/experiments; a relative path starts at `root` and stays inside it. Raises BadInput:
    unknown-experiment (with those that exist), path-outside, unreadable.
    """
    try:
        return _found(name_or_path, root, root / "experiments")
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, a folder that is closed to us
        raise BadInput(
            "unreadable",
            f"there is no way to {name_or_path[:200]!r}: {getattr(error, 'strerror', None) or type(error).__name__}",
            expected="an experiment's name, or the path of a file",
            remedy="name an experiment under experiments/, or give another path",
        ) from error


def _found(name_or_path: str, root: Path, folder: Path) -> Path:
    if _NAME.fullmatch(name_or_path):
        path = folder / f"{name_or_path}.yaml"
        if not path.is_file():
            raise _unknown(name_or_path, folder)
        inside = folder
    elif name_or_path.endswith((".yaml", ".yml")) and "\0" not in name_or_path:
        path = root / name_or_path
        inside = path.parent if Path(name_or_path).is_absolute() and ".." not in path.parts else root
    else:
        raise _unknown(name_or_path, folder)
    if not path.resolve().is_relative_to(inside.resolve()):
        raise BadInput(
            "path-outside",
            f"{name_or_path!r} leads out of {inside}",
            expected="an experiment's name, or a path that stays inside the project",
            remedy="name an experiment under experiments/, or give an absolute path",
        )
    if not path.is_file():
        raise _no_file(name_or_path, root, folder)
    return path


def names(root: Path) -> tuple[str, ...]:
    """The names of the experiments in `root`/experiments, sorted."""
    return tuple(sorted(path.stem for path in (root / "experiments").glob("*.yaml")))


def _unknown(name: str, folder: Path) -> BadInput:
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    wanted = Path(name.replace("\0", "")).stem
    return BadInput(
        "unknown-experiment",
        f"there is no experiment {name!r}{closest(wanted, known)}",
        expected="one of: " + ", ".join(known) if known else f"a file in {folder}",
        remedy="name one of these, or the path of a .yaml file",
    )


def _no_file(name: str, root: Path, folder: Path) -> BadInput:
    start = "" if Path(name).is_absolute() else f" in {root}"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    return BadInput(
        "unknown-experiment",
        f"there is no file {name!r}{start}{closest(Path(name).stem, known)}",
        expected="the path of an experiment file" + (f", or one of: {', '.join(known)}" if known else ""),
        remedy="correct the path; one that is not absolute starts at the project's folder",
    )


def load(path: Path) -> LoadedExperiment:
    """The experiment in a file. Raises BadInput with every problem of the file, each with file:line:column."""
    document = _read(path, _EXPERIMENT)
    experiment: AnyExperiment | None = _validated(document)
    if experiment is not None and experiment.name != path.stem:
        message = f"the file is called {path.name}, so its name must be {path.stem!r}; found {experiment.name!r}"
        document.problems.append(_Problem(_nearest(document.marks, ("name",)), ("name",), message))
    if experiment is not None:
        found = dict.fromkeys((document.written(loc), message) for loc, message in nonsense(experiment))
        document.problems += [_Problem(_nearest(document.marks, loc), loc, message) for loc, message in found]
    if experiment is None or document.problems:
        raise _rejected(path, document.problems, document.form)
    return LoadedExperiment(path, document, experiment)


def load_configuration(path: Path) -> LoadedConfiguration:
    """The configuration in a file. Raises BadInput with every problem of the file, each with file:line:column."""
    return LoadedConfiguration(path, *_valid(path, _CONFIGURATION))


def load_gameday(path: Path) -> LoadedGameDay:
    """The game day in a file. Raises BadInput with every problem of the file, each with file:line:column."""
    return LoadedGameDay(path, *_valid(path, _GAMEDAY))


def load_fleet(path: Path) -> LoadedFleet:
    """The fleet in a file. Raises BadInput with every problem of the file, each with file:line:column."""
    return LoadedFleet(path, *_valid(path, _FLEET))


def parse(data: Mapping[str, Any]) -> AnyExperiment:
    """The experiment in data that a journal kept. Raises BadInput with every problem, by path."""
    document = _Document(data=renewed(data))
    experiment: AnyExperiment | None = _validated(document)
    if experiment is None:
        lines = [f"{_dotted(problem.loc)}: {problem.message}" for problem in document.problems]
        raise BadInput(
            "journal-experiment",
            "the experiment that the journal holds cannot be read\n" + "\n".join(lines),
            expected="an experiment as this version of the harness writes it",
            remedy="read the run with the version of the harness that wrote it (run.started names it)",
        )
    return experiment


def _times(fault: Any) -> int:
    """How many faults one of a file stands for; that it can be read is known by then."""
    spec = next(entry.spec for entry in catalog.entries() if entry.fault.kind == fault["kind"])
    return len(spec.model_validate_json(json.dumps(fault), strict=True, context=WRITTEN).rounds())


# From bytes to data


def _read(path: Path, form: _Form) -> _Document:
    text = _text(path, form)
    import yaml

    try:
        refused = _refused(text, form)
        if refused:
            raise _rejected(path, refused, form)
        node = yaml.compose(text, Loader=_loader())
    except yaml.reader.ReaderError as error:
        mark = _mark_at(text, text.find(chr(error.character)) if isinstance(error.character, int) else 0)
        raise _syntax(path, mark, f"the character U+{_code(error.character):04X} is not allowed in YAML") from error
    except yaml.MarkedYAMLError as error:
        raise _syntax(path, *_explained(error, text)) from error
    document = _Document(form)
    if node is None:
        raise _rejected(path, [_Problem(Mark(1, 1), (), f"the file holds no {form.noun}; it is empty")], form)
    document.data = _plain(node, (), document)
    if not isinstance(document.data, dict):
        message = f"{form.a_noun} is a mapping of fields, like `{form.example}`"
        raise _rejected(path, [_Problem(Mark(1, 1), (), message)], form)
    return document


def _text(path: Path, form: _Form) -> str:
    try:
        # Without waiting: a pipe would keep us until somebody writes into it, and a device has no end.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError("it is not a regular file")  # noqa: TRY301 - told like any other file that is not read
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise BadInput(
            "unreadable",
            f"the file cannot be read: {getattr(error, 'strerror', None) or error}",
            expected=f"a readable {form.noun} file",
            remedy="check the path and its permissions",
            where=str(path),
        ) from error
    if len(raw) > MAX_BYTES:
        raise BadInput(
            "file-too-large",
            f"the file is larger than {MAX_BYTES // 1024} KiB",
            expected=f"{form.a_noun} file of a few KiB",
            remedy=f"keep one {form.noun} per file, and long texts elsewhere",
            where=str(path),
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        good = raw[: error.start].decode("utf-8-sig")
        raise BadInput(
            "not-utf8",
            f"byte 0x{raw[error.start]:02X} is not UTF-8",
            expected="a file in UTF-8",
            remedy="save it as UTF-8 in the editor",
            where=_where(path, _mark_at(good, len(good))),
        ) from error


def _mark(thing: Any) -> Mark:
    start = thing.start_mark
    return Mark(start.line + 1, start.column + 1)


def _loader() -> Any:
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _refused(text: str, form: _Form) -> list[_Problem]:
    """What is refused before anything is built: the parser's events are a flat stream, so nothing can blow up."""
    import yaml

    found: list[_Problem] = []
    depth = nodes = documents = 0
    for event in yaml.parse(text, Loader=_loader()):
        mark = _mark(event)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                found.append(_Problem(mark, (), f"a second document begins; keep one {form.noun} per file"))
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.NodeEvent):
            nodes += 1
            if event.anchor is not None:
                found.append(_Problem(mark, (), "anchors and aliases (& and *) are not used here; write the value out"))
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            found.append(_Problem(mark, (), f"tags ({event.tag}) are not used here; write the plain value"))
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        if depth > MAX_DEPTH:
            return [*found, _Problem(mark, (), f"values are nested deeper than {MAX_DEPTH} levels")]
        if nodes > MAX_NODES:
            return [*found, _Problem(mark, (), f"the file holds more than {MAX_NODES} values")]
    return found


def _plain(node: yaml.Node, loc: Loc, document: _Document) -> Any:
    """The node's data; notes places, repeated keys and scalars that are not what they look like."""
    import yaml

    mark = _mark(node)
    document.marks[loc] = mark
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*loc, index), document) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return dict(_entries(node, loc, document))
    assert isinstance(node, yaml.ScalarNode)  # noqa: S101 - the third and last kind of node
    value, trap = _scalar(node)
    if trap and document.form.seals(loc):
        strange = "YAML reads this as something else than it says; put it into quotes"
        trap = "" if document.form.refuses(loc) else strange
    if trap:
        document.problems.append(_Problem(mark, loc, trap))
    return value


def _entries(node: yaml.MappingNode, loc: Loc, document: _Document) -> Iterator[tuple[str, Any]]:
    import yaml

    for key_node, value_node in node.value:
        mark = _mark(key_node)
        if not isinstance(key_node, yaml.ScalarNode):
            document.problems.append(_Problem(mark, loc, "a field's name must be plain text"))
            continue
        key, here = str(key_node.value), (*loc, str(key_node.value))
        _, trap = _scalar(key_node)
        if trap:
            document.problems.append(_Problem(mark, here, trap))
        elif key_node.tag == "tag:yaml.org,2002:merge":
            document.problems.append(_Problem(mark, here, "merge keys (<<) are not used here; write the fields out"))
            continue
        if here in document.keys:
            first = document.keys[here]
            message = f"`{key}` is written twice; the first stands at line {first.line}, and YAML would drop one"
            document.problems.append(_Problem(mark, here, message))
            continue
        document.keys[here] = mark
        yield key, _plain(value_node, here, document)


_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?[0-9]+\.?[0-9]*([eE][-+]?[0-9]{1,3})?")


def _scalar(node: yaml.ScalarNode) -> tuple[Any, str]:
    """The value of a scalar, and what to say where YAML 1.1 would read something else than what it says."""
    text, kind = str(node.value), str(node.tag).rpartition(":")[2]
    quoted = json.dumps(text, ensure_ascii=False)
    if kind == "str":
        return text, ""
    if kind == "null":
        return None, ""
    if kind == "bool":
        if text.lower() in {"true", "false"}:
            return text.lower() == "true", ""
        meant = "true" if text.lower() in {"yes", "on", "y"} else "false"
        return text, f"YAML reads {text} as {meant}; write {meant} if that is meant, or {quoted} for the word"
    if kind == "int" and _INT.fullmatch(text):
        return int(text), ""
    if kind == "float" and _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text), ""
    if kind in {"int", "float"} and ":" in text:
        return text, f"YAML reads {text} as a number in base 60; write {quoted} for text, or a duration like 90s"
    if kind in {"int", "float"}:
        return text, f"YAML reads {text} as an unusual number; write it in plain decimals, or {quoted} for text"
    if kind == "timestamp":
        return text, f"YAML reads {text} as a date; write {quoted} for text"
    return text, ""


# From data to an experiment


def _valid(path: Path, form: _Form) -> tuple[_Document, Any]:
    document = _read(path, form)
    found = _validated(document)
    if found is None or document.problems:
        raise _rejected(path, document.problems, form)
    return document, found


def _validated(document: _Document) -> Any:
    """What the document is; None where it has problems, which it then holds."""
    from pydantic import ValidationError

    try:
        return document.form.check(json.dumps(document.data, allow_nan=False))
    except ValidationError as error:
        told = {problem.loc for problem in document.problems}
        document.problems += [p for p in _translated(error, document) if p.loc not in told]
        return None


def _translated(error: ValidationError, document: _Document) -> Iterator[_Problem]:
    expected: dict[Loc, list[str]] = {}
    told: set[Loc] = set()
    for detail in error.errors(include_url=False):
        at = _settled(detail["loc"], document)
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, SelfCheckError):
            for inner, message in cause.problems:
                # A fault checks itself as the file has it; the experiment sees each of its rounds.
                loc = (*at.loc, *inner) if at.loc else document.written(inner)
                yield _Problem(_nearest(document.marks, loc), loc, message)
        elif at.unclear:
            yield _Problem(_nearest(document.marks, at.loc), at.loc, _either(at.unclear))
        elif not at.meant or (detail["type"] == "too_short" and detail["input"]):
            continue  # another branch than the author's; a list whose items are told by themselves
        elif at.branch and detail["type"] in _TYPES:
            expected.setdefault(at.loc, []).append(_TYPES[detail["type"]])
        elif detail["type"] == "extra_forbidden":
            parent = _settled(detail["loc"][:-1], document)
            yield _unknown_field(at.loc, _alternatives(parent.nodes, document.form), document)
        else:
            told.add(at.loc)
            yield _told(detail, at, document)
    for loc, types in expected.items():
        if loc in told:
            continue  # the value is of one of these types, and wrong in another way
        words = " or ".join([", ".join(types[:-1]), types[-1]] if len(types) > 1 else types)
        message = f"expected {words}, found {_found_at(loc, _value_at(loc, document.data), document.form)}"
        yield _Problem(_nearest(document.marks, loc), loc, message)


class _Settled(NamedTuple):
    """One of pydantic's paths as the file has it, and what the schema knows of that place."""

    loc: Loc
    nodes: list[dict[str, Any]]
    """What may stand there; several where alternatives are not told apart by then."""
    branch: bool = False
    """Whether it is one of several plain types that the value might have had."""
    meant: bool = True
    """Whether it lies in the alternative that the author meant, by the keys that are there."""
    unclear: tuple[dict[str, Any], ...] = ()
    """The alternatives, where the keys do not say which one was meant."""


def _settled(path: Loc, document: _Document) -> _Settled:
    """The place that pydantic means. Its path holds, right behind a value that may be one of several things, the name
    of the one that it was tried as: that part stands in no file, whatever fields the file has."""
    kept: list[str | int] = []
    nodes: list[dict[str, Any]] = [document.form.schema()]
    rest, data = list(path), document.data
    while True:
        options = _alternatives(nodes, document.form)
        if len(options) > 1 and rest:
            name, *rest = rest
            key = _tag_key(options)
            chosen = [one for one in options if _is_called(one, key, str(name))]
            if key is None and isinstance(data, dict):
                best = _nearest_shapes(options, data)
                if len(best) > 1:
                    return _Settled(tuple(kept), nodes, unclear=tuple(best))
                if chosen != best and (chosen or len(options) > len(_mappings(options))):
                    return _Settled(tuple(kept), nodes, meant=False)
            nodes = chosen or options
            if not rest and not all("properties" in one for one in options):
                return _Settled(tuple(kept), nodes, branch=True)
            continue
        if not rest or rest == ["[key]"]:
            return _Settled(tuple(kept), nodes)
        part, *rest = rest
        kept.append(part)
        data = data[part] if _holds(data, part) else None
        nodes = [below for node in options for below in _below(node, part)]


def _holds(data: Any, part: str | int) -> bool:
    return part in data if isinstance(data, dict) else isinstance(data, list) and part in range(len(data))


def _value_at(loc: Loc, data: Any) -> Any:
    for part in loc:
        data = data[part]
    return data


def _alternatives(nodes: list[dict[str, Any]], form: _Form) -> list[dict[str, Any]]:
    """The nodes with references followed and alternatives laid side by side; `title` is a definition's name. That a
    value may be left out is no alternative."""
    found: list[dict[str, Any]] = []
    for node in nodes:
        if "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            found += _alternatives([{**form.schema()["definitions"][name], "title": name}], form)
        elif "anyOf" in node or "oneOf" in node:
            found += _alternatives([*node.get("anyOf", ()), *node.get("oneOf", ())], form)
        elif node.get("type") != "null":
            found.append(node)
    return found


def _below(node: dict[str, Any], part: str | int) -> list[dict[str, Any]]:
    if isinstance(part, int):
        return [node["items"]] if "items" in node else []
    if part in node.get("properties", {}):
        return [node["properties"][part]]
    return [node["additionalProperties"]] if isinstance(node.get("additionalProperties"), dict) else []


def _tag(node: dict[str, Any], key: str | None) -> str | None:
    return node.get("properties", {}).get(key, {}).get("const") if key is not None else None


def _is_called(node: dict[str, Any], key: str | None, name: str) -> bool:
    """Whether pydantic calls an alternative so: by its tag, or by its class, which stands among its validators."""
    return name == _tag(node, key) if key is not None else node.get("title") in re.findall(r"\w+", name)


def _tag_key(options: list[dict[str, Any]]) -> str | None:
    """The field by whose value the alternatives are told apart."""
    fields = options[0].get("properties", {})
    return next((key for key in fields if all(_tag(one, key) is not None for one in options)), None)


def _nearest_shapes(options: list[dict[str, Any]], data: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives that have most of the fields that are there."""
    options = _mappings(options)
    shared = [sum(key in one.get("properties", {}) for key in data) for one in options]
    return [one for one, count in zip(options, shared, strict=True) if count == max(shared)]


def _mappings(options: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without plain text, which has no fields."""
    return [one for one in options if one.get("type") != "string"]


def _either(options: tuple[dict[str, Any], ...]) -> str:
    shapes = [", ".join(f"`{name}`" for name in one.get("required", ())) for one in options]
    return f"it is not clear what is meant; write either {' or else '.join(shapes)}"


def _unknown_field(loc: Loc, options: list[dict[str, Any]], document: _Document) -> _Problem:
    name, present = str(loc[-1]), _value_at(loc[:-1], document.data)
    if document.form.refuses(loc):
        return _Problem(document.keys.get(loc, Mark(1, 1)), loc, NO_SECRETS)
    known = tuple(dict.fromkeys(field for one in options for field in one.get("properties", {})))
    guess = closest(name, known)
    listed = f"; known here: {', '.join(f for f in known if f not in present) or 'nothing more'}" if known else ""
    mark = document.keys.get(loc, Mark(1, 1))  # a journal has no places
    return _Problem(mark, loc, f"there is no field `{name}` here{guess or listed}")


def _told(detail: ErrorDetails, at: _Settled, document: _Document) -> _Problem:
    """Any other of pydantic's errors, at the value that it is about."""
    loc, kind, value = at.loc, detail["type"], detail["input"]
    if kind.startswith("union_tag"):
        options = _alternatives(at.nodes, document.form)
        key = _tag_key(options) or ""
        what = {"kind": "fault", "do": "step"}.get(key, "value")
        known = [str(_tag(one, key)) for one in options]
        listed = ", ".join(known)
        if not isinstance(value, dict):
            message = f"a {what} is a mapping, but this is {_shown(value)}"
        elif value.get(key) is None:
            message = f"`{key}` {'has no value' if key in value else 'is missing'}; one of: {listed}"
        else:
            name, of = str(value[key]), " of kind" if key == "kind" else ""
            message = f"there is no {what}{of} {name!r}{closest(name, known)}; known: {listed}"
        loc = (*loc, key) if (*loc, key) in document.marks else loc
        return _Problem(_nearest(document.marks, loc), loc, message)
    mark = document.keys.get(loc) if detail["loc"][-1:] == ("[key]",) else None
    return _Problem(
        mark or _nearest(document.marks, loc), loc, _sealed(detail, loc, document.form) or _sentence(detail, loc)
    )


def _sealed(detail: ErrorDetails, loc: Loc, form: _Form) -> str:
    """A sentence without the value that was found; empty where it may be shown, or where none would be."""
    if not form.seals(loc) or detail["type"] in {"missing", "value_error", "too_short", "string_too_short"}:
        return ""
    return f"expected {_TYPES.get(detail['type'], 'something else')}, found {_found_at(loc, detail['input'], form)}"


_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_LIMITS = {
    "gt": "greater than", "ge": "greater than or equal to", "lt": "less than", "le": "less than or equal to",
}  # fmt: skip


def _sentence(detail: ErrorDetails, loc: Loc) -> str:
    """One pydantic error in the words of a file's author."""
    kind, ctx, value = detail["type"], detail.get("ctx", {}), detail["input"]
    name = str(loc[-1]) if loc else ""
    match kind:
        case "missing":
            return f"`{name}` is missing; it is required here"
        case "literal_error":
            allowed = re.findall(r"'([^']*)'", str(ctx["expected"]))
            return f"{_shown(value)} is not one of {', '.join(allowed)}{closest(str(value), allowed)}"
        case "string_pattern_mismatch":
            return f"{_shown(value)} does not fit{_in_lower_case(value, ctx['pattern'])}; {_pattern(ctx['pattern'])}"
        case "value_error" if value is None:
            return f"`{name}` has no value; {str(ctx['error']).rpartition('; ')[2]}"
        case "value_error":
            return str(ctx["error"])
        case "too_short" | "string_too_short":
            return f"`{name}` is empty; write at least one" if kind == "too_short" else f"`{name}` is empty; write text"
        case "too_long":
            return f"`{name}` has {ctx['actual_length']} items; write at most {ctx['max_length']}"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            words, limit = next((words, ctx[short]) for short, words in _LIMITS.items() if short in ctx)
            return f"{_shown(value)} is out of bounds; write a number {words} {limit:g}"
        case _ if value is None and kind in _TYPES:
            return f"`{name}` has no value; write {_TYPES[kind]}"
        case "string_type" if isinstance(value, bool | int | float):
            text = json.dumps(_shown(value))
            return f"expected text, found {_shown(value)}; if it is meant as text, put it into quotes: {text}"
        case _ if kind in _TYPES:
            return f"expected {_TYPES[kind]}, found {_shown(value)}"
        case _:
            return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}; found {_shown(value)}"


_PATTERNS = {
    "^[a-z0-9]([a-z0-9-]{": "write lower-case letters, digits and -, at most 40, not beginning or ending with -",
    "^[a-z0-9]([-.a-z0-9]*": "write lower-case letters, digits, - and ., as the object's name in the cluster",
    "^[A-Za-z_][A-Za-z0-9_]{": "write letters, digits and _, not beginning with a digit",
    "^[A-Za-z_][A-Za-z0-9_-]*(": "write a milestone, such as firing or l2.joined",
    "^(/[^/]+)+$": "write where it is from the object's root, such as /spec/ports/0/port",
    "^[-._a-zA-Z0-9]": "write letters, digits, -, _ and .",
}
"""What patterns of the experiment's fields ask for, by how they begin."""


def _pattern(pattern: str) -> str:
    kinds = re.match(r"\^\(([a-z|]+)\)/", pattern)
    if kinds:
        known = kinds[1].split("|")
        return f"write kind/name, such as {known[0]}/my-name; the kinds are {', '.join(known)}"
    words = next((words for start, words in _PATTERNS.items() if pattern.startswith(start)), "")
    return words or f"write text that matches {pattern}"


def _in_lower_case(value: Any, pattern: str) -> str:
    lower = str(value).lower()
    return f"; did you mean `{lower}`?" if len(lower) < 100 and re.fullmatch(pattern, lower) else ""


def _found_at(loc: Loc, value: Any, form: _Form) -> str:
    """A value that was found, or where that is not to be shown, what kind of one it is."""
    if not form.seals(loc):
        return _shown(value)
    return {dict: "a mapping", list: "a list", str: "text", type(None): "nothing"}.get(type(value), "a plain value")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


# Places and errors


def _rejected(path: Path, problems: list[_Problem], form: _Form) -> BadInput:
    ordered = sorted(set(problems), key=lambda p: (p.mark, _dotted(p.loc), p.message))
    lines = [f"{_where(path, p.mark)}: {_dotted(p.loc)}{': ' if p.loc else ''}{p.message}" for p in ordered]
    count = "one problem" if len(lines) == 1 else f"{len(lines)} problems"
    return BadInput(
        form.slug,
        "\n".join([f"the {form.noun} has {count}", *lines]),
        expected=f"a file that fits {form.schema_path}",
        remedy=_REMEDY,
        where=_where(path, ordered[0].mark),
    )


def _syntax(path: Path, mark: Mark, fact: str, remedy: str = "correct the line; the rest was not read") -> BadInput:
    return BadInput("yaml-syntax", fact, expected="YAML", remedy=remedy, where=_where(path, mark))


def _explained(error: yaml.MarkedYAMLError, text: str) -> tuple[Mark, str, str]:
    at = error.problem_mark or error.context_mark
    mark = Mark(1, 1) if at is None else Mark(at.line + 1, at.column + 1)
    line = (text.splitlines() or [""])[min(mark.line, len(text.splitlines()) or 1) - 1]
    fact = str(error.problem or error.context or "the line cannot be read")
    if "\t" in line[: max(mark.column, 1)] or "tab" in fact:
        return mark, "a tab character stands where YAML takes only spaces", "indent with spaces"
    if error.context and error.context_mark is not None and error.context_mark.line + 1 != mark.line:
        fact += f" ({error.context}, begun at line {error.context_mark.line + 1})"
    return mark, fact, "correct the line; the rest was not read"


def _code(character: object) -> int:
    return character if isinstance(character, int) else ord(str(character)[:1] or "\0")


def _mark_at(text: str, index: int) -> Mark:
    before = text[: max(index, 0)]
    return Mark(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


def _nearest(marks: Mapping[Loc, Mark], loc: Loc) -> Mark:
    while loc and loc not in marks:
        loc = loc[:-1]
    return marks.get(loc, Mark(1, 1))


def _where(path: Path, mark: Mark) -> str:
    return f"{path}:{mark.line}:{mark.column}"


def _dotted(loc: Loc) -> str:
    return ".".join(str(part) for part in loc)
