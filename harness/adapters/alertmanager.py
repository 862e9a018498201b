"""Alertmanager's API v2, and its routing tree read from the configuration that it says it runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from harness.core.clock import Bounds, Instant, parse_utc, utc
from harness.core.errors import Unreachable
from harness.core.expressions import fits
from harness.ports.endpoint import Transport
from harness.ports.metrics import Matcher, NotifierAlert, Route, Silence

_GROUP_WAIT, _GROUP_INTERVAL = 30.0, 300.0
_LONGEST = 366 * 86400.0
_SKEW = 60.0
"""A new silence starts this many seconds ago: Alertmanager moves a start in the past to its own present, and one in
its future would leave the silence pending while the clocks differ."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
_CONFIGURATION, _LONGEST_LINE, _DEEPEST, _MOST_ROUTES = 1024 * 1024, 4096, 100, 20_000
_TRUE = frozenset({"true", "yes", "on", "y"})
_MATCHER = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[^\s=!~,{}"]+)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*"|[^",]*?)\s*(?:,|$)')


class Alertmanager:
    """The Notifier port. `now` is the run's clock, which begins as wall time."""

    def __init__(self, transport: Transport, *, now: Callable[[], Instant]) -> None:
        self._transport = transport
        self._now = now

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()

    def ready(self) -> str:
        """The version, when it is ready."""
        self._transport.get("/-/ready", text=True)
        return str(self._read(lambda found: found["version"], self._status().get("versionInfo") or {"version": ""}))

    def offset(self) -> Bounds:
        """Bounds on (Alertmanager's clock - ours), from the Date header of its readiness answer."""
        return self._transport.offset("/-/ready")

    def alerts(self, name: str) -> list[NotifierAlert]:
        """Alerts with that alertname: active, unprocessed and suppressed."""
        quoted = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        body = self._transport.get("/api/v2/alerts", {"filter": f'alertname="{quoted}"'}).body
        return [self._read(_alert, one) for one in self._many(body)]

    def silences(self) -> list[Silence]:
        """All silences that Alertmanager remembers."""
        return [self._read(_silence, one) for one in self._many(self._transport.get("/api/v2/silences").body)]

    def silence(self, matchers: Sequence[Matcher], *, author: str, comment: str, seconds: float) -> str:
        """Create a silence from now on; its id. It ends `seconds` from now by our clock."""
        now = self._now()
        body = {
            "matchers": [
                {"name": m.name, "value": m.value, "isRegex": m.is_regex, "isEqual": m.is_equal} for m in matchers
            ],
            "startsAt": utc(now - _SKEW),
            "endsAt": utc(now + seconds),
            "createdBy": author,
            "comment": comment,
        }
        answer = self._transport.write("POST", "/api/v2/silences", body).body
        return str(self._read(lambda found: found["silenceID"], answer))

    def expire(self, silence_id: str) -> None:
        """End a silence now. One that has ended, or that Alertmanager no longer remembers, is fine."""
        path = f"/api/v2/silence/{quote(silence_id, safe='')}"
        answer = self._transport.write("DELETE", path, accept=(404, 500))
        if answer.status != 500:
            return
        found = self._transport.get(path, accept=(404,))
        state = self._read(lambda body: body["status"]["state"], found.body) if found.status != 404 else "gone"
        if found.status != 404 and state != "expired":
            raise self._strange(f"500 to the end of silence {silence_id}, which is {state}: {answer.body}")

    def route(self, labels: Mapping[str, str]) -> Route:
        """The first route that would notify for these labels, with inherited timing. Raises Unreachable where the
        configuration cannot be read."""
        import yaml

        text = self._read(lambda found: str(found["config"]["original"]), self._status())
        try:
            configuration = _configuration(text)
            first = routed(configuration["route"], labels)[0]
            return replace(first, through=_ways(configuration, first.receiver))
        except (yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise self._strange(f"a configuration that cannot be read ({error})") from error

    def _status(self) -> dict[str, Any]:
        body = self._transport.get("/api/v2/status").body
        if not isinstance(body, dict):
            raise self._strange(f"{body!r} as its status")
        return body

    def _many(self, body: Any) -> list[Any]:
        if not isinstance(body, list):
            raise self._strange(f"{body!r} where a list is due")
        return body

    def _read(self, reader: Callable[[Any], Any], body: Any) -> Any:
        try:
            return reader(body)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._strange(f"something that cannot be read ({error!r})") from error

    def _strange(self, what: str) -> Unreachable:
        return Unreachable(
            "alertmanager-strange",
            f"Alertmanager gave {what[:500]}",
            expected="an answer as Alertmanager's API v2 describes it",
            remedy="check that the address is Alertmanager's own and its version 0.22 or newer",
        )


@dataclass(frozen=True, slots=True)
class _Timing:
    receiver: str = ""
    group_wait: float = _GROUP_WAIT
    group_interval: float = _GROUP_INTERVAL


def _configuration(text: str) -> Any:
    """The configuration as text, lists and mappings of text. Anchors are usual in it, so they are followed; what they
    could blow up is bounded where it is read (`_Walk`). Raises yaml.YAMLError and ValueError."""
    import yaml

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    if len(text) > _CONFIGURATION:
        raise ValueError(f"it has more than {_CONFIGURATION // 1024} KiB")
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"it is nested deeper than {_DEEPEST} levels")
    return yaml.load(text, Loader=loader)  # noqa: S506 - it makes text, lists and mappings only


def _ways(configuration: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    """On which ways a receiver tells people; None where the configuration does not say."""
    receivers = configuration.get("receivers")
    for one in receivers if isinstance(receivers, list) else ():
        if isinstance(one, dict) and str(one.get("name")) == name:
            ways = (key for key, found in one.items() if isinstance(found, list) and found)
            return tuple(key.removesuffix("_configs") for key in ways if key.endswith("_configs"))
    return None


def routed(tree: Mapping[str, Any], labels: Mapping[str, str]) -> list[Route]:
    """Every route that notifies for these labels, in order: the deepest match of each branch, and with `continue`
    the next sibling as well. The root matches everything. Raises ValueError where a matcher cannot be read."""
    found = _Walk(labels).descend(tree, _Timing())
    return [Route(one.receiver, one.group_wait, one.group_interval) for one in found]


class _Walk:
    """One way down the tree of routes. Through anchors a small tree can hold itself, or more routes than there are
    seconds: raises ValueError after `_MOST_ROUTES` of them."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = labels
        self._seen = 0

    def descend(self, node: Mapping[str, Any], above: _Timing) -> list[_Timing]:
        node = self._merged(node)
        here = _Timing(
            receiver=str(node.get("receiver") or above.receiver),
            group_wait=_seconds(node.get("group_wait"), above.group_wait),
            group_interval=_seconds(node.get("group_interval"), above.group_interval),
        )
        found: list[_Timing] = []
        for child in node.get("routes") or ():
            if _matches(self._merged(child), self._labels):
                found += self.descend(child, here)
                if str(self._merged(child).get("continue")).lower() not in _TRUE:
                    break
        return found or [here]

    def _merged(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        """The node with what its merge keys bring; its own fields win, and of several the first."""
        self._seen += 1
        if self._seen > _MOST_ROUTES:
            raise ValueError(f"it has more than {_MOST_ROUTES} routes")
        if "<<" not in node:
            return node
        others = node["<<"] if isinstance(node["<<"], list) else [node["<<"]]
        merged: dict[str, Any] = {}
        for other in reversed(others):
            merged.update(self._merged(other))
        return {**merged, **{key: value for key, value in node.items() if key != "<<"}}


def _matches(node: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    wanted = [Matcher(name, str(value)) for name, value in (node.get("match") or {}).items()]
    wanted += [Matcher(name, str(value), is_regex=True) for name, value in (node.get("match_re") or {}).items()]
    for line in node.get("matchers") or ():
        wanted += matchers(str(line))
    return all(_holds(matcher, labels) for matcher in wanted)


def _holds(matcher: Matcher, labels: Mapping[str, str]) -> bool:
    value = labels.get(matcher.name, "")
    same = fits(matcher.value, value) if matcher.is_regex else value == matcher.value
    if same is None:
        raise ValueError(f"the expression {matcher.value[:80]!r} is not tried: it could take for ever")
    return same is matcher.is_equal


def matchers(text: str) -> list[Matcher]:
    """The matchers in a line such as `{severity="page", team=~"a|b"}`. Raises ValueError."""
    rest = text.strip()
    if len(rest) > _LONGEST_LINE:
        raise ValueError(f"a list of matchers has more than {_LONGEST_LINE} characters")
    if rest.startswith("{") and rest.endswith("}"):
        rest = rest[1:-1]
    found, at = [], 0
    rest = rest.strip()
    while at < len(rest):
        match = _MATCHER.match(rest, at)
        if match is None:
            raise ValueError(f"{text!r} is not a list of matchers")
        name, operator, value = match.groups()
        found.append(
            Matcher(_unquoted(name), _unquoted(value), is_regex="~" in operator, is_equal=operator in ("=", "=~"))
        )
        at = match.end()
    return found


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    return re.sub(r'\\(["\\n])', lambda m: "\n" if m[1] == "n" else m[1], text[1:-1])


def _seconds(text: Any, default: float) -> float:
    if text is None or text in {"", "~", "null"}:
        return default
    parts = re.findall(r"([0-9]+)(ms|[smhdwy])", str(text))
    if str(text) != "0" and "".join(number + unit for number, unit in parts) != str(text):
        raise ValueError(f"{text!r} is not a duration")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds > _LONGEST:
        raise ValueError(f"{text!r} is longer than a year")
    return seconds


def _alert(one: Any) -> NotifierAlert:
    return NotifierAlert(
        fingerprint=str(one["fingerprint"]),
        labels={str(name): str(value) for name, value in one["labels"].items()},
        starts_at=parse_utc(one["startsAt"]),
        ends_at=parse_utc(one["endsAt"]),
        state=str(one["status"]["state"]),
        silenced_by=tuple(map(str, one["status"].get("silencedBy") or ())),
    )


def _silence(one: Any) -> Silence:
    return Silence(
        id=str(one["id"]),
        matchers=tuple(
            Matcher(str(m["name"]), str(m["value"]), bool(m["isRegex"]), bool(m.get("isEqual", True)))
            for m in one["matchers"]
        ),
        starts_at=parse_utc(one["startsAt"]),
        ends_at=parse_utc(one["endsAt"]),
        updated_at=parse_utc(one["updatedAt"]),
        created_by=str(one["createdBy"]),
        comment=str(one["comment"]),
        state=str(one["status"]["state"]),
    )
