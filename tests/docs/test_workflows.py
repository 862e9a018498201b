"""What build servers run is what the Makefile has, and no more than they need is theirs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from harness.cli.app import drill
from harness.core.errors import ExitCode
from harness.loading import names
from harness.wiring.smoke import EXPERIMENTS
from tests.docs.pages import ROOT, page
from tests.docs.test_pages import makefile

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
GITHUB = ROOT / ".github" / "workflows" / "drill-smoke.yml"
GITLAB = ROOT / "docs" / "examples" / "drill-smoke.gitlab-ci.yml"
SYSTEM = {"apt-get", "chown"}
"""What a job may run beside make: neither is ours."""


def read(path: Path) -> dict[Any, Any]:
    body = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(body, dict)
    return body


def steps() -> list[dict[str, Any]]:
    return [step for job in read(GITHUB)["jobs"].values() for step in job["steps"]]


def gitlab() -> dict[str, Any]:
    (job,) = (body for name, body in read(GITLAB).items() if not name.startswith("."))
    assert isinstance(job, dict)
    return job


def scripts(path: Path) -> list[str]:
    if path == GITLAB:
        return [*gitlab()["before_script"], *gitlab()["script"]]
    return [line for step in steps() for line in str(step.get("run", "")).splitlines()]


def variables(path: Path) -> dict[str, str]:
    if path == GITLAB:
        return dict(gitlab()["variables"])
    (job,) = read(GITHUB)["jobs"].values()
    return dict(job["env"])


def words(line: str) -> list[str]:
    """The command of a line, without who runs it and in which environment."""
    found = shlex.split(line)
    if found[0] == "sudo":
        found = found[1:]
        while found[0].startswith("-") or found[0] == "env" or re.match(r"[A-Z_]+=", found[0]):
            found = found[1:]
    return found


both = pytest.mark.parametrize("path", [GITHUB, GITLAB], ids=lambda path: path.name)


def test_there_is_no_workflow_that_nobody_looks_at() -> None:
    assert WORKFLOWS == [GITHUB]


@both
def test_what_runs_is_what_the_makefile_has(path: Path) -> None:
    targets, known = makefile()
    lines = [words(line) for line in scripts(path)]
    assert {line[0] for line in lines} <= {"make", *SYSTEM}
    made = [line[1:] for line in lines if line[0] == "make"]
    assert [line[0] for line in made] == ["smoke"]
    assert "smoke" in targets
    for line in made:
        assert {word.partition("=")[0] for word in line[1:]} <= known
        assert list(mistakes(line)) == []


def mistakes(line: list[str]) -> Iterator[str]:
    """Options that a target is given and its command does not have."""
    command = drill.commands[line[0]]
    assert isinstance(command, click.Command)
    known = {name for option in command.params for name in option.opts}
    for word in line[1:]:
        name, _, value = word.partition("=")
        if name == "ARGS":
            yield from (one for one in shlex.split(value) if one.startswith("-") and one not in known)


def test_an_option_that_is_not_there_is_found() -> None:
    assert list(mistakes(["smoke", "ARGS=--results $X --fast"])) == ["--fast"]


@both
def test_variables_that_the_job_sets_are_read(path: Path) -> None:
    _, known = makefile()
    text = path.read_text(encoding="utf-8")
    for name in variables(path):
        used = len(re.findall(rf"\$(?:\{{\{{ env\.)?{name}\b", text))
        assert name in known | {"XDG_CACHE_HOME"} or used, name
    assert variables(path)["DRILL_CLUSTER"] in {"local", "kind"}


@both
def test_every_path_that_is_named_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w./~-])(?:tools|staging|requirements|docs|\.github)/[\w./*-]+", text))
    assert len(named) >= 2
    assert [one for one in sorted(named) if not matching(one.rstrip("."))] == []


def matching(pattern: str) -> set[str]:
    """The files of the checkout that a build server's pattern means."""
    folder = pattern.removesuffix("/**")
    found = (ROOT / folder).rglob("*") if folder != pattern else ROOT.glob(pattern)
    return {str(path.relative_to(ROOT)) for path in found if path.is_file()}


def test_the_caches_key_is_what_the_cache_is_made_from() -> None:
    (cache,) = (step["with"] for step in steps() if "actions/cache@" in step.get("uses", ""))
    assert cache["path"] == "~/.cache/drill"
    named = re.findall(r"'([^']+)'", cache["key"])
    files = set().union(*map(matching, named))
    made_from = {
        "tools/kubernetes/go.mod", "tools/kubernetes/go.sum", "tools/kubernetes/coredns/main.go",
        "staging/image/packages.txt", "staging/image/excludes.txt", "tools/harness-image/packages.txt",
        "requirements/runtime.lock",
    }  # fmt: skip
    assert made_from <= files


def test_actions_are_pinned_to_commits_with_their_version_beside() -> None:
    lines = [line for path in WORKFLOWS for line in path.read_text(encoding="utf-8").splitlines() if "uses:" in line]
    assert lines
    for line in lines:
        assert re.search(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+){0,2}$", line), line


def test_the_job_may_read_and_nothing_else_and_ends_in_time() -> None:
    workflow = read(GITHUB)
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in workflow[True]  # YAML 1.1 reads the key `on` so
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert 10 <= job["timeout-minutes"] <= 60
    (checkout,) = (step for step in steps() if "actions/checkout@" in step.get("uses", ""))
    assert checkout["with"]["persist-credentials"] is False
    assert re.fullmatch(r"\d\d minutes", gitlab()["timeout"])


def test_results_are_kept_and_the_junit_is_shown_whatever_happened() -> None:
    folder = variables(GITHUB)["RESULTS"]
    assert any("--results $RESULTS" in line for line in scripts(GITHUB))
    later = steps()[1 + next(index for index, step in enumerate(steps()) if step.get("name") == "make smoke") :]
    assert all(step["if"] == "always()" for step in later)
    (upload,) = (step["with"] for step in later if "upload-artifact@" in step.get("uses", ""))
    assert upload["path"] == "${{ env.RESULTS }}"
    (shown,) = (step["with"] for step in later if "junit" in step.get("uses", ""))
    assert shown["report_paths"] == "${{ env.RESULTS }}/junit.xml"
    kept = gitlab()["artifacts"]
    assert kept["when"] == "always"
    assert any(f"--results {folder}" in line for line in scripts(GITLAB))
    assert kept["paths"] == [folder]
    assert kept["reports"]["junit"] == f"{folder}/junit.xml"


def test_the_page_names_both_files_and_every_exit_code() -> None:
    one = page("docs/ci.md")
    assert {str(path.relative_to(ROOT)) for path in (GITHUB, GITLAB)} <= set(one.spans)
    rows = re.findall(r"^\| (\d+) \| ", one.section("Exit codes"), re.MULTILINE)
    assert {int(code) for code in rows} == {*map(int, ExitCode), 130}
    assert ["make", "smoke"] in one.command_lines


def test_the_page_names_the_experiments_that_are_run_without_a_name() -> None:
    assert ", ".join(EXPERIMENTS) in page("docs/ci.md").text
    assert set(EXPERIMENTS) <= set(names(ROOT))


@pytest.mark.parametrize(("path", "schema"), [(GITHUB, "github-workflows"), (GITLAB, "gitlab-ci")])
def test_the_files_are_what_the_build_servers_read(path: Path, schema: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
