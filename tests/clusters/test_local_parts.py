"""The local provider's parts that need neither root nor a cluster."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.clusters.local import cgroups, config, machine, processes, state
from harness.clusters.local.layout import Layout
from harness.clusters.local.network import choose_cable
from harness.clusters.local.readiness import wait_until
from harness.clusters.local.toolchain import Binaries
from harness.clusters.shell import tail
from harness.core.errors import BadInput, ExitCode, Unreachable

GOOD = machine.Facts(
    system="Linux",
    uid=0,
    lacking_capabilities=(),
    memory_cgroup=True,
    memory_cgroup_writable=True,
    missing_packages=(),
    apt=True,
    build_needed=True,
    go_version="go1.26.8",
    go_needed="1.25.0",
    state=Path("/state"),
    free_state_bytes=machine.RUN_BYTES,
    cache=Path("/cache"),
    free_cache_bytes=machine.BUILD_BYTES,
)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder in which paths stay short enough for sockets, wherever pytest keeps its own."""
    with tempfile.TemporaryDirectory(prefix="d-") as folder:
        yield Path(folder)


def test_a_fit_machine_is_not_refused() -> None:
    machine.refuse_unfit(GOOD)
    machine.refuse_unfit(replace(GOOD, missing_packages=("runc",)))
    machine.refuse_unfit(replace(GOOD, build_needed=False, go_version=None, free_cache_bytes=0))


@pytest.mark.parametrize(
    ("facts", "slug"),
    [
        (replace(GOOD, system="Darwin", uid=501), "not-linux"),
        (replace(GOOD, uid=1000), "not-root"),
        (replace(GOOD, lacking_capabilities=("CAP_SYS_ADMIN",)), "missing-capability"),
        (replace(GOOD, memory_cgroup=False), "no-memory-cgroup"),
        (replace(GOOD, memory_cgroup_writable=False), "cgroup-read-only"),
        (replace(GOOD, missing_packages=("runc",), apt=False), "no-apt"),
        (replace(GOOD, go_version=None), "no-go"),
        (replace(GOOD, go_version="go1.19.8"), "go-too-old"),
        (replace(GOOD, free_state_bytes=0), "disk-too-small"),
        (replace(GOOD, free_cache_bytes=0), "disk-too-small"),
    ],
)
def test_each_lack_has_its_own_refusal(facts: machine.Facts, slug: str) -> None:
    with pytest.raises(BadInput) as caught:
        machine.refuse_unfit(facts)
    assert caught.value.slug == slug
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    assert caught.value.expected
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("go1.26.8", (1, 26, 8)), ("1.25", (1, 25)), ("go1.27rc1", (1, 27)), ("v1.34.4", (1, 34, 4)), ("devel", ())],
)
def test_versions_become_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert machine.release(text) == numbers


def test_versions_compare_as_numbers() -> None:
    assert machine.release("go1.9") < machine.release("1.25.0") <= machine.release("go1.25.0")


def test_capabilities_are_read_from_the_effective_set() -> None:
    assert machine.lacking_capabilities("CapEff:\t000001ffffffffff\n") == ()
    assert machine.lacking_capabilities("CapEff:\t00000000a80425fb\n") == ("CAP_NET_ADMIN", "CAP_SYS_ADMIN")


def test_a_name_has_a_subnet_of_its_own() -> None:
    first = choose_cable("drill", [])
    assert first == choose_cable("drill", [])
    assert first != choose_cable("ci-a", [])
    assert first.subnet.prefixlen == 30
    assert first.subnet.subnet_of(ipaddress.IPv4Network("10.200.0.0/16"))
    assert {first.host, first.node} == {str(host) for host in first.subnet.hosts()}


def test_a_taken_subnet_is_stepped_over() -> None:
    first = choose_cable("drill", [])
    neighbourhood = first.subnet.supernet(new_prefix=24)
    moved = choose_cable("drill", [neighbourhood])
    assert not moved.subnet.overlaps(neighbourhood)
    assert choose_cable("drill", [ipaddress.IPv4Network("192.168.0.0/16")]) == first


def test_no_subnet_left_is_told() -> None:
    with pytest.raises(BadInput, match="in use"):
        choose_cable("drill", [ipaddress.IPv4Network("10.0.0.0/8")])


@pytest.mark.parametrize("name", ["", "Drill", "-a", "a-", "a/b", "..", "x" * 21])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(BadInput):
        Layout(name)


def test_names_fit_the_kernel() -> None:
    layout = Layout("x" * 20)
    assert len(layout.host_link) <= 15
    with pytest.raises(BadInput):
        Layout("drill", Path("/" + "deep/" * 20))


STAT = "42 (a) b (c) S 1 " + " ".join(str(n) for n in range(5, 23)) + " 99 0"


def test_a_process_name_may_hold_anything() -> None:
    identity, letter = processes.parse_stat(STAT)
    assert identity == processes.Identity(42, 22)
    assert letter == "S"
    with pytest.raises(ValueError, match="nonsense"):
        processes.parse_stat("nonsense")


def test_a_recycled_pid_is_nobody(tmp_path: Path) -> None:
    mine = Path("/proc/self/stat").read_text()
    record = tmp_path / "x.pid"
    record.write_text(f"{mine}{processes.boot_id()}\n")
    assert processes.recorded(record) == processes.identify(os.getpid())
    record.write_text(f"{mine}another-boot\n")
    assert processes.recorded(record) is None
    fields = mine.rpartition(")")[2].split()
    fields[19] = str(int(fields[19]) - 1)
    record.write_text(mine.rpartition(")")[0] + ") " + " ".join(fields) + f"\n{processes.boot_id()}\n")
    assert processes.recorded(record) is None
    assert processes.recorded(tmp_path / "absent") is None


def test_a_stranger_with_the_same_pid_is_spared() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        identity = processes.identify(child.pid)
        assert identity is not None
        processes.kill(processes.Identity(child.pid, identity.started + 1))
        assert processes.identify(child.pid) == identity
        processes.kill(identity)
        assert child.wait(10) == -9
        processes.kill(identity)


def test_a_killed_process_has_let_go_of_everything() -> None:
    """With memory to give back the end takes a moment, in which its first thread is dead and its port still taken."""
    code = (
        "import socket, threading, time; s = socket.create_server(('127.0.0.1', 0)); x = bytearray(300_000_000);"
        "[threading.Thread(target=time.sleep, args=(60,)).start() for _ in range(50)];"
        "print(s.getsockname()[1], flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        identity = processes.identify(child.pid)
        assert identity is not None
        processes.kill(identity)
        assert processes.identify(child.pid) is None
        with socket.socket() as successor:
            successor.bind(("127.0.0.1", port))


def test_a_daemon_is_recorded_and_stands_alone(tmp_path: Path) -> None:
    record, log = tmp_path / "d.pid", tmp_path / "d.log"
    identity = processes.launch(["sh", "-c", "echo hello; exec sleep 60"], record=record, log=log)
    try:
        assert processes.recorded(record) == identity
        assert os.getsid(identity.pid) != os.getsid(0)
        deadline = time.monotonic() + 5
        while tail(log) != "hello" and time.monotonic() < deadline:
            time.sleep(0.02)
        assert tail(log) == "hello"
    finally:
        processes.kill(identity)


def test_a_wait_ends_with_the_last_words_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("first\nport is taken\n")
    with pytest.raises(Unreachable, match=r"not within 0\.1 s(.|\n)*port is taken"):
        wait_until("x answers", lambda: False, seconds=0.1, log=log)
    with pytest.raises(Unreachable, match="process has ended"):
        wait_until("x answers", lambda: False, seconds=60, log=log, alive=lambda: False)


def test_both_versions_of_control_groups_are_understood() -> None:
    old = cgroups.parse_mounts("35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n")
    found = cgroups.memory_hierarchy(old)
    assert found is not None
    assert found.point == Path("/sys/fs/cgroup/memory")
    other = cgroups.parse_mounts("35 31 0:32 / /sys/fs/cgroup/cpu\\040x ro - cgroup cgroup rw,cpu\n")
    assert cgroups.memory_hierarchy(other) is None
    assert other[0].point == Path("/sys/fs/cgroup/cpu x")


def test_memory_control_of_version_two(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    mounts = cgroups.parse_mounts(f"30 1 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw\n")
    assert cgroups.memory_hierarchy(mounts) == mounts[0]


def test_unreadable_state_counts_as_none(short: Path) -> None:
    layout = Layout("x", short)
    assert state.load(layout) is None
    layout.root.mkdir()
    written = state.State("10.200.0.0/30", "boot", "/bin", complete=True)
    state.save(layout, written)
    assert state.load(layout) == written
    layout.state_file.write_text('{"subnet": ')
    assert state.load(layout) is None


def test_the_lock_goes_with_the_cluster(short: Path) -> None:
    layout = Layout("x", short)
    with state.locked(layout):
        layout.root.mkdir()
    assert layout.lock.exists()
    with state.locked(layout):
        layout.root.rmdir()
    assert not layout.lock.exists()


def test_what_the_components_read_can_be_read(short: Path) -> None:
    layout, binaries = Layout("x", short), Binaries(Path("/cache/abc-go1"))
    config.write_files(layout, binaries)
    runtime = tomllib.loads((layout.conf / "containerd.toml").read_text())
    cri = runtime["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["restrict_oom_score_adj"] is True
    assert cri["sandbox_image"] == binaries.image("pause")[1]
    assert runtime["grpc"]["address"] == str(layout.containerd_socket)
    kubelet = json.loads((layout.conf / "kubelet.yaml").read_text())
    assert kubelet["cgroupRoot"] == "/drill-x"
    audit = json.loads((layout.conf / "audit.yaml").read_text())
    assert [rule["level"] for rule in audit["rules"]] == ["Metadata", "None"], "no body, and nobody else"
    network = json.loads((layout.conf / "cni" / "10-drill.conflist").read_text())
    assert network["name"] == layout.cni_network


def test_all_that_a_component_writes_lies_in_the_state_folder(short: Path) -> None:
    layout = Layout("x", short)
    for part in config.components(layout, choose_cable("x", []), Binaries(Path("/cache/abc-go1"))):
        assert part.record.is_relative_to(layout.root)
        assert part.log.is_relative_to(layout.root)
        for word in part.argv[1:]:
            path = word.partition("=")[2] if word.startswith("--") else word
            assert not path.startswith("/") or Path(path).is_relative_to(layout.root), word
