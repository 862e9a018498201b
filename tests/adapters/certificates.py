"""A certificate authority for tests, and HTTPS peers on 127.0.0.1 that it vouches for."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.adapters.server import Peer, Step, peer


@dataclass(frozen=True)
class Authority:
    """A CA; `ca` is its certificate."""

    folder: Path
    ca: Path

    def issue(self, name: str, names: str, *, days: int = 2) -> tuple[Path, Path]:
        """A certificate for these subject alternative names, and its key."""
        cert, key, request = (self.folder / f"{name}.{end}" for end in ("pem", "key", "csr"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\n")
        openssl("req", "-new", *KEY, "-keyout", key, "-subj", f"/CN={name}", "-out", request)
        openssl(
            "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.folder / "ca.key", "-CAcreateserial",
            "-days", days, "-extfile", extensions, "-out", cert,
        )  # fmt: skip
        return cert, key


KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def openssl(*words: object) -> None:
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr


def authority(folder: Path) -> Authority:
    """A new CA, its files in `folder`."""
    folder.mkdir()
    ca = folder / "ca.pem"
    openssl("req", "-x509", *KEY, "-keyout", folder / "ca.key", "-subj", f"/CN={folder.name}", "-days", 2, "-out", ca)
    return Authority(folder, ca)


@contextmanager
def https(*steps: Step, cert: tuple[Path, Path], clients: Path | None = None) -> Iterator[tuple[Peer, str]]:
    """A peer that speaks TLS, and its URL; with `clients` it asks for a certificate of that CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*cert)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    with peer(*steps, tls=context) as server:
        yield server, server.url.replace("http:", "https:")
