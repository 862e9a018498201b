"""Container images without any image tool: folders in, one OCI archive out.

The archive is deterministic: the same trees and settings give the same bytes, whatever the day, the user or the order
in which the file system lists things. It is streamed, so the size of a tree costs disk and never memory.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from harness.core.errors import BadInput

PARTIAL = ".partial"
"""How the name of a file ends that is being written."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_BLOCK = tarfile.BLOCKSIZE
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"  # no name, no time: the same bytes on every day


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: everything under the folder `tree`, which becomes `/`; or a finished tar file, taken as it is.

    `keep_owner` keeps the numeric owners found on disk (a root file system wants that); otherwise all is root's.
    """

    tree: Path
    keep_owner: bool = False


@dataclass(frozen=True, slots=True)
class _Spec:
    entrypoint: Sequence[str]
    command: Sequence[str]
    env: Mapping[str, str]
    user: str
    workdir: str


def machine_architecture() -> str:
    """The architecture of this machine in the words of OCI."""
    machine = platform.machine().lower()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def write_archive(
    out: Path,
    ref: str,
    *,
    layers: Sequence[Layer | Path],
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    user: str = "",
    workdir: str = "",
    compress: bool = False,
    architecture: str | None = None,
) -> str:
    """Write the OCI archive `out` holding one image named `ref`; answer its manifest digest (`sha256:...`).

    Layers lie on top of each other in the order given; a bare path is `Layer(path)`. `user` is `name` or `uid[:gid]`;
    empty means root. Layers are stored as they are unless `compress` asks for gzip level 1,
    which takes longer to write and about as much less to import, and makes a smaller file. `out` appears whole
    or not at all. Raises BadInput where a layer is missing.
    """
    stack = [layer if isinstance(layer, Layer) else Layer(layer) for layer in layers]
    for layer in stack:
        if not layer.tree.is_dir() and not layer.tree.is_file():
            raise BadInput(
                "image-layer-missing",
                f"{layer.tree} is neither a folder nor a tar file",
                expected="each layer of an image is there before the image is written",
                remedy="build the layer first, or correct its path",
            )
    arch = architecture or machine_architecture()
    spec = _Spec(entrypoint, command, env or {}, user, workdir)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + PARTIAL)
    try:
        with _named(out), partial.open("wb") as raw:
            digest = _write(raw, ref, stack, spec, compress=compress, arch=arch)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return digest


def write_layer(out: Path, tree: Path) -> None:
    """Write the folder `tree`, which becomes `/`, as a layer's tar file; all is root's. The same tree gives the same
    bytes."""
    with _named(out), out.open("wb") as file:
        _write_tree(_Hashing(file), Layer(tree))


@contextmanager
def _named(out: Path) -> Iterator[None]:
    """Let errors of writing say what was written: the system names no file where it failed behind the opening."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(out)
        raise


def digest_of(archive: Path, ref: str) -> str:
    """The manifest digest under which an OCI archive holds `ref`. Raises BadInput where it holds no such image."""
    try:
        with tarfile.open(archive) as tar:
            index = tar.extractfile("index.json")
            manifests = json.load(index)["manifests"] if index else []
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise BadInput(
            "not-an-image",
            f"{archive} cannot be read as an OCI archive: {error}",
            expected="a tar file with an index.json",
            remedy="build the image again",
        ) from error
    for entry in manifests:
        if entry.get("annotations", {}).get("io.containerd.image.name") == ref:
            return str(entry["digest"])
    raise BadInput(
        "image-not-in-archive",
        f"{archive} does not hold {ref}",
        expected=f"an image named {ref} in its index",
        remedy="build the archive under that name",
    )


def _write(raw: IO[bytes], ref: str, stack: list[Layer], spec: _Spec, *, compress: bool, arch: str) -> str:
    _put(raw, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    blobs = [_put_layer(raw, layer, compress=compress) for layer in stack]
    config = _json(
        {
            "architecture": arch,
            "os": "linux",
            "config": _runtime(spec),
            "rootfs": {"type": "layers", "diff_ids": [blob.diff_id for blob in blobs]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, _sha(config), len(config)),
            "layers": [_descriptor(_LAYER + ("+gzip" if compress else ""), b.digest, b.size) for b in blobs],
        }
    )
    digest = _sha(manifest)
    entry = _descriptor(_MANIFEST, digest, len(manifest)) | {
        "platform": {"architecture": arch, "os": "linux"},
        "annotations": {"io.containerd.image.name": ref, "org.opencontainers.image.ref.name": ref},
    }
    for blob in (config, manifest):
        _put(raw, _blob_name(_sha(blob)), blob)
    _put(raw, "index.json", _json({"schemaVersion": 2, "manifests": [entry]}))
    raw.write(b"\0" * (2 * _BLOCK))
    return digest


@dataclass(frozen=True, slots=True)
class _Blob:
    digest: str
    diff_id: str
    size: int


class _Sink(Protocol):
    def write(self, data: bytes, /) -> int: ...


class _Hashing:
    """A write-only stream that hashes and counts what passes."""

    def __init__(self, below: _Sink) -> None:
        self._below = below
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        self._below.write(data)
        return len(data)

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


class _Gzip:
    """gzip at level 1 whose header carries neither time nor name."""

    def __init__(self, below: _Sink) -> None:
        self._below = below
        self._deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._crc = 0
        self._size = 0
        below.write(_GZIP_HEADER)

    def write(self, data: bytes) -> int:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._below.write(self._deflate.compress(data))
        return len(data)

    def finish(self) -> None:
        tail = self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")
        self._below.write(self._deflate.flush() + tail)


def _put_layer(raw: IO[bytes], layer: Layer, *, compress: bool) -> _Blob:
    """Stream a layer into the archive: its header is written last, over the gap left for it."""
    start = raw.tell()
    raw.write(b"\0" * _BLOCK)
    packed = _Hashing(raw)
    gzip = _Gzip(packed) if compress else None
    plain = _Hashing(gzip if gzip is not None else packed)
    if layer.tree.is_dir():
        _write_tree(plain, layer)
    else:
        with layer.tree.open("rb") as finished:
            shutil.copyfileobj(finished, plain, 1 << 20)
    if gzip is not None:
        gzip.finish()
    raw.write(b"\0" * (-packed.size % _BLOCK))
    end = raw.tell()
    raw.seek(start)
    raw.write(_header(_blob_name(packed.digest), packed.size))
    raw.seek(end)
    return _Blob(packed.digest, plain.digest, packed.size)


def _write_tree(sink: _Hashing, layer: Layer) -> None:
    def settle(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.mtime = 0
        info.uname = info.gname = ""
        if not layer.keep_owner:
            info.uid = info.gid = 0
        return info

    with tarfile.open(fileobj=_as_file(sink), mode="w|", format=tarfile.GNU_FORMAT, bufsize=1 << 20) as tar:
        for path in sorted(layer.tree.rglob("*"), key=lambda p: p.relative_to(layer.tree).parts):
            if path.is_socket():  # nothing that an image could hold
                continue
            info = tar.gettarinfo(path, arcname=path.relative_to(layer.tree).as_posix())
            if info.isreg():
                with path.open("rb") as content:
                    tar.addfile(settle(info), content)
            else:
                tar.addfile(settle(info))


def _as_file(sink: _Hashing) -> IO[bytes]:
    class Stream(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object, /) -> int:
            return sink.write(bytes(data))  # type: ignore[call-overload]  # any bytes-like

    return Stream()  # type: ignore[return-value]  # tarfile's stream mode only ever calls write()


def _runtime(spec: _Spec) -> dict[str, object]:
    env = {"PATH": _PATH} | dict(spec.env)
    config: dict[str, object] = {"Env": [f"{key}={env[key]}" for key in sorted(env)]}
    optional = {
        "Entrypoint": list(spec.entrypoint),
        "Cmd": list(spec.command),
        "User": spec.user,
        "WorkingDir": spec.workdir,
    }
    return config | {key: value for key, value in optional.items() if value}


def _descriptor(media: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": media, "digest": digest, "size": size}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(format=tarfile.GNU_FORMAT)


def _put(raw: IO[bytes], name: str, data: bytes) -> None:
    raw.write(_header(name, len(data)) + data + b"\0" * (-len(data) % _BLOCK))
