"""Issues the tokens that clients show to the sync gateway.

    POST /token   {"client": "client-07"}   200 {"token": "...", "expires_in": 60} · 400 · 503
    GET  /metrics, GET /readyz

The signing key comes from the environment and is read once: a pod signs with the key that it was started with, however
the Secret changes meanwhile. Without a key that is one, nobody gets a token, and that counts as a rejection.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from http import HTTPStatus

from staging.keys import WELL_FORMED
from staging.metrics import Family, Sample
from staging.service import log, setting, stop_on_signals
from staging.sync_gateway import rejections
from staging.sync_tokens import sign
from staging.web import Handler, Server

MAX_BODY = 4096
NAME = re.compile(r"[a-z0-9-]{1,64}")


class Issuer(Server):
    """The server. `key` is empty where there is none; a token is good for `seconds`."""

    def __init__(self, address: tuple[str, int], key: bytes, *, seconds: float) -> None:
        super().__init__(address, Requests)
        self.seconds = seconds
        self._key = key
        self._lock = threading.Lock()
        self._issued = 0
        self._refused = 0

    @property
    def has_key(self) -> bool:
        """Whether there is a key to sign with. Says nothing about whether the gateway accepts it."""
        return bool(self._key)

    def token(self, client: str) -> str | None:
        """A token for `client`, counted; None without a key."""
        with self._lock:
            self._issued += self.has_key
            self._refused += not self.has_key
        return sign(self._key, client, time.time() + self.seconds) if self._key else None

    def figures(self) -> list[Family | Sample]:
        """Everything that Prometheus is told."""
        with self._lock:
            issued, refused = self._issued, self._refused
        return [
            Sample("nova_sync_tokens_issued_total", "counter", "Tokens issued.", issued),
            rejections({"no_key": refused}),
            Sample(
                "nova_sync_signing_key_present", "gauge", "1 when this pod was started with a key.", int(self.has_key)
            ),
        ]


class Requests(Handler):
    """One client connection."""

    server: Issuer

    def get(self) -> None:
        """Metrics and readiness."""
        if self.path == "/metrics":
            self.expose(self.server.figures())
        elif self.path == "/readyz":
            self.answer(HTTPStatus.OK, {"ready": True})
        else:
            self.answer(HTTPStatus.NOT_FOUND, {"error": "there are POST /token, GET /metrics and GET /readyz"})

    def post(self) -> None:
        """A client that wants a token."""
        length = self.body_length(MAX_BODY)
        if self.path != "/token" or length is None:
            self.close_connection = True
            self.answer(HTTPStatus.BAD_REQUEST, {"error": f"expected POST /token with 1 to {MAX_BODY} bytes"})
            return
        try:
            client = json.loads(self.rfile.read(length))["client"]
        except (ValueError, KeyError, TypeError):
            client = None
        if not isinstance(client, str) or not NAME.fullmatch(client):
            self.answer(HTTPStatus.BAD_REQUEST, {"error": 'expected {"client": name} of a-z, 0-9 and -'})
            return
        token = self.server.token(client)
        if token is None:
            self.answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "no signing key"})
            return
        self.answer(HTTPStatus.OK, {"token": token, "expires_in": self.server.seconds})


def key_of(text: str) -> bytes:
    """The key as it is given in the environment; empty where it is none."""
    key = text.strip().encode("utf-8", "replace")
    return key if WELL_FORMED.fullmatch(key) else b""


def main() -> None:
    """Serve until SIGTERM."""
    stop = stop_on_signals()
    key = key_of(os.environ.get("SYNC_SIGNING_KEY", ""))
    server = Issuer(("", int(setting("PORT", 8080))), key, seconds=setting("TOKEN_SECONDS", 60))
    server.start()
    log("sync issuer serves", port=server.server_address[1], key_present=server.has_key)
    stop.wait()
    server.stop()
    log("sync issuer ends")


if __name__ == "__main__":
    main()
