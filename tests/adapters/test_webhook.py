"""An announcement's webhook, against a real server on loopback: told once, and its URL told to nobody."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.adapters import webhook
from harness.adapters.webhook import post, url_of
from harness.core.errors import BadInput, Refused

SECRET = "services/T0/B0/very-secret"


class Chat(ThreadingHTTPServer):
    """A chat's incoming webhook, which answers with these codes in turn."""

    codes: list[int]
    texts: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{SECRET}"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Chat)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        code = self.server.codes.pop(0) if self.server.codes else 200
        self.server.texts.append(body["text"])
        self.send_response(code)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    monkeypatch.setattr(webhook, "jitter", lambda *_: 0.0)
    with Chat(("127.0.0.1", 0), _Handler) as server:
        server.codes, server.texts = [], []
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def test_the_text_is_told_once(chat: Chat) -> None:
    post(chat.url, "a drill begins")
    assert chat.texts == ["a drill begins"]


def test_a_server_that_stumbles_is_asked_again(chat: Chat) -> None:
    chat.codes = [503, 502]
    post(chat.url, "a drill begins")
    assert len(chat.texts) == 3


@pytest.mark.parametrize(("codes", "asked"), [([404], 1), ([302, 302, 302], 3), ([500, 500, 500], 3)])
def test_who_was_not_told_is_not_drilled_and_the_url_stays_secret(chat: Chat, codes: list[int], asked: int) -> None:
    chat.codes = list(codes)
    with pytest.raises(Refused) as caught:
        post(chat.url, "a drill begins")
    assert caught.value.slug == "not-announced"
    assert f"HTTP {codes[0]}" in caught.value.fact
    assert SECRET not in str(caught.value)
    assert len(chat.texts) == asked


def test_nobody_there_is_told_without_the_url(chat: Chat) -> None:
    url = chat.url
    chat.server_close()
    with pytest.raises(Refused) as caught:
        post(url, "a drill begins")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["http://a:b@c:d/very-secret", "http://[::1/very-secret"])
def test_what_only_looks_like_a_url_tells_nobody_and_is_not_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(webhook, "jitter", lambda *_: 0.0)
    with pytest.raises(Refused) as caught:
        post(url, "a drill begins")
    assert "very-secret" not in str(caught.value)


def test_the_url_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("https://chat.example.org/x\n")
    assert url_of(file) == "https://chat.example.org/x"


@pytest.mark.parametrize("content", [None, b"", b"not a url very-secret", b"\xff\xfe", b"https://a b"])
def test_a_file_that_holds_none_is_refused_without_its_content(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "url"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        url_of(file)
    assert caught.value.slug == "webhook-unusable"
    assert "very-secret" not in str(caught.value)
