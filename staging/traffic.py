"""Steady load on the API, the same for the same seed.

Open loop: jobs are sent when the plan says so, whether or not the system keeps up, as tickets are. What could not be
sent within `LATE_SECONDS` of its time is dropped and counted: after an outage of the API the load goes on, it does
not make up for the past with a burst that no client would have sent.

Ready means that the plateau is reached: a drill that starts before it would measure the ramp.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from staging.service import answer_probes, log, setting, stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Iterator

TENANTS = ("acme", "globex", "initech", "umbrella")
LATE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Profile:
    """How the rate grows. Rates in jobs per second, times in seconds since the start."""

    name: str
    start_rate: float
    plateau_rate: float
    ramp_seconds: float

    def rate(self, at: float) -> float:
        """The planned rate at `at`: a straight line up to the plateau, then the plateau for good."""
        if at >= self.ramp_seconds:
            return self.plateau_rate
        return self.start_rate + (self.plateau_rate - self.start_rate) * at / self.ramp_seconds


PROFILES = {
    # The figures and what follows from them are in staging/README.md; the drill runs on the plateau.
    "morning-rush": Profile("morning-rush", start_rate=4.0, plateau_rate=15.5, ramp_seconds=10.0),
    "night": Profile("night", start_rate=2.0, plateau_rate=2.0, ramp_seconds=0.0),
}


@dataclass(frozen=True, slots=True)
class Arrival:
    """One job of the plan; `at` in seconds since the start."""

    at: float
    tenant: str
    ticket: int
    weight: float


def plan(profile: Profile, seed: int) -> Iterator[Arrival]:
    """The endless plan. Gaps vary by half around the mean: uneven as people are, without the bursts of a Poisson
    stream, whose chance peaks would pass for incidents in a queue this short."""
    rng = random.Random(seed)  # noqa: S311 - repeatable on purpose, nothing secret
    at = 0.0
    for ticket in itertools.count(1):
        at += rng.uniform(0.5, 1.5) / profile.rate(at)
        yield Arrival(at, rng.choice(TENANTS), ticket, round(rng.uniform(0.8, 1.2), 3))


class Sender:
    """Posts jobs over one kept-alive connection."""

    def __init__(self, host: str, port: int) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=2)
        self.sent = 0
        self.failed = 0

    def post(self, arrival: Arrival) -> None:
        """One job. A failure is counted and the next job opens a new connection."""
        body = json.dumps({"tenant": arrival.tenant, "ticket": arrival.ticket, "weight": arrival.weight})
        try:
            self._connection.request("POST", "/jobs", body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self.failed += 1
            return
        if response.status == http.client.ACCEPTED:
            self.sent += 1
        else:
            self.failed += 1


def main() -> None:
    """Send until SIGTERM."""
    stop = stop_on_signals()
    name = os.environ.get("PROFILE", "morning-rush")
    if name not in PROFILES:
        raise SystemExit(f"PROFILE is {name!r}; expected one of {', '.join(PROFILES)}")
    profile = PROFILES[name]
    seed = int(setting("SEED", 915))
    sender = Sender(os.environ.get("API_HOST", "api"), 8080)
    started = time.monotonic()
    dropped = 0
    answer_probes(
        int(setting("PORT", 8081)),
        lambda: sender.sent > 0 and time.monotonic() - started >= profile.ramp_seconds,
    )
    log("traffic starts", profile=profile.name, seed=seed, plateau_per_second=profile.plateau_rate)
    report_at = 10.0
    for arrival in plan(profile, seed):
        wait = arrival.at - (time.monotonic() - started)
        if wait > 0 and stop.wait(wait):
            break
        if wait < -LATE_SECONDS:
            dropped += 1
        else:
            sender.post(arrival)
        if arrival.at >= report_at:
            log("traffic", sent=sender.sent, failed=sender.failed, dropped=dropped)
            report_at += 60.0
        if stop.is_set():
            break
    log("traffic ends", sent=sender.sent, failed=sender.failed, dropped=dropped)


if __name__ == "__main__":
    main()
