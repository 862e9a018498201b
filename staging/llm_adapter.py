"""Asks the language model for those who do not hold its key.

    POST /invoke   {"prompt": "..."}   200 {"status": "ok" | "stub", "text": "..."} · 400 · 502 {"status": "error"}
    GET  /metrics, GET /readyz

The key comes from the environment and is read once: a pod keeps the key that it was started with, however the Secret
changes meanwhile. `LLM_FALLBACK=stub` answers with a canned text where the vendor gives none; `off`, the default,
says that it failed. Readiness does not depend on the vendor: a pod that is taken out of service for a bad key would
leave nobody to say so.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import threading
from collections import Counter
from http import HTTPStatus
from typing import Any

from staging.metrics import Family, Point, Sample
from staging.service import log, setting, stop_on_signals
from staging.web import Handler, Server

MAX_BODY = 64 * 1024
FALLBACKS = ("off", "stub")
REASONS = ("auth", "no_key", "timeout", "unreachable", "vendor")
"""Why the vendor gave no text: refuses the key; there is none to show; slow; not there; anything else it says."""
STUB = "The assistant is not available at the moment; a person will read this."


class Failed(Exception):
    """The vendor gave no text; `reason` is one of REASONS."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Vendor:
    """The vendor's API, asked with `key`. `seconds` is how long it may take."""

    def __init__(self, host: str, port: int, key: str, *, seconds: float = 5.0) -> None:
        self._address = host, port
        # What cannot be sent in a header was never issued by anybody.
        self._key = key.strip() if re.fullmatch(r"[!-~]+", key.strip()) else ""
        self._seconds = seconds

    @property
    def has_key(self) -> bool:
        """Whether there is a key to show. Says nothing about whether it is accepted."""
        return bool(self._key)

    def complete(self, prompt: str) -> str:
        """The model's text. Raises Failed."""
        if not self._key:
            raise Failed("no_key")
        connection = http.client.HTTPConnection(*self._address, timeout=self._seconds)
        body = json.dumps({"model": "nova", "max_tokens": 256, "messages": [{"role": "user", "content": prompt}]})
        try:
            connection.request(
                "POST", "/v1/messages", body, {"Content-Type": "application/json", "x-api-key": self._key}
            )
            answer = connection.getresponse()
            data = answer.read()
        except TimeoutError:
            raise Failed("timeout") from None
        except (OSError, http.client.HTTPException):
            raise Failed("unreachable") from None
        finally:
            connection.close()
        if answer.status == http.client.UNAUTHORIZED:
            raise Failed("auth")
        try:
            text = json.loads(data)["content"][0]["text"]
        except (ValueError, KeyError, TypeError, IndexError):
            raise Failed("vendor") from None
        return str(text)


class Adapter(Server):
    """The server."""

    def __init__(self, address: tuple[str, int], vendor: Vendor, *, fallback: bool) -> None:
        super().__init__(address, Requests)
        self._vendor = vendor
        self._fallback = fallback
        self._lock = threading.Lock()
        # All series from the start: one that appears with its first error would hide that error from `rate`.
        unhappy = [(status, reason) for status in ("error", "stub") for reason in REASONS]
        self._outcomes = Counter(dict.fromkeys([("ok", ""), *unhappy], 0))

    def invoke(self, prompt: str) -> tuple[HTTPStatus, dict[str, Any]]:
        """One invocation, counted."""
        reason = ""
        try:
            status, text = "ok", self._vendor.complete(prompt)
        except Failed as failed:
            reason = failed.reason
            status, text = ("stub", STUB) if self._fallback else ("error", "")
        with self._lock:
            first = self._outcomes[status, reason] == 0
            self._outcomes[status, reason] += 1
        if reason and first:
            log("invocation failed", reason=reason, answered=status, note="further ones are counted, not logged")
        if status == "error":
            return HTTPStatus.BAD_GATEWAY, {"status": status, "reason": reason}
        return HTTPStatus.OK, {"status": status, "text": text}

    def figures(self) -> list[Family | Sample]:
        """Everything that Prometheus is told."""
        with self._lock:
            outcomes = dict(self._outcomes)
        return [
            Family(
                "nova_llm_invocations_total",
                "counter",
                "Invocations by what came of them, and why the vendor gave no text where it gave none.",
                [Point(n, {"status": status, "reason": reason}) for (status, reason), n in outcomes.items()],
            ),
            Sample(
                "nova_llm_key_present", "gauge", "1 when this pod was started with a key.", int(self._vendor.has_key)
            ),
            Sample("nova_llm_fallback", "gauge", "1 when failures are answered with a stub.", int(self._fallback)),
        ]


class Requests(Handler):
    """One client connection."""

    server: Adapter

    def get(self) -> None:
        """Metrics and readiness."""
        if self.path == "/metrics":
            self.expose(self.server.figures())
        elif self.path == "/readyz":
            self.answer(HTTPStatus.OK, {"ready": True})
        else:
            self.answer(HTTPStatus.NOT_FOUND, {"error": "there are POST /invoke, GET /metrics and GET /readyz"})

    def post(self) -> None:
        """An invocation."""
        length = self.body_length(MAX_BODY)
        if self.path != "/invoke" or length is None:
            self.close_connection = True
            self.answer(HTTPStatus.BAD_REQUEST, {"error": f"expected POST /invoke with 1 to {MAX_BODY} bytes"})
            return
        try:
            prompt = json.loads(self.rfile.read(length))["prompt"]
        except (ValueError, KeyError, TypeError):
            prompt = None
        if not isinstance(prompt, str):
            self.answer(HTTPStatus.BAD_REQUEST, {"error": 'expected {"prompt": text}'})
            return
        self.answer(*self.server.invoke(prompt))


def main() -> None:
    """Serve until SIGTERM."""
    stop = stop_on_signals()
    fallback = os.environ.get("LLM_FALLBACK", "off")
    if fallback not in FALLBACKS:
        raise SystemExit(f"LLM_FALLBACK is {fallback!r}; expected {' or '.join(FALLBACKS)}; correct the Deployment")
    vendor = Vendor(os.environ.get("PROVIDER_HOST", "llm-provider"), 8080, os.environ.get("ANTHROPIC_API_KEY", ""))
    server = Adapter(("", int(setting("PORT", 8080))), vendor, fallback=fallback == "stub")
    server.start()
    log("llm adapter serves", port=server.server_address[1], fallback=fallback, key_present=vendor.has_key)
    stop.wait()
    server.stop()
    log("llm adapter ends")


if __name__ == "__main__":
    main()
