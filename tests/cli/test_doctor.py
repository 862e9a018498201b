"""`drill doctor` from the command line to the table, with the cluster of the fakes and peers on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli import main
from harness.clusters.provider import Access
from harness.core.errors import BadInput
from harness.ports.endpoint import ApiServer
from harness.wiring import diagnosing
from tests.adapters.certificates import authority, https
from tests.adapters.server import answer
from tests.fakes.cluster import FakeCluster, Shared

READS = {"whoami", "version", "offset", "get", "list", "allowed"}
NOBODY = ("--prometheus", "http://127.0.0.1:1", "--alertmanager", "http://127.0.0.1:1", "--pager", "none")


class Served(Shared):
    """A cluster that is a door, too."""

    def server(self) -> ApiServer:
        return ApiServer("https://127.0.0.1:1", verify=True)

    def server_version(self) -> str:
        return "v1.34.4"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCluster:
    cluster = Served(now=lambda: 0.0)
    cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    cluster.calls.clear()
    access = Access("context", "staging", tmp_path / "kubeconfig", "staging", None)
    monkeypatch.setattr(diagnosing, "existing_access", lambda _: access)
    monkeypatch.setattr(diagnosing, "connect", lambda *_: cluster)
    monkeypatch.chdir(tmp_path)
    return cluster


def rows(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, dict[str, str]], dict[str, object]]:
    """The checks by their names, and the rest of what programs are told."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (told,) = [line for line in lines if "doctor" in line]
    return {row["check"]: row for row in told["doctor"]}, told


def test_it_goes_on_after_failures_ends_with_3_and_writes_nothing(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "nope", "--output", "json", *NOBODY]) == 3
    found, told = rows(capsys)
    assert told["exit_code"] == 3
    states = {check: row["state"] for check, row in found.items()}
    assert (states["API server"], states["identity"], states["mark"]) == ("OK", "OK", "MISSING")
    assert (states["Prometheus"], states["pager"], states["file"]) == ("MISSING", "WARNING", "MISSING")
    assert found["mark"]["slug"] == "cluster-not-marked"
    assert {call.verb for call in cluster.calls} <= READS


def test_a_cluster_that_is_not_there_is_a_line_of_the_table(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def down(_: object) -> Access:
        raise BadInput("cluster-down", "it is down", expected="one that answers", remedy="start it")

    monkeypatch.setattr(diagnosing, "existing_access", down)
    assert main(["doctor", *NOBODY]) == 3
    out = capsys.readouterr().out
    assert "  MISSING  API server            it is down" in out
    assert out.rstrip().endswith("a drill would be refused")
    assert max(map(len, out.splitlines())) <= 80
    assert cluster.calls == []


def test_credentials_and_doubts_of_drill_yaml_reach_the_table(
    cluster: FakeCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = authority(tmp_path / "ca")
    here = ours.issue("here", "IP:127.0.0.1")
    Path("token").write_text("hunter2")
    with https(answer({"error": "it has expired"}, 401), cert=here) as (server, url):
        Path("drill.yaml").write_text(
            f"prometheus: {{url: '{url}', bearer_token_file: token, tls: {{ca_file: ca/ca.pem}}}}\n"
            f"alertmanager: {{url: '{url}', tls: {{insecure_skip_verify: true}}}}\n"
            f"pager: {{url: '{url}'}}\n"
        )
        assert main(["doctor", "--output", "json"]) == 3
        assert "Bearer hunter2" in {headers.get("Authorization") for headers in server.headers}
    found, told = rows(capsys)
    assert told["configuration"] == "drill.yaml"
    assert found["Prometheus"]["slug"] == "peer-unauthenticated"
    assert "asked with the bearer token in token" in found["Prometheus"]["fact"]
    assert found["ways to peers"]["state"] == "WARNING"
    assert found["pager"]["slug"] == "peer-untrusted"
    assert "hunter2" not in json.dumps(told)


def test_a_file_of_a_peer_that_cannot_be_used_is_a_line_of_the_table(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("drill.yaml").write_text(
        "prometheus: {url: 'https://127.0.0.1:1', tls: {ca_file: nowhere.pem}}\n"
        "alertmanager: http://127.0.0.1:1\npager: none\n"
    )
    assert main(["doctor", "--output", "json"]) == 3
    found, _ = rows(capsys)
    assert found["Prometheus"]["slug"] == "tls-file"
    assert "nowhere.pem" in found["Prometheus"]["fact"]
