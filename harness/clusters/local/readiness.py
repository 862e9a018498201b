"""Waits with a deadline, and the questions that are asked while waiting."""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path

from harness.clusters.local.config import CLUSTER_DOMAIN, DNS_ADDRESS
from harness.clusters.local.layout import Layout
from harness.clusters.local.network import enter
from harness.clusters.shell import attempt, tail
from harness.core.errors import Unreachable

_POLL_SECONDS = 0.05
_DNS_QUESTION = (
    "import socket,sys,time\n"
    "end=time.monotonic()+float(sys.argv[3])\n"
    "name=b''.join(bytes([len(p)])+p.encode() for p in sys.argv[2].split('.'))\n"
    "ask=b'\\x12\\x34\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00'+name+b'\\x00\\x00\\x01\\x00\\x01'\n"
    "while time.monotonic()<end:\n"
    "    with socket.socket(socket.AF_INET,socket.SOCK_DGRAM) as s:\n"
    "        s.settimeout(0.25)\n"
    "        try:\n"
    "            s.connect((sys.argv[1],53)); s.send(ask); a=s.recv(512)\n"
    "            if a[:2]==ask[:2] and a[3]&15==0 and a[7]>0: sys.exit(0)\n"
    "        except OSError: pass\n"
    "    time.sleep(0.05)\n"
    "sys.exit(1)\n"
)


def wait_until(
    what: str, check: Callable[[], bool], *, seconds: float, log: Path, alive: Callable[[], bool] | None = None
) -> None:
    """Ask `check` until it says yes.

    Raises Unreachable with the log's last lines after `seconds`, or as soon as it is no longer `alive`.
    """
    deadline = time.monotonic() + seconds
    while not check():
        dead = alive is not None and not alive()
        if dead or time.monotonic() > deadline:
            why = "its process has ended" if dead else f"not within {seconds:g} s"
            raise Unreachable(
                "cluster-component",
                f"{what}: {why}; {log} ends with\n{tail(log)}",
                expected=f"{what} within {seconds:g} s",
                remedy=f"read {log}; `drill cluster down` and `drill cluster up` start afresh",
            )
        time.sleep(_POLL_SECONDS)


class Api:
    """Short questions to the API server as its administrator."""

    def __init__(self, layout: Layout, address: str) -> None:
        self._address = address
        self._tls = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
        self._tls.load_cert_chain(layout.pki / "admin.crt", layout.pki / "admin.key")

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body; (0, b"") where nobody answers."""
        connection = http.client.HTTPSConnection(self._address, 6443, timeout=3, context=self._tls)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def ready(self) -> bool:
        """Whether the API server says that it is ready."""
        return self.get("/readyz")[0] == http.client.OK

    def node_ready(self, node: str) -> bool:
        """Whether the node's Ready condition holds."""
        status, body = self.get(f"/api/v1/nodes/{node}")
        if status != http.client.OK:
            return False
        conditions = json.loads(body).get("status", {}).get("conditions", [])
        return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def names_resolve(layout: Layout, *, seconds: float) -> bool:
    """Ask the cluster's own name service, from the node and through the service address, until it answers rightly."""
    question = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        _DNS_QUESTION,
        DNS_ADDRESS,
        f"kubernetes.default.svc.{CLUSTER_DOMAIN}",
    ]
    return attempt([*enter(layout), *question, str(seconds)], timeout=seconds + 10).returncode == 0
