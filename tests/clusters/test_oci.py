"""The archive writer: deterministic, whole or absent, and readable by anyone who knows OCI."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from harness.clusters.oci import Layer, write_archive
from harness.core.errors import BadInput


def _write(out: Path, ref: str, layers: list[Layer | Path], *, compress: bool = False) -> str:
    return write_archive(
        out,
        ref,
        layers=layers,
        entrypoint=["/bin/app"],
        env={"B": "2", "A": "1"},
        user="1000:1000",
        workdir="/srv",
        compress=compress,
    )


def _tree(base: Path, *, reverse: bool = False) -> Path:
    names = ["bin/app", "etc/conf", "etc/a/deep"]
    for name in reversed(names) if reverse else names:
        file = base / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (base / "bin/app").chmod(0o755)
    (base / "link").symlink_to("bin/app")
    os.link(base / "etc/conf", base / "etc/same")
    (base / "etc/a").chmod(0o1777)
    return base


def _read(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]


def _blob(files: dict[str, bytes], descriptor: dict[str, object]) -> bytes:
    digest = str(descriptor["digest"])
    data = files["blobs/" + digest.replace(":", "/")]
    assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert descriptor["size"] == len(data)
    return data


@pytest.mark.parametrize("compress", [False, True])
def test_same_trees_give_same_bytes(tmp_path: Path, *, compress: bool) -> None:
    one, two = _tree(tmp_path / "1"), _tree(tmp_path / "2", reverse=True)
    os.utime(two / "bin/app", (5, 5))
    digests = {_write(tmp_path / f"{t.name}.tar", "x:1", [t], compress=compress) for t in (one, two)}
    assert len(digests) == 1
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()


@pytest.mark.parametrize("compress", [False, True])
def test_every_digest_and_size_is_true(tmp_path: Path, *, compress: bool) -> None:
    top = tmp_path / "top"
    top.mkdir()
    (top / "extra").write_bytes(os.urandom(300_000))
    out = tmp_path / "image.tar"
    digest = _write(out, "drill.local/app:1", [_tree(tmp_path / "t"), Layer(top)], compress=compress)
    files = _read(out)
    entry = json.loads(files["index.json"])["manifests"][0]
    assert entry["digest"] == digest
    assert entry["annotations"]["io.containerd.image.name"] == "drill.local/app:1"
    manifest = json.loads(_blob(files, entry))
    config = json.loads(_blob(files, manifest["config"]))
    layers = [_blob(files, descriptor) for descriptor in manifest["layers"]]
    plain = [gzip.decompress(layer) if compress else layer for layer in layers]
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(p).hexdigest() for p in plain]
    with tarfile.open(fileobj=io.BytesIO(plain[0])) as tar:
        members = {m.name: m for m in tar.getmembers()}
    assert members["bin/app"].mode == 0o755
    assert members["etc/a"].mode == 0o1777
    assert members["link"].linkname == "bin/app"
    assert members["etc/same"].islnk()
    assert {(m.uid, m.gid, m.mtime) for m in members.values()} == {(0, 0, 0)}
    assert config["config"]["User"] == "1000:1000"
    assert config["config"]["WorkingDir"] == "/srv"
    assert config["config"]["Env"][:2] == ["A=1", "B=2"]


def test_owner_is_kept_on_demand(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "t")
    owner = (tree / "etc/conf").stat()
    _write(tmp_path / "i.tar", "x:1", [Layer(tree, keep_owner=True)])
    files = _read(tmp_path / "i.tar")
    manifest = json.loads(_blob(files, json.loads(files["index.json"])["manifests"][0]))
    with tarfile.open(fileobj=io.BytesIO(_blob(files, manifest["layers"][0]))) as tar:
        assert tar.getmember("etc/conf").uid == owner.st_uid


def test_a_missing_tree_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="neither a folder"):
        _write(tmp_path / "i.tar", "x:1", [tmp_path / "absent"])
    assert list(tmp_path.iterdir()) == []


def test_a_finished_tar_is_a_layer_as_it_is(tmp_path: Path) -> None:
    ready = tmp_path / "layer.tar"
    with tarfile.open(ready, "w") as tar:
        tar.add(_tree(tmp_path / "t"), arcname=".")
    _write(tmp_path / "i.tar", "x:1", [ready])
    files = _read(tmp_path / "i.tar")
    manifest = json.loads(_blob(files, json.loads(files["index.json"])["manifests"][0]))
    assert _blob(files, manifest["layers"][0]) == ready.read_bytes()
