"""Pages say what is so: links lead somewhere, what they name exists, and what is made from code is fresh."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest

from harness.cli.app import CODES, drill
from harness.core.errors import ExitCode
from harness.loading import names
from tests.docs.generate import commands, events, generated, renewed, type_of
from tests.docs.pages import DOCS, README, ROOT, Page, page, pages

ALL = pages()
by_page = pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
EXPECTED = {
    "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/concepts.md", "docs/adding-a-fault.md", "docs/safety.md",
    "docs/writing-an-experiment.md", "docs/cli.md", "docs/journal.md", "docs/adr/README.md",
}  # fmt: skip
HOSTS = re.compile(
    r"(localhost|127\.0\.0\.1|drill\.internal|(.+\.)?example\.(com|org|net)|(.+\.)?(nova-staging|monitoring)"
    r"|(.+\.)?(github\.com|kubernetes\.io|k8s\.io|prometheus\.io|python\.org|rfc-editor\.org|debian\.org|www\.w3\.org|chaos-mesh\.org))"
)
"""Where pages may send people: this machine, examples, the staging system, and the homes of what we build on."""
_ENDS = "com|org|net|io|dev|cloud|internal|local|corp|lan"
_MACHINE = re.compile(r"(?<![\w./:<-])/(home|root|Users|mnt|media|srv|opt|work|workspace|builds?)(/|\b)")


def test_the_pages_are_there() -> None:
    assert {one.name for one in ALL} >= EXPECTED


# Links


@by_page
def test_links_lead_somewhere(one: Page) -> None:
    dead = [link for link in one.links if not urlsplit(link).scheme and not leads(one, link)]
    assert not dead


def leads(one: Page, link: str) -> bool:
    path, _, anchor = unquote(link).partition("#")
    target = (one.path.parent / path).resolve() if path else one.path
    if not target.is_relative_to(ROOT) or not target.exists():
        return False
    return not anchor or anchor in Page(target).anchors


def test_links_are_seen_and_dead_ones_found() -> None:
    assert sum(len(one.links) for one in ALL) > 45
    here = page("docs/concepts.md")
    assert leads(here, "safety.md#refusals")
    assert leads(here, "#exit-codes")
    for dead in ("safety.md#refusal", "nowhere.md", "../../etc/passwd", "#exit-code"):
        assert not leads(here, dead)


def test_every_page_is_reached_from_the_readme() -> None:
    reached, todo = set(), [README]
    while todo:
        path = todo.pop()
        reached.add(path)
        links = [unquote(link).partition("#")[0] for link in Page(path).links if not urlsplit(link).scheme]
        found = {(path.parent / link).resolve() for link in links if link.endswith(".md")}
        todo += sorted(found - reached - set(todo))
    missing = {one.name for one in ALL if one.path.is_relative_to(DOCS) and one.path not in reached}
    assert not missing


# What is named exists


def option_names(command: click.Command) -> set[str]:
    return {name for option in command.params for name in option.opts if name.startswith("-")} | {"--help", "--"}


def mistakes(words: list[str]) -> Iterator[str]:
    """What a line that begins with drill names and the command line does not have."""
    command: click.Command = drill
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        if not re.fullmatch(r"[a-z][a-z-]*", rest[0]):
            return  # a sentence about drill, or a placeholder
        if rest[0] not in command.commands:
            yield f"no command {rest[0]}"
            return
        command, rest = command.commands[rest[0]], rest[1:]
    for word in rest:
        option = word.strip("[]").partition("=")[0]
        if option.startswith("-") and option not in option_names(command):
            yield f"no option {option} of {command.name}"


def drill_lines(one: Page) -> list[list[str]]:
    return [line for line in one.command_lines if line[0] in {"drill", "./drill", ".venv/bin/drill"}]


@by_page
def test_commands_exist(one: Page) -> None:
    wrong = [(line, wrong) for line in drill_lines(one) for wrong in mistakes(line)]
    assert not wrong


def test_commands_are_seen_and_wrong_ones_found() -> None:
    assert sum(len(drill_lines(one)) for one in ALL) > 60
    assert list(mistakes(["drill", "history"])) == ["no command history"]
    assert list(mistakes(["drill", "cluster", "remove"])) == ["no command remove"]
    assert list(mistakes(["./drill", "recover", "--forced"])) == ["no option --forced of recover"]
    assert not list(mistakes(["drill", "run", "x", "--pager", "none", "--output=json"]))


def makefile() -> tuple[set[str], set[str]]:
    """Its targets and its variables."""
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", text, re.MULTILINE))
    exported = re.findall(r"^export (.+)$", text, re.MULTILINE)
    return targets, {*" ".join(exported).split(), *re.findall(r"\$\(?(?:if \$\()?([A-Z]+)\)", text)}


@by_page
def test_make_targets_and_variables_exist(one: Page) -> None:
    targets, variables = makefile()
    for line in one.command_lines:
        if line[0] != "make":
            continue
        for word in line[1:]:
            if (name := word.partition("=")[0]) and "=" in word:
                assert name.strip("[") in variables, line
            elif re.fullmatch(r"[a-z0-9-]+", word):
                assert word in targets, line


def test_make_lines_are_seen() -> None:
    lines = [line for one in ALL for line in one.command_lines if line[0] == "make"]
    assert {word for line in lines for word in line} >= {"drill", "test", "check", "down", "EXP=oom-workers"}


@by_page
def test_tests_that_are_named_exist(one: Page) -> None:
    assert {span for span in one.spans if re.fullmatch(r"test_[a-z0-9_]+", span)} <= known_tests()


def known_tests() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        found |= set(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))
    return found


def test_every_promise_of_safety_names_its_tests() -> None:
    promises = page("docs/safety.md").text.partition("## Refusals")[0]
    rows = [
        line for line in promises.splitlines() if line.startswith("| ") and not line.startswith(("| Prom", "| ---"))
    ]
    assert len(rows) > 25
    assert [row for row in rows if "`test_" not in row] == []


@by_page
def test_paths_that_are_named_exist(one: Page) -> None:
    tops = {path.name for path in ROOT.iterdir()} - {"runs", ".venv"}
    found = {span.rstrip("/") for span in one.spans if re.fullmatch(r"[\w.-]+(/[\w.*-]+)+/?", span)}
    named = {path for path in found if path.partition("/")[0] in tops}
    missing = {path for path in named if not list(ROOT.glob(path))}
    assert not missing


def test_every_experiment_is_named() -> None:
    shipped = names(ROOT)
    assert shipped
    text = "".join(one.text for one in ALL if one.path == README or one.path.is_relative_to(DOCS))
    missing = {name for name in shipped if not re.search(rf"(`|EXP=|experiments/){name}(`|\b(?!-))", text)}
    assert not missing


# Exit codes


@pytest.mark.parametrize("code", ExitCode, ids=lambda code: code.name)
@pytest.mark.parametrize("where", ["README.md", "docs/concepts.md", "Makefile", "drill --help"])
def test_every_exit_code_is_documented_with_its_number(where: str, code: ExitCode) -> None:
    text = CODES if where == "drill --help" else (ROOT / where).read_text(encoding="utf-8")
    name = re.escape(code.name.lower().replace("_", " ")).replace(r"\ ", r"\s+")
    assert re.search(rf"(?<![\w.]){code.value}[`*]*(?: \||:)?\s+[`*]*{name}\b", text, re.IGNORECASE)


def test_the_table_of_exit_codes_holds_all_and_no_other() -> None:
    rows = re.findall(r"^\| (\d+) \| ([a-z ]+) \|", page("docs/concepts.md").section("Exit codes"), re.MULTILINE)
    told = {name.removesuffix(" error"): int(number) for number, name in rows}
    assert told == {code.name.lower().replace("_", " "): code.value for code in ExitCode}


# The map


def test_the_map_of_the_readme_holds_every_room_and_no_other() -> None:
    rooms = {path.parent.name for path in (ROOT / "harness").glob("*/__init__.py")}
    text = Page(README).section("Rooms")
    assert set(re.findall(r"harness/([a-z_]+)\b(?!\.py)", text)) - {"catalog", "loading"} == rooms


def test_the_layers_of_contributing_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["type"] == "layers")
    assert "\n".join(layers) + "\n" in page("CONTRIBUTING.md").blocks


# What is made from code


def test_what_is_made_from_code_is_fresh() -> None:
    made = {one.name: generated(one) for one in ALL if generated(one)}
    assert made == {
        "docs/cli.md": ["commands"], "docs/journal.md": ["events"], "docs/your-own-system.md": ["tills"],
    }  # fmt: skip
    for name in made:
        assert page(name).text == renewed(page(name).text), "renew it: python -m tests.docs.generate"


def test_every_command_and_every_event_is_listed() -> None:
    listed = set(re.findall(r"^## (drill.*)$", page("docs/cli.md").text, re.MULTILINE))
    assert listed == {path for path, _ in commands()} >= {"drill", "drill run", "drill cluster down", "drill ack"}
    types = re.findall(r"^\| `([a-z.]+)` \| \S", page("docs/journal.md").section("Events"), re.MULTILINE)
    assert types == [type_of(event) for event in events()]
    assert len(types) > 20


# Refusals


def test_every_refusal_of_core_engine_faults_and_ports_is_explained_with_its_code() -> None:
    raised: dict[str, str] = {}
    kinds = {"Refused": 3, "BadInput": 64, "RollbackIncomplete": 4}
    for folder in ("core", "engine", "faults", "ports"):
        for path in sorted((ROOT / "harness" / folder).glob("*.py")):
            for kind, slug in re.findall(rf"\b({'|'.join(kinds)})\(\s*\"([a-z-]+)\"", path.read_text()):
                raised[slug] = str(kinds[kind])
    assert len(raised) > 20
    rows = re.findall(r"^\| (`.+?`) \| (\d+) \| \S", page("docs/safety.md").section("Refusals"), re.MULTILINE)
    explained = {slug: code for cell, code in rows for slug in re.findall(r"`([a-z-]+)`", cell)}
    assert explained == raised


# Decisions


def test_decisions_are_numbered_dated_short_and_listed() -> None:
    decisions = sorted(path for path in (DOCS / "adr").glob("*.md") if path.name != "README.md")
    assert len(decisions) >= 10
    index = Page(DOCS / "adr" / "README.md")
    for number, path in enumerate(decisions, start=1):
        text = path.read_text(encoding="utf-8")
        assert path.name.startswith(f"{number:04}-")
        assert re.match(
            rf"# {number}\. \S.+\n\nDate: \d{{4}}-\d\d-\d\d\. Status: (accepted|superseded by \d+)\.\n", text
        )
        for part in ("Context", "Decision", "Why not otherwise", "Consequences"):
            assert f"**{part}.**" in text, path.name
        assert len(text.split()) < 350, path.name
        title = text.splitlines()[0].partition(". ")[2]
        assert f"| [{number}]({path.name}) | {title} |" in index.text
    assert len(index.links) == len(decisions)


# Nothing of the writer's machine


@by_page
def test_no_page_names_a_machine_or_a_strange_host(one: Page) -> None:
    found = {match[0] for match in _MACHINE.finditer(one.text)}
    here = [str(path) for path in (ROOT, Path.home()) if len(path.parts) > 2]
    found |= {word for word in [*here, os.uname().nodename] if len(word) > 4 and word in one.text}
    found |= {host for host in hosts(one.text) if not HOSTS.fullmatch(host)}
    assert not found


def hosts(text: str) -> set[str]:
    """Hosts of addresses, and bare names that end like hosts."""
    urls = re.findall(r"\bhttps?://[^\s)\"'`>\]]+", text)
    bare = re.findall(rf"(?<![\w.@/-])((?:[a-z0-9-]+\.)+(?:{_ENDS}))(?![\w.-])", text)
    return {urlsplit(url).hostname or url for url in urls} | set(bare)


def test_hosts_are_seen() -> None:
    assert hosts("see https://a.b.example.org:8/x, or mirror.corp.internal") == {
        "a.b.example.org",
        "mirror.corp.internal",
    }
    assert not HOSTS.fullmatch("mirror.corp.internal")
    assert _MACHINE.search("in /home/me/x")
    assert not _MACHINE.search("staging/home/x")
