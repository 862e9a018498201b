"""The objects that people name in free text, as kubectl lets them: `deploy/worker`, `Deployment/worker`,
`shop/deployment.apps/worker`."""

from __future__ import annotations

import re
from typing import NamedTuple

_SPELLINGS = {
    "configmap": ("configmaps", "cm"),
    "cronjob": ("cronjobs", "cj"),
    "daemonset": ("daemonsets", "ds"),
    "deployment": ("deployments", "deploy"),
    "endpoints": ("ep",),
    "horizontalpodautoscaler": ("horizontalpodautoscalers", "hpa"),
    "ingress": ("ingresses", "ing"),
    "job": ("jobs",),
    "namespace": ("namespaces", "ns"),
    "networkpolicy": ("networkpolicies", "netpol"),
    "node": ("nodes", "no"),
    "persistentvolumeclaim": ("persistentvolumeclaims", "pvc"),
    "pod": ("pods", "po"),
    "replicaset": ("replicasets", "rs"),
    "secret": ("secrets",),
    "service": ("services", "svc"),
    "serviceaccount": ("serviceaccounts", "sa"),
    "statefulset": ("statefulsets", "sts"),
}
_KINDS = {spelled: kind for kind, others in _SPELLINGS.items() for spelled in (kind, *others)}
_PART = "[a-z0-9](?:[-.a-z0-9]*[a-z0-9])?"


class Named(NamedTuple):
    """An object that somebody named; `namespace` is empty where none was said."""

    namespace: str
    kind: str
    name: str


def objects_in(text: str, *more: str) -> tuple[Named, ...]:
    """The objects that a text names as kind/name, in order; kinds in one spelling, without their API group, and
    everything in lower case. Kinds of others, as those of another chaos engine, are known where `more` names them."""
    kinds = _KINDS | {kind: kind for kind in more if kind not in _KINDS}
    spelled = "|".join(map(re.escape, kinds))
    named = re.compile(rf"(?<![-./a-z0-9])(?:({_PART})/)?({spelled})(?:\.[-a-z0-9.]+)?/({_PART})")
    return tuple(Named(match[1] or "", kinds[match[2]], match[3]) for match in named.finditer(text.lower()))
