"""The way from a checkout to a first run: targets, locks and the scripts between them."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = {name: (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8") for name in ("runtime", "dev")}


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9_.-]+)==([^ ;\\]+)", lock, re.MULTILINE | re.IGNORECASE))


def test_every_target_that_people_are_told_of_exists_and_is_explained() -> None:
    done = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True)
    for target in ("drill", "smoke", "test", "check", "e2e", "down", "clean", "lock", "help"):
        assert re.search(rf"^  {target} +\S", done.stdout, re.MULTILINE), target


@pytest.mark.parametrize("name", sorted(LOCKS))
def test_a_lock_pins_with_hashes_and_names_no_address(name: str) -> None:
    lock = LOCKS[name]
    assert lock.count("==") <= lock.count("--hash=sha256:")
    assert "://" not in lock
    assert "--index" not in lock
    assert "--find-links" not in lock


def test_development_runs_on_the_very_packages_of_a_drill() -> None:
    runtime, dev = pins(LOCKS["runtime"]), pins(LOCKS["dev"])
    assert len(runtime) > 20
    assert {name: dev.get(name) for name in runtime} == runtime


def test_every_declared_dependency_is_locked_and_so_is_what_builds_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    names = {re.split(r"[<>=!~ ]", text)[0].lower() for text in declared}
    assert names <= {name.lower() for name in pins(LOCKS["runtime"])}


@pytest.mark.parametrize("script", ["tools/bootstrap.sh", "drill", ".ci/run"])
def test_scripts_are_executable_and_readable_by_any_posix_shell(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert path.read_text(encoding="utf-8").startswith("#!/bin/sh\n")
    subprocess.run(["/bin/sh", "-n", str(path)], check=True)


def test_a_python_that_is_too_old_is_refused_with_the_remedy(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    for name in ("tools", "requirements"):
        (tmp_path / name).mkdir()
    for name in ("tools/bootstrap.sh", "requirements/runtime.lock", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(
        ["/bin/sh", str(tmp_path / "tools/bootstrap.sh"), "runtime"],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHON": str(old)},
    )  # fmt: skip
    assert done.returncode == 64
    assert "Python 3.11 or newer" in done.stderr
    assert not (tmp_path / ".venv").exists()
