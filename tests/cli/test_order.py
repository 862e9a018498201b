"""In which order a cluster that has never been set up is filled."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.clusters import roles, staging
from harness.clusters.provider import Access
from harness.ports.progress import Silent
from harness.wiring import settings

ROOT = Path(__file__).parents[2]


class Fresh:
    """A cluster without any namespace of ours."""

    def up(self, progress: Silent) -> Access:
        return Access("local", "fresh", Path("kubeconfig"), "fresh", None)


def test_roles_are_installed_after_the_namespaces_that_they_lie_in(monkeypatch: pytest.MonkeyPatch) -> None:
    there: set[str] = {"drill-system"}  # manifests/harness makes this one itself

    def deploy(*_: object) -> None:
        there.update({staging.NAMESPACE, staging.MONITORING})

    def install(*_: object) -> None:
        documents = [d for file in roles.MANIFESTS.glob("*.yaml") for d in yaml.safe_load_all(file.read_text())]
        needed = {d["metadata"]["namespace"] for d in documents if "namespace" in d.get("metadata", {})}
        assert needed <= there

    monkeypatch.setattr(settings, "choose", lambda _: Fresh())
    monkeypatch.setattr(staging, "deploy", deploy)
    monkeypatch.setattr(roles, "install", install)
    settings.set_up(settings.Settings(), "smoke", setup=True, progress=Silent(), phases=settings.Phases())
