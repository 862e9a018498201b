"""Secrets never leave the cluster: canaries are planted, and looked for wherever the harness writes, runs or stores."""

from __future__ import annotations

import base64
import copy
import json
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Self
from urllib.parse import quote

import pytest

from harness.clusters.provider import Access
from harness.ports.cluster import Json, Ref
from harness.ports.kinds import KINDS
from tests.faults.targets import TARGETS, Row, Target
from tests.hands import hand
from tests.torture.matrix import Torture

pytestmark = [pytest.mark.cluster, pytest.mark.apart]

ODD = "/+&=%\u00e9"
"""Makes a canary look otherwise once it is URL-encoded or escaped."""


def spellings(canary: str) -> list[bytes]:
    """A canary in plain, base64 at each of its three alignments, URL-encoded and JSON-escaped form."""
    raw = canary.encode()
    found = [raw, quote(canary, safe="").encode(), quote(canary).encode(), json.dumps(canary)[1:-1].encode()]
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw)
        found.append(encoded[4 if shift else 0 : -4])
    found.append(base64.urlsafe_b64encode(raw)[:-4])
    return found


def test_a_canary_is_found_in_every_spelling() -> None:
    canary = f"canary-{secrets.token_hex(8)}{ODD}"
    for text in (
        canary, json.dumps({"key": canary}), quote(canary), base64.b64encode(f"ab{canary}cd".encode()).decode(),
        base64.b64encode(f"a{canary}".encode()).decode(), base64.b64encode(canary.encode()).decode(),
    ):  # fmt: skip
        assert any(spelling in text.encode() for spelling in spellings(canary)), text


class Processes:
    """Every command line and environment on this machine that holds a canary, seen while it watches."""

    def __init__(self, canaries: list[str]) -> None:
        self._wanted = [spelling for canary in canaries for spelling in spellings(canary)]
        self._over = Flag()
        self._thread = Thread(target=self._watch, daemon=True)
        self.looked = 0
        self.found: set[str] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.looked += 1
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit() and not _is_in_a_pod(entry):
                    self._look(entry)

    def _look(self, process: Path) -> None:
        for name in ("cmdline", "environ"):
            try:
                text = (process / name).read_bytes()
            except OSError:
                continue
            if any(spelling in text for spelling in self._wanted):
                self.found.add(f"{name} of {text[:60]!r}")


def _is_in_a_pod(process: Path) -> bool:
    """Pods have their secrets in their environment: that is what they are for."""
    try:
        return b"kubepods" in (process / "cgroup").read_bytes()
    except OSError:
        return True


def armed(target: Target, kept: str, literal: str) -> Target:
    """The target with one canary out of a Secret, and another written plainly wherever people write such things. Where
    the fault breaks a Secret itself, its value is the first one."""
    manifests = copy.deepcopy(target.manifests)
    body = next(one for one in manifests if one["kind"] in {"Deployment", "StatefulSet"})
    for one in manifests:
        if one["kind"] == "Secret":
            one["data"][target.spec["key"]] = base64.b64encode(kept.encode()).decode()
    body["metadata"]["annotations"]["note"] = literal
    template = body["spec"]["template"]
    template["metadata"]["annotations"] = {"note": literal}
    container = template["spec"]["containers"][0]
    container["args"] = [literal]
    container["env"] = [
        *container.get("env", ()),
        {"name": "PLAIN", "value": literal},
        {"name": "KEPT", "valueFrom": {"secretKeyRef": {"name": "canary", "key": "token"}}},
    ]
    return replace(target, manifests=manifests)


class Planting(Torture):
    """Rooms in which the Secret is there before the pods that need it."""

    token = ""

    def _make(self, target: Row, room: str) -> None:
        super()._make(target, room)
        data = {"token": base64.b64encode(self.token.encode()).decode()}
        meta = {"name": "canary", "namespace": room}
        self.cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data})


def objects(torture: Torture, room: str) -> Iterator[tuple[Ref, Json]]:
    """Everything in the room, in the harness' own namespace, and everything without a namespace; Secrets whole."""
    for kind in KINDS.values():
        for namespace in (room, "drill-system") if kind.namespaced else ("",):
            for body in torture.cluster.list(kind.name, namespace):
                ref = Ref(kind.name, namespace, body["metadata"]["name"])
                yield ref, hand(torture.cluster).read(ref) if kind.name == "Secret" else body


@pytest.mark.parametrize("kind", sorted({target.kind for target in TARGETS}))
def test_no_secret_leaves_its_place(kind: str, local_access: Access) -> None:
    kept, literal = (f"canary-{secrets.token_hex(12)}{ODD}" for _ in range(2))
    target = armed(next(one for one in TARGETS if one.kind == kind), kept, literal)
    homes = {("Secret", "canary"), target.broken if target.broken[0] == "Secret" else ("Secret", "canary")}
    torture = Planting(local_access, lambda _: None, jobs=1)
    torture.token = kept
    everywhere = [*spellings(kept), *spellings(literal)]
    with torture._rooms(target) as rooms, Processes([kept, literal]) as processes:
        room = rooms.get()
        before = torture._declared(target, room)
        died = torture._victim("append:inject.done#1", target, room, "died")
        while_dead, broken = list(objects(torture, room)), torture._declared(target, room)
        done = torture._drill("recover", "--namespace", room, "--runs", str(torture.folder / "died"))
        well = torture.folder / "well"
        run = torture.lives(target, room, well.name)
        judged = torture.drill("judge", str(well / "latest"))
        after = list(objects(torture, room))
        assert torture._declared(target, room) == before
    assert died == -9
    assert done.returncode == 0, done.stdout + done.stderr
    assert run.returncode == 0, run.stdout + run.stderr
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert any(ref.name.startswith("drill-undo-") for ref, _ in while_dead), "a fault in force is what is looked at"
    assert broken != before, "and its write was made"

    said = "".join(one.stdout + one.stderr for one in (done, run, judged)).encode()
    assert [spelling for spelling in everywhere if spelling in said] == []
    written = [path for path in torture.folder.rglob("*") if path.is_file()]
    assert {"journal.jsonl", "report.html", "report.json", "report.md", "junit.xml"} <= {path.name for path in written}
    holding = [path.name for path in written if any(spelling in path.read_bytes() for spelling in everywhere)]
    assert holding == []
    assert processes.looked > 20
    assert processes.found == set()

    theirs = {*(ref.kind for ref in target.workloads(room)), "ReplicaSet", "Pod"}
    for moment in (while_dead, after):
        for ref, body in moment:
            text = json.dumps(body, ensure_ascii=False).encode() + json.dumps(body).encode()
            if (ref.kind, ref.name) not in homes:
                assert not any(spelling in text for spelling in spellings(kept)), ref
            if ref.kind not in theirs:
                assert not any(spelling in text for spelling in spellings(literal)), ref
