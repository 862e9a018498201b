"""What `drill.yaml` says: which cluster, and where the alerting chain answers. Every secret is named by its file."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from harness.core.address import Address, AddressOrNone, ServiceAddress, UrlAddress
from harness.core.experiment import Frozen

FILE = "drill.yaml"
"""Its name, where it is looked for in the working directory."""
PEERS = ("prometheus", "alertmanager", "pager")
SEALED = frozenset(
    {"bearer_token", "token", "password", "authorization", "credentials", "cert", "key", "ca", "headers"}
)
"""Fields that people look for and that would hold a secret, or what belongs into a file, in the file itself."""
NO_SECRETS = (
    "a secret does not stand in this file; put it into a file of its own that only you can read, and name that: "
    "`bearer_token_file`, `password_file` in `basic_auth`, `ca_file`, `cert_file` and `key_file` in `tls`"
)


class BasicAuth(Frozen):
    """A user's name and the file with the password."""

    username: str = Field(min_length=1)
    password_file: str = Field(min_length=1)


class Tls(Frozen):
    """How a peer's certificate is checked, and which one is shown to it."""

    ca_file: str | None = Field(default=None, min_length=1)
    cert_file: str | None = Field(default=None, min_length=1)
    key_file: str | None = Field(default=None, min_length=1)
    server_name: str | None = Field(default=None, min_length=1)
    insecure_skip_verify: bool = False

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("`cert_file` and `key_file` belong together; write both or none")
        if self.insecure_skip_verify and (self.ca_file is not None or self.server_name is not None):
            raise ValueError(
                "`insecure_skip_verify` leaves nothing to check; write it, or `ca_file` and `server_name`, not both"
            )
        return self


class Peer(Frozen):
    """Where a peer answers and how it is asked. Exactly one of `url` and `service`."""

    url: UrlAddress | None = None
    service: ServiceAddress | None = None
    bearer_token_file: str | None = Field(default=None, min_length=1)
    basic_auth: BasicAuth | None = None
    tls: Tls | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.url is None) == (self.service is None):
            raise ValueError("a peer needs exactly one of `url` and `service`")
        if self.bearer_token_file is not None and self.basic_auth is not None:
            raise ValueError("one request carries one identity; write `bearer_token_file` or `basic_auth`, not both")
        own = [name for name in ("bearer_token_file", "basic_auth", "tls") if getattr(self, name) is not None]
        if self.service is not None and own:
            raise ValueError(
                f"`{own[0]}` has no meaning with `service`: the API server is asked under the kubeconfig's identity "
                "and hands no other one on; give the peer's `url` instead"
            )
        if self.tls is not None and self.url is not None and not self.url.startswith("https:"):
            raise ValueError("`tls` has no meaning with an http URL; write https, or leave `tls` out")
        return self

    @property
    def address(self) -> str:
        """The one of `url` and `service` that is there."""
        return self.url or self.service or ""


class Configuration(Frozen):
    """All of `drill.yaml`. What it does not say keeps its default."""

    prometheus: Address | Peer | None = None
    alertmanager: Address | Peer | None = None
    pager: AddressOrNone | Peer | None = None
    cluster: Literal["auto", "local", "kind", "context"] | None = None
    context: str | None = Field(default=None, min_length=1)
    namespace: str | None = Field(default=None, min_length=1)
    runs: str | None = Field(default=None, min_length=1)
