"""What the API server's refusals mean.

How it phrases them (seen on v1.34): a JSON patch whose `test` fails, or whose path leads nowhere, is a 422 with one
fixed sentence, no name and no causes (a `replace` of a missing member is no error but adds it). Validation is a 422
that names the object and its fields. An admission policy is `<resource> "<name>" is forbidden:
ValidatingAdmissionPolicy '<policy>' ... denied request: <message>` with 422 unless the policy gives a reason, and
then with that reason's code; a webhook is `admission webhook ... denied the request`. So policy is told by the
sentence's shape at its very beginning, where no text of an author can stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.core.errors import DrillError, Unreachable
from harness.ports.cluster import AlreadyExists, Conflict, Forbidden, Invalid, NotFound, OutcomeUnknown
from harness.ports.payload import parsed
from harness.ports.retry import Transient, seconds_wished

_PATCH_DID_NOT_APPLY = "the server rejected our request due to an error in our request"
_DENIED = re.compile(r"^.{0,400}?\bdenied (the )?request", re.DOTALL)
_OUR_POLICY = re.compile(r"""^\S+ "[^"]*" is forbidden: ValidatingAdmissionPolicy 'drill-[a-z-]+' with binding""")
_NO_VALUES = (401, 403, 404, 409)
"""Codes whose words are the API server's own, a policy's aside, and name nothing but the object and the user."""
_POLICY = re.compile(r'^(\S+ "[^"]*" is forbidden: |admission webhook "[^"]*" denied the request)')


class Expired(Unreachable):
    """The server no longer knows the version that was asked for (410): list again."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What we asked, for the error's sentence; `writes` when a lost reply leaves the outcome open, `sealed` when the
    API server's words may hold what must not be told: a refused patch of a Secret is answered with its data."""

    what: str
    writes: bool = False
    sealed: bool = False


def failure(asked: Asked, status: int, headers: Mapping[str, str], body: bytes) -> DrillError:
    """The error that an answer of 4xx or 5xx means."""
    refusal = _status_of(body)
    message = str(refusal.get("message") or body[:8000].decode("utf-8", "replace").strip() or "no text")[:2000]
    told = _without_values(status, refusal, message) if asked.sealed else message
    fact = f"the API server answered {status} to {asked.what}: {told}"
    if status in (401, 403) or (status in (413, 422) and _POLICY.match(message)):
        return _forbidden(status, fact, message)
    if status == 404:
        return NotFound(
            "not-found",
            fact,
            expected="the object and its namespace to exist, and the API to serve its kind",
            remedy="compare the name, the namespace and the context with `kubectl get`",
        )
    if status == 409:
        return _conflict_or_exists(refusal, fact)
    if status == 410:
        return expired(asked, told)
    if status == 422 and _precondition_failed(refusal, message):
        return conflict(fact)
    if status == 429 or status >= 500:
        return _unwell(asked, status, headers, fact)
    return Invalid(
        "invalid",
        fact,
        expected="an object that the API server accepts",
        remedy="correct the field that the answer names",
    )


def _without_values(status: int, refusal: dict[str, Any], message: str) -> str:
    """What a refusal about a Secret says, without any words in which a value may stand: the name of a policy of others
    but not its reasons, the fields that are wrong but not what is in them."""
    if (denied := _DENIED.match(message)) and not _OUR_POLICY.match(message):
        return f"{denied[0]} (its words are not shown)"
    if refusal and (denied or status in _NO_VALUES or message == _PATCH_DID_NOT_APPLY):
        return message
    fields = [f"{cause.get('field', '?')} ({cause.get('reason', '?')})" for cause in _causes(refusal)]
    return f"{refusal.get('reason', 'no reason')}, {', '.join(fields) or 'no field named'} (its words are not shown)"


def expired(asked: Asked, message: str) -> Expired:
    """The version to resume from is gone."""
    return Expired(
        "version-expired",
        f"the API server has forgotten the version that {asked.what} asked for: {message}",
        expected="a version within the server's history",
        remedy="list again and go on from there",
    )


def conflict(fact: str) -> Conflict:
    """A precondition did not hold."""
    return Conflict(
        "precondition-failed",
        fact,
        expected="the object to be as it was last read",
        remedy="read it again and decide anew: somebody else changed it meanwhile",
    )


def unreachable(asked: Asked, why: str, *, sent: bool, transient: bool = True) -> Unreachable:
    """No answer, or none that can be read. `sent` is False only when the request surely never left."""
    if asked.writes and sent:
        return OutcomeUnknown(
            "outcome-unknown",
            f"the reply to {asked.what} was lost: {why}",
            expected="a reply that says whether the write happened",
            remedy="read the object; until then treat the write as having happened",
        )
    return (Transient if transient else Unreachable)(
        "api-unreachable",
        f"the API server did not answer {asked.what}: {why}",
        expected="a JSON answer within the time limit",
        remedy="check `kubectl get --raw /readyz` with the same kubeconfig and context",
    )


def _status_of(body: bytes) -> dict[str, Any]:
    try:
        found = parsed(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _forbidden(status: int, fact: str, message: str) -> Forbidden:
    if status == 401:
        return Forbidden(
            "unauthenticated",
            fact,
            expected="credentials that the API server accepts",
            remedy="renew the kubeconfig's credentials or the token",
        )
    policy = "denied" in message
    return Forbidden(
        "denied-by-policy" if policy else "forbidden",
        fact,
        expected="the cluster's admission policies to allow this" if policy else "a role that allows this verb",
        remedy="read the policy that the answer names"
        if policy
        else "bind the role in manifests/harness to this identity",
    )


def _conflict_or_exists(refusal: dict[str, Any], fact: str) -> DrillError:
    if refusal.get("reason") == "AlreadyExists":
        return AlreadyExists(
            "already-exists",
            fact,
            expected="no object of that name",
            remedy="read the one that exists and decide whether it will do",
        )
    return conflict(fact)


def _precondition_failed(refusal: dict[str, Any], message: str) -> bool:
    details, causes = _details(refusal), _causes(refusal)
    if message == _PATCH_DID_NOT_APPLY or (not details.get("name") and not causes):
        return True
    fields = {str(cause.get("field")) for cause in causes}
    return bool(fields) and fields <= {"metadata.uid", "metadata.resourceVersion"}


def _details(refusal: dict[str, Any]) -> dict[str, Any]:
    details = refusal.get("details")
    return details if isinstance(details, dict) else {}


def _causes(refusal: dict[str, Any]) -> list[dict[str, Any]]:
    causes = _details(refusal).get("causes")
    return [cause for cause in causes if isinstance(cause, dict)] if isinstance(causes, list) else []


def _unwell(asked: Asked, status: int, headers: Mapping[str, str], fact: str) -> Unreachable:
    if asked.writes and status != 429:
        return unreachable(asked, fact, sent=True)
    error = Transient(
        "api-unwell",
        fact,
        expected="a healthy API server with room for another request",
        remedy="check `kubectl get --raw '/readyz?verbose'`",
    )
    error.retry_after = seconds_wished(headers.get("Retry-After"))
    return error
