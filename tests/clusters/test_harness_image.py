"""The harness' own image: what goes into it, and that it runs as a pod may."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
import uuid
from pathlib import Path

import pytest

from harness.clusters import harness_image, oci
from harness.clusters.harness_image import runtime_only
from harness.clusters.provider import Access
from harness.clusters.rootfs import read_list
from harness.clusters.select import choose
from harness.core.errors import BadInput
from harness.ports.progress import Silent

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements" / "runtime.lock").read_text(encoding="utf-8")
LEFT_OUT = read_list(ROOT / "tools" / "harness-image" / "left-out.txt")
SMALL = """# made by hand
app==1 ; sys_platform != 'emscripten' \\
    --hash=sha256:aa \\
    --hash=sha256:ab
    # via drill-harness (pyproject.toml)
builder==2 \\
    --hash=sha256:bb
    # via drill-harness (pyproject.toml:build)
heavy==3 \\
    --hash=sha256:cc
    # via app
part==4 \\
    --hash=sha256:dd
    # via heavy
shared==5 \\
    --hash=sha256:ee
    # via
    #   builder
    #   heavy
    #   app
"""


def names(lock: str) -> list[str]:
    return re.findall(r"^(\S+)==", lock, re.MULTILINE)


def test_what_only_builds_stays_out_and_so_does_what_only_it_wants() -> None:
    assert names(runtime_only(SMALL)) == ["app", "heavy", "part", "shared"]
    assert names(runtime_only(SMALL, {"heavy"})) == ["app", "shared"]


def test_an_entry_keeps_its_marker_and_all_its_hashes() -> None:
    assert runtime_only(SMALL, {"heavy"}).startswith(SMALL[SMALL.index("app") : SMALL.index("builder==")])


def test_of_the_real_lock_the_direct_dependencies_stay_and_the_builder_goes() -> None:
    unused = {line for line in LEFT_OUT if not line.startswith("/")}
    kept = set(names(runtime_only(LOCK, unused)))
    assert kept >= {"kubernetes", "pydantic", "pydantic-core", "httpx2", "click", "rich", "pyyaml", "jinja2", "certifi"}
    assert kept & {"hatchling", "pluggy", "trove-classifiers", "aiohttp", "yarl", "multidict"} == set()
    assert unused <= set(names(LOCK)), "what is left out is something that there is"
    assert runtime_only(LOCK, unused).count("--hash=") > 100


def test_the_sources_are_those_of_the_checkout_and_nothing_else() -> None:
    found = harness_image._sources(ROOT)
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "harness").rglob("*") if path.suffix in {".py", ".j2"}}
    assert {f"opt/drill/{name}" for name in package} <= set(found)
    assert "opt/drill/experiments/oom-workers.yaml" in found
    assert not any("__pycache__" in name or name.startswith("opt/drill/tests") for name in found)
    assert b"\ndrill:x:10002:10002:" in found["etc/passwd"]


def test_without_pip_it_is_said_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n", encoding="utf-8")
    bare.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(bare))
    with pytest.raises(BadInput, match="No module named pip") as caught:
        harness_image._install(SMALL, tmp_path / "library")
    assert caught.value.slug == "image-packages"
    assert "bootstrap" in caught.value.remedy


def test_packages_that_do_not_fit_are_the_disks_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "python"
    said = "[('/tmp/a', '/b', \\\"[Errno 28] No space left on device: '/tmp/a' -> '/b'\\\")]"
    bare.write_text(f'#!/bin/sh\ntouch "$TMPDIR/left"\necho "ERROR: {said}" >&2\nexit 1\n', encoding="utf-8")
    bare.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(bare))
    with pytest.raises(BadInput) as caught:
        harness_image._install(SMALL, tmp_path / "room" / "library")
    assert caught.value.slug == "disk-full"
    assert "Errno" not in caught.value.fact, "pip tells it once for each file"
    assert [path.name for path in (tmp_path / "room").iterdir()] == ["library"], "pip's own folder goes, too"


CODE = """
import importlib.machinery, json, os, pathlib, pkgutil, ssl, sys
import harness, harness.wiring.settings as settings
walked = [module.name for module in pkgutil.walk_packages(harness.__path__, "harness.")]
loaded = [name for name in walked if "__main__" not in name]
for name in loaded:
    importlib.import_module(name)
import harness.adapters.kubernetes, kubernetes.client.configuration, kubernetes.config, prometheus_api_client, httpx2
import jinja2, rich, yaml
specs = [module.__spec__ for module in list(sys.modules.values()) if getattr(module, "__spec__", None)]
sources = [spec for spec in specs if isinstance(spec.loader, importlib.machinery.SourceFileLoader)]
print(json.dumps({
    "modules": len(loaded), "uid": os.getuid(), "version": settings.version(),
    "authorities": len(ssl.create_default_context().get_ca_certs()), "sources": len(sources),
    "uncompiled": [spec.name for spec in sources if not os.path.exists(spec.cached)],
    "shells": [name for name in ("sh", "bash", "dash", "perl") if any(
        pathlib.Path(folder, name).exists() for folder in ("/bin", "/usr/bin"))],
}))
try:
    open("/opt/drill/x", "w")
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.cluster
def test_it_is_small_and_all_of_it_runs_without_root_shell_or_writing(local_access: Access) -> None:
    image = harness_image.build(ROOT, Silent())
    assert image.archive.stat().st_size < harness_image.LARGEST
    assert unpacked(image.archive) < harness_image.LARGEST
    choose(local_access.provider, name=local_access.name).load_image(image.archive, image.ref)
    name = f"image-{uuid.uuid4().hex[:6]}"
    restricted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": name, "image": image.ref, "command": ["/usr/bin/python3", "-c", CODE], "securityContext": restricted,
    }  # fmt: skip
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "drill-system"},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        },
    }

    def kubectl(*words: str, stdin: str | None = None) -> str:
        argv = [str(local_access.kubectl), f"--kubeconfig={local_access.kubeconfig}", "--namespace=drill-system"]
        done = subprocess.run([*argv, *words], input=stdin, capture_output=True, text=True, check=False, timeout=90)
        assert done.returncode == 0, done.stderr
        return done.stdout

    kubectl("create", "-f", "-", stdin=json.dumps(pod))
    try:
        kubectl(
            "wait", f"pod/{name}", "--for=jsonpath={.status.containerStatuses[0].state.terminated}", "--timeout=60s"
        )
        told, refusal = kubectl("logs", name).splitlines()
    finally:
        kubectl("delete", "pod", name, "--wait=false")
    said = json.loads(told)
    assert said["modules"] > 60
    assert said["uid"] == 10002
    assert said["version"] == "0.1.0"
    assert said["authorities"] > 100
    assert said["sources"] > 300
    assert said["uncompiled"] == []
    assert said["shells"] == []
    assert refusal == "Read-only file system"


def unpacked(archive: Path) -> int:
    """The bytes of all files in all layers."""
    total = 0
    with tarfile.open(archive) as outer:
        for blob in outer:
            layer = outer.extractfile(blob) if blob.name.startswith("blobs/") else None
            if layer is not None and layer.read(1) != b"{":
                layer.seek(0)
                with tarfile.open(fileobj=layer) as inner:
                    total += sum(member.size for member in inner)
    return total


def test_a_tree_as_a_layer_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "opt").mkdir(parents=True)
    (tree / "opt" / "file").write_text("x")
    oci.write_layer(tmp_path / "one.tar", tree)
    shutil.copytree(tree, tmp_path / "again")
    oci.write_layer(tmp_path / "two.tar", tmp_path / "again")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as layer:
        assert layer.getnames() == ["opt", "opt/file"]
