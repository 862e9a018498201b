"""The sync service's tokens: who, until when, signed with HMAC-SHA256.

    BODY.SIGNATURE   both base64url without padding; BODY is {"sub": "client-07", "exp": 1764000000}

The issuer signs with the key that it was started with, the gateway checks with those that the Secret holds now: where
the two have parted, every token is refused. Signatures are compared in constant time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from staging.keys import Keys

MOST = 1024
"""Characters of a token."""
REASONS = ("bad_signature", "expired", "malformed", "no_key", "revoked_key")
"""Why a token is refused: signed with no accepted key; too old; not one, or none; no key to sign or to check with;
signed with a key that was revoked."""


class Rejected(Exception):
    """The token opens nothing; `reason` is one of REASONS."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def sign(key: bytes, subject: str, expires: float) -> str:
    """A token for `subject` that is good until `expires`, in seconds since 1970."""
    body = _encoded(json.dumps({"sub": subject, "exp": int(expires)}, separators=(",", ":")).encode())
    return f"{body}.{_encoded(_signature(key, body))}"


def verify(token: str, keys: Keys, now: float) -> str:
    """The subject of a token that is good at `now`, in seconds since 1970. Raises Rejected."""
    body, _, signature = token.partition(".")
    shown = _decoded(signature) if len(token) <= MOST else b""
    if not body or len(shown) != hashlib.sha256().digest_size:
        raise Rejected("malformed")
    if not _signed_with(keys.accepted, body, shown):
        # Only what bears a known signature may learn anything; a revoked key is known.
        if _signed_with(keys.revoked, body, shown):
            raise Rejected("revoked_key")
        raise Rejected("bad_signature" if keys.accepted else "no_key")
    try:
        claims = json.loads(_decoded(body))
        subject, expires = str(claims["sub"]), float(claims["exp"])
    except (ValueError, KeyError, TypeError):
        raise Rejected("malformed") from None
    if now >= expires:
        raise Rejected("expired")
    return subject


def _signed_with(keys: tuple[bytes, ...], body: str, shown: bytes) -> bool:
    """Takes the same time for every wrong signature."""
    found = [hmac.compare_digest(_signature(key, body), shown) for key in keys]
    return any(found)


def _signature(key: bytes, body: str) -> bytes:
    return hmac.digest(key, body.encode(), "sha256")


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    """Empty where it is not base64url."""
    try:
        return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        return b""
