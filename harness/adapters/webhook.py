"""Telling a chat: a POST of {"text": ...} to an incoming webhook, as Slack, Mattermost and others take it
(https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks)."""

from __future__ import annotations

from pathlib import Path

from harness.core.errors import BadInput, Refused
from harness.core.gameday import is_url
from harness.ports.retry import jitter

_TRIES = 3
_SECONDS = 10.0


def url_of(path: Path) -> str:
    """The URL in a file. Whoever has it can write to the chat, so it is a secret. Raises BadInput, without it."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path, getattr(error, "strerror", None) or "it is not text") from error
    if not is_url(text):
        raise _unusable(path, "it holds no URL")
    return text


def post(url: str, text: str) -> None:
    """Tell it. Raises Refused, without the URL, where that failed three times: people who were not told are not
    drilled."""
    import time

    import httpx2

    why = ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(jitter(0.5, 1.5))
        try:
            answer = httpx2.post(url, json={"text": text}, timeout=_SECONDS, follow_redirects=False)
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
            why = type(error).__name__
            continue
        if answer.is_success:
            return
        why = f"HTTP {answer.status_code}"
        if answer.is_client_error:
            break
    raise Refused(
        "not-announced",
        f"the announcement's webhook did not take it: {why}",
        expected="a webhook that answers with success",
        remedy="renew the URL in `announcement.webhook_file`, or take the field away",
    )


def _unusable(path: Path, why: str) -> BadInput:
    return BadInput(
        "webhook-unusable",
        f"{path} cannot be used as a webhook: {why}",
        expected="a file that holds one URL",
        remedy="mount the Secret that holds it, or take `announcement.webhook_file` away",
    )
