"""The system programs a cluster needs, and the Debian packages that bring them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from harness.clusters.shell import clean_env
from harness.core.errors import BadInput
from harness.ports.progress import Progress

_PROGRAMS = {
    "containerd": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "umount": "mount",
    "openssl": "openssl",
    "mmdebstrap": "mmdebstrap",
}
_CNI_PLACES = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")
_CNI_PLUGINS = ("ptp", "host-local", "portmap")
_WHY = {
    "containerd": "runs the containers",
    "runc": "starts each of them",
    "iptables": "carries the services' addresses",
    "iproute2": "makes the network namespace",
    "util-linux": "enters it",
    "mount": "takes mounts away again",
    "openssl": "makes the certificates",
    "mmdebstrap": "makes the image of the staging system",
    "containernetworking-plugins": "connects the pods",
}


def find_program(name: str) -> str | None:
    """Where a system program is; root's own folders are looked through even where PATH omits them."""
    return shutil.which(name, path=clean_env()["PATH"])


def cni_folder() -> Path | None:
    """The folder with all network plugins that the cluster uses."""
    for place in _CNI_PLACES:
        if all((Path(place) / plugin).exists() for plugin in _CNI_PLUGINS):
            return Path(place)
    return None


def missing() -> tuple[str, ...]:
    """The Debian packages whose programs are not there. Programs count, not packages: Docker's containerd will do."""
    lacking = {package for program, package in _PROGRAMS.items() if find_program(program) is None}
    if cni_folder() is None:
        lacking.add("containernetworking-plugins")
    return tuple(sorted(lacking))


def install(wanted: tuple[str, ...], progress: Progress) -> None:
    """Install what is missing by apt-get; nothing is ever removed, and no service is started."""
    if not wanted:
        return
    for package in wanted:
        progress.say(f"installing {package}: {_WHY[package]}")
    with progress.step("system packages", expect_seconds=20) as step:
        install_command = ["install", "-y", "--no-install-recommends", "--no-remove", *wanted]
        if _apt(install_command).returncode != 0:
            step.update("fetching package lists")
            _apt(["update"])
            done = _apt(install_command)
            if done.returncode != 0:
                raise BadInput(
                    "apt-failed",
                    f"apt-get could not install {' '.join(wanted)}: {done.stderr.strip()[-1000:]}",
                    expected="the packages installed without removing any other",
                    remedy=f"run `apt-get install {' '.join(wanted)}` by hand and remove what it complains of",
                )
    left = missing()
    if left:
        raise BadInput(
            "packages-incomplete",
            f"after the installation the programs of {', '.join(left)} are still not found",
            expected=f"programs on {clean_env()['PATH']} and network plugins in {' or '.join(_CNI_PLACES)}",
            remedy="install them there by hand",
        )


def _apt(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """apt-get in a mount namespace of its own where systemd cannot be seen, so that it starts no service."""
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=300", *arguments]
    if Path("/run/systemd/system").is_dir():
        hide = 'mount -t tmpfs -o mode=0755 none /run/systemd && exec "$@"'
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", hide, "apt", *command]
    proxies = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
    env = clean_env({"DEBIAN_FRONTEND": "noninteractive", **proxies})
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=env, check=False
    )
