"""Journals kept in the cluster: in parts, whole again from anywhere, and never taken from strangers."""

from __future__ import annotations

import hashlib

import pytest

from harness.core.errors import BadInput, Unreachable
from harness.engine import results
from harness.engine.results import LABEL, PART_BYTES, Copier, journal, prune, stored
from harness.engine.undo_records import RUN_LABEL
from harness.ports.cluster import Json, Ref
from tests.fakes.cluster import FakeCluster
from tests.fakes.world import NAMESPACE, Mortal

RUN = "20261126-101500-oom-workers-93fd"
RESULT = {"verdict": "MET", "exit_code": 0}


class Folder:
    """A journal that grows."""

    def __init__(self) -> None:
        self.bytes = b""

    def write(self, *lines: str, torn: str = "") -> None:
        self.bytes += "".join(f"{line}\n" for line in lines).encode() + torn.encode()

    def read(self, offset: int, size: int) -> bytes:
        return self.bytes[offset : offset + size]


def cluster() -> Mortal:
    made = Mortal(lambda: 1_800_000_000.0)
    made.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    return made


def parts(made: FakeCluster) -> list[Json]:
    return list(made.list("ConfigMap", NAMESPACE, f"{LABEL}=true"))


def test_what_is_new_is_copied_and_all_of_it_is_whole_again() -> None:
    made, folder = cluster(), Folder()
    copier = Copier(made, NAMESPACE, RUN, folder.read)
    copier.copy()
    assert parts(made) == [], "nothing was written yet"
    folder.write("one", "two", torn="thr")
    copier.copy()
    copier.copy()
    assert journal(made, NAMESPACE, RUN) == b"one\ntwo\n", "a line that is being written is not copied"
    folder.write("ee", "four")
    copier.copy(RESULT)
    assert journal(made, NAMESPACE, RUN) == folder.bytes
    (run,) = stored(made, [NAMESPACE])
    assert (run.run_id, run.experiment, run.result) == (RUN, "oom-workers", RESULT)
    assert all(part["immutable"] for part in parts(made))


def test_a_journal_that_shrinks_badly_goes_into_parts_that_fit() -> None:
    made, folder = cluster(), Folder()
    folder.write(*(hashlib.sha512(f"{number}".encode()).hexdigest() for number in range(25_000)))
    Copier(made, NAMESPACE, RUN, folder.read).copy(RESULT)
    assert len(parts(made)) > 2
    assert all(len(part["data"]["journal"]) < 1_000_000 for part in parts(made))
    assert journal(made, NAMESPACE, RUN) == folder.bytes


def test_one_that_is_longer_than_a_part_is_whole_again() -> None:
    made, folder = cluster(), Folder()
    folder.write(*(f"{number} " + "x" * 4000 for number in range(PART_BYTES // 2000)))
    Copier(made, NAMESPACE, RUN, folder.read).copy(RESULT)
    assert journal(made, NAMESPACE, RUN) == folder.bytes


def test_a_line_that_fits_into_no_part_goes_into_several() -> None:
    made, folder = cluster(), Folder()
    noise = "".join(hashlib.sha512(f"{number}".encode()).hexdigest() for number in range(20_000))
    folder.write("one", noise, "three")
    Copier(made, NAMESPACE, RUN, folder.read).copy(RESULT)
    assert journal(made, NAMESPACE, RUN) == folder.bytes


@pytest.mark.parametrize("landed", [True, False])
def test_a_copy_that_got_no_answer_is_made_again_and_no_line_is_lost_or_told_twice(*, landed: bool) -> None:
    made, folder = cluster(), Folder()
    copier = Copier(made, NAMESPACE, RUN, folder.read)
    folder.write("one")
    copier.copy()
    folder.write("two")
    lost = Unreachable("lost", "no answer", expected="an answer", remedy="wait")
    made.fail_write("create", "ConfigMap", lost, after=landed)
    with pytest.raises(Unreachable):
        copier.copy()
    folder.write("three")
    copier.copy(RESULT)
    assert journal(made, NAMESPACE, RUN) == b"one\ntwo\nthree\n"


def test_a_missing_part_is_told_and_not_guessed_over() -> None:
    made, folder = cluster(), Folder()
    copier = Copier(made, NAMESPACE, RUN, folder.read)
    for line in ("one", "two", "three"):
        folder.write(line)
        copier.copy()
    made.drop(Ref("ConfigMap", NAMESPACE, f"drill-journal-{RUN}-0001"))
    with pytest.raises(BadInput) as caught:
        journal(made, NAMESPACE, RUN)
    assert caught.value.slug == "journal-incomplete"
    assert "part 1 of" in caught.value.fact


@pytest.mark.parametrize("text", ["", "no base64!", "bm90IHBhY2tlZA==", "eJzLSM3JyQ=="])
def test_a_part_that_cannot_be_read_is_told(text: str) -> None:
    made, folder = cluster(), Folder()
    folder.write("one")
    Copier(made, NAMESPACE, RUN, folder.read).copy()
    (part,) = parts(made)
    made.put({**part, "data": {"journal": text}})
    with pytest.raises(BadInput) as caught:
        journal(made, NAMESPACE, RUN)
    assert caught.value.slug == "journal-corrupt"


def test_a_part_that_unpacks_to_anything_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    made, folder = cluster(), Folder()
    folder.write("x" * 10_000)
    Copier(made, NAMESPACE, RUN, folder.read).copy()
    monkeypatch.setattr(results, "JOURNAL_BYTES", 1000)
    with pytest.raises(BadInput) as caught:
        journal(made, NAMESPACE, RUN)
    assert caught.value.slug == "journal-corrupt"


def test_nor_do_all_of_them_together(monkeypatch: pytest.MonkeyPatch) -> None:
    made, folder = cluster(), Folder()
    copier = Copier(made, NAMESPACE, RUN, folder.read)
    for number in range(4):
        folder.write(f"{number}" * 400)
        copier.copy()
    monkeypatch.setattr("harness.engine.results.JOURNAL_BYTES", 1000)
    with pytest.raises(BadInput) as caught:
        journal(made, NAMESPACE, RUN)
    assert caught.value.slug == "journal-corrupt"


@pytest.mark.parametrize(
    ("name", "run_id"),
    [
        ("settings", RUN), (f"drill-journal-{RUN}-0000", "another-run"), ("drill-journal-../../x-0000", "../../x"),
        (f"drill-journal-{RUN}-0000x", RUN),
    ],
)  # fmt: skip
def test_strangers_labels_make_no_run(name: str, run_id: str) -> None:
    made = cluster()
    made.put({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"journal": ""},
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {LABEL: "true", RUN_LABEL: run_id}},
    })  # fmt: skip
    assert stored(made, [NAMESPACE]) == []
    assert prune(made, NAMESPACE, keep=0) == []


def test_the_oldest_make_room() -> None:
    made, folder = cluster(), Folder()
    folder.write("one")
    ids = [f"20261126-1015{number:02}-oom-workers-93fd" for number in range(5)]
    for run_id in ids:
        Copier(made, NAMESPACE, run_id, folder.read).copy(RESULT)
    assert prune(made, NAMESPACE, keep=2) == ids[2::-1]
    assert [run.run_id for run in stored(made, [NAMESPACE])] == ids[:2:-1]


def test_a_run_that_never_ended_has_no_result() -> None:
    made, folder = cluster(), Folder()
    folder.write("one")
    Copier(made, NAMESPACE, RUN, folder.read).copy()
    (run,) = stored(made, [NAMESPACE])
    assert run.result is None


def test_what_nobody_kept_is_told() -> None:
    with pytest.raises(BadInput) as caught:
        journal(cluster(), NAMESPACE, RUN)
    assert caught.value.slug == "no-such-run"
