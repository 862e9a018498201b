"""Alerting rules as objects of the Prometheus operator: which object holds an alert, which one a loaded file came from,
and why an object is not loaded.

The operator writes each object that a Prometheus selects into a file called NAMESPACE-NAME-UID.yaml (older versions:
NAMESPACE-NAME.yaml), and Prometheus tells the file of each rule group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]
RULES = "PrometheusRule.v1.monitoring.coreos.com"
SERVERS = "Prometheus.v1.monitoring.coreos.com"


def holding(objects: Sequence[Json], alert: str) -> list[Json]:
    """The objects with a rule for that alert."""
    return [one for one in objects if alert in alerts_of(one)]


def alerts_of(body: Json) -> set[str]:
    """The names of the alerts in an object; of one that is not as the operator takes it, none."""
    return {
        str(rule["alert"])
        for group in _list(_mapping(body.get("spec")).get("groups"))
        for rule in _list(_mapping(group).get("rules"))
        if isinstance(rule, Mapping) and rule.get("alert")
    }


def written_from(objects: Sequence[Json], file: str) -> Json | None:
    """The object from which the operator wrote a rule file; None where it wrote it from none of them."""
    name = file.rpartition("/")[2]
    return next((one for one in objects if name in _names(one)), None)


def _names(body: Json) -> Iterator[str]:
    meta = _mapping(body.get("metadata"))
    short = f"{meta.get('namespace')}-{meta.get('name')}"
    yield from (f"{short}.yaml", f"{short}-{meta.get('uid')}.yaml")


def called(body: Json) -> str:
    """prometheusrule/NAME in NAMESPACE."""
    meta = _mapping(body.get("metadata"))
    return f"{str(body.get('kind', 'object')).lower()}/{meta.get('name')} in {meta.get('namespace')}"


def unselected(body: Json, servers: Sequence[Json], namespaces: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Why each of the operator's Prometheus servers leaves an object out; empty where one of them takes it.
    `namespaces` are the labels of namespaces by name, as far as they are known."""
    found = []
    for server in servers:
        why = _why(body, server, namespaces)
        if not why:
            return []
        found.append(why)
    return found


def _why(body: Json, server: Json, namespaces: Mapping[str, Mapping[str, str]]) -> str:
    spec, labels = _mapping(server.get("spec")), _labels(body)
    home = str(_mapping(server.get("metadata")).get("namespace"))
    own = str(_mapping(body.get("metadata")).get("namespace"))
    of = called(server)
    where = spec.get("ruleNamespaceSelector")
    if where is None and own != home:
        return f"{of} has no ruleNamespaceSelector, so it looks into its own namespace only"
    if where is not None and own in namespaces and not selects(where, namespaces[own]):
        return f"ruleNamespaceSelector of {of} ({written(where)}) does not select namespace {own}"
    rules = spec.get("ruleSelector")
    if rules is None:
        return f"{of} has no ruleSelector, so it takes no rules"
    if not selects(rules, labels):
        shown = ", ".join(f"{name}={value}" for name, value in sorted(labels.items())) or "none"
        return f"its labels ({shown}) do not match the ruleSelector of {of} ({written(rules)})"
    return ""


def selects(selector: Any, labels: Mapping[str, str]) -> bool:
    """Whether a Kubernetes label selector matches; an empty one matches everything."""
    found = _mapping(selector)
    plain = all(labels.get(name) == value for name, value in _mapping(found.get("matchLabels")).items())
    return plain and all(_meets(_mapping(one), labels) for one in _list(found.get("matchExpressions")))


def _meets(one: Json, labels: Mapping[str, str]) -> bool:
    name, values = str(one.get("key")), _list(one.get("values"))
    match one.get("operator"):
        case "In":
            return labels.get(name) in values
        case "NotIn":
            return labels.get(name) not in values
        case "Exists":
            return name in labels
        case "DoesNotExist":
            return name not in labels
        case _:
            return False


def written(selector: Any) -> str:
    """A label selector as kubectl takes it."""
    found = _mapping(selector)
    parts = [f"{name}={value}" for name, value in _mapping(found.get("matchLabels")).items()]
    for one in map(_mapping, _list(found.get("matchExpressions"))):
        values = ", ".join(map(str, _list(one.get("values"))))
        match one.get("operator"):
            case "Exists":
                parts.append(str(one.get("key")))
            case "DoesNotExist":
                parts.append(f"!{one.get('key')}")
            case operator:
                parts.append(f"{one.get('key')} {str(operator).lower()} ({values})")
    return ", ".join(parts) or "everything"


def _labels(body: Json) -> dict[str, str]:
    return {str(k): str(v) for k, v in _mapping(_mapping(body.get("metadata")).get("labels")).items()}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else ()
