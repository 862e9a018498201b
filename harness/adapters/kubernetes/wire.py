"""One request to the API server, bounded in time and size, with every foreign failure translated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.adapters.kubernetes.answers import Asked, failure, unreachable
from harness.ports.payload import API_BYTES, IDENTITY, LINE_BYTES, TooMuch, gathered, parsed

if TYPE_CHECKING:
    from kubernetes.client.api_client import ApiClient
    from kubernetes.client.configuration import Configuration
    from kubernetes.client.rest import RESTResponse
    from urllib3.response import BaseHTTPResponse

JSON = "application/json"
METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""Asks for an object, or for each event of a watch, without anything but its metadata."""
METADATA_LIST = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
JSON_PATCH = "application/json-patch+json"


@dataclass(frozen=True, slots=True)
class Timing:
    """Limits in seconds. A dead link costs a watch at most `watch` + `grace` before it is noticed."""

    connect: float = 3.0
    read: float = 10.0
    budget: float = 6.0
    watch: float = 25.0
    grace: float = 5.0
    give_up: float = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A 2xx answer."""

    headers: Mapping[str, str]
    body: bytes


class Wire:
    """Thread-safe; connections are pooled and urllib3's own retries are off."""

    def __init__(self, configuration: Configuration, timing: Timing) -> None:
        from kubernetes.client.api_client import ApiClient
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProxyError

        configuration.retries = False  # urllib3 takes False for: none, and no wrapping of errors
        configuration.keep_alive = True
        self.configuration = configuration
        self.timing = timing
        self._client: ApiClient = ApiClient(configuration)
        self._client.user_agent = "drill"
        self._failures = (HTTPError, ApiException)
        self._never_sent = (NewConnectionError, ConnectTimeoutError, ProxyError)

    def close(self) -> None:
        """Give the pooled connections back."""
        self._client.close()  # type: ignore[no-untyped-call]

    def request(
        self,
        method: str,
        path: str,
        asked: Asked,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Any = None,
        content: str = JSON,
        accept: str = JSON,
    ) -> Reply:
        """The whole answer. Raises the port's errors; Transient where asking again makes sense."""
        try:
            response = self._send(method, path, query, body, content, accept, self.timing.read)
            data = _whole(response.response)
        except self._failures as error:
            raise self._lost(asked, error) from error
        except TooMuch as error:
            raise unreachable(asked, str(error), sent=True, transient=False) from error
        if not 200 <= response.status < 300:
            raise failure(asked, response.status, response.headers, data)
        return Reply(response.headers, data)

    def json(
        self,
        method: str,
        path: str,
        asked: Asked,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Any = None,
        content: str = JSON,
        accept: str = JSON,
    ) -> dict[str, Any]:
        """The answer's JSON object."""
        reply = self.request(method, path, asked, query=query, body=body, content=content, accept=accept)
        try:
            found = parsed(reply.body)
        except ValueError as error:
            raise unreachable(asked, f"its answer is not JSON ({error})", sent=True) from error
        if not isinstance(found, dict) or not isinstance(found.get("metadata") or {}, dict):
            raise unreachable(asked, "its answer is not an object of the API", sent=True)
        return found

    def open(
        self, path: str, asked: Asked, *, query: Sequence[tuple[str, str]], silence: float, accept: str = JSON
    ) -> BaseHTTPResponse:
        """A stream whose reads fail after `silence` seconds without a byte."""
        try:
            response = self._send("GET", path, query, None, JSON, accept, silence)
            if not 200 <= response.status < 300:
                raise failure(asked, response.status, response.headers, _whole(response.response))
            if response.response.headers.get("Content-Encoding"):
                response.response.close()
                raise unreachable(asked, "the stream is packed, which was not asked for", sent=True, transient=False)
        except self._failures as error:
            raise self._lost(asked, error) from error
        except TooMuch as error:
            raise unreachable(asked, str(error), sent=True, transient=False) from error
        return response.response  # type: ignore[no-any-return]

    def lines(self, response: BaseHTTPResponse, asked: Asked, *, keep: int | None = None) -> Iterator[bytes]:
        """The stream's non-empty lines as they come, of each no more than the first `keep` bytes. Without it, one that
        has no end is an error. Raises Transient where the stream is cut inside a line."""
        rest = b""
        try:
            for chunk in response.stream(65536):
                *whole, last = chunk.split(b"\n")
                for piece in whole:
                    line, rest = _joined(rest, piece, keep), b""
                    if line.strip():
                        yield line
                rest = _joined(rest, last, keep)
                if len(rest) > LINE_BYTES:
                    raise unreachable(
                        asked, f"a line of the stream has over {LINE_BYTES // 1024 // 1024} MiB", sent=True
                    )
        except (*self._failures, OSError) as error:
            raise self._lost(asked, error) from error
        if rest.strip():
            raise unreachable(asked, "the stream was cut inside a line", sent=True)

    def _send(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]],
        body: Any,
        content: str,
        accept: str,
        read: float,
    ) -> RESTResponse:
        headers = {"Accept": accept, "Accept-Encoding": IDENTITY}
        if body is not None:
            headers["Content-Type"] = content
        request = self._client.param_serialize(
            method, path, query_params=list(query), header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        return self._client.call_api(*request, _request_timeout=(self.timing.connect, read))

    def _lost(self, asked: Asked, error: BaseException) -> Exception:
        text = str(getattr(error, "reason", "") or error)
        certificate = "CERTIFICATE" in text.upper()
        sent = not (isinstance(error, self._never_sent) or certificate)
        return unreachable(asked, text.replace("\n", " "), sent=sent, transient=not certificate)


def _joined(rest: bytes, piece: bytes, keep: int | None) -> bytes:
    return rest + (piece if keep is None else piece[: max(0, keep - len(rest))])


def _whole(response: BaseHTTPResponse) -> bytes:
    """The body, and the connection given back; a connection whose body was not read to its end is closed."""
    try:
        data = gathered(_chunks(response), encoding=response.headers.get("Content-Encoding"), most=API_BYTES)
    except BaseException:
        response.close()
        raise
    response.release_conn()
    return data


def _chunks(response: BaseHTTPResponse) -> Iterator[bytes]:
    """What has come, as it comes: a read of a fixed size would wait for a body that drips."""
    while chunk := response.read1(65536, decode_content=False):
        yield chunk
