"""Every kind of bad input with its place and its words."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import catalog
from harness.core.errors import BadInput
from harness.loading import MAX_BYTES, find, load, names, parse

ROOT = Path(__file__).parents[2]
TITLE = "title: Morning rush, queue backlog from worker crashes"
GOOD = (ROOT / "experiments/oom-workers.yaml").read_text()


def spoiled(tmp_path: Path, *changes: tuple[str, str], text: str | bytes = GOOD) -> Path:
    """The good experiment with each first occurrence replaced, in a file of its name."""
    path = tmp_path / "oom-workers.yaml"
    if isinstance(text, bytes):
        path.write_bytes(text)
        return path
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)
    return path


def refusal(path: Path) -> BadInput:
    with pytest.raises(BadInput) as caught:
        load(path)
    error = caught.value
    assert all((error.slug, error.fact, error.expected, error.remedy, error.where))
    return error


def place(text: str, old: str, within: str = "") -> str:
    """line:column of `old` (of the first `within` that holds it, where given)."""
    start = text.index(within) if within else 0
    at = text.index(old, start)
    before = text[:at]
    return f"{before.count(chr(10)) + 1}:{at - (before.rfind(chr(10)) + 1) + 1}"


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_experiment_loads_and_survives_a_journal(path: Path) -> None:
    loaded = load(path)
    assert loaded.experiment.name == path.stem
    assert (ROOT / loaded.experiment.runbook).is_file()
    again = parse(loaded.experiment.as_data())
    assert again == loaded.experiment
    assert again.digest() == loaded.experiment.digest()
    first_line = path.read_text().splitlines()[0]
    assert first_line == "# yaml-language-server: $schema=../docs/schema/experiment.schema.json"
    for name in loaded.experiment.profiles:
        loaded.experiment.tuned(name)


def test_the_support_readiness_drill_promises_the_seven_times_of_its_record() -> None:
    slas = {sla.name: (sla.from_, sla.to, sla.within / 60) for sla in load(find("oom-workers", ROOT)).experiment.slas}
    assert slas == {
        "Detection Time": ("firing", "acknowledged", 5),
        "Severity Assessment": ("firing", "assessed", 10),
        "L2 Escalation": ("firing", "l2.joined", 15),
        "Engineering Escalation": ("firing", "engineering.joined", 30),
        "Client Notification": ("firing", "client.notified", 30),
        "Mitigation Time": ("firing", "mitigated", 20),
        "Resolution Time": ("firing", "recovered", 60),
        "Fault to Alert": ("memory.effective", "firing", 3),
    }


def test_a_value_knows_where_it_stands() -> None:
    loaded = load(find("oom-workers", ROOT))
    assert loaded.where("faults", 0, "limit").endswith(f"oom-workers.yaml:{place(GOOD, '64Mi')}")
    assert loaded.where("faults", 0, "limit", "deeper").endswith(place(GOOD, "64Mi"))


@pytest.mark.parametrize(
    ("old", "new", "at", "words"),
    [
        ("within: 5m", "withn: 5m", "withn", "there is no field `withn` here; did you mean `within`?"),
        ("within: 5m", "zzz: 5m", "zzz", "there is no field `zzz` here; known here: "),
        ("within: 5m, ", "", "{name: Detection", "`within` is missing"),
        ("severity: P1\n\nsignal", "severity: P7\n\nsignal", "P7", '"P7" is not one of P1, P2, P3, P4'),
        ("probability: high", "probability: hihg", "hihg", "did you mean `high`?"),
        ("within: 5m", "within: 5", "5, required", "5 is not a duration; write a number with its unit"),
        ("within: 5m", 'within: "5"', '"5"', "did you mean 5s or 5m?"),
        ("within: 5m", "within: 5.5", "5.5", "did you mean 5.5s or 5.5m?"),
        ("within: 5m", "within: 5 min", "5 min", "write 5m"),
        ("limit: 64Mi", "limit: 48MB", "48MB", "write 48Mi (powers of 1024) or 48M (powers of 1000)"),
        ("limit: 64Mi", "limit: 64", "64 #", "64 has no unit; write a unit, like 64Mi"),
        ("kind: memory-limit", "kind: memory-limt", "memory-limt", "did you mean `memory-limit`?"),
        ("    kind: memory-limit\n", "", "id: memory", "`kind` is missing; one of: config, cpu-limit, image"),
        ("oom_killed: 3", 'oom_killed: "3"', '"3"', 'expected a whole number, found "3"'),
        ("oom_killed: 3", "oom_killed: three", "three", "expected a whole number"),
        ("oom_killed: 3", "oom_killed: 0", "0, ready_at", "greater than or equal to 1"),
        ("oom_killed: 3", "oomkilled: 3", "oomkilled", "did you mean `oom_killed`?"),
        ("pods: 5", "pods: true", "true}", "expected a whole number, found true"),
        ("namespace: nova-staging", "namespace: Nova_Staging", "Nova_", "write lower-case letters, digits and -"),
        ("namespace: nova-staging", "namespace:", "\n\n# What responders are", "`namespace` has no value; write text"),
        ("  tests: [queue", "  tests: queue #", "queue #", "expected a list, found"),
        ("below: 20, for: 30s}\n  - ", "below: 20, above: 3}\n  - ", "{name: queue is", "exactly one of `below` and"),
        ("below: 20", "below: .inf", ".inf", "YAML reads .inf as an unusual number"),
        (TITLE, "title: no", "no\n", "YAML reads no as false"),
        (TITLE, "title: 1:30", "1:30", "a number in base 60"),
        (TITLE, "title: 012", "012", "an unusual number"),
        (TITLE, "title: 2026-11-22", "2026", "reads 2026-11-22 as a"),
        (TITLE, "title: 5", "5\n", "expected text, found 5"),
        ("required: true", "required: yes", "yes", "YAML reads yes as true; write true if that is meant"),
        ("required: true", "required: off", "off", "YAML reads off as false; write false if that is meant"),
        ("why:", "on:", "on:", "YAML reads on as true"),
        ("severity: P1\n\nsignal", "severity: P1\nseverity: P2\n\nsignal", "severity: P2", "`severity` is written tw"),
        ("within: 5m", "within: 5m, within: 6m", "within: 6m", "`within` is written twice; the first stands at line"),
        ("to: acknowledged", "to: acknowleged", "acknowleged", "did you mean `acknowledged`?"),
        ("of: memory.effective", "of: mem.effective", "mem.eff", "did you mean `memory.effective`?"),
        ("escalate: [l2,", "escalate: [l22,", "l22", "is not a role; did you mean `l2`?"),
        ("timeout: 4m", "timeout: 0s", "0s\n    steady_for", "write a timeout above 0s"),
        ("timeout: 4m", "timeout:", "\n    steady_for", "`timeout` has no value; write a number with its unit"),
        ("smoke:", "smok:", "smok:", '"smok" is not one of smoke, gameday; did you mean `smoke`?'),
        ("name: oom-workers", "name: other", "other", "the file is called oom-workers.yaml"),
        (TITLE, "title: &a x", "&a", "anchors and aliases"),
        (TITLE, "title: !!python/object:os.system x", "!!py", "tags"),
        (TITLE, "title: !!str 5", "!!str", "write the plain value"),
        ("why:", "? [a, b]\n: x\nwhy:", "[a, b]", "a field's name must be plain text"),
        ("signal: {", "signal: {<<: {unit: x}, ", "<<", "merge keys (<<) are not used here"),
    ],
)  # fmt: skip
def test_a_problem_has_its_place_and_its_words(tmp_path: Path, old: str, new: str, at: str, words: str) -> None:
    path = spoiled(tmp_path, (old, new))
    error = refusal(path)
    assert error.slug == "experiment-invalid"
    lines = error.fact.splitlines()[1:]
    assert [line for line in lines if words in line and line.startswith(f"{path}:{place(path.read_text(), at)}: ")], (
        error.fact
    )
    assert error.where == lines[0].split(": ")[0]


def test_all_problems_of_a_file_come_in_one_go_and_in_order(tmp_path: Path) -> None:
    path = spoiled(
        tmp_path, ("probability: high", "probability: no"), ("limit: 64Mi", "limit: 64MB"), ("within: 5m", "within: 5"),
        ("timeout: 4m", "timeot: 4m"), ("name: oom-workers", "name: x"),
    )  # fmt: skip
    error = refusal(path)
    lines = error.fact.splitlines()
    assert lines[0] == "the experiment has 5 problems"
    assert [re.sub(r".*:\d+:\d+: ", "", line).split(": ")[0] for line in lines[1:]] == [
        "why.probability", "faults.0.limit", "slas.0.within", "profiles.smoke.timeot", "profiles.smoke.timeout",
    ]  # fmt: skip
    numbers = [int(line.split(":")[1]) for line in lines[1:]]
    assert numbers == sorted(numbers)


def test_all_contradictions_come_in_one_go_each_at_its_place(tmp_path: Path) -> None:
    path = spoiled(tmp_path, ("to: acknowledged", "to: nowhere"), ("escalate: [l2,", "escalate: [l9,"))
    text = path.read_text()
    assert refusal(path).fact.splitlines()[0] == "the experiment has 2 problems"
    assert refusal(path).where == f"{path}:{place(text, 'nowhere')}"


@pytest.mark.parametrize(
    ("text", "slug", "at", "words"),
    [
        (b"name: caf\xe9\n", "not-utf8", "1:10", "byte 0xE9 is not UTF-8"),
        (b"a: 1\nb: \xff\n", "not-utf8", "2:4", "byte 0xFF"),
        (b"\xff\xfen\x00a\x00", "not-utf8", "1:1", "byte 0xFF"),
        (b"a: 1\n\tb: 2\n", "yaml-syntax", "2:1", "a tab character"),
        (b"a:\n  b: 1\n\tc: 2\n", "yaml-syntax", "3:1", "a tab character"),
        (b"a: [1, 2\n", "yaml-syntax", "2:1", "begun at line 1"),
        (b"a: 'x\n", "yaml-syntax", "2:1", "end of stream"),
        (b"a: b: c\n", "yaml-syntax", "1:5", "mapping values are not allowed"),
        (b"a: x\x01y\n", "yaml-syntax", "1:5", "U+0001"),
        (b"a: *nobody\n", "experiment-invalid", "1:4", "anchors and aliases"),
        (b"", "experiment-invalid", "1:1", "the file holds no experiment"),
        (b"# nothing\n", "experiment-invalid", "1:1", "the file holds no experiment"),
        (b"- a\n- b\n", "experiment-invalid", "1:1", "an experiment is a mapping"),
        (b"just words\n", "experiment-invalid", "1:1", "an experiment is a mapping"),
        (b"a: 1\n---\nb: 2\n", "experiment-invalid", "2:1", "a second document begins"),
        (b"a: " + b"[" * 40 + b"]" * 40, "experiment-invalid", "1:23", "nested deeper than 20 levels"),
        (b"a: [" + b"1," * 10_001 + b"]", "experiment-invalid", "1:19999", "more than 10000 values"),
    ],
)  # fmt: skip
def test_what_is_no_experiment_at_all(tmp_path: Path, text: bytes, slug: str, at: str, words: str) -> None:
    path = spoiled(tmp_path, text=text)
    error = refusal(path)
    assert (error.slug, error.where) == (slug, f"{path}:{at}")
    assert words in error.fact


def test_a_bomb_of_aliases_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"] + [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert "anchors and aliases" in refusal(spoiled(tmp_path, text="\n".join(lines))).fact


@pytest.mark.parametrize("text", [b"[" * 200_000, b"a: {b: " * 20_000, b"- " * 100_000, b"? " * 100_000])
def test_deep_nesting_is_an_error_and_not_a_crash(tmp_path: Path, text: bytes) -> None:
    assert refusal(spoiled(tmp_path, text=text)).slug in {"experiment-invalid", "yaml-syntax"}


def test_a_file_that_is_too_large_or_not_there_is_refused(tmp_path: Path) -> None:
    assert refusal(spoiled(tmp_path, text=GOOD + "#" * MAX_BYTES)).slug == "file-too-large"
    assert refusal(tmp_path / "gone.yaml").slug == "unreadable"
    assert refusal(tmp_path).slug == "unreadable"


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    assert load(spoiled(tmp_path, text=b"\xef\xbb\xbf" + GOOD.encode())).experiment.name == "oom-workers"


@given(st.text(max_size=80))
def test_any_text_is_an_experiment_or_bad_input(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.yaml"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        assert refusal(path).where.startswith(str(path))


@given(st.integers(0, len(GOOD) - 1), st.sampled_from(["", ":", "\t", "{", "\x00", "&", "é", "\n", "'", "- "]))
def test_a_good_file_with_one_slip_is_loaded_or_refused_with_a_place(at: int, slip: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "oom-workers.yaml"
        path.write_text(GOOD[:at] + slip + GOOD[at + 1 :])
        with contextlib.suppress(BadInput):
            load(path)
            return
        assert re.search(r"oom-workers\.yaml:\d+:\d+$", refusal(path).where)


# Finding


def test_an_experiment_is_found_by_its_name_or_its_path() -> None:
    path = ROOT / "experiments/oom-workers.yaml"
    assert find("oom-workers", ROOT) == find("experiments/oom-workers.yaml", ROOT) == find(str(path), ROOT) == path
    assert "oom-workers" in names(ROOT)


@pytest.mark.parametrize(
    "name", ["oom-worker", "oom_workers", "Oom-Workers", "experiments/oom-worker.yaml", "oom-workers/"]
)
def test_an_unknown_experiment_is_answered_with_the_closest(name: str) -> None:
    with pytest.raises(BadInput) as caught:
        find(name, ROOT)
    assert caught.value.slug == "unknown-experiment"
    assert "did you mean `oom-workers`?" in caught.value.fact
    assert "oom-workers" in caught.value.expected


@pytest.mark.parametrize("name", ["nope.yaml", str(ROOT / "nope.yaml")])
def test_a_path_without_a_file_is_called_that(name: str) -> None:
    with pytest.raises(BadInput) as caught:
        find(name, ROOT)
    assert caught.value.slug == "unknown-experiment"
    assert caught.value.fact.startswith(f"there is no file {name!r}")
    assert caught.value.expected.startswith("the path of an experiment file, or one of: ")


@pytest.mark.parametrize(
    "name",
    ["../secret.yaml", "../../etc/passwd", "experiments/../../x.yaml", "..", "", ".", "x\0.yaml", "-", "a" * 300,
     "/etc/../etc/x.yaml"],
)  # fmt: skip
def test_a_name_does_not_lead_out_of_the_project(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.yaml").write_text(GOOD)
    root = tmp_path / "root"
    (root / "experiments").mkdir(parents=True)
    with pytest.raises(BadInput) as caught:
        find(name, root)
    assert caught.value.slug in {"unknown-experiment", "path-outside"}


def test_a_link_does_not_lead_out_of_the_project_either(tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text(GOOD)
    root = tmp_path / "root"
    (root / "experiments").mkdir(parents=True)
    (root / "experiments/link.yaml").symlink_to(tmp_path / "secret.yaml")
    for name in ("link", "experiments/link.yaml"):
        with pytest.raises(BadInput) as caught:
            find(name, root)
        assert caught.value.slug == "path-outside"


# Journals, and what importing costs


def test_an_experiment_that_a_journal_holds_is_checked_like_a_file() -> None:
    data = load(find("oom-workers", ROOT)).experiment.as_data()
    data["slas"][0]["within"] = 300.0
    data["more"] = 1
    with pytest.raises(BadInput) as caught:
        parse(data)
    assert caught.value.slug == "journal-experiment"
    assert "slas.0.within: 300.0 is not a duration" in caught.value.fact
    assert "more: there is no field `more` here" in caught.value.fact


def test_yaml_is_imported_when_a_file_is_read_and_not_before() -> None:
    code = "import sys, harness.loading; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_catalog_knows_its_faults() -> None:
    assert [entry.fault.kind for entry in catalog.ENTRIES] == list(catalog.KINDS)
    assert len(set(catalog.KINDS)) == len(catalog.KINDS)
    for entry in catalog.ENTRIES:
        assert catalog.fault_of(entry.fault.kind) is entry.fault
        assert entry.spec.model_fields["kind"].annotation is not str
    with pytest.raises(BadInput) as caught:
        catalog.fault_of("memory-limt")
    assert "did you mean `memory-limit`?" in caught.value.fact
