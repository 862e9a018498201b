"""Trust between us and a peer: what TLS takes, what a secret's file holds, and what it means when either says no.

Secrets are read from their files at each request, so that tokens may rotate, and are shown nowhere.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from harness.core.clock import Instant, utc
from harness.core.errors import BadInput, Unreachable
from harness.ports.endpoint import Credentials, Endpoint

_MOST = 64 * 1024
_NAME_DIFFERS, _ADDRESS_DIFFERS, _EXPIRED, _NOT_YET = 62, 64, 10, 9
"""OpenSSL's codes of what is wrong with a certificate."""


def tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """How to trust and be trusted. Plain HTTP gets a context that trusts nobody: loading the CAs costs time. Raises
    BadInput where a file of it cannot be used."""
    if not endpoint.base_url.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca = endpoint.verify if isinstance(endpoint.verify, str) else None
    files = ca
    try:
        context = ssl.create_default_context(cafile=ca)
        if endpoint.verify is False:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if endpoint.cert:
            files = " with ".join(endpoint.cert)
            context.load_cert_chain(*endpoint.cert, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise BadInput(
            "tls-file",
            f"{files}, for {endpoint.name}, cannot be used: {getattr(error, 'strerror', None) or error}",
            expected="files in PEM form: CAs, or a certificate and its key without a passphrase",
            remedy="correct `ca_file`, `cert_file` or `key_file`",
            where=endpoint.where,
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("the key has a passphrase")


def authorization(name: str, held: Credentials) -> str | None:
    """The Authorization header of this moment. Raises BadInput where its file cannot be read or holds none."""
    if held.bearer_token_file is not None:
        return f"Bearer {_secret(name, 'bearer token', held.bearer_token_file, held.where)}"
    if held.password_file is not None:
        password = _secret(name, "password", held.password_file, held.where)
        return "Basic " + base64.b64encode(f"{held.username}:{password}".encode()).decode()
    return None


def identity(held: Credentials) -> str:
    """Under which identity a peer is asked, in words; empty for none. Of a token that says so also when it ends."""
    if held.password_file is not None:
        return f"as {held.username} with the password in {held.password_file}"
    if held.bearer_token_file is None:
        return ""
    try:
        expiry = expiry_of(_secret("", "", held.bearer_token_file, ""))
    except BadInput:
        expiry = None
    return f"with the bearer token in {held.bearer_token_file}" + (
        f", which says that it ends at {utc(expiry)}" if expiry is not None else ""
    )


def expiry_of(token: str) -> Instant | None:
    """When a token ends, where it is a JWT that says so. It is looked at and not verified."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        expiry = float(claims["exp"])
        utc(expiry)
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError, binascii.Error):
        return None
    return expiry


def _secret(name: str, what: str, path: Path, where: str) -> str:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError("it is not a regular file")  # noqa: TRY301 - told like any other file that is not read
            raw = file.read(_MOST + 1)
        text = raw.decode("utf-8").strip("\r\n")
    except (OSError, ValueError) as error:
        why = "it is not UTF-8" if isinstance(error, ValueError) else getattr(error, "strerror", None) or error
        raise _unusable(name, what, path, where, f"cannot be read: {why}") from error
    if not text.strip():
        raise _unusable(name, what, path, where, "is empty")
    if len(raw) > _MOST or not text.isprintable():
        raise _unusable(name, what, path, where, "holds more than one line, or something that is no text")
    return text


def _unusable(name: str, what: str, path: Path, where: str, why: str) -> BadInput:
    return BadInput(
        "credential-file",
        f"the {what} of {name} {why} ({path})",
        expected=f"a file that holds the {what} on one line, and nothing else",
        remedy="correct the path in drill.yaml, or have the file written again",
        where=where,
    )


def refused(endpoint: Endpoint, status: int, asked: str, said: str) -> Unreachable | None:
    """What it means that a peer, or the API server before it, does not let us in; None for any other status."""
    if status not in (401, 403):
        return None
    who = endpoint.identity() or "without credentials"
    return Unreachable(
        "peer-unauthenticated" if status == 401 else "peer-forbidden",
        f"{endpoint.name} gave {status}: {said} to {asked}, asked {who}",
        expected="credentials that the peer accepts" if status == 401 else "an identity that may read there",
        remedy=_RENEW if status == 401 else _GRANT,
    )


_RENEW = (
    "renew what the file holds (it is read again for each request) or name another: `bearer_token_file` or "
    "`basic_auth` of this peer in drill.yaml; through the API server the kubeconfig's credentials count"
)
_GRANT = (
    "let this identity read there; through the API server it takes get on services/proxy (manifests/harness/alerting)"
)


_ANOTHER_NAME = (
    "if the certificate's name is the right one, write it as `server_name` in `tls` of this peer in drill.yaml"
)
_REMEDIES = {
    _NAME_DIFFERS: _ANOTHER_NAME,
    _ADDRESS_DIFFERS: _ANOTHER_NAME,
    _EXPIRED: "let the peer's owners renew its certificate, and compare the clocks",
    _NOT_YET: "compare the clocks",
}
_UNKNOWN_CA = "name the CA that issued it: `ca_file` in `tls` of this peer in drill.yaml"


def untrusted(endpoint: Endpoint, asked: str, error: BaseException) -> Unreachable | None:
    """What a failed handshake means; None where the failure was another."""
    found = next((one for one in _chain(error) if isinstance(one, ssl.SSLError)), None)
    if found is None or isinstance(found, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return None
    host = endpoint.server_name or urlsplit(endpoint.base_url).hostname
    issuers = endpoint.verify if isinstance(endpoint.verify, str) else "this system"
    if isinstance(found, ssl.SSLCertVerificationError):
        return Unreachable(
            "peer-untrusted",
            f"the certificate of {endpoint.name} is not trusted: {found.verify_message}",
            expected=f"one for {host}, in force, from a CA that {issuers} holds",
            remedy=_REMEDIES.get(found.verify_code, _UNKNOWN_CA),
        )
    reason = str(found.reason or found).replace("_", " ").lower()
    return Unreachable(
        "peer-tls",
        f"{endpoint.name} and we do not agree on TLS: {reason} ({asked})",
        expected="a TLS handshake",
        remedy="where it asks for a client certificate: `cert_file` and `key_file` in `tls`; where it speaks plain "
        "HTTP, an http URL",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error with what it came from; some libraries hand causes on as arguments."""
    todo, seen = [error], set[int]()
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        causes = [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
        todo += [cause for cause in causes if isinstance(cause, BaseException)]


def doubts(endpoint: Endpoint) -> tuple[str, ...]:
    """What is let pass about an endpoint, and should be known."""
    found = []
    if endpoint.verify is False and endpoint.base_url.startswith("https:"):
        found.append(f"the certificate of {endpoint.name} is not checked: anybody on the way can answer in its place")
    if endpoint.secret and endpoint.base_url.startswith("http:"):
        found.append(f"{endpoint.name} is sent a secret without TLS: anybody on the way can read it")
    return tuple(found)
