"""Values of one live object, exchanged on condition and put back on condition: what most faults are.

A way back is plain data: for each value its place, what was there and what the fault writes. A place is a list of
steps from the object's root; a step is a member's name, or `{"name": N}` for the item of that name in a list whose
order may change (containers, variables). Every write is one JSON patch (RFC 6902) that tests all that it relies on, so
that it either finds the world as the record has it or changes nothing.

A member that holds nothing is no member: the API server leaves out empty lists and objects. So a holder that is not
there is made for what comes into it, and goes with the last that leaves it.

Of a list in which people write secrets (arguments, a command, variables) the record holds the items that change and
where they begin, and of all others a fingerprint: enough to tell whether they are still what they were.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from operator import eq
from typing import Any, Final

from harness.core.confidential import WRITTEN_IN
from harness.core.errors import BadInput, Refused
from harness.core.event import Change
from harness.core.snapshot import fingerprint, guarded
from harness.ports.cluster import Cluster, Conflict, Json, NotFound, Ref
from harness.ports.fault import UndoOutcome, UndoRecord

_ATTEMPTS = 3


class _Absent:
    """Nothing is there: not the same as null."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()
Step = str | dict[str, str]
Same = Callable[[Any, Any], bool]
"""Whether two values mean the same: the API server may spell a quantity otherwise than it was written."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads in an object as it is. `tests` hold the items' names; `value` is ABSENT where nothing is;
    `is_item` says that it is an item of a list. `holders` are the members on the way that are not there, each as its
    pointer and what it is when it is empty."""

    pointer: str
    tests: tuple[Json, ...]
    value: Any
    is_item: bool
    holders: tuple[tuple[str, Any], ...] = ()


def place(body: Json, path: Sequence[Step]) -> Place | None:
    """The place at a path; None where no member could hold it: an item that is not there, or a value that holds
    nothing."""
    at: Any = body
    pointer, tests, holders = "", list[Json](), list[tuple[str, Any]]()
    for depth, step in enumerate(path):
        is_last = depth == len(path) - 1
        empty: Any = [] if not is_last and isinstance(path[depth + 1], dict) else {}
        if isinstance(step, dict):
            if not isinstance(at, list):
                return None
            names = [one.get("name") if isinstance(one, dict) else None for one in at]
            index = names.index(step["name"]) if step["name"] in names else None
            if index is None:
                end = Place(f"{pointer}/-", tuple(tests), ABSENT, is_item=True, holders=tuple(holders))
                return end if is_last else None
            pointer += f"/{index}"
            at = at[index]
            tests.append({"op": "test", "path": f"{pointer}/name", "value": step["name"]})
        else:
            if not isinstance(at, dict):
                return None
            pointer += "/" + _token(step)
            if step in at:
                at = at[step]
            elif is_last:
                return Place(pointer, tuple(tests), ABSENT, is_item=False, holders=tuple(holders))
            else:
                holders.append((pointer, empty))
                at = empty
    return Place(pointer, tuple(tests), at, bool(path) and isinstance(path[-1], dict), tuple(holders))


def written(path: Sequence[Step]) -> str:
    """A path for people: "spec.template.spec.containers[worker].image"."""
    return "".join(f"[{step['name']}]" if isinstance(step, dict) else f".{step}" for step in path).lstrip(".")


def capture(body: Json, exchanges: Sequence[tuple[Sequence[Step], Any]]) -> UndoRecord:
    """The way back for writing each value (ABSENT removes it) at its path: identity, places, before and after.

    Raises Refused where a path leads nowhere in the object, BadInput where a value is already what would be written.
    """
    found = []
    holders: dict[str, Json] = {}
    for path, after in exchanges:
        at = place(body, path)
        if at is None:
            raise _nowhere(_title(body), path)
        for back, (pointer, empty) in enumerate(reversed(at.holders), 1):
            holders[pointer] = {"path": list(path[:-back]), "pointer": pointer, "empty": empty}
        if at.value is after or (ABSENT not in (at.value, after) and at.value == after):
            raise _already(_title(body), path, after)
        entry: Json = {"path": list(path), "pointer": at.pointer, "tests": list(at.tests), "is_item": at.is_item}
        if at.is_item and at.value is not ABSENT:
            entry["index"] = int(at.pointer.rpartition("/")[2])
        found.append(entry | _piece(path, at.value, after))
    meta = body["metadata"]
    record: UndoRecord = {
        "kind": body["kind"],
        "namespace": meta.get("namespace", ""),
        "name": meta["name"],
        "uid": meta["uid"],
        "values": found,
    }
    if holders:
        record["holders"] = sorted(holders.values(), key=lambda one: len(one["path"]))
    return record


def changes(undo: UndoRecord) -> tuple[Change, ...]:
    """What the fault changes, as plans show it."""
    title = str(ref_of(undo))
    return tuple(
        Change(object=title, path=one["pointer"], before=one.get("before"), after=one.get("after"))
        for one in undo["values"]
    )


def exchange(undo: UndoRecord, cluster: Cluster, same: Same = eq, *, dry_run: bool = False) -> None:
    """Write what the fault writes; repeating it is success. Raises Conflict where it is not what was captured."""
    values, holders, version = _as_found(undo, cluster)
    operations = [_identity(undo)]
    if version and not dry_run:  # what is not there cannot be tested in a list, so nothing may have changed since
        operations.append({"op": "test", "path": "/metadata/resourceVersion", "value": version})
    moves = [
        _Move(one["pointer"], tuple(one["tests"]), _value(one, "before"), _value(one, "after"), one["is_item"])
        for one in values
    ]
    try:
        cluster.patch(ref_of(undo), [*operations, *_in_order(moves, holders)], dry_run=dry_run)
    except Conflict:
        if not dry_run:
            body = cluster.get(ref_of(undo))
            ours = all(_is(_whole(one, body), "after", _held(body, one), same) for one in undo["values"])
            if body["metadata"]["uid"] == undo["uid"] and ours:
                return
        raise


def restore(undo: UndoRecord, cluster: Cluster, same: Same = eq, *, force: bool = False) -> UndoOutcome:
    """Put back each value that still is what the fault wrote; a third value is somebody else's and is left, unless
    forced. Raises Refused where a value cannot be put back because what held it is gone, or is not known any more."""
    ref = ref_of(undo)
    for _ in range(_ATTEMPTS):
        try:
            body = cluster.get(ref)
        except NotFound:
            return UndoOutcome("vanished", f"{ref} no longer exists")
        held = [(_whole(one, body, force=force), _held(body, one)) for one in undo["values"]]
        ours = [(one, now) for one, now in held if _is(one, "after", now, same)]
        if body["metadata"]["uid"] != undo["uid"]:
            return _replaced(undo, ours)
        changed = [(one, now) for one, now in held if not _is(one, "before", now, same)]
        if not changed:
            return UndoOutcome("already", "found back at " + _listed((one, _told(one, "before")) for one, _ in held))
        foreign = [(one, now) for one, now in changed if not _is(one, "after", now, same)]
        due = changed if force else [(one, now) for one, now in changed if _is(one, "after", now, same)]
        try:
            if due:
                cluster.patch(ref, [_identity(undo), *_restoring(undo, body, due)])
        except Conflict:
            continue  # changed between the read and the write: look again
        done = ", ".join(
            f"{written(one['path'])} {_shown(_now(one, now, same))} -> {_shown(_told(one, 'before'))}"
            for one, now in due
        )
        if foreign and not force:
            return UndoOutcome("refused", _foreign(foreign) + (f" (restored: {done})" if done else ""))
        return UndoOutcome("restored", done)
    return UndoOutcome("refused", f"{ref} kept changing under {_ATTEMPTS} attempts to restore it")


def ref_of(undo: UndoRecord) -> Ref:
    """The object that a record is about."""
    return Ref(undo["kind"], undo["namespace"], undo["name"])


@dataclass(frozen=True, slots=True)
class _Move:
    """One value from `now` to `then`. `index` is where a list of now `length` items had it."""

    pointer: str
    tests: tuple[Json, ...]
    now: Any
    then: Any
    is_item: bool
    index: int | None = None
    length: int = 0


def _in_order(moves: Sequence[_Move], holders: Sequence[tuple[str, Any]]) -> list[Json]:
    """The operations: first all tests, then what keeps its place, then what goes (last first) and what comes (first
    first), so that no index is moved before it is used. `holders` are made before anything comes."""
    tests = [test for move in moves for test in move.tests]
    outermost = [pointer for pointer, _ in holders if not any(pointer.startswith(f"{one}/") for one, _ in holders)]
    tests += [{"op": "test", "path": pointer, "value": None} for pointer in outermost]
    inside = tuple(f"{pointer}/" for pointer in outermost)
    tests += [
        {"op": "test", "path": move.pointer, "value": None if move.now is ABSENT else move.now}
        for move in moves
        if not move.pointer.endswith("/-") and not move.pointer.startswith(inside)
    ]
    goes = [move for move in moves if move.then is ABSENT]
    comes = [move for move in moves if move.now is ABSENT and move.then is not ABSENT]
    stays = [move for move in moves if move not in goes and move not in comes]
    goes.sort(key=lambda move: _position(move.pointer), reverse=True)
    comes.sort(key=lambda move: -1 if move.index is None else move.index)
    lengths = {_parent(move.pointer): move.length for move in comes}
    for move in goes:
        lengths[_parent(move.pointer)] = lengths.get(_parent(move.pointer), 0) - 1
    added = []
    for move in comes:
        parent = _parent(move.pointer)
        at = move.pointer if move.index is None else f"{parent}/{min(move.index, lengths[parent])}"
        lengths[parent] += 1
        added.append({"op": "add", "path": at, "value": move.then})
    return [
        *tests,
        *({"op": "replace", "path": move.pointer, "value": move.then} for move in stays),
        *({"op": "remove", "path": move.pointer} for move in goes),
        *({"op": "add", "path": pointer, "value": empty} for pointer, empty in holders),
        *added,
    ]


def _restoring(undo: UndoRecord, body: Json, due: Sequence[tuple[Json, Any]]) -> list[Json]:
    """The operations that put values back. Holders that the fault made go with the last that it wrote into them, and
    those that went with what it took away are made again."""
    ref = ref_of(undo)
    for one, _ in due:
        if one.get("before") == one.get("rest", ABSENT):
            raise _other_list(ref, one["path"])
    places = [_there(ref, body, one) for one, _ in due]
    moves = [_back(body, one, now, at) for (one, now), at in zip(due, places, strict=True)]
    missing = dict(holder for at in places for holder in at.holders)
    operations = _in_order(moves, list(missing.items()))
    gone = [move.pointer for move in moves if move.then is ABSENT]
    for one in reversed(undo.get("holders", ())):
        holder = place(body, one["path"])
        if holder is None or holder.value is ABSENT:
            continue
        leaving = [pointer for pointer in gone if _parent(pointer) == holder.pointer]
        if leaving and len(leaving) == len(holder.value):
            operations.insert(0, {"op": "test", "path": holder.pointer, "value": holder.value})
            operations.append({"op": "remove", "path": holder.pointer})
            gone.append(holder.pointer)
    return operations


def _token(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")


def _parent(pointer: str) -> str:
    return pointer.rpartition("/")[0]


def _position(pointer: str) -> tuple[str, int]:
    last = pointer.rpartition("/")[2]
    return _parent(pointer), int(last) if last.isdigit() else -1


def _there(ref: Ref, body: Json, one: Json) -> Place:
    at = place(body, one["path"])
    if at is None:
        raise _nowhere(str(ref), one["path"])
    return at


def _back(body: Json, one: Json, now: Any, at: Place) -> _Move:
    holder = place(body, one["path"][:-1]) if at.is_item else None
    length = 0 if holder is None or holder.value is ABSENT else len(holder.value)
    return _Move(at.pointer, at.tests, now, _value(one, "before"), at.is_item, one.get("index"), length)


def _held(body: Json, one: Json) -> Any:
    at = place(body, one["path"])
    return ABSENT if at is None else at.value


def _is(one: Json, when: str, now: Any, same: Same) -> bool:
    """Whether the value is what was there `before`, or what the fault writes (`after`)."""
    then = _value(one, when)
    return now is then if ABSENT in (now, then) else bool(same(now, then))


def _value(one: Json, when: str) -> Any:
    return one.get(when, ABSENT)


def _told(one: Json, when: str) -> Any:
    """A value of the record as it may be told: of a list only what is in the record."""
    return _value(one.get("piece", one), when)


def _now(one: Json, now: Any, same: Same) -> Any:
    """What is there, as it may be told: what is in the record as it is there, what somebody else wrote guarded."""
    for when in ("before", "after"):
        if _is(one, when, now, same):
            return _told(one, when)
    return now if now is ABSENT else guarded([step for step in one["path"] if isinstance(step, str)], now)


def _kept(when: str, value: Any) -> Json:
    return {} if value is ABSENT else {when: value}


def _piece(path: Sequence[Step], before: Any, after: Any) -> Json:
    """What the record keeps of a value before and after."""
    written_in = any(isinstance(step, str) and step in WRITTEN_IN for step in path)
    if not (written_in and isinstance(before, list) and isinstance(after, list)):
        return _kept("before", before) | _kept("after", after)
    start = _common(before, after)
    end = _common(before[start:][::-1], after[start:][::-1])
    old, new = (items[start : len(items) - end] for items in (before, after))
    return {"start": start, "rest": _rest(before[:start], before[len(before) - end :]), "before": old, "after": new}


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items two lists have in common from their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _rest(head: Sequence[Any], tail: Sequence[Any]) -> str:
    return fingerprint(json.dumps([head, tail], sort_keys=True))


def _whole(one: Json, body: Json, *, force: bool = False) -> Json:
    """An entry of which the record holds a piece, with the whole list before and after, taken from the object as it
    is. Where the rest of the list is not what it was the two are not known, and equal nothing, unless forced: then the
    piece is exchanged where it stands."""
    if "rest" not in one:
        return one
    now = _held(body, one)
    for when in ("before", "after") if isinstance(now, list) else ():
        head, tail = now[: one["start"]], now[one["start"] + len(one[when]) :]
        if now == [*head, *one[when], *tail] and (force or _rest(head, tail) == one["rest"]):
            whole = {name: [*head, *one[name], *tail] for name in ("before", "after")}
            return one | whole | {"piece": one}
    return one | {"before": one["rest"], "after": one["rest"], "piece": one}


def _as_found(undo: UndoRecord, cluster: Cluster) -> tuple[list[Json], list[tuple[str, Any]], str]:
    """The entries for a write, the holders that it makes, and the version of the object at which all that is so, where
    the write itself cannot test it.

    What was not there when it was captured is put where it belongs now: another fault on the same object may have made
    its holder, or put something beside it. Entries of which the record holds a piece are made whole. Without either
    nothing is looked at.
    """
    values: list[Json] = undo["values"]
    holders = [(one["pointer"], one["empty"]) for one in undo.get("holders", ())]
    if all("rest" not in one and "before" in one for one in values):
        return values, holders, ""
    try:
        body = cluster.get(ref_of(undo))
    except NotFound:  # the write will say so
        return [_whole(one, {}) for one in values], holders, ""
    found, needed = list[Json](), dict[str, Any]()
    for one in values:
        at = place(body, one["path"]) if "before" not in one else None
        found.append(_whole(one, body) if at is None else one | {"pointer": at.pointer, "tests": list(at.tests)})
        needed |= () if at is None else at.holders
    joins_a_list = any(one["pointer"].endswith("/-") for one in found)
    return found, list(needed.items()), body["metadata"]["resourceVersion"] if joins_a_list else ""


def _identity(undo: UndoRecord) -> Json:
    return {"op": "test", "path": "/metadata/uid", "value": undo["uid"]}


def _title(body: Json) -> str:
    return str(Ref(body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"]))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _listed(values: Any) -> str:
    return ", ".join(f"{written(one['path'])} {_shown(value)}" for one, value in values)


def _foreign(foreign: Sequence[tuple[Json, Any]]) -> str:
    each = "; ".join(
        f"{written(one['path'])} is {_shown(_now(one, now, eq))}, which is neither what the drill wrote "
        f"({_shown(_told(one, 'after'))}) nor what was there before ({_shown(_told(one, 'before'))})"
        for one, now in foreign
    )
    return f"{each}: somebody else changed it; `drill recover --force` overwrites it"


def _replaced(undo: UndoRecord, ours: Sequence[tuple[Json, Any]]) -> UndoOutcome:
    """Somebody made the object anew. One that carries what the fault wrote was copied from the broken one: it is still
    broken, but no longer the object that we may write to."""
    ref = ref_of(undo)
    if not ours:
        return UndoOutcome("vanished", f"{ref} is a new object of the same name")
    each = "; ".join(
        f"{written(one['path'])} is {_shown(_told(one, 'after'))} where {_shown(_told(one, 'before'))} was"
        for one, _ in ours
    )
    return UndoOutcome(
        "refused",
        f"{ref} is a new object of the same name, and carries what the drill wrote: {each}: put it back by hand",
    )


def _already(title: str, path: Sequence[Step], value: Any) -> BadInput:
    return BadInput(
        "nothing-to-change",
        f"{written(path)} of {title} is {_shown(value)} already",
        expected="a value that differs from the present one",
        remedy="edit the fault: what changes nothing breaks nothing",
    )


def _nowhere(title: str, path: Sequence[Step]) -> Refused:
    return Refused(
        "place-gone",
        f"{title} has nothing at {written(path[:-1])} that could hold {written(path[-1:])}",
        expected="an object that has the part which the fault changes",
        remedy="restore it by hand from its manifest; `drill recover` then finds it clean",
    )


def _other_list(ref: Ref, path: Sequence[Step]) -> Refused:
    return Refused(
        "place-gone",
        f"{written(path)} of {ref} is no longer the list that the drill changed, and of the others in it the drill "
        f"keeps no more than a fingerprint",
        expected="the list with the items around the drill's as they were",
        remedy="put it back by hand from its manifest; `drill recover` then finds it clean",
    )
