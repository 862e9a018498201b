"""Certificates for one throw-away cluster, made by the openssl command."""

from __future__ import annotations

import base64
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.clusters.local.layout import Layout
from harness.clusters.shell import run

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650"]
_DONE = "complete"


@dataclass(frozen=True, slots=True)
class _Subject:
    file: str
    subject: str
    names: str = ""


def _subjects(layout: Layout, node_address: str) -> list[_Subject]:
    services = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    api = ",".join(
        ["DNS:localhost", *(f"DNS:{name}" for name in services)]
        + [f"IP:{address}" for address in ("127.0.0.1", "10.96.0.1", node_address)]
    )
    return [
        _Subject("apiserver", "/CN=kube-apiserver", api),
        _Subject("apiserver-kubelet", "/O=system:masters/CN=apiserver-kubelet"),
        _Subject("admin", "/O=system:masters/CN=admin"),
        _Subject("kubelet", f"/O=system:nodes/CN=system:node:{layout.node}", f"DNS:{layout.node},IP:{node_address}"),
        _Subject("controller-manager", "/CN=system:kube-controller-manager"),
        _Subject("scheduler", "/CN=system:kube-scheduler"),
        _Subject("proxy", "/CN=system:kube-proxy"),
    ]


def ensure(layout: Layout, node_address: str) -> None:
    """Make all keys, certificates and kubeconfigs, once per cluster; files are for root's eyes only."""
    pki = layout.pki
    if (pki / _DONE).exists():
        return
    pki.mkdir(parents=True, exist_ok=True, mode=0o700)
    previous = os.umask(0o077)
    try:
        (pki / "openssl.cnf").write_text("[req]\ndistinguished_name=name\n[name]\n")
        _request(pki, "ca", "/CN=drill", ["-addext", "basicConstraints=critical,CA:TRUE"])
        run(["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", f"{pki}/sa.key"])
        run(["openssl", "ec", "-in", f"{pki}/sa.key", "-pubout", "-out", f"{pki}/sa.pub"])
        subjects = _subjects(layout, node_address)
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(lambda subject: _issue(pki, subject), subjects))
        server = f"https://{node_address}:6443"
        for user in ("kubelet", "controller-manager", "scheduler", "proxy"):
            _kubeconfig(layout.conf / f"{user}.kubeconfig", pki, user, server, "drill")
        _kubeconfig(layout.kubeconfig, pki, "admin", server, layout.context)
        (pki / _DONE).touch()
    finally:
        os.umask(previous)


def _issue(pki: Path, subject: _Subject) -> None:
    names = ["-addext", f"subjectAltName={subject.names}"] if subject.names else []
    signed = ["-CA", f"{pki}/ca.crt", "-CAkey", f"{pki}/ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
    _request(pki, subject.file, subject.subject, [*signed, *names])


def _request(pki: Path, file: str, subject: str, more: list[str]) -> None:
    """A key and its certificate; the machine's own openssl configuration has no say in it."""
    files = ["-config", f"{pki}/openssl.cnf", "-keyout", f"{pki}/{file}.key", "-out", f"{pki}/{file}.crt"]
    run(["openssl", "req", "-x509", *_KEY, *files, "-subj", subject, *more])


def _kubeconfig(path: Path, pki: Path, user: str, server: str, context: str) -> None:
    def embed(file: str) -> str:
        return base64.b64encode((pki / file).read_bytes()).decode()

    cluster = {"server": server, "certificate-authority-data": embed("ca.crt")}
    person = {"client-certificate-data": embed(f"{user}.crt"), "client-key-data": embed(f"{user}.key")}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": cluster}],
        "users": [{"name": context, "user": person}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "current-context": context,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    path.chmod(0o600)
