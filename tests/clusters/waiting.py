"""The rules of the policy `drill-guard-secrets` about a Secret's data, as a function: which change of it may pass.

Sequences of changes cannot all be tried on an API server, and one change after the other says nothing of a sequence.
Here all of them are tried (test_waiting.py); that the policy answers like this function is asked of a real API server
(test_policies_on_cluster.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

PLACES = ("drill-kept.", "revoked-drill.")
"""How the names begin under which a value waits; the name that it waits for follows."""
Data = Mapping[str, str]


def passes(old: Data, new: Data) -> bool:
    """Whether runner and sweeper may make `new` of `old`."""
    names = {_named(name) for name in (*old, *new)}
    return not any(name.startswith(PLACES) for name in names) and all(_passes(name, old, new) for name in names)


def passes_for_autopilot(old: Data, new: Data) -> bool:
    """Whether the autopilot may: a new value where a former one waits, and nothing else."""
    waiting = {name for name in (*old, *new) if name.startswith(PLACES)}
    return passes(old, new) and old.keys() <= new.keys() and all(old.get(name) == new.get(name) for name in waiting)


def _passes(name: str, old: Data, new: Data) -> bool:
    at = [place + name for place in PLACES]
    waits = any(one in old for one in at)
    alone = not any(all(one in data for one in at) for data in (old, new))
    came = all(one in old or one not in new or (new[one] == old.get(name) and not waits) for one in at)
    stayed = all(
        one not in old or new.get(one) == old[one] or (one not in new and new.get(name) == old[one]) for one in at
    )
    known = name in old or name not in new or waits
    kept = name not in old or new.get(name) == old[name] or waits or any(new.get(one) == old[name] for one in at)
    return alone and came and stayed and known and kept


def _named(name: str) -> str:
    return next((name.removeprefix(place) for place in PLACES if name.startswith(place)), name)


def contents(names: tuple[str, ...], values: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Every Secret of these names and values, those that lack some of the names among them."""
    for chosen in product(("", *values), repeat=len(names)):
        yield {name: value for name, value in zip(names, chosen, strict=True) if value}
