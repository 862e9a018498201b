"""A cluster that somebody else keeps: the harness looks at it, and never makes, fills or removes it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from harness.clusters.provider import Access, ClusterStatus
from harness.core.errors import BadInput, Refused, Unreachable
from harness.ports.progress import Progress

_ANSWER_SECONDS = 10.0


def kubeconfig_files() -> list[Path]:
    """Where kubectl would look: $KUBECONFIG, several files allowed, else ~/.kube/config."""
    listed = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return listed or [Path.home() / ".kube" / "config"]


class ExistingCluster:
    """The cluster behind `context`, found in `kubeconfig` or where kubectl would look."""

    def __init__(self, context: str, kubeconfig: Path | None = None) -> None:
        self._context = context
        self._files = [kubeconfig] if kubeconfig is not None else kubeconfig_files()

    def up(self, progress: Progress) -> Access:
        """Check that it answers. Raises BadInput for an unknown context and Unreachable where nobody answers."""
        access = self._access()
        with progress.step(f"cluster behind context {self._context}", expect_seconds=1) as step:
            step.update(f"Kubernetes {self._version(access)}")
        return access

    def down(self, progress: Progress) -> None:  # noqa: ARG002 - the port's signature
        """Refuse: the harness did not make it."""
        raise Refused(
            "not-our-cluster",
            f"the cluster behind context {self._context} was not made by the harness",
            expected="`down` for a cluster of provider local or kind",
            remedy="remove it with the tool that made it; `drill recover` puts back what a drill changed",
        )

    def status(self) -> ClusterStatus:
        """Ask for its version, nothing else."""
        try:
            access = self._access()
            return ClusterStatus("context", self._context, "up", f"Kubernetes {self._version(access)}", access)
        except BadInput as error:
            return ClusterStatus("context", self._context, "down", error.fact)
        except Unreachable as error:
            return ClusterStatus("context", self._context, "broken", error.fact)

    def load_image(self, archive: Path, ref: str) -> None:
        """Refuse: a foreign cluster takes images from its own registry."""
        raise Refused(
            "no-image-loading",
            f"{ref} cannot be put into the cluster behind context {self._context}",
            expected="a cluster of provider local or kind",
            remedy=f"push {archive} to a registry that the cluster pulls from, and name that image in the manifests",
        )

    def _access(self) -> Access:
        file = self._find()
        kubectl = shutil.which("kubectl")
        return Access("context", self._context, file, self._context, Path(kubectl) if kubectl else None)

    def _find(self) -> Path:
        """The first file that names the context."""
        import yaml

        known: list[str] = []
        for file in self._files:
            try:
                content = yaml.safe_load(file.read_text()) or {}
                names = [str(entry["name"]) for entry in content.get("contexts") or []]
            except FileNotFoundError:
                continue
            except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
                raise BadInput(
                    "bad-kubeconfig",
                    f"{file} cannot be read as a kubeconfig: {error}",
                    expected="a kubeconfig as kubectl writes it",
                    remedy="correct the file, or name another by --kubeconfig or KUBECONFIG",
                    where=str(file),
                ) from error
            if self._context in names:
                return file
            known += names
        raise BadInput(
            "unknown-context",
            f"no context {self._context!r} in {', '.join(str(file) for file in self._files)}",
            expected=f"one of: {', '.join(known)}" if known else "a kubeconfig with at least one context",
            remedy="`kubectl config get-contexts` lists them; KUBECONFIG names other files",
        )

    def _version(self, access: Access) -> str:
        import urllib3
        from kubernetes import client, config

        try:
            api = config.new_client_from_config(  # type: ignore[no-untyped-call]
                str(access.kubeconfig), context=access.context
            )
            api.configuration.retries = False
            with api:
                return str(client.VersionApi(api).get_code(_request_timeout=_ANSWER_SECONDS).git_version)
        except (client.ApiException, config.ConfigException, urllib3.exceptions.HTTPError, OSError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise Unreachable(
                "cluster-silent",
                f"the API server behind context {access.context} did not answer: {first}",
                expected=f"its version within {_ANSWER_SECONDS:g} s",
                remedy=f"try `kubectl --context {access.context} version`; check network, certificates and tokens",
            ) from error
