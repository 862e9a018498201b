"""The cluster's own network namespace: one cable to the host, no way out.

Inside there is no default route, so nothing that runs in the cluster reaches beyond this machine. The cable's two
addresses are a /30 of 10.200.0.0/16, chosen by the cluster's name and moved on where somebody else is on it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterable
from dataclasses import dataclass

from harness.clusters.local.layout import Layout
from harness.clusters.shell import attempt, run
from harness.core.errors import BadInput

SERVICES = "10.96.0.0/16"
"""The addresses that services get inside."""
_POOL = ipaddress.IPv4Network("10.200.0.0/16")
_BLOCKS = 1 << (30 - _POOL.prefixlen)
_NODE_LINK = "eth0"


@dataclass(frozen=True, slots=True)
class Cable:
    """The two ends of the /30 between host and node."""

    subnet: ipaddress.IPv4Network

    @property
    def host(self) -> str:
        """The host's address."""
        return str(self.subnet[1])

    @property
    def node(self) -> str:
        """The node's address; the API server answers there."""
        return str(self.subnet[2])


def choose_cable(name: str, taken: Iterable[ipaddress.IPv4Network]) -> Cable:
    """The /30 for `name`: always the same on an empty machine, the next free one where `taken` overlaps."""
    used = [network for network in taken if network.overlaps(_POOL)]
    first = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % _BLOCKS
    for step in range(_BLOCKS):
        offset = (first + step) % _BLOCKS * 4
        subnet = ipaddress.IPv4Network((int(_POOL.network_address) + offset, 30))
        if not any(subnet.overlaps(network) for network in used):
            return Cable(subnet)
    raise BadInput(
        "no-free-subnet",
        f"every /30 of {_POOL} is in use on this machine",
        expected="one free /30 for the cluster's cable",
        remedy=f"remove the route or address that covers {_POOL}; `ip route` shows it",
    )


def networks_in_use() -> list[ipaddress.IPv4Network]:
    """What the host's routes and addresses cover, the default route excepted."""
    found = []
    for verb, key in (("route", "dst"), ("addr", "local")):
        for entry in json.loads(run(["ip", "-4", "-j", verb, "show"]) or "[]"):
            places = [entry] if verb == "route" else entry.get("addr_info", [])
            for place in places:
                text = place.get(key, "default")
                if text != "default":
                    found.append(
                        ipaddress.IPv4Network(
                            f"{text}/{place.get('prefixlen', 32)}" if verb == "addr" else text, strict=False
                        )
                    )
    return found


def is_wired(layout: Layout, cable: Cable) -> bool:
    """Whether namespace, cable and both addresses are there."""
    inside = attempt(["ip", "-n", layout.netns, "-4", "-j", "addr", "show", "dev", _NODE_LINK], timeout=10)
    outside = attempt(["ip", "-4", "-j", "addr", "show", "dev", layout.host_link], timeout=10)
    return _has(inside.stdout, cable.node) and _has(outside.stdout, cable.host)


def _has(listing: str, address: str) -> bool:
    try:
        links = json.loads(listing or "[]")
    except json.JSONDecodeError:
        return False
    return any(info.get("local") == address for link in links for info in link.get("addr_info", []))


def wire(layout: Layout, cable: Cable) -> None:
    """Make namespace and cable anew. Raises Unreachable where the kernel says no."""
    unwire(layout)
    run(["ip", "netns", "add", layout.netns])
    run(["ip", "link", "add", layout.host_link, "type", "veth", "peer", "name", _NODE_LINK, "netns", layout.netns])
    run(["ip", "addr", "add", f"{cable.host}/30", "dev", layout.host_link])
    run(["ip", "link", "set", layout.host_link, "up"])
    inside = ["ip", "-n", layout.netns]
    run([*inside, "link", "set", "lo", "up"])
    run([*inside, "addr", "add", f"{cable.node}/30", "dev", _NODE_LINK])
    run([*inside, "link", "set", _NODE_LINK, "up"])
    # The node itself reaches services only along a route; what no service takes then ends here and not on the cable.
    run([*inside, "route", "add", SERVICES, "dev", "lo", "src", cable.node])
    run([*enter(layout), "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])


def unwire(layout: Layout) -> None:
    """Take cable and namespace away; silent when they are not there."""
    if attempt(["ip", "link", "show", "dev", layout.host_link], timeout=10).returncode == 0:
        run(["ip", "link", "del", layout.host_link])
    if layout.netns_path.exists():
        run(["ip", "netns", "del", layout.netns])


def enter(layout: Layout) -> list[str]:
    """The words before a command that shall run inside.

    `ip netns exec` would remount /sys, and the kubelet would then find no control groups.
    """
    return ["nsenter", f"--net={layout.netns_path}", "--"]
