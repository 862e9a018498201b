"""Prometheus' HTTP API v1.

Queries go through `prometheus-api-client` (only `custom_query` and `custom_query_range`: its other methods glue
labels into PromQL or have defaults from import time), on our own sessions, without its hidden retries, and with a
time limit. Everything that the package lacks or drops goes through the Transport.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from io import BytesIO
from threading import Event as Flag
from threading import local
from typing import TYPE_CHECKING, Any, Literal

from harness.core.clock import Bounds, Instant, dated, parse_utc
from harness.core.errors import BadInput, Unreachable
from harness.ports.endpoint import Endpoint, Transport
from harness.ports.metrics import ActiveAlert, Rule, Series
from harness.ports.payload import IDENTITY, PEER_BYTES, TooMuch, gathered, parsed
from harness.ports.retry import READ_BUDGET, Transient, patiently
from harness.ports.stamps import Stamp, compare
from harness.ports.trust import refused, tls_context, untrusted

if TYPE_CHECKING:
    from prometheus_api_client import PrometheusConnect
    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter

_log = logging.getLogger("harness.prometheus")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhdwy])")
_STATES: dict[str, Literal["inactive", "pending", "firing"]] = {
    "inactive": "inactive",
    "pending": "pending",
    "firing": "firing",
}
_SHORTEST, _LONGEST = 0.001, 366 * 86400.0
"""Seconds between which an interval of Prometheus' lies; its own grain is a millisecond."""
CONNECT, READ = 3.0, 10.0
"""Time limits in seconds: to connect, and between two bytes."""


class _Refusal(Exception):
    """An answer that is not 200, caught before the package turns it into one string."""

    def __init__(self, status: int, content: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.kind, self.text = "", content[:2000].decode("utf-8", "replace").strip()[:500]
        try:
            body = parsed(content)
        except ValueError:
            return
        if isinstance(body, dict):
            self.kind = str(body.get("errorType", ""))
            self.text = str(body.get("error") or body.get("message") or self.text)[:500]


class Prometheus:
    """The Metrics port. Thread-safe: each thread has its own session to query with."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        *,
        now: Callable[[], Instant],
        stop: Flag | None = None,
        budget: float = READ_BUDGET,
        limits: tuple[float, float] = (CONNECT, READ),
    ) -> None:
        self._endpoint = endpoint
        self._transport = transport
        self._now = now
        self._stop = stop or Flag()
        self._budget = budget
        self._limits = limits
        self._mine = local()
        self._made: list[PrometheusConnect] = []

    def close(self) -> None:
        """Close the transport and every thread's session: no thread asks any more."""
        self._transport.close()
        while self._made:
            self._made.pop().close()
        self._mine = local()

    def ready(self) -> str:
        """The version, when it is ready to answer queries."""
        self._transport.get("/-/ready", text=True)
        return str(self._data("/api/v1/status/buildinfo").get("version", ""))

    def started_at(self) -> Instant:
        """When the process started, from runtimeinfo: kept to the nanosecond for as long as the process lives, and
        there without a scrape of itself (process_start_time_seconds lags behind a restart by up to a scrape, needs
        that job, and has a grain of 10 ms)."""
        stamp = self._data("/api/v1/status/runtimeinfo").get("startTime", "")
        try:
            return parse_utc(str(stamp))
        except ValueError as error:
            raise self._strange(f"a start time of {stamp!r}") from error

    def offset(self) -> Bounds:
        """Bounds on (Prometheus' clock - ours): the stamp of an instant query of time() is its clock truncated to
        the millisecond, taken between our sending and our receiving."""

        def ask() -> Stamp:
            sent = self._now()
            result = self._ask("time()", lambda connect: connect.custom_query("time()"))
            received = self._now()
            if not _is_scalar(result):
                raise self._strange(f"{result!r} for time()")
            try:
                stamp = dated(float(result[0]))
            except (ValueError, OverflowError) as error:
                raise self._strange(f"{result[0]!r} as its time") from error
            return Stamp(sent, received, stamp, stamp + 0.001)

        return compare(lambda: self._patient(ask), now=self._now, pause=self._stop.wait, asks=4)

    def vector(self, query: str, at: Instant | None = None) -> list[Series]:
        """An instant query, now or at an instant of Prometheus' clock. NaN and infinities are kept as floats."""
        params = {} if at is None else {"time": f"{at:.3f}"}
        result = self._query(query, lambda connect: connect.custom_query(query, params=params))
        if _is_scalar(result):
            return [Series({}, (self._sample(query, result),))]
        return [Series(self._labels(one), (self._sample(query, one.get("value")),)) for one in self._objects(result)]

    def grid(self, query: str, start: Instant, end: Instant, step: float) -> list[Series]:
        """A range query on the whole seconds inside [start, end]; empty where there is none. It never reaches past
        `end`, where Prometheus would repeat its newest samples."""
        first, last = math.ceil(start), math.floor(end)
        if first > last:
            return []
        begin, finish = datetime.fromtimestamp(first, tz=UTC), datetime.fromtimestamp(last, tz=UTC)
        result = self._query(
            query, lambda connect: connect.custom_query_range(query, begin, finish, step=f"{step:.3f}")
        )
        return [self._series(query, one) for one in self._objects(result)]

    def raw(self, selector: str, window: float) -> list[Series]:
        """The raw samples of a plain selector over the last `window` seconds, at their own stamps."""
        query = f"{selector}[{max(1, round(window * 1000))}ms]"
        result = self._query(query, lambda connect: connect.custom_query(query))
        return [self._series(query, one) for one in self._objects(result)]

    def rules(self) -> list[Rule]:
        """All loaded alerting rules."""
        groups = self._data("/api/v1/rules", {"type": "alert"}).get("groups") or []
        try:
            return [_rule(group, rule) for group in groups for rule in group["rules"] if rule.get("type") == "alerting"]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise self._strange(f"rules that cannot be read ({error!r})") from error

    def scrape_intervals(self) -> dict[str, float]:
        """Seconds by scrape pool, of the active targets; the longest where a pool's targets differ."""
        targets = self._data("/api/v1/targets", {"state": "active"}).get("activeTargets") or []
        intervals: dict[str, float] = {}
        try:
            for target in targets:
                pool, seconds = str(target["scrapePool"]), _seconds(duration(target["scrapeInterval"]))
                intervals[pool] = max(seconds, intervals.get(pool, 0.0))
        except (KeyError, TypeError, ValueError) as error:
            raise self._strange(f"targets that cannot be read ({error!r})") from error
        return intervals

    def notified(self) -> list[str]:
        """The URLs of the Alertmanagers to which alerts are sent."""
        found = self._data("/api/v1/alertmanagers").get("activeAlertmanagers") or []
        try:
            return [str(one["url"]) for one in found]
        except (KeyError, TypeError) as error:
            raise self._strange(f"Alertmanagers that cannot be read ({error!r})") from error

    # ------------------------------------------------------------------------------------------- help

    def _data(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        body = self._transport.get(path, params).body
        data = body.get("data") if isinstance(body, dict) else None
        if not isinstance(data, dict):
            raise self._strange(f"no data to {path}")
        return data

    def _query(self, query: str, call: Callable[[PrometheusConnect], Any]) -> Any:
        result = self._patient(lambda: self._ask(query, call))
        if not isinstance(result, list):
            raise self._strange(f"{result!r} for {query}")
        return result

    def _patient(self, call: Callable[[], Any]) -> Any:
        return patiently(call, stop=self._stop, budget=self._budget)

    def _ask(self, query: str, call: Callable[[PrometheusConnect], Any]) -> Any:
        from requests import RequestException
        from urllib3.exceptions import HTTPError

        try:
            return call(self._connect())
        except _Refusal as refusal:
            raise self._refused(query, refusal) from refusal
        except TooMuch as error:
            raise self._failed(query, str(error), transient=False) from error
        except (RequestException, HTTPError) as error:
            if distrust := untrusted(self._endpoint, repr(query), error):
                raise distrust from error
            raise self._failed(query, f"no good answer ({type(error).__name__}: {error})", transient=True) from error
        except (ValueError, KeyError, TypeError) as error:
            raise self._failed(query, f"an answer that is not Prometheus' ({error!r})", transient=True) from error

    def _connect(self) -> PrometheusConnect:
        connect: PrometheusConnect | None = getattr(self._mine, "connect", None)
        if connect is None:
            connect = self._mine.connect = self._new_connect()
            self._made.append(connect)
        return connect

    def _new_connect(self) -> PrometheusConnect:
        from prometheus_api_client import PrometheusConnect
        from requests import Session
        from urllib3.util.retry import Retry

        endpoint, session = self._endpoint, Session()
        session.trust_env = endpoint.environment
        session.headers["User-Agent"] = "drill"
        session.headers["Accept-Encoding"] = IDENTITY
        if endpoint.proxy:
            session.proxies = {"http": endpoint.proxy, "https": endpoint.proxy}

        def authorize(request: PreparedRequest) -> PreparedRequest:
            value = endpoint.authorization()
            if value:
                request.headers["Authorization"] = value
            return request

        session.auth = authorize
        session.hooks["response"].append(_look)
        connect = PrometheusConnect(
            url=endpoint.base_url, session=session, retry=Retry(total=0, redirect=0), timeout=self._limits
        )
        session.mount(endpoint.base_url, _door(endpoint))  # in the place of the one that the package has just mounted
        return connect

    def _refused(self, query: str, refusal: _Refusal) -> BadInput | Unreachable:
        if refusal.kind == "bad_data":
            return BadInput(
                "promql-refused",
                f"Prometheus does not take {query!r}: {refusal.text}",
                expected="an expression that Prometheus can parse",
                remedy="try it in Prometheus' own query page",
            )
        if closed := refused(self._endpoint, refusal.status, repr(query), refusal.text):
            return closed
        passing = refusal.status in (408, 429) or refusal.status >= 500
        return self._failed(query, f"{refusal.status}: {refusal.text}", transient=passing)

    def _failed(self, query: str, why: str, *, transient: bool) -> Unreachable:
        return (Transient if transient else Unreachable)(
            "prometheus-unreachable",
            f"{self._endpoint.name} gave {why} to {query!r}",
            expected="a result within the time limit",
            remedy="check that Prometheus runs and that its address is right",
        )

    def _strange(self, what: str) -> Unreachable:
        return Unreachable(
            "prometheus-strange",
            f"{self._endpoint.name} gave {what[:500]}",
            expected="an answer as Prometheus' HTTP API v1 describes it",
            remedy="check that the address is Prometheus' own and its version 2.37 or newer",
        )

    def _objects(self, result: list[Any]) -> list[dict[str, Any]]:
        if not all(isinstance(one, dict) for one in result):
            raise self._strange("a result that is not a list of series")
        return result

    def _labels(self, one: dict[str, Any]) -> dict[str, str]:
        metric = one.get("metric") or {}
        if not isinstance(metric, dict):
            raise self._strange("a series whose labels are no object")
        return {str(name): str(value) for name, value in metric.items()}

    def _series(self, query: str, one: dict[str, Any]) -> Series:
        values = one.get("values") or []
        if not isinstance(values, list):
            raise self._strange("a series whose values are no list")
        return Series(self._labels(one), tuple(self._sample(query, value) for value in values))

    def _sample(self, query: str, pair: Any) -> tuple[Instant, float]:
        try:
            stamp, value = pair
            return dated(float(stamp)), float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise BadInput(
                "promql-not-numbers",
                f"{query!r} gives {pair!r}",
                expected="float samples (no strings, no native histograms)",
                remedy="change the expression to one that gives numbers",
            ) from error


def _door(endpoint: Endpoint) -> HTTPAdapter:
    """The adapter of requests with one TLS context, the same as the Transport's: its own would add the CAs of a
    package, and take others from the environment."""
    from requests.adapters import HTTPAdapter
    from urllib3 import disable_warnings
    from urllib3.exceptions import InsecureRequestWarning
    from urllib3.util.retry import Retry

    if endpoint.verify is False:  # said once, by the preflight, and not on stderr at each request
        disable_warnings(InsecureRequestWarning)
    tls: dict[str, Any] = {"ssl_context": tls_context(endpoint)}
    if endpoint.server_name:
        tls["server_hostname"] = endpoint.server_name

    class Door(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **{**kwargs, **tls})

        def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
            return super().proxy_manager_for(proxy, **{**kwargs, **tls})

        def cert_verify(self, *_: Any) -> None:
            """The context does."""

        def build_connection_pool_key_attributes(self, request: PreparedRequest, *_: Any, **__: Any) -> Any:
            host, _tls = super().build_connection_pool_key_attributes(request, True)  # noqa: FBT003 - requests' order
            return host, {}

    return Door(max_retries=Retry(total=0, redirect=0))


def duration(text: str) -> float:
    """Seconds in a Prometheus duration such as "1m30s". Raises ValueError."""
    parts = _PART.findall(text)
    if text == "0":
        return 0.0
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _look(response: Response, *_: Any, **__: Any) -> None:
    """Read no more than an answer may be, stop at what is not 200, and say aloud what the package would drop."""
    raw = response.raw
    try:
        content = gathered(_chunks(raw), encoding=response.headers.get("Content-Encoding"), most=PEER_BYTES)
    except BaseException:
        raw.close()
        raise
    raw.release_conn()
    if response.status_code != 200:
        raise _Refusal(response.status_code, content)
    body = parsed(content)
    # The package reads the answer again: from what was read here, in a form that no parser falls over.
    response.raw = BytesIO(json.dumps(body).encode())
    warnings = body.get("warnings") if isinstance(body, dict) else None
    if warnings and isinstance(warnings, list):
        _log.warning("Prometheus warns: %s", "; ".join(map(str, warnings))[:2000])


def _chunks(raw: Any) -> Iterator[bytes]:
    """What has come, as it comes: a read of a fixed size would wait for a body that drips."""
    while chunk := raw.read1(65536, decode_content=False):
        yield chunk


def _is_scalar(result: Any) -> bool:
    return isinstance(result, list) and len(result) == 2 and isinstance(result[0], (int, float))


def _rule(group: dict[str, Any], rule: dict[str, Any]) -> Rule:
    # The group's stamp is when its evaluation began; the rule's is when its own turn came, which in a slow group is
    # later than the next evaluation was due.
    evaluated = str(group.get("lastEvaluation") or rule.get("lastEvaluation", ""))
    return Rule(
        alert=str(rule["name"]),
        group=str(group["name"]),
        file=str(group["file"]),
        query=str(rule["query"]),
        for_seconds=_seconds(rule["duration"]),
        interval=_seconds(group["interval"]),
        labels=_texts(rule.get("labels")),
        annotations=_texts(rule.get("annotations")),
        health=str(rule.get("health", "")),
        last_error=str(rule.get("lastError", "")),
        state=_STATES[rule["state"]],
        last_evaluation=None if not evaluated or evaluated.startswith("0001-") else parse_utc(evaluated),
        active=tuple(_active(alert) for alert in rule.get("alerts") or ()),
    )


def _active(alert: dict[str, Any]) -> ActiveAlert:
    state: Literal["pending", "firing"] = "firing" if alert["state"] == "firing" else "pending"
    return ActiveAlert(_texts(alert["labels"]), state, parse_utc(alert["activeAt"]), float(alert["value"]))


def _seconds(value: Any) -> float:
    seconds = float(value)
    if seconds != 0 and not _SHORTEST <= seconds <= _LONGEST:
        raise ValueError(f"{value!r} seconds")
    return seconds


def _texts(found: Any) -> dict[str, str]:
    """Labels or annotations: text by text. Raises ValueError."""
    if not isinstance(found or {}, dict):
        raise ValueError(f"{found!r} are no labels")
    return {str(name): str(value) for name, value in (found or {}).items()}
