"""`drill series` on a real cluster: what it tells of several experiments is what their runs saw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.core.event import EffectProved
from tests.e2e.conftest import Product

pytestmark = pytest.mark.cluster

FAMILIES = {
    "scaled-down-workers": ("scale",),
    "revoked-llm-key": ("secret",),
    "registry-lock": ("config", "job"),
}
"""The experiments, and the kinds of their faults. Those of every kind, killed or not, are run by tests/torture; the one
without any, by test_smoke."""


@pytest.mark.longest
def test_several_experiments_are_met_one_after_another_and_leave_nothing(product: Product) -> None:
    done = product.drill("series", "--output", "json", *FAMILIES, within=1200)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["exit_code"] == 0
    rows = {row["experiment"]: row for row in told["series"]}
    assert list(rows) == list(FAMILIES)
    for name, kinds in FAMILIES.items():
        row = rows[name]
        assert (row["verdict"], row["clean"], row["why"]) == ("MET", True, ""), row
        events = product.events(Path(product.runs) / row["run_id"])
        assert len([event for event in events if isinstance(event, EffectProved)]) == len(kinds)
        alerts = [incident for incident in row["incidents"] if incident["firing"] is not None]
        assert len(alerts) == 1, "each of them raises one alert"
        for incident in alerts:
            for span in ("effective", "firing", "recovered"):
                assert 0.0 <= incident[span]["earliest"] <= incident[span]["latest"], row
    assert product.leftovers() == ""
