"""Regular expressions of strangers: in silences, in Alertmanager's routes.

Alertmanager's own need no backtracking, Python's do: `((.*)*)*!`, or `(.|.)` forty times over, would hold this
process, and its undo, for ever. So an expression is tried only where its worst case is small.
"""

from __future__ import annotations

import re
import warnings

MOST_WORK = 1_000_000
"""The most ways to go through a value that are tried: a fraction of a second."""
LONGEST = 2000
"""The longest expression that is tried, in characters."""


def fits(pattern: str, value: str) -> bool | None:
    """Whether the whole of `value` fits `pattern`; None where that is not tried, or is no expression."""
    if len(pattern) > LONGEST or re.search(r"\)[*+{]", pattern) or _work(pattern, value) > MOST_WORK:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of Python's own expressions to come
            return re.fullmatch(pattern, value) is not None
    except (re.error, RecursionError, OverflowError):
        return None


def _work(pattern: str, value: str) -> int:
    """An upper bound on the ways through `value`: each repeat can end at every place, each group take each branch."""
    repeats, groups, bars = len(re.findall(r"[*+?{]", pattern)), pattern.count("("), pattern.count("|")
    if repeats > 12 or (bars and groups > 12):
        return MOST_WORK + 1
    branches = (bars + 1) ** max(1, groups)
    return int(branches * (len(value) + 1) ** repeats)
