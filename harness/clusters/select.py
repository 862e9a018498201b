"""Which of the places to drill in is meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from harness.clusters.existing import ExistingCluster
from harness.clusters.kind import KindCluster, usable
from harness.clusters.local import LocalCluster
from harness.clusters.own import OwnCluster, in_pod
from harness.clusters.provider import ClusterProvider
from harness.core.errors import BadInput

Choice = Literal["auto", "local", "kind", "context", "pod"]


def choose(
    provider: Choice = "auto",
    context: str | None = None,
    name: str = "drill",
    *,
    kubeconfig: Path | None = None,
    kind_usable: Callable[[str], bool] = usable,
) -> ClusterProvider:
    """The provider that is asked for; looks, and changes nothing.

    `auto` takes an explicit context; else, in a pod, the cluster that the pod is in; else a local cluster of that name
    that is there already, so that `down` finds what `up` made; else kind where it is usable; else local. Raises
    BadInput where flags contradict each other.
    """
    if provider in ("local", "kind", "pod") and context is not None:
        raise BadInput(
            "contradicting-flags",
            f"provider {provider} together with context {context}",
            expected="a context only with provider auto or context",
            remedy="leave out one of --provider and --context",
        )
    if provider == "context" and context is None:
        raise BadInput(
            "context-missing",
            "provider context without a context",
            expected="the name of a context in the kubeconfig",
            remedy="add --context NAME; `kubectl config get-contexts` lists the names",
        )
    if context is not None:
        return ExistingCluster(context, kubeconfig)
    if provider == "kind":  # whose names may be longer than a local cluster's
        return KindCluster(name)
    if provider == "pod" or (provider == "auto" and in_pod()):
        return OwnCluster()
    local = LocalCluster(name)
    return local if provider == "local" or local.exists or not kind_usable(name) else KindCluster(name)
