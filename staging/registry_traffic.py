"""Steady reads of the registry: the skills of the snapshot in turn, and every tenth time the list.

Ready once a read was answered.
"""

from __future__ import annotations

import os

from staging.registry import SNAPSHOT
from staging.service import answer_probes, log, setting, stop_on_signals
from staging.steady import Load, ask, times

PATIENCE = 35.0
"""Seconds. Longer than the registry lets anybody wait, so that its own answer is what comes."""


def path(number: int) -> str:
    """What the request of that number reads."""
    names = sorted(SNAPSHOT)
    return "/skills" if number % 10 == 9 else f"/skills/{names[number % len(names)]}"


def main() -> None:
    """Send until SIGTERM."""
    stop = stop_on_signals()
    host = os.environ.get("REGISTRY_HOST", "registry")
    rate, seed = setting("RATE", 4), int(setting("SEED", 915))
    load = Load(lambda number: ask(host, 8080, "GET", path(number), None, PATIENCE), most=256)
    answer_probes(int(setting("PORT", 8081)), lambda: load.answered)
    log("registry traffic starts", per_second=rate, seed=seed)
    load.run(times(rate, seed), stop)
    load.report()


if __name__ == "__main__":
    main()
