"""What the documentation says of a peer is what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.peers.compare import CASES
from tests.peers.table import table

ROOT = Path(__file__).resolve().parents[2]


def figures() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "peers.json").read_text(encoding="utf-8"))
    return found


def test_the_table_beside_a_peer_holds_the_figures_as_measured() -> None:
    page = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")
    assert table(figures()) in page, "renew it: make peers prints it"


def test_every_case_was_measured() -> None:
    assert {(row["trouble"], row["title"]) for row in figures()["rows"]} == {(c.trouble, c.title) for c in CASES}
