"""Steady invocations of the adapter. Ready once one of them succeeded."""

from __future__ import annotations

import json
import os

from staging.service import answer_probes, log, setting, stop_on_signals
from staging.steady import Load, ask, times

PATIENCE = 10.0
"""Seconds. Longer than the adapter gives the vendor."""


def body(number: int) -> str:
    """The invocation of that number."""
    return json.dumps({"prompt": f"Summarise ticket {number}."})


def main() -> None:
    """Send until SIGTERM."""
    stop = stop_on_signals()
    host = os.environ.get("ADAPTER_HOST", "llm-adapter")
    rate, seed = setting("RATE", 3), int(setting("SEED", 915))
    load = Load(lambda number: ask(host, 8080, "POST", "/invoke", body(number), PATIENCE), most=64)
    answer_probes(int(setting("PORT", 8081)), lambda: load.answered)
    log("llm traffic starts", per_second=rate, seed=seed)
    load.run(times(rate, seed), stop)
    load.report()


if __name__ == "__main__":
    main()
