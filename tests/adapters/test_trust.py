"""TLS and credentials against a real HTTPS server, through both clients that ask peers: each refusal says what was
seen, what was expected and what to do."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from harness.adapters.endpoints import HttpTransport, resolve
from harness.adapters.prometheus import Prometheus
from harness.core.errors import BadInput, DrillError, Unreachable
from harness.ports.endpoint import Credentials
from harness.ports.trust import doubts, expiry_of
from tests.adapters.certificates import Authority, authority, https
from tests.adapters.server import Handler, Step, answer

LIMITS = (2.0, 2.0)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("certificates") / "ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("certificates") / "theirs")


@pytest.fixture(scope="module")
def here(ours: Authority) -> tuple[Path, Path]:
    """The certificate of a peer on this machine."""
    return ours.issue("here", "IP:127.0.0.1")


@contextmanager
def asker(url: str, held: Credentials, how: str) -> Iterator[Callable[[], object]]:
    """One read of a peer: through the transport, or a query through the package that Prometheus is asked with."""
    endpoint = resolve(url, None, held)
    transport = HttpTransport(endpoint, now=time.time, budget=0.5, limits=LIMITS)
    metrics = Prometheus(endpoint, transport, now=time.time, budget=0.5, limits=LIMITS)
    try:
        yield (lambda: transport.get("/x").body) if how == "transport" else (lambda: metrics.vector("up"))
    finally:
        metrics.close()


VECTOR = {"status": "success", "data": {"resultType": "vector", "result": []}}
both = pytest.mark.parametrize("how", ["transport", "query"])


def failure(url: str, held: Credentials, how: str) -> DrillError:
    began = time.monotonic()
    with pytest.raises(DrillError) as caught, asker(url, held, how) as ask:
        ask()
    assert time.monotonic() - began < 5
    assert caught.value.expected
    assert caught.value.remedy
    return caught.value


def admits(header: str) -> Step:
    """Answers whoever shows that header, and nobody else."""

    def step(handler: Handler) -> None:
        good = handler.headers.get("Authorization") == header
        answer(VECTOR if good else {"error": "who are you?"}, 200 if good else 401)(handler)

    return step


# Certificates


@both
def test_a_peer_of_a_ca_that_we_name_is_believed(ours: Authority, here: tuple[Path, Path], how: str) -> None:
    with https(answer(VECTOR), cert=here) as (_, url), asker(url, Credentials(ca_file=ours.ca), how) as ask:
        assert ask() in (VECTOR, [])


@both
def test_our_own_ca_counts_whatever_the_environment_names(
    ours: Authority, theirs: Authority, here: tuple[Path, Path], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(theirs.ca))
    with https(answer(VECTOR), cert=here) as (_, url), asker(url, Credentials(ca_file=ours.ca), how) as ask:
        assert ask() in (VECTOR, [])


@both
def test_a_peer_of_another_ca_is_not_believed(theirs: Authority, here: tuple[Path, Path], how: str) -> None:
    with https(answer(VECTOR), cert=here) as (server, url):
        error = failure(url, Credentials(ca_file=theirs.ca), how)
        assert server.asked == []
    assert (error.slug, type(error)) == ("peer-untrusted", Unreachable)
    assert error.fact.startswith(f"the certificate of {url} is not trusted: ")
    assert str(theirs.ca) in error.expected
    assert "`ca_file`" in error.remedy


@both
def test_this_systems_cas_do_not_know_ours(here: tuple[Path, Path], how: str) -> None:
    with https(answer(VECTOR), cert=here) as (_, url):
        error = failure(url, Credentials(), how)
    assert error.slug == "peer-untrusted"
    assert "this system" in error.expected


@both
def test_a_certificate_for_another_name_is_not_believed_unless_it_is_the_one_that_was_said(
    ours: Authority, how: str
) -> None:
    cert = ours.issue(f"elsewhere-{how}", "DNS:prometheus.example.org")
    with https(answer(VECTOR), cert=cert) as (_, url):
        error = failure(url, Credentials(ca_file=ours.ca), how)
        assert error.slug == "peer-untrusted"
        assert "127.0.0.1" in error.expected
        assert "`server_name`" in error.remedy
        held = Credentials(ca_file=ours.ca, server_name="prometheus.example.org")
        with asker(url, held, how) as ask:
            assert ask() in (VECTOR, [])
        wrong = failure(url, replace(held, server_name="another.example.org"), how)
        assert "another.example.org" in wrong.expected


@both
def test_an_expired_certificate_is_not_believed(ours: Authority, how: str) -> None:
    cert = ours.issue(f"old-{how}", "IP:127.0.0.1", days=-1)
    with https(answer(VECTOR), cert=cert) as (_, url):
        error = failure(url, Credentials(ca_file=ours.ca), how)
    assert "expired" in error.fact
    assert "renew" in error.remedy


@both
def test_whoever_does_not_check_is_warned(here: tuple[Path, Path], how: str) -> None:
    held = Credentials(verify=False)
    with https(answer(VECTOR), cert=here) as (_, url), asker(url, held, how) as ask:
        assert ask() in (VECTOR, [])
        (doubt,) = doubts(resolve(url, None, held))
    assert "is not checked" in doubt


@both
def test_a_client_certificate_is_shown(ours: Authority, here: tuple[Path, Path], how: str) -> None:
    mine = ours.issue(f"me-{how}", "DNS:me")
    with https(answer(VECTOR), cert=here, clients=ours.ca) as (_, url):
        with asker(url, Credentials(ca_file=ours.ca, cert=mine), how) as ask:
            assert ask() in (VECTOR, [])
        error = failure(url, Credentials(ca_file=ours.ca), how)
    assert error.slug == "peer-tls"
    assert "`cert_file` and `key_file`" in error.remedy


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_ca_file_that_is_none_is_bad_input(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    held = Credentials(ca_file=path, where="drill.yaml:3:5")
    with pytest.raises(BadInput) as caught, asker("https://127.0.0.1:1", held, "transport"):
        pass
    assert (caught.value.slug, caught.value.where) == ("tls-file", "drill.yaml:3:5")
    assert str(path) in caught.value.fact


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(ours: Authority, tmp_path: Path) -> None:
    from tests.adapters.certificates import openssl

    cert, key = ours.issue("locked", "DNS:me")
    locked = tmp_path / "locked.key"
    openssl("ec", "-in", key, "-aes256", "-passout", "pass:hunter2", "-out", locked)
    with pytest.raises(BadInput, match="passphrase"), asker("https://a", Credentials(cert=(cert, locked)), "transport"):
        pass


# Secrets


@both
def test_a_token_is_read_again_for_each_request(tmp_path: Path, how: str) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    steps = (admits("Bearer first"), admits("Bearer second"))
    with served(*steps) as url, asker(url, Credentials(bearer_token_file=token), how) as ask:
        assert ask() in (VECTOR, [])
        token.write_text("second\n")
        assert ask() in (VECTOR, [])


@both
def test_a_user_with_a_password_is_let_in_and_with_a_wrong_one_is_not(tmp_path: Path, how: str) -> None:
    password = tmp_path / "password"
    password.write_text("pä:ss\n", encoding="utf-8")
    held = Credentials(username="me", password_file=password)
    header = "Basic " + base64.b64encode("me:pä:ss".encode()).decode()
    with served(admits(header)) as url:
        with asker(url, held, how) as ask:
            assert ask() in (VECTOR, [])
        password.write_text("hunter2")
        error = failure(url, held, how)
    assert error.slug == "peer-unauthenticated"
    assert "gave 401: who are you?" in error.fact
    assert f"asked as me with the password in {password}" in error.fact
    assert "renew" in error.remedy
    assert "hunter2" not in str(error)


def jwt(expiry: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": expiry}).encode()).decode().rstrip("=")
    return f"e30.{claims}.c2lnbmF0dXJl"


@both
def test_a_token_that_has_expired_is_told_with_its_file_and_its_end(tmp_path: Path, how: str) -> None:
    token = tmp_path / "token"
    token.write_text(jwt(1_700_000_000))
    with served(admits("Bearer another")) as url:
        error = failure(url, Credentials(bearer_token_file=token), how)
    assert error.slug == "peer-unauthenticated"
    assert f"the bearer token in {token}, which says that it ends at 2023-11-14T22:13:20.000Z" in error.fact
    assert "it is read again for each request" in error.remedy
    assert token.read_text() not in str(error)


@both
def test_without_credentials_the_remedy_is_to_give_some(how: str) -> None:
    with served(answer({"error": "no"}, 401)) as url:
        error = failure(url, Credentials(), how)
    assert "asked without credentials" in error.fact
    assert "`bearer_token_file` or `basic_auth`" in error.remedy


@both
def test_whoever_may_not_read_is_told_so(tmp_path: Path, how: str) -> None:
    token = tmp_path / "token"
    token.write_text("mine")
    with served(answer({"error": "not you"}, 403)) as url:
        error = failure(url, Credentials(bearer_token_file=token), how)
    assert error.slug == "peer-forbidden"
    assert "gave 403: not you" in error.fact


@both
@pytest.mark.parametrize("content", [None, b"", b" \n", b"two\nlines", b"\xff\xfe", b"x" * 70_000, b"a\x00b"])
def test_a_file_that_holds_no_secret_is_bad_input_and_nobody_is_asked(
    tmp_path: Path, how: str, content: bytes | None
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    held = Credentials(bearer_token_file=token, where="drill.yaml:2:3")
    error = failure("http://127.0.0.1:1", held, how)
    assert (error.slug, error.where, type(error)) == ("credential-file", "drill.yaml:2:3", BadInput)
    assert str(token) in error.fact
    assert "two" not in str(error)


def test_a_pipe_is_no_secret(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "token")
    assert "regular file" in failure("http://a", Credentials(bearer_token_file=tmp_path / "token"), "transport").fact


def test_a_secret_without_tls_is_doubted() -> None:
    held = Credentials(bearer_token_file=Path("token"))
    (doubt,) = doubts(resolve("http://p.example.org", None, held))
    assert "without TLS" in doubt
    assert doubts(resolve("https://p.example.org", None, held)) == ()
    assert doubts(resolve("http://p.example.org", None)) == ()


@pytest.mark.parametrize(
    "token", ["", "abc", "a.b", "a.b.c", "a.e30.c", jwt(float("inf")), "a.bnVsbA.c", "a.=.c", jwt(1e300)]
)
def test_a_token_that_says_no_end_has_none(token: str) -> None:
    assert expiry_of(token) is None


@contextmanager
def served(*steps: Step) -> Iterator[str]:
    from tests.adapters.server import peer

    with peer(*steps) as server:
        yield server.url
