"""JSON that acts on no terminal: what could is written as an escape, and means the same to every reader."""

from __future__ import annotations

import re

_ACTING = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]")
"""What JSON lets stand in a text and terminals act upon: controls beyond ASCII's first, and the reading direction."""


def escaped(json_text: str) -> str:
    """`json_text`, which is the same JSON, without a character that could move a cursor or turn text around."""
    return _ACTING.sub(lambda match: f"\\u{ord(match[0]):04x}", json_text)
