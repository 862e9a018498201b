"""The Kubernetes API over the official package's client, in raw JSON."""

from harness.adapters.kubernetes.client import KubeCluster
from harness.adapters.kubernetes.wire import Timing

__all__ = ["KubeCluster", "Timing"]
