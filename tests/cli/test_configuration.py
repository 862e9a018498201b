"""Flag, environment, `drill.yaml`, default: the first that says something is right, value by value."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import pytest

from harness.cli import app, main
from harness.core.errors import BadInput
from harness.wiring.settings import PROMETHEUS, Settings, configured, peer_needs

MINE = ("DRILL_", "CONTEXT", "PROFILE", "RESPONDER", "KUBECONFIG")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working directory without a file, and an environment that says nothing."""
    for name in [name for name in os.environ if name.startswith(MINE)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(*arguments: str) -> Settings:
    """What a command line means."""
    found: list[Settings] = []

    @click.command()
    @app._peers
    @app._namespace
    @app._where
    def command(**flags: Any) -> None:
        found.append(app._settings(flags))

    command.main(list(arguments), standalone_mode=False)
    return found[0]


def write(text: str, path: str = "drill.yaml") -> None:
    Path(path).write_text(text, encoding="utf-8")


def test_without_a_file_the_defaults_hold() -> None:
    assert settings() == Settings()


def test_the_file_of_the_working_directory_is_read() -> None:
    write("context: my-staging\nnamespace: shop\nruns: results\nprometheus: https://p.example.org\npager: none\n")
    found = settings()
    assert (found.context, found.namespace, found.runs) == ("my-staging", "shop", Path("results"))
    assert (found.prometheus, found.pager) == ("https://p.example.org", "none")
    assert found.alertmanager == Settings().alertmanager
    assert found.configuration == Path("drill.yaml")


def test_another_file_is_named_by_flag_or_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    write("context: here\n")
    Path("there").mkdir()
    write("context: flagged\nruns: results\n", "there/a.yaml")
    write("context: variable\n", "b.yaml")
    assert settings("--config", "there/a.yaml").context == "flagged"
    assert settings("--config", "there/a.yaml").runs == Path("there/results"), "a relative path starts at the file"
    monkeypatch.setenv("DRILL_CONFIG", "b.yaml")
    assert settings().context == "variable"
    assert settings("--config", "there/a.yaml").context == "flagged"
    with pytest.raises(BadInput, match="cannot be read"):
        settings("--config", "nowhere.yaml")


@pytest.mark.parametrize(
    ("name", "flag", "variable", "line"),
    [
        ("prometheus", "--prometheus", "DRILL_PROMETHEUS", "prometheus: http://file"),
        ("alertmanager", "--alertmanager", "DRILL_ALERTMANAGER", "alertmanager: http://file"),
        ("pager", "--pager", "DRILL_PAGER", "pager: http://file"),
        ("context", "--context", "CONTEXT", "context: http://file"),
    ],
)
def test_each_source_gives_way_to_the_one_before(
    monkeypatch: pytest.MonkeyPatch, name: str, flag: str, variable: str, line: str
) -> None:
    write(line)
    assert getattr(settings(), name) == "http://file"
    monkeypatch.setenv(variable, "http://variable")
    assert getattr(settings(), name) == "http://variable"
    assert getattr(settings(flag, "http://flag"), name) == "http://flag"
    monkeypatch.setenv(variable, "")
    assert getattr(settings(), name) == "http://file", "an empty variable is none"


def test_what_is_said_and_equals_the_default_is_said() -> None:
    write("runs: results\ncluster: kind\nprometheus: http://file\n")
    assert settings("--runs", "runs").runs == Path("runs")
    assert settings("--cluster", "auto").cluster == "auto"
    assert settings("--prometheus", PROMETHEUS).prometheus == PROMETHEUS


def test_credentials_go_to_the_address_beside_which_they_stand_and_to_no_other() -> None:
    write("prometheus: {url: 'https://p.example.org', bearer_token_file: t}\n")
    assert settings().credentials["prometheus"].bearer_token_file == Path("t")
    assert settings().credentials["prometheus"].where == "drill.yaml:1:13"
    assert settings("--prometheus", "https://p.example.org").credentials == {}


def test_the_place_to_drill_in_is_one_value() -> None:
    write("cluster: context\ncontext: my-staging\n")
    assert (settings("--cluster", "local").cluster, settings("--cluster", "local").context) == ("local", None)
    assert settings("--context", "other").context == "other"
    write("cluster: local\n")
    assert (settings("--context", "other").cluster, settings("--context", "other").context) == ("auto", "other")


def test_a_dry_run_means_what_the_run_would(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness import wiring

    write("context: my-staging\nprometheus: http://file\n")
    found: list[Settings] = []

    def planned(settings: Settings, *_: object) -> str:
        found.append(settings)
        return ""

    monkeypatch.setattr(wiring, "plan_drill", planned)
    assert main(["run", "x", "--dry-run", "--prometheus", "http://flag"]) == 0
    assert (found[0].context, found[0].prometheus, found[0].runs) == ("my-staging", "http://flag", Path("runs"))


def test_a_wrong_file_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    write("contxt: x\n")
    assert main(["status"]) == 64
    assert "drill.yaml:1:1: contxt: there is no field `contxt` here" in capsys.readouterr().err


def test_a_service_takes_the_permission_on_the_name_that_the_api_server_gives_it() -> None:
    found = Settings(prometheus="service:https:mon/prom:web", alertmanager="https://a.example.org", pager="none")
    assert [str(one) for one in peer_needs(found)] == ["get Service/proxy https:prom:web in mon"]
    assert "get Service/proxy prometheus:9090 in monitoring" in map(str, peer_needs(Settings()))


def test_the_wiring_takes_all_that_a_peer_can_have() -> None:
    write(
        "prometheus:\n"
        "  url: https://p.example.org\n"
        "  basic_auth: {username: me, password_file: pw}\n"
        "  tls: {ca_file: ca, cert_file: c, key_file: k, server_name: s}\n"
        "alertmanager: {service: 'mon/am:9093'}\n"
        "pager: {url: 'https://g.example.org', tls: {insecure_skip_verify: true}}\n"
    )
    found = configured({}, None)
    held = found.credentials["prometheus"]
    assert (held.username, held.password_file, held.ca_file) == ("me", Path("pw"), Path("ca"))
    assert (held.cert, held.server_name, held.verify) == ((Path("c"), Path("k")), "s", True)
    assert found.alertmanager == "service:mon/am:9093"
    assert not found.credentials["pager"].verify
