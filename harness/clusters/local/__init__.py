"""A real single-node Kubernetes on this Linux machine, in a network namespace of its own, without Docker."""

from harness.clusters.local.provider import LocalCluster

__all__ = ["LocalCluster"]
