"""The parts of the rig that need no engine: its pins, and what runc is told."""

from __future__ import annotations

import json
import re
from pathlib import Path

from harness.clusters.kind import KIND_VERSION
from harness.clusters.local import toolchain
from tests.rigs.kind import lesser_runc, node_image

LACKING = {"CAP_SYS_RESOURCE"}


def test_the_pins_are_those_of_the_product() -> None:
    module = (node_image.HERE / "go.mod").read_text()
    assert re.findall(r"sigs\.k8s\.io/kind (v\S+)", module) == [KIND_VERSION]
    local = toolchain.plan()
    assert re.findall(r"k8s\.io/kubernetes (v\S+)", module) == [local.kubernetes]
    replaced = r"(k8s\.io/\S+ => \S+ v\S+)"
    theirs = re.findall(replaced, (local.source / "go.mod").read_text())
    assert set(re.findall(replaced, module)) == set(theirs)


def test_a_container_is_made_without_what_the_machine_lacks(tmp_path: Path) -> None:
    sets = {name: ["CAP_CHOWN", "CAP_SYS_RESOURCE"] for name in lesser_runc.SETS[:-1]}
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"root": {"path": "/"}, "process": {"args": ["sh"], "capabilities": sets}}))
    lesser_runc.rewrite(["--root", "/x", "create", "--bundle", str(tmp_path), "id"], LACKING)
    made = json.loads(config.read_text())
    assert made["root"] == {"path": "/"}
    assert made["process"]["args"] == ["sh"]
    assert made["process"]["capabilities"] == {name: ["CAP_CHOWN"] for name in lesser_runc.SETS[:-1]} | {"ambient": []}


def test_so_is_a_process_in_it(tmp_path: Path) -> None:
    process = tmp_path / "process.json"
    process.write_text(json.dumps({"args": ["sh"], "capabilities": {"bounding": ["CAP_SYS_RESOURCE"]}}))
    lesser_runc.rewrite(["exec", f"--process={process}", "id"], LACKING)
    assert json.loads(process.read_text())["capabilities"]["bounding"] == []


def test_other_commands_of_runc_read_no_such_file(tmp_path: Path) -> None:
    lesser_runc.rewrite(["delete", "--force", "id"], LACKING)
    assert list(tmp_path.iterdir()) == []
