"""Keys as a Secret holds them, for whoever checks them: which are accepted, and how the Secret is read.

A Secret mounted as a volume may be a minute and a half old, so those who check ask the API server themselves, each with
its own ServiceAccount, which may read its one Secret and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import http.client
import json
import os
import re
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from staging.service import log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ACCEPTED, REVOKED = "key-", "revoked-"
"""What the names of data keys start with."""
WELL_FORMED = re.compile(rb"[A-Za-z0-9_-]{32,128}")
"""What a key looks like. Anything else under a name that starts with `key-` opens nothing."""


class Unread(Exception):
    """The API server did not give the Secret. Says why, and nothing of what is in it."""


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """The values of the Secret that matter. Without a repr, so that no log or traceback shows one."""

    accepted: tuple[bytes, ...] = ()
    malformed: int = 0
    """How many values under an accepted name are no keys."""
    revoked: tuple[bytes, ...] = ()
    """Kept to tell a revoked key from an unknown one; none of them is accepted."""

    def accept(self, shown: bytes) -> bool:
        """Whether `shown` is one of them; takes the same time for every wrong one."""
        found = [hmac.compare_digest(shown, key) for key in self.accepted]
        return any(found)


def keys_of(data: Mapping[str, str]) -> Keys:
    """The keys of a Secret's `data`. A value that is also under a `revoked-` name is not accepted under any other."""
    values: dict[str, bytes] = {}
    for name, text in data.items():
        try:
            # As kubectl writes them, keys often end with a newline that nobody meant.
            values[name] = base64.b64decode(text, validate=True).strip()
        except (binascii.Error, ValueError):
            values[name] = b""
    revoked = {value for name, value in values.items() if name.startswith(REVOKED)}
    offered = [value for name, value in sorted(values.items()) if name.startswith(ACCEPTED)]
    good = [value for value in offered if WELL_FORMED.fullmatch(value)]
    accepted = tuple(value for value in good if value not in revoked)
    known = tuple(sorted(value for value in revoked if WELL_FORMED.fullmatch(value)))
    return Keys(accepted=accepted, malformed=len(offered) - len(good), revoked=known)


class Secret:
    """One Secret, read from the API server over a connection that is kept.

    `account` holds the token, the CA and the namespace, as Kubernetes mounts them.
    """

    def __init__(self, name: str, *, host: str, port: int, account: Path = ACCOUNT) -> None:
        self._account = account
        namespace = (account / "namespace").read_text(encoding="utf-8").strip()
        self._path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
        context = ssl.create_default_context(cafile=str(account / "ca.crt"))
        self._connection = http.client.HTTPSConnection(host, port, timeout=1.5, context=context)

    def read(self) -> Keys:
        """The keys as they are now; none when there is no such Secret. Raises Unread."""
        try:
            # Read every time: the kubelet renews it.
            token = (self._account / "token").read_text(encoding="utf-8").strip()
            self._connection.request("GET", self._path, headers={"Authorization": f"Bearer {token}"})
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Unread(f"the API server does not answer: {type(error).__name__}") from None
        if answer.status == http.client.NOT_FOUND:
            return Keys()
        if answer.status != http.client.OK:
            raise Unread(f"the API server answers {answer.status}")
        try:
            return keys_of(json.loads(body).get("data") or {})
        except (ValueError, AttributeError):
            raise Unread("the API server answers with something else than a Secret") from None


class Source(Protocol):
    """Where keys are read."""

    def read(self) -> Keys:
        """The keys as they are now. Raises Unread."""


class Door:
    """The keys last read, and how old they are. `clock` is monotonic, in seconds."""

    def __init__(self, source: Source, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self._read_at: float | None = None
        self._trouble = ""
        self.keys = Keys()
        self.failures = 0

    def refresh(self) -> None:
        """Read once; keep what is known where that fails. Logs a change of fortune once, not every second."""
        try:
            keys = self._source.read()
        except Unread as error:
            self.failures += 1
            if str(error) != self._trouble:
                self._trouble = str(error)
                log("keys not read", error=self._trouble, accepted=len(self.keys.accepted))
            return
        if self._trouble or self._read_at is None or keys != self.keys:
            log("keys read", accepted=len(keys.accepted), malformed=keys.malformed)
        self._trouble = ""
        self._read_at = self._clock()
        self.keys = keys

    @property
    def age(self) -> float | None:
        """Seconds since the keys were last read; None before the first time."""
        return None if self._read_at is None else self._clock() - self._read_at


def in_cluster(name: str) -> Secret:
    """The Secret `name` of the pod's own namespace. Ends the process where the pod has no account."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (ACCOUNT / "token").exists():
        raise SystemExit("no account in this pod; expected a ServiceAccount of its own with its token mounted")
    return Secret(name, host=host, port=int(port))
