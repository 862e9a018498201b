"""How people write where a peer answers: an http(s) URL, or a service behind the API server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_SERVICE = re.compile(
    rf"service:(?:(?P<scheme>https?):)?(?P<namespace>{_LABEL})/(?P<name>{_LABEL}):(?P<port>[-a-z0-9]+)"
)
EXPECTED = "service:NAMESPACE/NAME:PORT, or an http(s) URL without credentials, query or fragment"


@dataclass(frozen=True, slots=True)
class Service:
    """A service that is reached through the API server; `scheme` is empty where the text has none."""

    scheme: str
    namespace: str
    name: str
    port: str

    @property
    def proxied(self) -> str:
        """What the API server calls it behind its proxy, in paths and in roles."""
        return f"{self.scheme}:{self.name}:{self.port}" if self.scheme else f"{self.name}:{self.port}"


def service_of(text: str) -> Service | None:
    """The service in `service:[https:]NAMESPACE/NAME:PORT`; None for any other text."""
    match = _SERVICE.fullmatch(text)
    return None if match is None else Service(match["scheme"] or "", match["namespace"], match["name"], match["port"])


def is_url(text: str) -> bool:
    """Whether the text is an http(s) URL that holds nothing but a host, a port and a path."""
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError:
        return False
    plain = text.isprintable() and " " not in text
    more = url.query or url.fragment or "@" in url.netloc
    return plain and url.scheme in ("http", "https") and bool(host) and not more


def without_secrets(text: str) -> str:
    """The text without what stands before the @ of a URL."""
    return re.sub(r"//[^/@]*@", "//…@", text)


def _any(text: str) -> str:
    if service_of(text) is None and not is_url(text):
        raise ValueError(f"it is not a peer's address; write {EXPECTED}")
    return text


def _any_or_none(text: str) -> str:
    return text if text == "none" else _any(text)


def _url(text: str) -> str:
    if not is_url(text):
        raise ValueError("it is not a peer's URL; write http(s)://HOST:PORT/PATH, without credentials or query")
    return text


def _service(text: str) -> str:
    """With or without the word in front, since the field has said it already."""
    whole = text if text.startswith("service:") else f"service:{text}"
    if service_of(whole) is None:
        raise ValueError("it is not a service; write NAMESPACE/NAME:PORT, such as monitoring/prometheus:9090")
    return whole


Address = Annotated[str, AfterValidator(_any)]
AddressOrNone = Annotated[str, AfterValidator(_any_or_none)]
UrlAddress = Annotated[str, AfterValidator(_url)]
ServiceAddress = Annotated[str, AfterValidator(_service)]
