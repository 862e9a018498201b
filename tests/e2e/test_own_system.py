"""A system that the harness has never seen, an experiment of 25 lines, and a person who answers the page."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.core.event import AlertTransition, EffectProved, InjectDone, RestartPlanned, RunEnded
from harness.core.milestone import milestones, restarts
from harness.core.verdict import judge
from harness.loading import parse
from tests.e2e.conftest import EXAMPLES, SHOP, Product
from tests.faults.test_outside import OUTSIDE, installed

pytestmark = pytest.mark.cluster

EXPERIMENT = EXAMPLES / "few-tills.yaml"
PEERS = (
    "--prometheus", "service:shop/prometheus:9090", "--alertmanager", "service:shop/alertmanager:9093",
    "--pager", "none",
)  # fmt: skip
HOLE = """\
name: no-way-in
title: Nobody behind the Service
why: {probability: low, tests: [service]}
namespace: shop
narrative: Nothing answers.
facilitator: {root_cause: {object: deployment/till, reason: its Service selects nobody}}
severity: P2
signal: {title: The front answers, query: 'min(up{job="front"})'}
steady_state: [{name: the front answers, query: 'min(up{job="front"})', above: 0}]
faults:
  - id: hole
    kind: blackhole
    service: till
    effect: {query: 'min(up{job="front"})', below: 1, within: 30s}
    blast_radius: {pods: 1}
mitigated: {query: sum(till_open), above: 2}
recovered: {query: sum(till_open), above: 2}
slas: [{from: hole.injected, to: hole.effective, within: 30s, required: true}]
runbook: docs/tills.md
profiles: {smoke: {timeout: 2m, responder: human}}
"""


KILLS = """\
name: tills-crash
title: One till after another crashes
why: {probability: medium, tests: [pods]}
namespace: shop
narrative: Tills go and come back.
facilitator: {root_cause: {object: deployment/till, reason: its pods are killed}}
severity: P3
signal: {title: Open tills, query: sum(till_open)}
steady_state: [{name: three tills are open, query: sum(till_open), above: 2}]
faults:
  - id: crash
    kind: pod-kill
    target: deployment/till
    count: 3
    every: 12s
    times: 3
    effect: {ready_at_most: 0, within: 10s}
    blast_radius: {pods: 3}
mitigated: {query: sum(till_open), above: 2}
recovered: {query: sum(till_open), above: 2}
slas: [{from: crash.injected, to: crash-3.effective, within: 60s, required: true}]
runbook: docs/tills.md
profiles: {smoke: {timeout: 2m, responder: human}}
"""


HIDDEN = """\
name: hidden-tills
title: Tills that nobody sees
why: {probability: medium, tests: [service]}
namespace: shop
narrative: Customers wait, and TooFewTills pages whoever is on call.
facilitator: {root_cause: {object: service/tills, reason: its selector asks for a label that no pod is made with}}
severity: P2
signal: {title: Open tills, query: sum(till_open)}
steady_state: [{name: three tills are open, query: sum(till_open), above: 2}]
faults:
  - id: floor
    kind: patch
    target: service/tills
    operations: [{op: add, path: /spec/selector/floor, value: ground}]
    effect: {query: sum(till_open), below: 2, within: 30s}
    blast_radius: {pods: 3}
alerts: [{name: TooFewTills, within: 1m, of: floor.effective}]
mitigated: {query: sum(till_open), above: 1}
recovered:
  {query: sum(till_open), above: 2, for: 5s, restart_proof: {of: deployment/till, within: 15s}}
slas: [{from: firing, to: recovered, within: 10m, required: true}]
runbook: docs/tills.md
profiles: {smoke: {timeout: 4m, responder: human}}
"""


def where(product: Product) -> tuple[str, ...]:
    access = product.access
    return ("--cluster", "context", "--context", access.context, "--kubeconfig", str(access.kubeconfig))


def replicas(product: Product) -> str:
    return product.kubectl("-n", SHOP, "get", "deployment/till", "--output=jsonpath={.spec.replicas}")


def test_a_plain_deployment_with_its_own_alert_is_drilled_and_recovers(shop: Product) -> None:
    assert len(EXPERIMENT.read_text(encoding="utf-8").splitlines()) <= 25
    planned = shop.drill("plan", str(EXPERIMENT), *where(shop), *PEERS)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "scale deployment/till in shop from 3 to 1 replicas" in planned.stdout
    run = shop.start("run", str(EXPERIMENT), *where(shop), *PEERS)
    shop.until(
        lambda: any(isinstance(one, AlertTransition) and one.to == "firing" for one in shop.events()), run, seconds=120
    )
    assert replicas(shop) == "1"
    acknowledged = shop.drill("ack", *where(shop))
    assert acknowledged.returncode == 0, acknowledged.stderr
    shop.kubectl("-n", SHOP, "scale", "deployment/till", "--replicas=3")
    assert run.wait(timeout=200) == 0, shop.output(run)
    told = shop.output(run)
    assert "MET  few-tills (smoke)" in told
    assert "the cluster was put back" in " ".join(told.split())
    assert replicas(shop) == "3"
    left = shop.kubectl("-n", SHOP, "get", "configmaps,leases", "-o", "name")
    assert [line for line in left.splitlines() if "/drill" in line] == []


def test_a_fault_from_an_entry_point_breaks_it_and_is_undone(shop: Product, tmp_path: Path) -> None:
    experiment = tmp_path / "no-way-in.yaml"
    experiment.write_text(HOLE)
    packages = installed(tmp_path / "packages", "blackhole = acme_faults:BLACKHOLE")
    paths = os.pathsep.join(map(str, (packages, OUTSIDE)))
    selector = shop.kubectl("-n", SHOP, "get", "service/till", "--output=jsonpath={.spec.selector}")
    done = shop.drill("run", str(experiment), *where(shop), *PEERS, PYTHONPATH=paths)
    assert done.returncode == 0, done.stdout + done.stderr
    events = shop.events()
    (proved,) = [one for one in events if isinstance(one, EffectProved)]
    assert proved.proof.startswith('Prometheus: min(up{job="front"}) < 1')
    assert isinstance(events[-1], RunEnded)
    assert events[-1].reason == "complete"
    assert shop.kubectl("-n", SHOP, "get", "service/till", "--output=jsonpath={.spec.selector}") == selector


def test_pods_are_killed_again_and_again_and_each_time_those_that_came_anew(shop: Product, tmp_path: Path) -> None:
    experiment = tmp_path / "tills-crash.yaml"
    experiment.write_text(KILLS)
    planned = shop.drill("plan", str(experiment), *where(shop), *PEERS)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert all(name in planned.stdout for name in ("crash ", "crash-2", "crash-3"))
    ran = shop.drill("run", str(experiment), *where(shop), *PEERS)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    killed = [set(event.deleted) for event in shop.events() if isinstance(event, InjectDone)]
    assert [len(uids) for uids in killed] == [3, 3, 3]
    assert len(set.union(*killed)) == 9
    assert {event.fault for event in shop.events() if isinstance(event, EffectProved)} == {
        "crash",
        "crash-2",
        "crash-3",
    }
    assert "clean" in ran.stdout
    left = shop.kubectl("-n", SHOP, "get", "configmaps,leases", "-o", "name")
    assert [line for line in left.splitlines() if "/drill" in line] == []


def test_a_fix_of_what_runs_does_not_outlast_a_restart_and_one_of_what_is_declared_does(
    shop: Product, tmp_path: Path
) -> None:
    def hands(*arguments: str) -> str:
        return shop.kubectl("-n", SHOP, *arguments)

    def planned() -> list[RestartPlanned]:
        return [event for event in shop.events() if isinstance(event, RestartPlanned)]

    first, *rest = hands("get", "pods", "-l", "app=till", "-o", "name").split()
    hands("label", first, "floor=ground")  # one till is seen all the same, so that the alert has something to look at
    experiment = tmp_path / "hidden-tills.yaml"
    experiment.write_text(HIDDEN)
    run = shop.start("run", str(experiment), *where(shop), *PEERS)
    shop.until(
        lambda: any(isinstance(one, AlertTransition) and one.to == "firing" for one in shop.events()), run, seconds=120
    )
    hands("label", *rest, "floor=ground")
    shop.until(planned, run, seconds=60)
    begun = shop.history()
    shop.until(lambda: fell(shop), run, seconds=90)
    hands("patch", "service", "tills", "--type=json", '-p=[{"op": "remove", "path": "/spec/selector/floor"}]')
    assert run.wait(timeout=200) == 0, shop.output(run)
    history = shop.history()
    before, after = planned()
    assert {pod.uid for pod in before.pods}.isdisjoint(pod.uid for pod in after.pods), "each was restarted"
    judged = judge(parse(history.start.experiment).tuned("smoke"), history)
    recovered = judged.milestones["recovered"]
    assert recovered.at.earliest > begun.last_at, "what a restart took away again was no recovery"
    report = json.loads((shop.runs / "latest" / "report.json").read_text(encoding="utf-8"))
    rules = {finding["rule"]: finding for finding in report["findings"]}
    assert rules["fix-did-not-last"]["title"] == "A fix for TooFewTills did not outlast a restart of deployment/till"
    assert "fix-lasts" in rules
    assert "clean" in shop.output(run)
    left = hands("get", "configmaps,leases", "-o", "name")
    assert [line for line in left.splitlines() if "/drill" in line] == []


def fell(product: Product) -> bool:
    """Whether a restart has shown that a fix did not last."""
    history = product.history()
    experiment = parse(history.start.experiment).tuned("smoke")
    known = restarts(experiment, history, milestones(experiment, history))
    return any(attempt.fell for outcome in known.values() for attempt in outcome.all)
