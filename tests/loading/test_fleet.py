"""`fleet.yaml` is checked as strictly as experiments are: each mistake with its line, its column and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import BadInput
from harness.core.fleet import MOST_TARGETS
from harness.loading import MAX_BYTES, LoadedFleet, load_fleet

GOOD = """\
targets:
  - name: berlin
    context: staging-berlin
    experiment: oom-workers
  - name: shop
    context: staging-oslo
    kubeconfig: ~/.kube/oslo
    experiment: drills/few-tills.yaml
    prometheus: service:shop/prometheus:9090
    pager: none
    responder: human
  - {name: here, local: drill, experiment: noop, profile: gameday}
start_within: 90s
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fleet.yaml"


def loaded(path: Path, text: str) -> LoadedFleet:
    path.write_text(text, encoding="utf-8")
    return load_fleet(path)


def rejected(path: Path, text: str) -> list[str]:
    """The lines of the refusal behind its head, without the file's folder."""
    with pytest.raises(BadInput) as caught:
        loaded(path, text)
    assert caught.value.slug == "fleet-invalid"
    assert "docs/schema/fleet.schema.json" in caught.value.expected
    assert caught.value.remedy
    return [line.removeprefix(f"{path.parent}/") for line in caught.value.fact.splitlines()[1:]]


def test_all_of_it_is_read_and_has_its_place(path: Path) -> None:
    found = loaded(path, GOOD)
    assert [target.name for target in found.fleet.targets] == ["berlin", "shop", "here"]
    assert (found.fleet.start_within, found.fleet.profile) == (90.0, "smoke")
    assert found.where("targets", 1, "experiment") == f"{path}:8:17"
    assert found.where("targets", 0, "pager") == f"{path}:2:5"
    assert found.beside("drills/few-tills.yaml") == path.parent / "drills/few-tills.yaml"


ONE = "targets:\n  - {name: one, context: a, experiment: noop"

MISTAKES = {
    "no targets": ("profile: smoke\n", "1:1: targets: `targets` is missing"),
    "an empty list": ("targets: []\n", "1:10: targets: `targets` is empty; write at least one"),
    "a name of another": (
        f"{ONE}}}\n  - context: b\n    name: one\n    experiment: noop\n",
        "4:11: targets.1.name: another target is called one",
    ),
    "a name that is a path": (ONE.replace("one", "../one") + "}\n", '2:12: targets.0.name: "../one" does not fit'),
    "a name that ends a line": (ONE.replace("one", '"one\\n"') + "}\n", '2:12: targets.0.name: "one\\n" does not fit'),
    "a word of YAML": (ONE.replace("one", "no") + "}\n", "2:12: targets.0.name: YAML reads no as false"),
    "no cluster": ("targets:\n  - name: one\n    experiment: noop\n", "2:5: targets.0: a target is on one cluster"),
    "two clusters": (f"{ONE}, kind: b}}\n", "2:5: targets.0: a target is on one cluster"),
    "a kubeconfig for nothing": (
        "targets:\n  - {name: one, experiment: noop, local: b, kubeconfig: k}\n",
        "2:5: targets.0: `kubeconfig` says where a `context` is found",
    ),
    "a cluster that is a path": (
        "targets:\n  - {name: one, experiment: noop, local: ../b}\n", '2:42: targets.0.local: "../b" does not fit',
    ),
    "no experiment": ("targets:\n  - {name: one, context: a}\n", "2:5: targets.0.experiment: `experiment` is missing"),
    "an empty experiment": (
        "targets:\n  - {name: one, context: a, experiment: ''}\n", "2:41: targets.0.experiment: `experiment` is empty",
    ),
    "an unknown field": (
        f"{ONE}, contxt: b}}\n", "2:47: targets.0.contxt: there is no field `contxt` here",
    ),
    "an unknown field of the file": (f"{ONE}}}\nstart_in: 5s\n", "3:1: start_in: there is no field `start_in` here"),
    "a field written twice": (f"{ONE}, name: two}}\n", "2:47: targets.0.name: `name` is written twice"),
    "a responder": (f"{ONE}, responder: robot}}\n", '2:58: targets.0.responder: "robot" is not one of'),
    "a profile": (f"{ONE}}}\nprofile: quick\n", '3:10: profile: "quick" is not one of'),
    "credentials in an address": (
        f"{ONE}, prometheus: 'http://u:hunter2@x'}}\n", "2:59: targets.0.prometheus: it is not a peer's address",
    ),
    "no address": (f"{ONE}, alertmanager: none}}\n", "2:61: targets.0.alertmanager: it is not a peer's address"),
    "no pager": (f"{ONE}, pager: nope}}\n", "2:54: targets.0.pager: it is not a peer's address"),
    "no time": (f"{ONE}}}\nstart_within: 0s\n", "3:15: start_within: 0.0 is out of bounds"),
    "no unit": (f"{ONE}}}\nstart_within: 5\n", "3:15: start_within: 5 is not a duration"),
    "a list": ("- a\n", "1:1: a fleet is a mapping of fields"),
    "nothing": ("# nothing\n", "1:1: the file holds no fleet; it is empty"),
    "an alias": (f"{ONE}, pager: &x none}}\n", "2:54: anchors and aliases"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_where_it_stands(path: Path, mistake: str) -> None:
    text, told = MISTAKES[mistake]
    (line,) = rejected(path, text)
    assert line.startswith(f"fleet.yaml:{told}")
    assert "hunter2" not in line


def test_all_mistakes_are_told_at_once(path: Path) -> None:
    lines = rejected(path, f"{ONE}, pager: nope}}\n  - {{name: Two, context: b, experiment: noop}}\nprofile: quick\n")
    assert [line.split(": ")[1] for line in lines] == ["targets.0.pager", "targets.1.name", "profile"]


def test_there_are_at_most_so_many(path: Path) -> None:
    targets = [f"  - {{name: t{number}, context: a, experiment: noop}}\n" for number in range(MOST_TARGETS + 1)]
    (line,) = rejected(path, "targets:\n" + "".join(targets))
    assert line == f"fleet.yaml:2:3: targets: `targets` has {MOST_TARGETS + 1} items; write at most {MOST_TARGETS}"
    assert len(loaded(path, "targets:\n" + "".join(targets[1:])).fleet.targets) == MOST_TARGETS


@pytest.mark.parametrize(
    ("raw", "slug"),
    [
        (b"\xff", "not-utf8"), (b"x" * (MAX_BYTES + 1), "file-too-large"), (b"targets: [", "yaml-syntax"),
        (b"\xef\xbb\xbfprofile: smoke\n", "fleet-invalid"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_ours_is_refused(path: Path, raw: bytes, slug: str) -> None:
    path.write_bytes(raw)
    with pytest.raises(BadInput) as caught:
        load_fleet(path)
    assert caught.value.slug == slug


def test_a_file_that_is_not_there_is_told(path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        load_fleet(path)
    assert (caught.value.slug, caught.value.where) == ("unreadable", str(path))
