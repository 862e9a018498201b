"""The pager of the staging system: what Alertmanager's webhook delivered, with the time of receipt."""

from __future__ import annotations

from threading import Lock
from typing import Any, Literal
from urllib.parse import quote

from harness.core.clock import Bounds, dated, parse_utc
from harness.core.errors import Unreachable
from harness.ports.endpoint import Transport
from harness.ports.metrics import Notification


class WebhookPager:
    """The Pager port over GET /notifications?since=N. Thread-safe.

    The pager numbers from one again when it restarts. The sequence numbers given out here go on instead, so that
    nothing after a restart is taken for already seen; what the pager forgot by restarting is lost.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._lock = Lock()
        self._instance = ""
        self._base = 0
        self._given = 0

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()

    def offset(self) -> Bounds:
        """Bounds on (the pager's clock - ours), from the Date header of its readiness answer."""
        return self._transport.offset("/readyz")

    def notifications(self, since: int) -> list[Notification]:
        """Everything received with a sequence number above `since`, one for each alert of each webhook. What the pager
        repeats although it was not asked for is left out."""
        with self._lock:
            body = self._ask(max(0, since - self._base))
            if str(body.get("instance", "")) != self._instance:
                self._instance = str(body.get("instance", ""))
                self._base = self._given
                body = self._ask(max(0, since - self._base))
            try:
                found = [one for entry in body["notifications"] for one in _alerts(entry, self._base)]
            except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
                raise self._strange(f"notifications that cannot be read ({error!r})") from error
            self._given = max([self._given, *(one.seq for one in found)])
            return [one for one in found if one.seq > since]

    def _ask(self, since: int) -> dict[str, Any]:
        body = self._transport.get(f"/notifications?since={quote(str(since))}").body
        if not isinstance(body, dict):
            raise self._strange(f"{body!r}")
        return body

    def _strange(self, what: str) -> Unreachable:
        return Unreachable(
            "pager-strange",
            f"the pager gave {what[:500]}",
            expected="notifications with seq, received_ms and webhook",
            remedy="check that the pager's address is right and that its image fits this version",
        )


def _alerts(entry: dict[str, Any], base: int) -> list[Notification]:
    webhook = entry["webhook"]
    return [
        Notification(
            seq=base + int(entry["seq"]),
            received_at=dated(int(entry["received_ms"]) / 1000.0),
            receiver=str(webhook.get("receiver", "")),
            status=_status(alert["status"]),
            labels={str(name): str(value) for name, value in alert["labels"].items()},
            starts_at=parse_utc(alert["startsAt"]),
            fingerprint=str(alert.get("fingerprint", "")),
        )
        for alert in webhook["alerts"]
    ]


def _status(text: str) -> Literal["firing", "resolved"]:
    if text == "firing":
        return "firing"
    if text == "resolved":
        return "resolved"
    raise ValueError(f"status {text!r}")
