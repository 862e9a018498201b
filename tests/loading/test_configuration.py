"""`drill.yaml` is checked as strictly as experiments are, and no value that may be a secret is ever shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import catalog
from harness.core.errors import BadInput
from harness.loading import LoadedConfiguration, load_configuration

ROOT = Path(__file__).parents[2]
WHOLE = """\
prometheus:
  url: https://prometheus.example.org/prom
  bearer_token_file: token
  tls: {ca_file: /etc/ca.pem, cert_file: c.pem, key_file: k.pem, server_name: prometheus.internal}
alertmanager: {url: "https://a.example.org", basic_auth: {username: me, password_file: ~/pw}}
pager: none
cluster: context
context: my-staging
namespace: shop
runs: results
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "drill.yaml"


def loaded(path: Path, text: str) -> LoadedConfiguration:
    path.write_text(text, encoding="utf-8")
    return load_configuration(path)


def rejected(path: Path, text: str) -> list[str]:
    """The lines of the refusal, without the file's folder."""
    with pytest.raises(BadInput) as caught:
        loaded(path, text)
    assert caught.value.expected
    assert caught.value.remedy
    return [line.removeprefix(f"{path.parent}/") for line in caught.value.fact.splitlines()]


def test_all_of_it_is_read(path: Path) -> None:
    found = loaded(path, WHOLE)
    said = found.configuration
    assert (said.cluster, said.context, said.namespace, said.runs) == ("context", "my-staging", "shop", "results")
    assert said.pager == "none"
    assert found.where("prometheus", "url") == f"{path}:2:8"
    assert found.beside("token") == path.parent / "token"
    assert found.beside("/etc/ca.pem") == Path("/etc/ca.pem")
    assert found.beside("~/pw") == Path.home() / "pw"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("contxt: x", "drill.yaml:1:1: contxt: there is no field `contxt` here; did you mean `context`?"),
        ("cluster: kindd", '"kindd" is not one of auto, local, kind, context; did you mean `kind`?'),
        ("prometheus: {url: 'http://p', bearer_tokn_file: x}",
         "drill.yaml:1:31: prometheus.bearer_tokn_file: there is no field `bearer_tokn_file` here; did you mean"),
        ("prometheus: {}", "drill.yaml:1:13: prometheus: a peer needs exactly one of `url` and `service`"),
        ("prometheus: {url: 'http://p', service: 'a/b:1'}", "exactly one of `url` and `service`"),
        ("prometheus: [x]", "drill.yaml:1:13: prometheus: expected text or a mapping, found a list"),
        ("prometheus: none", "it is not a peer's address; write service:NAMESPACE/NAME:PORT, or an http(s) URL"),
        ("prometheus: {service: monitoring/prometheus}", "write NAMESPACE/NAME:PORT, such as monitoring/"),
        ("prometheus: {service: 'a/b:1', bearer_token_file: x}", "`bearer_token_file` has no meaning with `service`"),
        ("prometheus: {url: 'http://p', tls: {ca_file: x}}", "`tls` has no meaning with an http URL"),
        ("prometheus: {url: 'https://p', tls: {cert_file: x}}", "`cert_file` and `key_file` belong together"),
        ("prometheus: {url: 'https://p', tls: {insecure_skip_verify: true, ca_file: x}}", "leaves nothing to check"),
        ("prometheus: {url: 'https://p', tls: {insecure_skip_verify: yes}}", "YAML reads yes as true; write true"),
        ("prometheus: {url: 'http://p', basic_auth: {username: me}}", "`password_file` is missing"),
        ("prometheus: {url: 'http://p', bearer_token_file: t, basic_auth: {username: m, password_file: p}}",
         "one request carries one identity"),
        ("context: a\ncontext: b", "drill.yaml:2:1: context: `context` is written twice"),
        ("- context", "a configuration is a mapping of fields, like `context: my-staging`"),
        ("", "the file holds no configuration; it is empty"),
        ("runs: ''", "`runs` is empty; write text"),
    ],
)  # fmt: skip
def test_every_mistake_is_told_at_its_place(path: Path, text: str, line: str) -> None:
    lines = rejected(path, text)
    assert len(lines) == 2, "one mistake is one problem"
    assert line in lines[1]


HUSH = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"prometheus: {{url: 'https://p', password: {HUSH}}}",
        f"prometheus: {{url: 'https://p', bearer_token: {HUSH}}}",
        f"prometheus: {{url: 'https://p', basic_auth: {{username: me, password: {HUSH}}}}}",
        f"prometheus: {{url: 'https://p', tls: {{key: {HUSH}}}}}",
    ],
)
def test_a_secret_in_the_file_is_refused_with_the_remedy_and_not_shown(path: Path, text: str) -> None:
    lines = rejected(path, text)
    (told,) = [line for line in lines if "a secret does not stand in this file" in line]
    assert "`password_file`" in told
    assert "`bearer_token_file`" in told
    assert HUSH not in "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        f"prometheus: {HUSH}",
        f"prometheus: https://me:{HUSH}@p.example.org",
        f"prometheus: https://:{HUSH}@p.example.org",
        f"prometheus: {{url: 'https://me:{HUSH}@p.example.org'}}",
        f"prometheus: {{url: 'https://p', basic_auth: {HUSH}}}",
        f"prometheus: {{url: 'https://p', bearer_token_file: [{HUSH}]}}",
        f"prometheus: [{HUSH}]",
        "prometheus: {url: 'https://p', basic_auth: {username: me, password: 0777}}",
        "prometheus: {url: 'https://p', basic_auth: {username: me, password_file: 0777}}",
    ],
)
def test_what_may_be_a_secret_is_never_shown(path: Path, text: str) -> None:
    told = "\n".join(rejected(path, text))
    assert HUSH not in told
    assert "0777" not in told


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read") as caught:
        load_configuration(tmp_path / "nowhere.yaml")
    assert caught.value.expected == "a readable configuration file"


# The schema


def test_the_committed_schema_is_fresh() -> None:
    committed = (ROOT / catalog.CONFIGURATION_SCHEMA_PATH).read_text()
    told = f"regenerate it: drill schema configuration > {catalog.CONFIGURATION_SCHEMA_PATH}"
    assert committed == catalog.configuration_schema_text(), told


def accepts(data: Any) -> bool:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft7Validator.check_schema(catalog.configuration_schema())
    return bool(jsonschema.Draft7Validator(catalog.configuration_schema()).is_valid(data))


def test_the_schema_takes_what_is_right_and_refuses_what_is_not() -> None:
    assert accepts(yaml.safe_load(WHOLE))
    assert accepts({"prometheus": "service:monitoring/prometheus:9090"})
    for wrong in (
        {"contxt": "x"},
        {"cluster": "x"},
        {"prometheus": 3},
        {"prometheus": {"url": "http://p", "password": "x"}},
    ):
        assert not accepts(wrong)
