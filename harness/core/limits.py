"""A container's resource limits: whether one may be lowered to another. What memory and CPU have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.core.errors import BadInput, Refused
from harness.core.quantity import parse_cpu, parse_memory


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource: its name in a container's `resources`, what people call it, and how its quantities are read."""

    name: str
    title: str
    parse: Callable[[object], int]

    def same(self, one: str | None, other: str) -> bool:
        """Whether two spellings mean the same size: the API server stores 65536Ki as 64Mi, and 0.5 cores as 500m."""
        try:
            return one is not None and self.parse(one) == self.parse(other)
        except ValueError:
            return one == other

    def limit(self, container: dict[str, Any]) -> str | None:
        """The limit that a container declares; None where it has none."""
        limit = container.get("resources", {}).get("limits", {}).get(self.name)
        return None if limit is None else str(limit)

    def check_lower(self, container: dict[str, Any], where: str, limit: str, fault_id: str) -> str:
        """The container's present limit, where `limit` is a lower one that it may have. Raises Refused where it has
        none, BadInput where `limit` is not lower, or is below what the container requests."""
        before, request = self.limit(container), container.get("resources", {}).get("requests", {}).get(self.name)
        if before is None:
            raise Refused(
                "no-limit-to-lower",
                f"container {container['name']} in {where} has no {self.title} limit",
                expected=f"a container with a {self.title} limit that can be lowered",
                remedy=f"declare resources.limits.{self.name} in its manifest",
            )
        if self.parse(limit) >= self.parse(before):
            raise BadInput(
                "limit-not-lower",
                f"fault {fault_id} sets {limit}, but the limit of {where} is {before} already",
                expected=f"a limit below {before}",
                remedy=f"edit `limit` of fault {fault_id}",
            )
        if request is not None and self.parse(limit) < self.parse(str(request)):
            raise BadInput(
                "limit-below-request",
                f"fault {fault_id} sets {limit}, below the container's {self.title} request of {request}",
                expected=f"a limit of at least {request}: the API server refuses anything lower",
                remedy=f"raise `limit` of fault {fault_id} or lower the request in the manifest",
            )
        return before


MEMORY = Resource("memory", "memory", parse_memory)
CPU = Resource("cpu", "CPU", parse_cpu)
