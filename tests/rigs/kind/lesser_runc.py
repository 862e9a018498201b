"""runc without the capabilities that this machine does not have: LACKING RUNC ARGUMENT...

A privileged container asks for all that the kernel knows, and runc refuses where one cannot be given. So they are taken
out of what a container is made from (`config.json`) and of what a process in it is given (the file behind `--process`).
"""

import json
import os
import sys
from pathlib import Path

SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


def lessen(process: dict[str, object], lacking: set[str]) -> None:
    """Take capabilities out of every set of a process."""
    sets = process.get("capabilities")
    if isinstance(sets, dict):
        for name in SETS:
            sets[name] = [one for one in sets.get(name) or [] if one not in lacking]


def value(arguments: list[str], *names: str) -> str | None:
    """What an option of runc is given, as `--name value` or `--name=value`."""
    for before, after in zip(arguments, [*arguments[1:], ""], strict=True):
        if before in names:
            return after
        for name in names:
            if before.startswith(f"{name}="):
                return before.removeprefix(f"{name}=")
    return None


def rewrite(arguments: list[str], lacking: set[str]) -> None:
    """Lessen the file that this command of runc reads, where it reads one."""
    if "create" in arguments or "run" in arguments:
        bundle = value(arguments, "--bundle", "-b")
        file, inner = (Path(bundle) / "config.json", "process") if bundle else (None, "")
    elif "exec" in arguments:
        process = value(arguments, "--process", "-p")
        file, inner = (Path(process), "") if process else (None, "")
    else:
        return
    if file is not None:
        content = json.loads(file.read_text())
        lessen(content[inner] if inner else content, lacking)
        file.write_text(json.dumps(content))


if __name__ == "__main__":
    names, runc, *rest = sys.argv[1:]
    rewrite(rest, set(names.split(",")))
    os.execv(runc, [runc, *rest])  # noqa: S606 - it takes this one's place
