"""Finding a peer, and talking HTTP with it.

A peer is given as `service:monitoring/prometheus:9090` (reached through the API server's service proxy, with its
identity: one authenticated door that works the same on every cluster) or as an http(s) URL. Note that the API server
strips the Authorization header on its way to a service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from threading import Event as Flag
from typing import TYPE_CHECKING, Any

from harness.core.address import EXPECTED, is_url, service_of, without_secrets
from harness.core.clock import Bounds, Instant
from harness.core.errors import BadInput, Unreachable
from harness.ports.cluster import OutcomeUnknown
from harness.ports.endpoint import Answer, ApiServer, Credentials, Endpoint
from harness.ports.payload import IDENTITY, PEER_BYTES, TooMuch, gathered, parsed
from harness.ports.retry import READ_BUDGET, Transient, patiently, seconds_wished
from harness.ports.stamps import Stamp, compare, http_date
from harness.ports.trust import authorization, identity, refused, tls_context, untrusted

if TYPE_CHECKING:
    import httpx2

_PASSING = frozenset({408, 425, 429})
NOTHING = Credentials()
CONNECT, READ = 3.0, 10.0
"""Time limits in seconds: to connect, and between two bytes."""


def resolve(text: str, server: ApiServer | None, held: Credentials = NOTHING) -> Endpoint:
    """The endpoint that `text` names; `server` is the API server's door, needed for `service:`, and `held` what a URL
    takes beside it. Raises BadInput."""
    service = service_of(text)
    if service and server is not None and not server.server_name:
        path = f"/api/v1/namespaces/{service.namespace}/services/{service.proxied}/proxy"
        return Endpoint(
            name=text,
            base_url=server.host + path,
            verify=server.verify,
            cert=server.cert,
            authorization=server.authorization,
            proxy=server.proxy,
            environment=False,
            identity=lambda: "as the kubeconfig's user",
        )
    if service:
        raise BadInput(
            "endpoint-without-cluster",
            f"{text!r} goes through the API server, and there is none"
            if server is None
            else f"{text!r} goes through an API server whose certificate is for another name ({server.server_name})",
            expected="a cluster whose API server is reached under the name in its certificate",
            remedy="give the peer as an http(s) URL instead",
        )
    if not is_url(text):
        raise BadInput(
            "endpoint-unreadable",
            f"{without_secrets(text)!r} is not a peer's address",
            expected=EXPECTED,
            remedy="for example service:monitoring/prometheus:9090 or http://127.0.0.1:9090; credentials are named by "
            "their files in drill.yaml",
        )
    name = text.rstrip("/")
    if held == NOTHING:
        return Endpoint(name=name, base_url=name)
    return Endpoint(
        name=name,
        base_url=name,
        verify=str(held.ca_file) if held.ca_file is not None else held.verify,
        cert=None if held.cert is None else (str(held.cert[0]), str(held.cert[1])),
        authorization=lambda: authorization(name, held),
        server_name=held.server_name,
        identity=lambda: identity(held),
        secret=held.bearer_token_file is not None or held.password_file is not None,
        where=held.where,
    )


class HttpTransport:
    """The Transport port over httpx2. Thread-safe; redirects are not followed, since no peer of ours sends any."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        now: Callable[[], Instant],
        stop: Flag | None = None,
        budget: float = READ_BUDGET,
        limits: tuple[float, float] = (CONNECT, READ),
    ) -> None:
        import httpx2

        self.endpoint = endpoint
        self._now = now
        self._stop = stop or Flag()
        self._budget = budget
        connect, read = limits
        self._extensions = {"sni_hostname": endpoint.server_name} if endpoint.server_name else None
        self._client = httpx2.Client(
            verify=tls_context(endpoint),
            timeout=httpx2.Timeout(read, connect=connect),
            auth=_auth(endpoint.authorization),
            trust_env=endpoint.environment,
            proxy=endpoint.proxy,
            headers={"User-Agent": "drill", "Accept": "application/json", "Accept-Encoding": IDENTITY},
        )

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def get(
        self, path: str, params: Mapping[str, str] | None = None, *, accept: tuple[int, ...] = (), text: bool = False
    ) -> Answer:
        """A read; transient failures are retried within a few seconds."""
        return patiently(
            lambda: self._exchange("GET", path, params, None, accept=accept, text=text),
            stop=self._stop,
            budget=self._budget,
        )

    def write(self, method: str, path: str, body: Any = None, *, accept: tuple[int, ...] = ()) -> Answer:
        """A write, sent once. Raises OutcomeUnknown where its reply was lost."""
        return self._exchange(method, path, None, body, accept=accept, text=False)

    def offset(self, path: str) -> Bounds:
        """Bounds on (the peer's clock - ours). Asks up to six times, about a second apart."""

        def ask() -> Stamp:
            answer = self.get(path, text=True)
            if answer.date is None:
                raise self._failed("GET", path, "its answer has no Date header")
            return Stamp(answer.sent, answer.received, answer.date, answer.date + 1.0)

        return compare(ask, now=self._now, pause=self._stop.wait)

    def _exchange(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: Any,
        *,
        accept: tuple[int, ...],
        text: bool,
    ) -> Answer:
        import httpx2

        writes = method != "GET"
        sent = self._now()
        try:
            url, more = self.endpoint.base_url + path, self._extensions
            with self._client.stream(method, url, params=params, json=body, extensions=more) as response:
                packed = response.headers.get("Content-Encoding")
                content = gathered(response.iter_raw(), encoding=packed, most=PEER_BYTES)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            if distrust := untrusted(self.endpoint, f"{method} {path}", error):
                raise distrust from error
            raise self._failed(method, path, _words(error), transient=True) from error
        except httpx2.HTTPError as error:
            distrust = None if writes else untrusted(self.endpoint, f"{method} {path}", error)
            if distrust is not None:
                raise distrust from error
            raise self._failed(method, path, _words(error), transient=True, unknown=writes) from error
        except TooMuch as error:
            raise self._failed(method, path, str(error), unknown=writes) from error
        received = self._now()
        status = response.status_code
        if not (200 <= status < 300 or status in accept):
            raise self._refused(method, path, response, content)
        date = http_date(response.headers.get("Date"))
        if text:
            return Answer(status, _text(content), date, sent, received)
        try:
            return Answer(status, parsed(content), date, sent, received)
        except ValueError as error:
            if not 200 <= status < 300 or (writes and not content):
                return Answer(status, _text(content), date, sent, received)
            why = f"an answer that is not JSON: {_text(content[:400])[:200]!r}"
            raise self._failed(method, path, why, transient=True, unknown=writes) from error

    def _refused(self, method: str, path: str, response: httpx2.Response, content: bytes) -> Unreachable:
        status = response.status_code
        if closed := refused(self.endpoint, status, f"{method} {path}", _said(content)):
            return closed
        refusal = self._failed(
            method,
            path,
            f"{status}: {_said(content)}",
            transient=status in _PASSING or status >= 500,
            unknown=method != "GET" and status >= 500,
        )
        if isinstance(refusal, Transient):
            refusal.retry_after = seconds_wished(response.headers.get("Retry-After"))
        return refusal

    def _failed(
        self, method: str, path: str, why: str, *, transient: bool = False, unknown: bool = False
    ) -> Unreachable:
        kind = OutcomeUnknown if unknown else Transient if transient else Unreachable
        return kind(
            "peer-outcome-unknown" if unknown else "peer-unreachable",
            f"{self.endpoint.name} gave {why} to {method} {path}",
            expected="a good answer within the time limit",
            remedy="check that the peer runs and that its address is right; through the API server, that we may proxy",
        )


def _words(error: Exception) -> str:
    return f"no answer ({type(error).__name__}: {error})"


def _said(content: bytes) -> str:
    """The reason in an error answer of Prometheus, Alertmanager or the API server, or its text."""
    try:
        body = parsed(content)
    except ValueError:
        return _text(content[:2000]).strip()[:500]
    if isinstance(body, dict):
        return str(body.get("error") or body.get("message") or body)[:500]
    return str(body)[:500]


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def _auth(authorization: Callable[[], str | None]) -> httpx2.Auth:
    import httpx2

    class Present(httpx2.Auth):
        """Asks for the header at every request: tokens rotate."""

        def auth_flow(self, request: httpx2.Request) -> Iterator[httpx2.Request]:  # type: ignore[override]
            value = authorization()
            if value:
                request.headers["Authorization"] = value
            yield request

    return Present()
