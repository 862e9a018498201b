"""Configuration files and command lines of every component of a local cluster."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from harness.clusters.local.layout import Layout
from harness.clusters.local.network import SERVICES, Cable
from harness.clusters.local.packages import cni_folder, find_program
from harness.clusters.local.toolchain import Binaries

_PODS = "10.244.0.0/24"
DNS_ADDRESS = "10.96.0.10"
"""Where the cluster's name service answers."""
CLUSTER_DOMAIN = "cluster.local"


@dataclass(frozen=True, slots=True)
class Component:
    """One daemon: how it is started and where it speaks."""

    name: str
    argv: tuple[str, ...]
    record: Path
    log: Path


def write_files(layout: Layout, binaries: Binaries) -> None:
    """Write what the components read; the same input gives the same bytes."""
    for folder in (layout.conf / "cni", layout.run, layout.logs / "pods", layout.root / "manifests"):
        folder.mkdir(parents=True, exist_ok=True)
    (layout.conf / "cni" / "10-drill.conflist").write_text(json.dumps(_cni(layout), indent=1) + "\n")
    (layout.conf / "containerd.toml").write_text(_containerd(layout, binaries))
    (layout.conf / "audit.yaml").write_text(json.dumps(_audit(), indent=1) + "\n")
    (layout.conf / "kubelet.yaml").write_text(json.dumps(_kubelet(layout), indent=1) + "\n")


def _audit() -> dict[str, object]:
    """Who did what of the harness' own identities; nothing of what they said, and nothing of anybody else."""
    ours = {
        "level": "Metadata",
        "userGroups": ["system:serviceaccounts:drill-system"],
        "omitStages": ["RequestReceived"],
    }
    return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [ours, {"level": "None"}]}


def _cni(layout: Layout) -> dict[str, object]:
    """Every pod gets a cable of its own to the node, so that all traffic is routed.

    On a bridge, replies from a service's pod to its neighbour need the br_netfilter module to find their way back.
    """
    ipam = {
        "type": "host-local",
        "dataDir": f"{layout.root}/addresses",
        "ranges": [[{"subnet": _PODS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {
        "cniVersion": "1.0.0",
        "name": layout.cni_network,
        "plugins": [
            {"type": "ptp", "ipMasq": True, "ipam": ipam},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _containerd(layout: Layout, binaries: Binaries) -> str:
    _, pause = binaries.image("pause")
    return f"""version = 2
root = "{layout.root}/containerd"
state = "{layout.run}/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{layout.containerd_socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{layout.root}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_folder()}"
    conf_dir = "{layout.conf}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{layout.run}/runc"
        SystemdCgroup = false
"""


def _kubelet(layout: Layout) -> dict[str, object]:
    pki = layout.pki
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "podLogsDir": f"{layout.logs}/pods",
        "volumePluginDir": f"{layout.root}/volume-plugins",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki}/kubelet.crt",
        "tlsPrivateKeyFile": f"{pki}/kubelet.key",
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": "",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "enforceNodeAllocatable": [],
        "cgroupsPerQOS": True,
    }


def components(layout: Layout, cable: Cable, binaries: Binaries) -> list[Component]:
    """All daemons, in the order in which they are of use to each other."""
    pki, conf = layout.pki, layout.conf
    etcd = "http://127.0.0.1:2379"

    def client(user: str) -> list[str]:
        file = f"{conf}/{user}.kubeconfig"
        return [f"--kubeconfig={file}", f"--authentication-kubeconfig={file}", f"--authorization-kubeconfig={file}"]

    lines: dict[str, list[str]] = {
        "containerd": [str(find_program("containerd")), "-c", f"{conf}/containerd.toml"],
        "etcd": [
            str(binaries.path("etcd")),
            f"--data-dir={layout.root}/etcd",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--unsafe-no-fsync",  # the cluster is thrown away after a crash of the machine, never repaired
        ],
        "kube-apiserver": [
            str(binaries.path("kube-apiserver")),
            f"--etcd-servers={etcd}",
            f"--service-cluster-ip-range={SERVICES}",
            f"--client-ca-file={pki}/ca.crt",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--service-account-key-file={pki}/sa.pub",
            f"--service-account-signing-key-file={pki}/sa.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
            f"--kubelet-client-key={pki}/apiserver-kubelet.key",
            f"--kubelet-certificate-authority={pki}/ca.crt",
            "--kubelet-preferred-address-types=InternalIP",
            f"--advertise-address={cable.node}",
            "--secure-port=6443",
            "--allow-privileged=true",
            f"--requestheader-client-ca-file={pki}/ca.crt",
            "--requestheader-allowed-names=front-proxy-client",
            "--anonymous-auth=false",
            "--profiling=false",
            f"--audit-policy-file={conf}/audit.yaml",
            f"--audit-log-path={layout.audit_log}",
            "--audit-log-maxsize=10",  # megabytes, and one older file of as many
            "--audit-log-maxbackup=1",
        ],
        "kube-controller-manager": [
            str(binaries.path("kube-controller-manager")),
            *client("controller-manager"),
            f"--service-account-private-key-file={pki}/sa.key",
            f"--root-ca-file={pki}/ca.crt",
            "--use-service-account-credentials",
            "--kube-api-qps=200",  # at the default of 20 the controllers need five seconds to start one after another
            "--kube-api-burst=400",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        ],
        "kube-scheduler": [
            str(binaries.path("kube-scheduler")),
            *client("scheduler"),
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        ],
        "kubelet": [
            str(binaries.path("kubelet")),
            f"--config={conf}/kubelet.yaml",
            f"--kubeconfig={conf}/kubelet.kubeconfig",
            f"--root-dir={layout.root}/kubelet",
            f"--hostname-override={layout.node}",
            f"--node-ip={cable.node}",
            f"--containerd={layout.containerd_socket}",  # without it containers' metrics carry no names
        ],
        "kube-proxy": [
            str(binaries.path("kube-proxy")),
            f"--kubeconfig={conf}/proxy.kubeconfig",
            f"--hostname-override={layout.node}",
            "--cluster-cidr=10.244.0.0/16",
            "--proxy-mode=iptables",
            "--bind-address=127.0.0.1",
            "--oom-score-adj=0",
            "--conntrack-max-per-core=0",  # these three would write settings that many sandboxes keep read-only
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
        ],
    }
    return [
        Component(name, tuple(argv), layout.run / f"{name}.pid", layout.logs / f"{name}.log")
        for name, argv in lines.items()
    ]
