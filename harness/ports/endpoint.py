"""How a peer is reached, and the one way in which adapters talk HTTP with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.core.clock import Bounds, Instant


def _anonymous() -> str | None:
    return None


def _nobody() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What it takes to reach a peer beside its address, as files: nothing here is a secret. `where` is the place in the
    configuration that says so."""

    bearer_token_file: Path | None = None
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    cert: tuple[Path, Path] | None = None
    server_name: str = ""
    verify: bool = True
    where: str = ""


@dataclass(frozen=True, slots=True)
class ApiServer:
    """The API server as a door to the services behind it: address, trust and identity.

    `authorization` gives the present Authorization header (tokens rotate); it is never stored or shown.
    `server_name` is the name in the certificate where it differs from the host's.
    """

    host: str
    verify: str | bool
    cert: tuple[str, str] | None = None
    authorization: Callable[[], str | None] = field(default=_anonymous, repr=False)
    proxy: str | None = None
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A peer's base URL (no trailing slash) with what is needed to reach it; `name` is for people.

    `verify` is a CA file or whether to verify at all; `server_name` the name in the certificate where it is not the
    URL's. `identity` says in words as whom the peer is asked, for its refusals; `secret` whether a secret of the
    configuration is sent, and `where` is the place in the configuration.

    `environment` says whether proxies and the like are taken from
    the environment: yes for a URL that a person gave, no for what goes through the API server.
    """

    name: str
    base_url: str
    verify: str | bool = True
    cert: tuple[str, str] | None = None
    authorization: Callable[[], str | None] = field(default=_anonymous, repr=False)
    proxy: str | None = None
    environment: bool = True
    server_name: str = ""
    identity: Callable[[], str] = field(default=_nobody, repr=False)
    secret: bool = False
    where: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP exchange. `body` is the parsed JSON, or the text where that was asked for or where a status other than
    2xx brought no JSON. `date` is the peer's whole-second stamp on its own clock, where it sent one; `sent` and
    `received` are on ours."""

    status: int
    body: Any
    date: Instant | None
    sent: Instant
    received: Instant


class Transport(Protocol):
    """HTTP with one peer, bounded in time. Raises Unreachable, with what was asked and what came instead, for every
    status that is neither 2xx nor accepted by the caller, and for a body that is not what was asked for."""

    def get(
        self, path: str, params: Mapping[str, str] | None = None, *, accept: tuple[int, ...] = (), text: bool = False
    ) -> Answer:
        """A read; transient failures are retried within a few seconds."""

    def write(self, method: str, path: str, body: Any = None, *, accept: tuple[int, ...] = ()) -> Answer:
        """A write, never repeated. Raises OutcomeUnknown where it was sent and its reply lost."""

    def offset(self, path: str) -> Bounds:
        """Bounds on (the peer's clock - ours) from the Date header of a GET on `path`."""

    def close(self) -> None:
        """Give the connections back."""
