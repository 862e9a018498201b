"""What real kind needs here and no registry gives: the pinned `kind` and `kubeadm`, and a node image.

Both are made once and kept by content in the user's cache folder. The node image has Debian's packages as its root, the
units and the entrypoint of the pinned kind module itself, and the very Kubernetes that the local cluster runs.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.clusters import oci, rootfs
from harness.clusters.local import toolchain
from harness.clusters.local.toolchain import Binaries
from harness.clusters.shell import tail
from harness.core.errors import BadInput
from harness.ports.progress import Progress
from tests.rigs.kind.engine import exclusively, forget_old

HERE = Path(__file__).resolve().parent
REPOSITORY = "drill.internal/kind-node"
ENTRYPOINT = '["/usr/local/bin/entrypoint", "/sbin/init"]'
_MODULE = "sigs.k8s.io/kind"
_PROGRAMS = (_MODULE, "k8s.io/kubernetes/cmd/kubeadm")
_EXCLUDES = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*")
_CONTAINERD = """
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  tolerate_missing_hugepages_controller = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = true
"""
_NETWORK = """
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
"""
# kind applies both of these; the pods' network is a file of the node here, so there is nothing to run for it.
_CNI_MANIFEST = """
apiVersion: v1
kind: ConfigMap
metadata: {name: pod-network, namespace: kube-system}
data: {where: /etc/cni/net.d}
"""
_STORAGE_MANIFEST = """
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
"""
_UNITS = ("containerd.service", "kubelet.service", "kubelet.slice", "undo-mount-hacks.service")
_WANTED = ("kubelet", "containerd", "undo-mount-hacks")
# What kind's own recipe takes out, since a container has no use for it.
_UNWANTED = (
    "lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
    "lib/systemd/system/multi-user.target.wants/*",
    "etc/systemd/system/*.wants/*",
    "lib/systemd/system/local-fs.target.wants/*",
    "lib/systemd/system/sockets.target.wants/*udev*",
    "lib/systemd/system/sockets.target.wants/*initctl*",
    "lib/systemd/system/basic.target.wants/*",
)
_TABLES = ("xtables-nft-multi", "xtables-legacy-multi", "nft", "conntrack")
_TABLE_NAMES = [f"{family}tables{verb}" for family in ("ip", "ip6") for verb in ("", "-save", "-restore")]
_HIDE = """
  awk '/^#/ || $2 != 0' /proc/cgroups >/kind/fake-cgroups
  mount --bind /kind/fake-cgroups /proc/cgroups
  return 0
"""
_IMPORT = """
set -eu
mount -t proc proc proc; mount -t sysfs sysfs sys; mount -t tmpfs tmpfs run; mount -t tmpfs tmpfs tmp
mkdir -p dev; mount --bind /dev dev
mkdir images; mount --bind "$1" images
chroot . containerd >"$1/containerd.log" 2>&1 &
daemon=$!
for _ in $(seq 100); do chroot . ctr version >/dev/null 2>&1 && break; sleep 0.1; done
for archive in images/*.tar; do
    chroot . ctr --namespace k8s.io images import --all-platforms --no-unpack "/$archive"
done
chroot . ctr --namespace k8s.io images ls --quiet
kill $daemon; wait $daemon || true
umount images; rmdir images
"""


@dataclass(frozen=True, slots=True)
class Tools:
    """The pinned programs, the folder that holds them, and the module that kind came from."""

    folder: Path
    module: Path

    @property
    def kind(self) -> Path:
        """The `kind` command."""
        return self.folder / "kind"

    @property
    def kubeadm(self) -> Path:
        """The `kubeadm` command."""
        return self.folder / "kubeadm"


@dataclass(frozen=True, slots=True)
class NodeImage:
    """A root file system as `docker import` takes it, and the name it gets there."""

    archive: Path
    ref: str


def tools(progress: Progress) -> Tools:
    """kind and kubeadm of go.mod beside this file, built where they are not cached. Raises BadInput as the local
    cluster's build does."""
    plan = toolchain.plan()
    if plan.go is None:
        raise BadInput(
            "no-go",
            "there is no `go` command on PATH",
            expected=f"Go {plan.go_needed} or newer, to build kind and kubeadm once",
            remedy="install Go from https://go.dev/dl/ and put its bin folder on PATH",
        )
    flags = [flag for flag in toolchain._flags(plan.kubernetes) if flag != "-v"]
    key = hashlib.sha256(repr((flags, _PROGRAMS, platform.machine(), plan.go_version)).encode())
    for file in ("go.mod", "go.sum"):
        key.update((HERE / file).read_bytes())
    home = toolchain.cache_folder() / "kind"
    final = home / f"tools-{key.hexdigest()[:12]}"
    with exclusively(home):
        if not final.is_dir():
            with (
                progress.step("building kind and kubeadm from their modules", expect_seconds=90),
                tempfile.TemporaryDirectory(prefix=".building-", dir=home) as room,
            ):
                out = Path(room) / "out"
                out.mkdir()
                _go([plan.go, "build", *flags, "-o", f"{out}/", *_PROGRAMS])
                out.rename(final)
        os.utime(final)
        forget_old(home, "tools-*")
    listed = _go([plan.go, "mod", "download", "-json", _MODULE])
    return Tools(final, Path(re.findall(r'"Dir": "(.+)"', listed)[0]))


def node_image(programs: Tools, binaries: Binaries, progress: Progress) -> NodeImage:
    """The node image of these programs, made where it is not cached. Raises BadInput where the machine lacks a tool or
    cannot fetch packages."""
    packages = rootfs.read_list(HERE / "packages.txt")
    version = toolchain.plan().kubernetes
    recipe = [Path(__file__).read_text(encoding="utf-8"), binaries.folder.name, programs.folder.name, *packages]
    base = "\n".join([rootfs.SUITE, platform.machine(), *packages, *_EXCLUDES])
    with rootfs.locked():
        root = rootfs.kept("kind-root", base, lambda out: _root(packages, out, progress))

        def make(out: Path) -> None:
            with (
                progress.step(f"node image of Kubernetes {version}", expect_seconds=40),
                tempfile.TemporaryDirectory(dir=out.parent) as room,
            ):
                _assemble(Path(room), root, programs, binaries, version)
                _tar(Path(room) / "node", out)

        archive = rootfs.kept("kind-node", "\n".join(recipe), make)
        forget_old(archive.parent, "kind-node-*.tar")  # each is a gigabyte
    return NodeImage(archive, f"{REPOSITORY}:{archive.stem.removeprefix('kind-node-')}")


def _go(argv: Sequence[str]) -> str:
    done = subprocess.run(
        list(argv), cwd=HERE, env=toolchain._env(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        errors="replace", check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise BadInput(
            "build-failed",
            f"`{' '.join(argv[:2])}` of kind and kubeadm failed:\n{done.stderr.strip()[-2000:]}",
            expected="every pinned module fetched and compiled",
            remedy="look at the first error above; the Go module proxy must be reachable (`go env GOPROXY`)",
        )
    return done.stdout


def _root(packages: Sequence[str], out: Path, progress: Progress) -> None:
    if shutil.which("mmdebstrap") is None:
        raise BadInput(
            "mmdebstrap-missing",
            "mmdebstrap is not installed",
            expected="mmdebstrap on PATH, to make the root of the node image",
            remedy="tools/test-packages.sh installs it",
        )
    with progress.step("node image's root from Debian packages", expect_seconds=60):
        rootfs.bootstrap("node image's root", packages, _EXCLUDES, out, ["--variant=minbase"])


def _tar(tree: Path, out: Path) -> None:
    subprocess.run(["tar", "--create", "--numeric-owner", f"--file={out}", f"--directory={tree}", "."], check=True)


def _assemble(room: Path, root: Path, programs: Tools, binaries: Binaries, version: str) -> None:
    node, images = room / "node", room / "images"
    node.mkdir()
    images.mkdir()
    subprocess.run(
        ["tar", "--extract", "--numeric-owner", f"--file={root}", f"--directory={node}", "--exclude=./dev/*"],
        check=True,
    )
    listed = subprocess.run(
        [str(programs.kubeadm), "config", "images", "list", f"--kubernetes-version={version}"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    refs = {ref.rpartition("/")[2].partition(":")[0]: ref for ref in listed}
    _node_files(node, programs.module / "images" / "base" / "files", refs["pause"], version)
    for name in ("kubelet", "kubectl"):
        shutil.copy(binaries.path(name), node / "usr/bin" / name)
    shutil.copy(programs.kubeadm, node / "usr/bin/kubeadm")
    for name, ref in refs.items():
        tree = room / name
        if name == "kube-proxy":
            _proxy_tree(node, tree)
        target = tree / "usr/local/bin" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(binaries.path(name), target)
        # kubeadm names etcd's program by its bare name, and CoreDNS' and pause's by none.
        oci.write_archive(images / f"{name}.tar", ref, layers=[tree], entrypoint=[f"/usr/local/bin/{name}"])
        shutil.rmtree(tree)
    apart = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child=KILL", "--"]
    done = subprocess.run(
        [*apart, "sh", "-c", _IMPORT, "import", str(images)],
        cwd=node, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    known = set(done.stdout.split())
    if done.returncode != 0 or not set(refs.values()) <= known:
        log = tail(images / "containerd.log")
        raise BadInput(
            "node-images",
            f"the images were not put into the node image: {done.stderr.strip()[-1000:]}\n{log}",
            expected=f"all of {', '.join(refs.values())}",
            remedy="read the messages above; the free disk space of the cache folder may be at its end",
        )


def _node_files(node: Path, kinds: Path, pause: str, version: str) -> None:
    """Put the files of kind's own recipe into the tree, changed where this machine or these packages ask for it."""

    def put(source: Path, target: str, mode: int = 0o644) -> None:
        place = node / target
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
        place.chmod(mode)

    def write(target: str, text: str) -> None:
        place = node / target
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text.lstrip("\n"), encoding="utf-8")

    for file in (kinds / "kind/bin").iterdir():
        put(file, f"kind/bin/{file.name}", 0o755)
    put(kinds / "etc/crictl.yaml", "etc/crictl.yaml")
    put(kinds / "etc/default/kubelet", "etc/default/kubelet")
    for folder in ("etc/sysctl.d", "etc/systemd/system/kubelet.service.d"):
        for file in (kinds / folder).iterdir():
            put(file, f"{folder}/{file.name}")
    for unit in _UNITS:
        put(kinds / "etc/systemd/system" / unit, f"etc/systemd/system/{unit}")
    # Debian's containerd, and no more than a machine without CAP_SYS_RESOURCE gives.
    unit = (kinds / "etc/systemd/system/containerd.service").read_text(encoding="utf-8")
    unit = unit.replace("/usr/local/bin/containerd", "/usr/bin/containerd")
    write(
        "etc/systemd/system/containerd.service",
        re.sub(r"^(OOMScoreAdjust|Limit\w+)=.*\n", "", unit, flags=re.MULTILINE),
    )
    # systemd would mount the controllers that no hierarchy of this machine carries: a change for the whole machine.
    entrypoint = (kinds / "usr/local/bin/entrypoint").read_text(encoding="utf-8")
    hook = "remove_misc_controller() {\n"
    if entrypoint.count(hook) != 1:
        raise BadInput(
            "kind-module",
            "the entrypoint of the kind module is not the one that this recipe knows",
            expected=f"one {hook.strip()!r} in images/base/files/usr/local/bin/entrypoint",
            remedy="adapt the recipe to the kind version of go.mod",
        )
    write("usr/local/bin/entrypoint", entrypoint.replace(hook, hook + _HIDE))
    (node / "usr/local/bin/entrypoint").chmod(0o755)
    write("etc/containerd/config.toml", _CONTAINERD.format(pause=pause))
    write("etc/cni/net.d/10-pods.conflist", _NETWORK)
    write("kind/manifests/default-cni.yaml", _CNI_MANIFEST)
    write("kind/manifests/default-storage.yaml", _STORAGE_MANIFEST)
    write("kind/version", version)
    (node / "etc/kubernetes/manifests").mkdir(parents=True)
    for pattern in _UNWANTED:
        for path in node.glob(pattern):
            path.unlink()
    with (node / "etc/systemd/journald.conf").open("a", encoding="utf-8") as settings:
        settings.write("ReadKMsg=no\n")
    _link(node / "usr/sbin/init", "/lib/systemd/systemd")
    _link(node / "opt/cni/bin", "/usr/lib/cni")
    for name in _WANTED:
        _link(
            node / f"etc/systemd/system/multi-user.target.wants/{name}.service", f"/etc/systemd/system/{name}.service"
        )
    _link(node / "etc/systemd/system/systemd-binfmt.service", "/dev/null")


def _link(place: Path, target: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def _proxy_tree(node: Path, tree: Path) -> None:
    """The node's own iptables and what they load, for the image of kube-proxy."""
    tree.mkdir()
    for folder in ("usr/sbin", "usr/bin", "usr/lib", "usr/lib64", "etc", "run", "tmp"):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("sbin", "bin", "lib", "lib64"):
        (tree / folder).symlink_to(f"usr/{folder}")
    programs = [f"usr/sbin/{name}" for name in _TABLES]
    extensions = next((node / "usr/lib").glob("*/xtables"))
    inside = extensions.relative_to(node)
    shutil.copytree(extensions, tree / inside, symlinks=True)
    needing = [
        f"/{path}"
        for path in [*programs, *(str(inside / one.name) for one in extensions.glob("*.so") if not one.is_symlink())]
    ]
    for path in programs:
        shutil.copy(node / path, tree / path)
    # Libraries of the extensions too: without libm the `statistic` match fails as soon as a service has two endpoints.
    listed = subprocess.run(["chroot", str(node), "ldd", *needing], capture_output=True, text=True, check=True).stdout
    for library in sorted(set(re.findall(r"(/\S+\.so\S*) \(0x", listed))):
        target = tree / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        real = subprocess.run(
            ["chroot", str(node), "readlink", "-f", library], capture_output=True, text=True, check=True
        )
        shutil.copy(node / real.stdout.strip().lstrip("/"), target)
    for name in _TABLE_NAMES:
        (tree / "usr/sbin" / name).symlink_to("xtables-nft-multi")
    for name in ("protocols", "services"):
        if (node / "etc" / name).exists():
            shutil.copy(node / "etc" / name, tree / "etc" / name)
    subprocess.run(["chroot", str(tree), "/usr/sbin/iptables", "--version"], capture_output=True, check=True)
