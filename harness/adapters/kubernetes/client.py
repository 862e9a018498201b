"""The Cluster port over the API server.

Reads and reviews are retried for a few seconds while the failure is transient and `stop` is not set; writes are sent
once. The `kubernetes` package is imported when the first cluster is made, never before.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event as Flag
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

from harness.adapters.kubernetes.answers import Asked, conflict, unreachable
from harness.adapters.kubernetes.pointer import difference
from harness.adapters.kubernetes.watching import Watch, filled
from harness.adapters.kubernetes.wire import JSON, JSON_PATCH, METADATA, METADATA_LIST, Reply, Timing, Wire
from harness.core.clock import Bounds, Instant
from harness.core.errors import BadInput, DrillError
from harness.ports.cluster import FIELD_MANAGER, Conflict, Identity, Invalid, Json, NotFound, Ref, WatchEvent
from harness.ports.endpoint import ApiServer
from harness.ports.kinds import Kind, called, kind_of, served, spelled_out
from harness.ports.retry import patiently
from harness.ports.sealed import KINDS as SEALED
from harness.ports.sealed import sealed
from harness.ports.stamps import Stamp, compare, http_date

if TYPE_CHECKING:
    from kubernetes.client.configuration import Configuration

T = TypeVar("T")
_DRY = (("dryRun", "All"),)
_LOG_SILENCE = 60.0
_LOG_BYTES = 256 * 1024
LOG_LINE = 1024 * 1024
"""Bytes that are kept of a line of a log that is followed: the longest that a drill writes holds its experiment."""
_CONFIG_BYTES = 4 * 1024 * 1024


class KubeCluster:
    """Thread-safe. `now` is the run's clock; `stop` ends retries (not writes) and should therefore be set only when
    nothing is left to be undone."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        now: Callable[[], Instant],
        stop: Flag | None = None,
        timing: Timing | None = None,
        manager: str = FIELD_MANAGER,
    ) -> None:
        self._configuration = configuration
        self._strict = _strict(manager)
        self._now = now
        self._stop = stop or Flag()
        self._timing = timing or Timing()
        self._wire = Wire(configuration, self._timing)
        self._kinds: dict[str, Kind] = {}

    @classmethod
    def from_kubeconfig(
        cls,
        kubeconfig: Path | None,
        context: str | None,
        *,
        now: Callable[[], Instant],
        stop: Flag | None = None,
        timing: Timing | None = None,
    ) -> Self:
        """The cluster of a kubeconfig's context; None means $KUBECONFIG or ~/.kube/config, and the current context.
        Raises BadInput where they cannot be read."""
        from kubernetes.client.configuration import Configuration
        from kubernetes.config.config_exception import ConfigException
        from kubernetes.config.kube_config import load_kube_config
        from yaml import YAMLError

        configuration = Configuration()
        path = str(kubeconfig) if kubeconfig else None
        try:
            _plain_files(path or os.environ.get("KUBECONFIG", ""))
            load_kube_config(  # type: ignore[no-untyped-call]
                path, context=context, client_configuration=configuration, persist_config=False
            )
        except (
            ConfigException,
            YAMLError,
            OSError,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
            RecursionError,
        ) as error:
            raise BadInput(
                "kubeconfig-unusable",
                f"no cluster can be read from it: {str(error)[:500]}",
                expected=f"a kubeconfig with {'the context ' + context if context else 'a current context'}",
                remedy="see `kubectl config get-contexts`; name another with --kubeconfig or --context",
                where=path or "the default kubeconfig",
            ) from error
        return cls(configuration, now=now, stop=stop, timing=timing)

    @classmethod
    def in_cluster(cls, *, now: Callable[[], Instant], stop: Flag | None = None, timing: Timing | None = None) -> Self:
        """The cluster that this process runs in, as its ServiceAccount. Raises BadInput outside of a pod."""
        from kubernetes.client.configuration import Configuration
        from kubernetes.config.config_exception import ConfigException
        from kubernetes.config.incluster_config import load_incluster_config

        configuration = Configuration()
        try:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except (ConfigException, OSError) as error:
            raise BadInput(
                "not-in-a-pod",
                f"this process has no ServiceAccount to use: {error}",
                expected="to run in a pod with its token mounted",
                remedy="outside of the cluster, name a kubeconfig",
            ) from error
        return cls(configuration, now=now, stop=stop, timing=timing)

    def with_token(self, token: str, *, manager: str = FIELD_MANAGER) -> KubeCluster:
        """The same server and trust, with a bearer token as the only identity. `manager` is the name under which the
        API server keeps what it writes (metadata.managedFields): a responder is nobody of the harness."""
        from kubernetes.client.configuration import Configuration

        ours, other = self._configuration, Configuration()
        for name in ("host", "ssl_ca_cert", "ca_cert_data", "verify_ssl", "tls_server_name", "proxy", "no_proxy"):
            setattr(other, name, getattr(ours, name))
        other.api_key["BearerToken"] = f"Bearer {token}"
        return KubeCluster(other, now=self._now, stop=self._stop, timing=self._timing, manager=manager)

    def server(self) -> ApiServer:
        """The door to services behind the API server, with our identity."""
        from kubernetes.client.rest import should_bypass_proxies

        ours = self._configuration
        proxy = None if should_bypass_proxies(ours.host, ours.no_proxy or "") else ours.proxy
        return ApiServer(
            host=ours.host.rstrip("/"),
            verify=(ours.ssl_ca_cert or True) if ours.verify_ssl else False,
            cert=(ours.cert_file, ours.key_file) if ours.cert_file and ours.key_file else None,
            authorization=lambda: ours.get_api_key_with_prefix("BearerToken", alias="authorization"),
            proxy=proxy,
            server_name=ours.tls_server_name or "",
        )

    def close(self) -> None:
        """Give connections back. Watches that still run end by themselves."""
        self._wire.close()

    # ------------------------------------------------------------------------------------------ reads

    def whoami(self) -> Identity:
        """Who the API server says we are."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = self._review("/apis/authentication.k8s.io/v1/selfsubjectreviews", review, "who we are")
        user = _within(answer, "status", "userInfo")
        groups = user.get("groups")
        names = tuple(map(str, groups)) if isinstance(groups, list) else ()
        return Identity(str(user.get("username") or "system:anonymous"), names)

    def server_version(self) -> str:
        """e.g. "v1.34.4"."""
        return str(self._read("/version", Asked("its version")).get("gitVersion", ""))

    def offset(self) -> Bounds:
        """Bounds on (API server's clock - ours) in seconds. Asks up to six times, about a second apart."""
        asked = Asked("its clock")

        def ask() -> Stamp:
            sent = self._now()
            reply = self._wire.request("GET", "/version", asked)
            received = self._now()
            date = http_date(reply.headers.get("Date"))
            if date is None:
                raise unreachable(asked, "its answer has no Date header", sent=True)
            return Stamp(sent, received, date, date + 1.0)

        return compare(lambda: self._patient(ask), now=self._now, pause=self._stop.wait)

    def kind(self, name: str) -> Kind:
        """The kind of that name. What is not in the table costs one request, once."""
        spelled = spelled_out(name)
        if spelled is None:
            return kind_of(name)
        if name not in self._kinds:
            root = "/apis" if "/" in spelled[0] else "/api"
            path, asked = f"{root}/{quote(spelled[0])}", Asked(f"which kinds there are in {spelled[0]}")
            try:
                told = self._read(path, asked).get("resources")
            except NotFound:  # no such group, or no such version of it
                told = None
            self._kinds[name] = served(name, told)
        return self._kinds[name]

    def get(self, ref: Ref) -> Json:
        """The object."""
        path = self.kind(ref.kind).path(ref.namespace, ref.name)
        asked = Asked(f"get {ref}", sealed=ref.kind in SEALED)
        return sealed(ref.kind, self._read(path, asked, accept=_accept(ref.kind)))

    def list(self, kind: str, namespace: str, labels: str = "") -> list[Json]:
        """All objects matching a label selector, each with apiVersion and kind filled in."""
        of = self.kind(kind)
        query = [("labelSelector", labels)] if labels else []
        asked = Asked(f"list {of.plural} in {namespace or 'the cluster'}", sealed=kind in SEALED)
        accept = METADATA_LIST if kind in SEALED else JSON
        return filled(of, self._read(of.path(namespace), asked, query, accept), asked)

    def allowed(self, verb: str, kind: str, namespace: str, name: str = "") -> bool:
        """Whether we may. `kind` may name a subresource: "Deployment/scale"."""
        main, _, subresource = kind.partition("/")
        of = self.kind(main)
        attributes = {
            "verb": verb,
            "group": of.group,
            "version": of.version,
            "resource": of.plural,
            "subresource": subresource,
            "namespace": namespace if of.namespaced else "",
            "name": name,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
        }
        answer = self._review(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review, f"whether we may {verb} {kind}"
        )
        return _within(answer, "status").get("allowed") is True

    def watch(self, kind: str, namespace: str, labels: str, stop: Flag, *, name: str = "") -> Iterator[WatchEvent]:
        """See the port. A dead link is noticed within `Timing.watch + Timing.grace` seconds."""
        return Watch(self._wire, self.kind(kind), namespace, labels, stop, name=name).events()

    def logs(self, namespace: str, pod: str, *, previous: bool = False, lines: int = 50) -> str:
        """The newest log lines of a pod's first container; at most 256 KiB."""
        body = self.get(Ref("Pod", namespace, pod))
        containers = _within(body, "spec").get("containers")
        first = containers[0] if isinstance(containers, list) and containers else None
        if not isinstance(first, dict):
            raise unreachable(Asked(f"the containers of pod/{pod} in {namespace}"), "the pod names none", sent=True)
        query = [("container", str(first.get("name", ""))), ("tailLines", str(lines)), ("limitBytes", str(_LOG_BYTES))]
        if previous:
            query.append(("previous", "true"))
        path, asked = kind_of("Pod").path(namespace, pod) + "/log", Asked(f"logs of pod/{pod} in {namespace}")

        def read() -> Reply:
            return self._wire.request("GET", path, asked, query=query)

        return self._patient(read).body.decode("utf-8", "replace")

    def follow(self, namespace: str, pod: str, skip: int, stop: Flag) -> Iterator[str]:
        """A pod's log lines as they come, without the first `skip`, until the log ends; of a line that is too long, its
        beginning. The flag is looked at between two lines. Raises NotFound where there is no such pod, and Unreachable
        where the stream breaks, or brings nothing for a minute: whoever follows asks again, behind the lines that it
        has."""
        path, asked = kind_of("Pod").path(namespace, pod) + "/log", Asked(f"log of pod/{pod} in {namespace}")
        response = self._wire.open(path, asked, query=[("follow", "true")], silence=_LOG_SILENCE)
        try:
            for number, line in enumerate(self._wire.lines(response, asked, keep=LOG_LINE)):
                if stop.is_set():
                    return
                if number >= skip:
                    yield line.decode("utf-8", "replace")
        finally:
            response.close()

    # ----------------------------------------------------------------------------------------- writes

    def create(self, body: Json, *, dry_run: bool = False) -> Json:
        """Create it, once."""
        of, meta = self.kind(_called(body)), body.get("metadata") or {}
        name = meta.get("name") or f"{meta.get('generateName', '')}…"
        ref = Ref(of.name, meta.get("namespace", ""), name)
        asked = Asked(f"create {ref}", writes=not dry_run, sealed=of.name in SEALED)
        body = {"apiVersion": of.api_version, **body}
        query = self._strict + (_DRY if dry_run else ())
        path, accept = of.path(ref.namespace), _accept(of.name)
        return sealed(of.name, self._wire.json("POST", path, asked, query=query, body=body, accept=accept))

    def replace(self, body: Json) -> Json:
        """Replace it at its metadata.resourceVersion, once. Raises Invalid where that is missing."""
        of, meta = self.kind(_called(body)), body["metadata"]
        ref = Ref(of.name, meta.get("namespace", ""), meta["name"])
        if of.name in SEALED:
            raise Invalid(
                "replace-without-data",
                f"{ref} was to be replaced, and is read without its data",
                expected="a patch: what was read is not the whole of it",
                remedy="patch what is to change",
            )
        if not meta.get("resourceVersion"):
            raise Invalid(
                "replace-without-version",
                f"{ref} was to be replaced without the version that it is based on",
                expected="metadata.resourceVersion as it was read",
                remedy="read the object, change it, and replace that",
            )
        return self._wire.json(
            "PUT", of.path(ref.namespace, ref.name), Asked(f"replace {ref}", writes=True), query=self._strict, body=body
        )

    def patch(
        self, ref: Ref, operations: Sequence[Json], *, dry_run: bool = False, manager: str = FIELD_MANAGER
    ) -> Json:
        """Apply a JSON patch, once. A Conflict says which value was another, where that can still be seen."""
        path = self.kind(ref.kind).path(ref.namespace, ref.name)
        asked = Asked(f"patch {ref}", writes=not dry_run, sealed=ref.kind in SEALED)
        strict = self._strict if manager == FIELD_MANAGER else _strict(manager)
        query, accept = strict + (_DRY if dry_run else ()), _accept(ref.kind)
        try:
            answer = self._wire.json(
                "PATCH", path, asked, query=query, body=list(operations), content=JSON_PATCH, accept=accept
            )
            return sealed(ref.kind, answer)
        except Conflict as error:
            seen = self._what_differs(ref, operations)
            raise (conflict(f"{ref} was not patched: {seen}") if seen else error) from error

    def delete(
        self, ref: Ref, *, uid: str = "", version: str = "", grace: int | None = None, dry_run: bool = False
    ) -> bool:
        """Delete it in the background, once; whether it was there: a missing object is as good as deleted."""
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        preconditions = {"uid": uid, "resourceVersion": version}
        if any(preconditions.values()):
            options["preconditions"] = {key: value for key, value in preconditions.items() if value}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if dry_run:
            options["dryRun"] = ["All"]
        path, asked = self.kind(ref.kind).path(ref.namespace, ref.name), Asked(f"delete {ref}", writes=not dry_run)
        try:
            self._wire.request("DELETE", path, asked, body=options)
        except NotFound:
            return False
        return True

    def token(self, namespace: str, service_account: str, seconds: int) -> str:
        """A ServiceAccount's token for at least ten minutes (the API server's own minimum)."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": max(600, seconds)},
        }
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/serviceaccounts/{quote(service_account, safe='')}/token"
        asked = Asked(f"a token of serviceaccount/{service_account} in {namespace}", writes=True)
        token = _within(self._wire.json("POST", path, asked, body=body), "status").get("token")
        if not isinstance(token, str) or not token:
            raise unreachable(asked, "its answer holds no token", sent=True)
        return token

    # ------------------------------------------------------------------------------------------- help

    def _patient(self, call: Callable[[], T]) -> T:
        return patiently(call, stop=self._stop, budget=self._timing.budget)

    def _read(self, path: str, asked: Asked, query: Sequence[tuple[str, str]] = (), accept: str = JSON) -> Json:
        return self._patient(lambda: self._wire.json("GET", path, asked, query=query, accept=accept))

    def _review(self, path: str, body: Json, what: str) -> Json:
        return self._patient(lambda: self._wire.json("POST", path, Asked(what), body=body))

    def _what_differs(self, ref: Ref, operations: Sequence[Json]) -> str:
        path = self.kind(ref.kind).path(ref.namespace, ref.name)
        try:
            found = self._wire.json("GET", path, Asked("what differs"), accept=_accept(ref.kind))
        except DrillError:
            return ""
        return difference(sealed(ref.kind, found), operations)


def _accept(kind: str) -> str:
    return METADATA if kind in SEALED else JSON


def _plain_files(paths: str) -> None:
    """Raises ValueError where one of the files is a device or too large: whoever reads it would not come back."""
    for path in filter(None, paths.split(os.pathsep)):
        with contextlib.suppress(OSError):  # what is not there is for the package to say
            found = os.stat(path)  # noqa: PTH116 - a path that may be none at all
            if stat.S_ISCHR(found.st_mode) or found.st_size > _CONFIG_BYTES:
                raise ValueError(f"{path[:300]} is not a file of at most {_CONFIG_BYTES // 1024 // 1024} MiB")


def _called(body: Json) -> str:
    return called(str(body.get("apiVersion") or ""), str(body.get("kind", "")))


def _within(body: Json, *keys: str) -> Json:
    """The object at a path of an answer; an empty one where there is none."""
    at: Any = body
    for key in keys:
        at = at.get(key) if isinstance(at, dict) else None
    return at if isinstance(at, dict) else {}


def _strict(manager: str) -> tuple[tuple[str, str], ...]:
    return ("fieldManager", manager), ("fieldValidation", "Strict")
