"""From an experiment file to a checked experiment.

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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import catalog
from harness.core.errors import BadInput
from harness.core.experiment import AnyExperiment, Loc, SelfCheckError, closest, renewed
from harness.core.quantity import WRITTEN

if TYPE_CHECKING:
    import yaml
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_NODES = 10_000
_EXPECTED = f"a file that fits {catalog.SCHEMA_PATH}"
_REMEDY = "correct these lines; editors that read the yaml-language-server line complete and check the file"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


class Mark(NamedTuple):
    """A place in a file, counted from one."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class LoadedExperiment:
    """An experiment with the file that it came from. `marks` holds where each value stands, by its path."""

    experiment: AnyExperiment
    path: Path
    marks: Mapping[Loc, Mark]

    def where(self, *loc: str | int) -> str:
        """file:line:column of the value at `loc`, or of the nearest value around it."""
        return _where(self.path, _nearest(self.marks, loc))


class _Problem(NamedTuple):
    mark: Mark
    loc: Loc
    message: str


@dataclass(slots=True)
class _Document:
    """A file's plain data with the places of its values and of its keys, and what is wrong with it so far."""

    data: Any = None
    marks: dict[Loc, Mark] = field(default_factory=dict)
    keys: dict[Loc, Mark] = field(default_factory=dict)
    problems: list[_Problem] = field(default_factory=list)


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
    document = _read(path)
    experiment = None if document.data is None else _validated(document)
    if experiment is not None and experiment.name != path.stem:
        message = f"the file is called {path.name}, so its name must be {path.stem!r}; found {experiment.name!r}"
        document.problems.append(_Problem(_nearest(document.marks, ("name",)), ("name",), message))
    if experiment is None or document.problems:
        raise _rejected(path, document.problems)
    return LoadedExperiment(experiment, path, document.marks)


def parse(data: Mapping[str, Any]) -> AnyExperiment:
    """The experiment in data that a journal kept. Raises BadInput with every problem, by path."""
    document = _Document(data=renewed(data))
    experiment = _validated(document)
    if experiment is None:
        lines = [f"{_dotted(problem.loc)}: {problem.message}" for problem in document.problems]
        raise BadInput(
            "journal-experiment",
            "the experiment that the journal holds cannot be read\n" + "\n".join(lines),
            expected="an experiment as this version of the harness writes it",
            remedy="read the run with the version of the harness that wrote it (run.started names it)",
        )
    return experiment


# From bytes to data


def _read(path: Path) -> _Document:
    text = _text(path)
    import yaml

    try:
        refused = _refused(text)
        if refused:
            raise _rejected(path, refused)
        node = yaml.compose(text, Loader=_loader())
    except yaml.reader.ReaderError as error:
        mark = _mark_at(text, text.find(chr(error.character)) if isinstance(error.character, int) else 0)
        raise _syntax(path, mark, f"the character U+{_code(error.character):04X} is not allowed in YAML") from error
    except yaml.MarkedYAMLError as error:
        raise _syntax(path, *_explained(error, text)) from error
    document = _Document()
    if node is None:
        raise _rejected(path, [_Problem(Mark(1, 1), (), "the file holds no experiment; it is empty")])
    document.data = _plain(node, (), document)
    if not isinstance(document.data, dict):
        raise _rejected(path, [_Problem(Mark(1, 1), (), "an experiment is a mapping of fields, like `name: my-drill`")])
    return document


def _text(path: Path) -> str:
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
            expected="a readable experiment file",
            remedy="check the path and its permissions",
            where=str(path),
        ) from error
    if len(raw) > MAX_BYTES:
        raise BadInput(
            "file-too-large",
            f"the file is larger than {MAX_BYTES // 1024} KiB",
            expected="an experiment file of a few KiB",
            remedy="keep one experiment per file, and long texts in the runbook",
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


def _refused(text: str) -> list[_Problem]:
    """What is refused before anything is built: the parser's events are a flat stream, so nothing can blow up."""
    import yaml

    found: list[_Problem] = []
    depth = nodes = documents = 0
    for event in yaml.parse(text, Loader=_loader()):
        mark = _mark(event)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                found.append(_Problem(mark, (), "a second document begins; keep one experiment per file"))
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


def _validated(document: _Document) -> AnyExperiment | None:
    from pydantic import ValidationError

    try:
        body = json.dumps(document.data, allow_nan=False)
        return catalog.experiments().validate_json(body, strict=True, context=WRITTEN)
    except ValidationError as error:
        told = {problem.loc for problem in document.problems}
        document.problems += [p for p in _translated(error, document) if p.loc not in told]
        return None


def _translated(error: ValidationError, document: _Document) -> Iterator[_Problem]:
    for detail in error.errors(include_url=False):
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, SelfCheckError):
            for loc, message in cause.problems:
                yield _Problem(_nearest(document.marks, loc), loc, message)
            continue
        if detail["type"] == "too_short" and detail["input"]:
            continue  # its items are at fault, and each is told by itself
        loc = _settled(detail["loc"], document.data)
        if detail["type"].startswith("union_tag") and (*loc, "kind") in document.marks:
            loc = (*loc, "kind")
        if detail["type"] == "extra_forbidden":
            message = _unknown_field(str(loc[-1]), detail["loc"][:-1], set(_children(loc[:-1], document.data)))
            yield _Problem(document.keys.get(loc, _nearest(document.marks, loc)), loc, message)
        else:
            yield _Problem(_nearest(document.marks, loc), loc, _sentence(detail, loc))


def _settled(loc: Loc, data: Any) -> Loc:
    """pydantic's path without the parts that stand in no file (the tag of a union)."""
    kept: list[str | int] = []
    for index, part in enumerate(loc):
        here = (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int))
        if here:
            data = data[part]
            kept.append(part)
        elif index == len(loc) - 1 and isinstance(data, dict) and part not in {*catalog.kinds(), "[key]"}:
            kept.append(part)  # a field that is missing
    return tuple(kept)


def _children(loc: Loc, data: Any) -> tuple[str, ...]:
    for part in loc:
        data = data[part]
    return tuple(data)


def _unknown_field(name: str, parent: Loc, present: set[str]) -> str:
    known = _fields(parent)
    guess = closest(name, known)
    listed = f"; known here: {', '.join(f for f in known if f not in present) or 'nothing more'}" if known else ""
    return f"there is no field `{name}` here{guess or listed}"


def _fields(loc: Loc) -> tuple[str, ...]:
    """The names that a file may use at `loc`, as the schema has them."""
    schema = catalog.schema()
    nodes: list[dict[str, Any]] = [schema]
    for part in loc:
        following: list[dict[str, Any]] = []
        for node in _spread(nodes, schema):
            if isinstance(part, int):
                following += [node["items"]] if "items" in node else []
            elif part in node.get("properties", {}):
                following.append(node["properties"][part])
            elif node.get("properties", {}).get("kind", {}).get("const") == part:
                following.append(node)
            elif isinstance(node.get("additionalProperties"), dict):
                following.append(node["additionalProperties"])
        nodes = following
    return tuple(dict.fromkeys(name for node in _spread(nodes, schema) for name in node.get("properties", {})))


def _spread(nodes: list[dict[str, Any]], schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes with references followed and alternatives laid side by side."""
    for node in nodes:
        if "$ref" in node:
            yield from _spread([schema["definitions"][node["$ref"].rpartition("/")[2]]], schema)
        elif "anyOf" in node or "oneOf" in node:
            yield from _spread([*node.get("anyOf", ()), *node.get("oneOf", ())], schema)
        else:
            yield node


_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def _sentence(detail: ErrorDetails, loc: Loc) -> str:
    """One pydantic error in the words of a file's author."""
    kind, ctx, value = detail["type"], detail.get("ctx", {}), detail["input"]
    name = str(loc[-1]) if loc else ""
    match kind:
        case "missing":
            return f"`{name}` is missing; it is required here"
        case "union_tag_not_found" if isinstance(value, dict):
            return f"`kind` is missing; one of: {', '.join(catalog.kinds())}"
        case "union_tag_invalid":
            known = ", ".join(catalog.kinds())
            return (
                f"there is no fault of kind {ctx['tag']!r}{closest(str(ctx['tag']), catalog.kinds())}; known: {known}"
            )
        case "literal_error":
            allowed = re.findall(r"'([^']*)'", str(ctx["expected"]))
            return f"{_shown(value)} is not one of {', '.join(allowed)}{closest(str(value), allowed)}"
        case "string_pattern_mismatch":
            return f"{_shown(value)} does not fit; {_pattern(str(ctx['pattern']))}"
        case "value_error":
            return str(ctx["error"])
        case "union_tag_not_found":
            return f"a fault is a mapping, but this is {_shown(value)}"
        case _ if value is None and kind in _TYPES:
            return f"`{name}` has no value; write {_TYPES[kind]}"
        case _ if kind in _TYPES:
            return f"expected {_TYPES[kind]}, found {_shown(value)}"
        case _:
            return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}; found {_shown(value)}"


def _pattern(pattern: str) -> str:
    if pattern.startswith("^[a-z0-9]("):
        return "write lower-case letters, digits and -, at most 40, not beginning or ending with -"
    return f"write text that matches {pattern}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


# Places and errors


def _rejected(path: Path, problems: list[_Problem]) -> BadInput:
    ordered = sorted(set(problems), key=lambda p: (p.mark, _dotted(p.loc), p.message))
    lines = [f"{_where(path, p.mark)}: {_dotted(p.loc)}{': ' if p.loc else ''}{p.message}" for p in ordered]
    count = "one problem" if len(lines) == 1 else f"{len(lines)} problems"
    return BadInput(
        "experiment-invalid",
        "\n".join([f"the experiment has {count}", *lines]),
        expected=_EXPECTED,
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
