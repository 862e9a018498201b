"""Roll out an image that cannot run: a tag that is not there, or a registry that is nowhere.

The patch alone proves nothing: with the default rolling update one new pod fails and all the old ones keep working. So
the effect is proved from the pods: as many distinct pods of the new image as declared fail, and no more than declared
are left ready. Which images a fault may name is said in harness.core.image.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from harness.core.clock import Bounds
from harness.core.errors import BadInput
from harness.core.experiment import FaultSpec, Frozen, Loc, WorkloadName, split_object, too_many
from harness.core.image import may_replace, origin, repository
from harness.core.quantity import Duration
from harness.core.workload import check_at_rest, check_rolls, pod_labels, replicas, title
from harness.ports.cluster import Cluster, Json
from harness.ports.fault import Evidence, Plan, PodSelector, PodState, Proof, UndoRecord
from harness.ports.kinds import WORKLOADS
from harness.ports.kinds import workload as address
from harness.ports.swapping import Swapping, container, found, inside, planned, record, targets

FAILING = frozenset({
    "CrashLoopBackOff", "CreateContainerError", "ErrImageNeverPull", "ErrImagePull", "ImageInspectError",
    "ImagePullBackOff", "InvalidImageName", "RegistryUnavailable", "RunContainerError",
})  # fmt: skip
"""What the kubelet says of a container that waits and will not run by itself."""

Reference = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-zA-Z0-9._/:@-]{0,500}$")]
Tag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]


class ImageEffect(Frozen):
    """What must be seen for the fault to count. `ready_at_most` is the number of pods that may still be ready."""

    failing: int = Field(ge=1)
    ready_at_most: int | None = Field(default=None, ge=0)
    within: Duration


class ImageSpec(FaultSpec):
    """Parameters of the fault."""

    kind: Literal["image"]
    target: WorkloadName
    container: str = Field(min_length=1)
    image: Reference | None = None
    tag: Tag | None = None
    effect: ImageEffect

    @model_validator(mode="after")
    def _one_image(self) -> Self:
        if (self.image is None) == (self.tag is None):
            raise ValueError("write one of `image`, the whole reference, and `tag`, another tag of the present image")
        return self

    def nonsense(self, timeout: float) -> list[tuple[Loc, str]]:
        """See FaultSpec."""
        del timeout
        return too_many(self, ("effect", "failing"), self.effect.failing, "pods must fail")

    def is_new(self, image: str) -> bool:
        """Whether a pod's image is the one that the fault rolls out."""
        return image == self.image if self.tag is None else image.endswith(f":{self.tag}")


class Image(Swapping):
    """The fault `image`."""

    kind: ClassVar[str] = "image"

    def verbs(self, spec: ImageSpec) -> tuple[tuple[str, str], ...]:
        """See ports.fault."""
        kind = WORKLOADS[split_object(spec.target)[0]]
        return ("get", kind), ("patch", kind)

    def plan(self, spec: ImageSpec, namespace: str, cluster: Cluster) -> Plan:
        """See ports.fault. Refuses an image of another repository, and pods that would not come back."""
        ref = address(spec.target, namespace)
        body = found(ref, spec.id, cluster)
        before = str(container(body, spec.container, spec.id)["image"])
        after = spec.image or f"{repository(before)}:{spec.tag}"
        _check_image(spec, body, before, after)
        _check_effect(spec, body)
        check_at_rest(body)
        check_rolls(body)
        undo = record(namespace, [(body, [(inside(spec.container, "image"), after)])])
        return Plan(
            summary=f"roll out {after} where container {spec.container} in {ref} has {before}",
            targets=targets(undo),
            changes=planned(undo),
            pods=replicas(body),
            objects=1,
            undo={**undo, "labels": pod_labels(body), "container": spec.container},
        )

    def pods(self, undo: UndoRecord) -> PodSelector:
        """See ports.fault."""
        return PodSelector(undo["labels"], undo["container"])

    def proof(self, spec: ImageSpec, evidence: Evidence) -> Proof | None:
        """See ports.fault. A pod counts while it fails; all that are needed must be seen failing at one time, and at
        that time no more than declared are ready.

        Nobody stamps the moment at which a container cannot start, so the effect lies between the write and the first
        sight of it.
        """
        injected = evidence.injected
        for seen, event in evidence.pods:
            failing = [pod for pod in event.pods if _fails(spec, pod)]
            ready = sum(pod.ready for pod in event.pods)
            few = spec.effect.ready_at_most is None or ready <= spec.effect.ready_at_most
            if seen.at >= injected.earliest and len(failing) >= spec.effect.failing and few:
                why = ", ".join(sorted({pod.waiting for pod in failing}))
                words = f"{len(failing)} pods of {failing[0].image} fail ({why}), {ready} ready (pod status)"
                return Proof(Bounds(earliest=injected.earliest, latest=seen.at), words, (seen.seq,))
        return None


def _fails(spec: ImageSpec, pod: PodState) -> bool:
    return not pod.ready and pod.waiting in FAILING and spec.is_new(pod.image)


def _check_image(spec: ImageSpec, body: Json, before: str, after: str) -> None:
    if after == before:
        raise BadInput(
            "nothing-to-change",
            f"container {spec.container} in {title(body)} has {before} already",
            expected="an image that differs from the present one",
            remedy=f"edit `{'tag' if spec.tag else 'image'}` of fault {spec.id}",
        )
    if not may_replace(before, after):
        own = origin(before)
        raise BadInput(
            "image-of-another-repository",
            f"{after} is not of {own}, which container {spec.container} in {title(body)} has",
            expected="another tag of the same repository, or the same behind a registry that is nowhere: a drill runs "
            "no foreign code",
            remedy=f"write for example {own}:does-not-exist, or registry.invalid/{own}:1, in fault {spec.id}",
        )


def _check_effect(spec: ImageSpec, body: Json) -> None:
    wanted, effect = replicas(body), spec.effect
    if effect.ready_at_most is not None and effect.ready_at_most >= wanted:
        raise BadInput(
            "effect-proves-nothing",
            f"fault {spec.id} counts with at most {effect.ready_at_most} pods ready, and {title(body)} has {wanted}",
            expected=f"a `ready_at_most` below {wanted}: what holds before the fault cannot prove it",
            remedy=f"edit `effect` of fault {spec.id}",
        )
    if effect.failing > wanted:
        raise BadInput(
            "effect-never-seen",
            f"fault {spec.id} counts when {effect.failing} pods fail, and {title(body)} has {wanted}",
            expected=f"at most {wanted} `failing`",
            remedy=f"edit `effect` of fault {spec.id}",
        )
