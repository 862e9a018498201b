"""The queue: one Redis stream, one consumer group. At least once: a job survives the worker that held it.

    submit  XADD                      accepted, waiting
    take    XREADGROUP                in flight; delivery 1
    finish  XACK + XDEL + totals      gone, counted once even if two workers finish it
    rescue  XAUTOCLAIM, idle jobs     in flight again; delivery n + 1
    bury    copied to the dead-letter stream, then as finish; for a job that kills every worker it meets

A finished job leaves the stream, so the stream's length is the queue's depth: waiting plus in flight.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Never, Protocol

from staging.resp import Reply, ReplyError

STREAM = "nova:jobs"
GROUP = "workers"
DEAD = "nova:dead"
TOTALS = "nova:totals"
SPENT = "nova:spent"

_FINISH = """
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[2])
local now = redis.call('TIME')
local born = tonumber(string.match(ARGV[2], '^%d+'))
redis.call('HINCRBY', KEYS[2], 'processed', 1)
redis.call('HINCRBY', KEYS[2], 'delay_ms', now[1] * 1000 + math.floor(now[2] / 1000) - born)
redis.call('HINCRBY', KEYS[3], tostring(math.floor(now[1] / 86400)), ARGV[3])
return 1
"""

_BURY = """
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'job', ARGV[3], 'was', ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('HINCRBY', KEYS[2], 'dead', 1)
return 1
"""

_LEAVE = """
for _, c in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  if c[2] == ARGV[2] and c[4] == 0 then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2]) end
end
return 1
"""


class Connection(Protocol):
    """What the queue needs of a Redis connection; `staging.resp.Redis` is one."""

    def command(self, *parts: str | bytes | int) -> Reply:
        """One command, one reply."""

    def pipeline(self, commands: list[tuple[str | bytes | int, ...]]) -> list[Reply]:
        """Several commands, their replies in order."""


@dataclass(frozen=True, slots=True)
class Job:
    """One enhancement to make. `weight` scales the vendor's answer time; 1.0 is an average ticket."""

    id: str
    tenant: str
    ticket: int
    weight: float
    deliveries: int = 1


@dataclass(frozen=True, slots=True)
class QueueState:
    """The queue at one instant, by Redis's own clock. Ages and delays in seconds; `spent` in cost units today."""

    depth: int
    in_flight: int
    oldest_age: float
    accepted: int
    processed: int
    dead: int
    delay_sum: float
    spent: int


class Queue:
    """The queue over one connection."""

    def __init__(self, redis: Connection) -> None:
        self._redis = redis

    def ensure(self) -> None:
        """Create stream and group if they are not there. Reads from the start: nothing accepted is skipped."""
        try:
            self._redis.command("XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM")
        except ReplyError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def submit(self, tenant: str, ticket: int, weight: float) -> str:
        """Accept a job; its id begins with the time of acceptance in ms."""
        body = json.dumps({"tenant": tenant, "ticket": ticket, "weight": weight}, separators=(",", ":"))
        ident, _ = self._redis.pipeline([("XADD", STREAM, "*", "job", body), ("HINCRBY", TOTALS, "accepted", 1)])
        if not isinstance(ident, bytes):
            raise ident if isinstance(ident, ReplyError) else ReplyError(f"XADD answered {ident!r}")
        return ident.decode()

    def take(self, consumer: str, *, block_ms: int) -> Job | None:
        """The next job that nobody has had yet, or None after `block_ms` without one."""
        reply = self._redis.command(
            "XREADGROUP", "GROUP", GROUP, consumer, "COUNT", 1, "BLOCK", block_ms, "STREAMS", STREAM, ">"
        )
        if reply is None:
            return None
        entries = _list(_list(_list(reply)[0])[1])
        return _job(entries[0], deliveries=1)

    def rescue(self, consumer: str, *, idle_ms: int) -> Job | None:
        """A job whose holder has been silent for `idle_ms`, now ours, with its count of deliveries; or None."""
        reply = _list(self._redis.command("XAUTOCLAIM", STREAM, GROUP, consumer, idle_ms, "0-0", "COUNT", 1))
        entries = _list(reply[1])
        if not entries:
            return None
        job = _job(entries[0], deliveries=1)
        pending = _list(self._redis.command("XPENDING", STREAM, GROUP, job.id, job.id, 1))
        if not pending:
            return None
        count = _list(pending[0])[3]
        return Job(job.id, job.tenant, job.ticket, job.weight, count if isinstance(count, int) else 1)

    def finish(self, job: Job, *, cost: int) -> bool:
        """Take the job off the queue and count it. False if somebody else had finished it before."""
        return self._redis.command("EVAL", _FINISH, 3, STREAM, TOTALS, SPENT, GROUP, job.id, cost) == 1

    def bury(self, job: Job) -> bool:
        """Move the job to the dead letters, where it can do no more harm and can still be looked at."""
        body = json.dumps({"tenant": job.tenant, "ticket": job.ticket, "weight": job.weight})
        return self._redis.command("EVAL", _BURY, 3, STREAM, TOTALS, DEAD, GROUP, job.id, body) == 1

    def leave(self, consumer: str) -> None:
        """Forget a consumer that holds nothing. One that holds a job stays: its job must remain claimable."""
        self._redis.command("EVAL", _LEAVE, 1, STREAM, GROUP, consumer)

    def state(self) -> QueueState:
        """Depth, age and totals, read in one round trip."""
        now, depth, oldest, pending, totals, spent = self._redis.pipeline(
            [
                ("TIME",),
                ("XLEN", STREAM),
                ("XRANGE", STREAM, "-", "+", "COUNT", 1),
                ("XPENDING", STREAM, GROUP),
                ("HMGET", TOTALS, "accepted", "processed", "dead", "delay_ms"),
                ("HGET", SPENT, str(int(time.time() // 86400))),
            ]
        )
        seconds, micros = (int(_bytes(part)) for part in _list(now))
        now_ms = seconds * 1000 + micros // 1000
        first = _list(oldest)
        born_ms = int(_bytes(_list(first[0])[0]).split(b"-")[0]) if first else now_ms
        accepted, processed, dead, delay_ms = (int(_bytes(v)) if v is not None else 0 for v in _list(totals))
        in_flight = _list(pending)[0]
        return QueueState(
            depth=depth if isinstance(depth, int) else _refuse(depth),
            in_flight=in_flight if isinstance(in_flight, int) else _refuse(in_flight),
            oldest_age=max(0, now_ms - born_ms) / 1000,
            accepted=accepted,
            processed=processed,
            dead=dead,
            delay_sum=delay_ms / 1000,
            spent=int(_bytes(spent)) if spent is not None else 0,
        )


def _job(entry: Reply, *, deliveries: int) -> Job:
    ident, fields = _list(entry)
    body = json.loads(_bytes(_list(fields)[1]))
    return Job(_bytes(ident).decode(), body["tenant"], body["ticket"], body["weight"], deliveries)


def _list(reply: Reply) -> list[Reply]:
    return reply if isinstance(reply, list) else _refuse(reply)


def _bytes(reply: Reply) -> bytes:
    return reply if isinstance(reply, bytes) else _refuse(reply)


def _refuse(reply: Reply) -> Never:
    if isinstance(reply, ReplyError):
        raise reply
    raise ReplyError(f"a reply of another shape than expected: {reply!r}")
