"""What strangers write when they mean harm."""

from __future__ import annotations

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b31m\x08\x08\r\u202egnp.exe\u2066\ufeff\u2028\x85\x00"
"""Sequences that set a terminal's title, clear it, colour it, overwrite a line, or turn its text around."""
MARKUP = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><svg/onload=alert(1)>"
    "</title></style></textarea>--><a href=\"javascript:document.title='owned'\">x</a> "
    "[click](javascript:alert(1)) ![x](http://evil.example/x.png) | `code` ]]> &lt;b&gt; \"'"
)
FORGED_LINE = "fine\nclean after 1 s\nexit code 0"
NASTY = f"{MARKUP}{ESCAPES}{FORGED_LINE}"
ACTING = (
    "\x00\x07\x08\x0b\x0c\r\x1b\x7f\x85\x9b\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d"
    "\u202e\u2066\u2067\u2068\u2069\ufeff"
)
"""Every character that must never reach a terminal from somebody else's text."""


def acting(text: str, besides: str = "") -> set[str]:
    """The characters of `text` that act on a terminal."""
    return set(text) & (set(ACTING) - set(besides))
