"""Whatever is given as an experiment is one, or bad input with its place; in bounded time, and never a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import loading
from harness.cli.app import main
from harness.core.errors import BadInput

ROOT = Path(__file__).resolve().parents[2]
GOOD = (ROOT / "experiments" / "oom-workers.yaml").read_text(encoding="utf-8")
QUICK = 5.0
"""Seconds within which any file is loaded or refused."""


def refused(path: Path) -> BadInput:
    began = time.monotonic()
    with pytest.raises(BadInput) as caught:
        loading.load(path)
    assert time.monotonic() - began < QUICK
    error = caught.value
    assert error.fact
    assert error.expected
    assert error.remedy
    assert error.where.startswith(str(path))
    return error


def bomb(levels: int = 12) -> str:
    lines = ["a0: &a0 [lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


PLACED = {
    "billion laughs": bomb().encode(),
    "merge bomb": b"a: &a {x: 1}\n" + b"".join(b"b%d: &b%d {<<: [*a, *a]}\n" % (n, n) for n in range(50)),
    "alias to itself": b"a: &a [*a]\n",
    "deep lists": b"a: " + b"[" * 30_000,
    "deep mappings": b"{a: " * 30_000,
    "deep blocks": b"".join(b" " * n + b"a:\n" for n in range(500)),
    "many values": b"a: [" + b"1," * 20_000 + b"]",
    "repeated keys": GOOD.encode() + b"\nname: other\n",
    "merge key": GOOD.encode() + b"\n<<: {severity: P4}\n",
    "python tag": b"!!python/object/apply:os.system ['touch /tmp/owned']\n",
    "python tag inside": GOOD.replace("severity: ", "severity: !!python/name:os.system ").encode(),
    "own tag": b"!include /etc/passwd\n",
    "binary tag": b"name: !!binary aGk=\n",
    "a list": b"- a\n- b\n",
    "a text": b"just words\n",
    "a number": b"42\n",
    "nothing": b"",
    "a comment": b"# nothing\n",
    "a NUL": b"name: a\x00b\n",
    "an escape character": b"name: \x1b[31m\n",
    "a form feed": b"name: a\x0cb\n",
    "half a surrogate": b'title: "\\uD800"\n',
    "latin-1": "name: é\n".encode("latin-1"),
    "utf-16": GOOD.encode("utf-16"),
    "utf-32": GOOD.encode("utf-32"),
    "utf-7": GOOD.encode("utf-7") + b"\xff",
    "two documents": GOOD.encode() + b"\n---\n" + GOOD.encode(),
    "infinite": re.sub(r"below: \d+", "below: 1.0e+999", GOOD, count=1).encode(),
    "infinite by digits": re.sub(r"below: \d+", f"below: {'9' * 400}.0", GOOD, count=1).encode(),
    "dot inf": re.sub(r"below: \d+", "below: .inf", GOOD, count=1).encode(),
    "dot nan": re.sub(r"below: \d+", "below: .nan", GOOD, count=1).encode(),
    "a huge whole number": re.sub(r"below: \d+", f"below: {'9' * 5000}", GOOD, count=1).encode(),
    "base 60": re.sub(r"below: \d+", "below: " + ":".join(["59"] * 5000), GOOD, count=1).encode(),
    "key of a list": b"? [a, b]\n: c\n",
    "key of a mapping": b"? {a: b}\n: c\n",
    "tabs": b"name:\n\t- a\n",
}


@pytest.mark.parametrize("kind", PLACED)
def test_a_hostile_file_is_refused_at_once_with_its_place(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "oom-workers.yaml"
    path.write_bytes(PLACED[kind])
    error = refused(path)
    assert re.fullmatch(re.escape(str(path)) + r":\d+:\d+", error.where)
    assert not Path("/tmp/owned").exists()  # noqa: S108 - what the hostile file would have made


def test_a_key_written_twice_is_told_with_both_places(tmp_path: Path) -> None:
    path = tmp_path / "oom-workers.yaml"
    path.write_bytes(PLACED["repeated keys"])
    assert re.search(r"`name` is written twice; the first stands at line \d+", refused(path).fact)


def test_an_enormous_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "oom-workers.yaml"
    with path.open("wb") as file:
        file.truncate(64 * 1024**3)  # it holds nothing, and reads as 64 GiB
    assert refused(path).slug == "file-too-large"


def test_a_pipe_a_device_a_socket_and_a_folder_are_no_files(tmp_path: Path) -> None:
    pipe, folder, device = tmp_path / "pipe.yaml", tmp_path / "folder.yaml", tmp_path / "zero.yaml"
    os.mkfifo(pipe)
    folder.mkdir()
    device.symlink_to("/dev/zero")
    for path in (pipe, folder, device, tmp_path / "missing.yaml"):
        assert refused(path).slug == "unreadable"
        with pytest.raises(BadInput):
            loading.find(str(path), ROOT)


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "../secret.yaml", "experiments/../../x.yaml", "/etc/../etc/passwd.yaml", "a\0b.yaml", "..",
     ".", "", "/", "~/x.yaml", "x" * 5000 + ".yaml", "/".join(["d"] * 5000) + ".yaml", "\udcff.yaml", "a\nb",
     "OOM-workers",
     "-", "$(id).yaml", "%2e%2e%2fx.yaml", "\x1b[31m.yaml", "/proc/self/environ.yaml", "/dev/stdin.yaml"],
)  # fmt: skip
def test_no_name_leads_astray(name: str) -> None:
    with pytest.raises(BadInput) as caught:
        loading.find(name, ROOT)
    assert caught.value.slug in {"unknown-experiment", "path-outside", "unreadable"}


def test_a_loop_of_links_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    one, other = tmp_path / "experiments" / "one.yaml", tmp_path / "experiments" / "other.yaml"
    one.symlink_to(other)
    other.symlink_to(one)
    for name in ("one", "experiments/one.yaml", str(one)):
        with pytest.raises(BadInput):
            loading.find(name, tmp_path)


@pytest.mark.parametrize("name", ["x" * 5000 + ".yaml", "\udcff\udcfe", "\x1b]0;owned\x07.yaml", "a\0b"])
def test_a_hostile_name_on_the_command_line_is_bad_input(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", name]) == 64
    assert "\x1b" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "run", ["../../../etc", "/etc/passwd", "/dev/zero", "\udcff", "x" * 5000, "a\0b", "/proc/self/mem", ".", ""]
)  # fmt: skip
def test_a_hostile_run_is_bad_input(run: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main(["judge", run, "--runs", str(tmp_path)]) == 64
    assert sorted(tmp_path.rglob("*")) == before
    assert capfd.readouterr().err


def test_a_journal_that_is_a_pipe_or_a_device_is_bad_input(tmp_path: Path) -> None:
    for name, make in (("pipe", os.mkfifo), ("zero", lambda at: at.symlink_to("/dev/zero"))):
        (tmp_path / name).mkdir()
        make(tmp_path / name / "journal.jsonl")
        assert main(["judge", str(tmp_path / name)]) == 64


def test_nothing_takes_more_than_a_little_memory(tmp_path: Path) -> None:
    """All hostile files, loaded in a process that may have 400 MiB in all."""
    for number, raw in enumerate(PLACED.values()):
        (tmp_path / f"e{number}.yaml").write_bytes(raw)
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from harness import loading\n"
        "from harness.core.errors import BadInput\n"
        "resource.setrlimit(resource.RLIMIT_AS, (400 * 2**20,) * 2)\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try:\n"
        "        loading.load(path)\n"
        "    except BadInput:\n"
        "        continue\n"
        "    raise SystemExit(f'{path} was loaded')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


FUZZED = settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
TOKENS = st.sampled_from(
    ["&a ", "*a ", "<<: ", "!!python/object:os ", "!x ", "- ", ": ", "? ", "{", "}", "[", "]", ", ", "\n", "\n  ",
     "|\n", ">-\n", "---\n", "...\n", "%YAML 9.9\n", "#", "'", '"', "\\", "\t", "1e999", ".nan", "-.inf", "0x", "012",
     "1:30", "no", "2020-01-01", "~", "\u2028", "\x85", "\ufeff", "name", "faults", "kind", "memory-limit", "90s"]
)  # fmt: skip


@FUZZED
@given(st.lists(TOKENS | st.text(max_size=3), max_size=60).map("".join))
def test_any_yaml_is_an_experiment_or_bad_input(tmp_path: Path, text: str) -> None:
    path = tmp_path / "oom-workers.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with suppress(BadInput):
        loading.load(path)


@FUZZED
@given(st.binary(max_size=400), st.integers(0, len(GOOD)))
def test_a_good_file_with_bytes_put_in_is_an_experiment_or_bad_input(tmp_path: Path, raw: bytes, at: int) -> None:
    path = tmp_path / "oom-workers.yaml"
    path.write_bytes(GOOD.encode()[:at] + raw + GOOD.encode()[at:])
    with suppress(BadInput):
        loading.load(path)


@FUZZED
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    ),
    st.sampled_from(
        ["name", "title", "faults", "slas", "profiles", "roles", "alerts", "signal", "steady_state", "why"]
    ),
)
def test_any_value_in_a_field_is_taken_or_bad_input(value: object, field: str) -> None:
    import yaml

    data = {**yaml.safe_load(GOOD), field: value}
    with suppress(BadInput, ValueError):
        json.dumps(data, allow_nan=False)  # a journal holds nothing else
        loading.parse(data)
