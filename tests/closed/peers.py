"""The real Prometheus as a process on loopback, an exporter that serves what a test needs, and another clock."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from harness.core.clock import parse_utc, utc

CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: api
    static_configs: [{{targets: ["127.0.0.1:{exporter}"]}}]
remote_read:
  - {{url: "http://127.0.0.1:{exporter}/read", read_recent: true, required_matchers: {{from: elsewhere}}}}
"""
"""What rules ask for {from="elsewhere"} is read from the exporter, which may take its time."""
FOREIGN = """\
  - name: foreign
    rules:
      - {alert: QueueHigh, expr: vector(1) > 0, labels: {severity: critical, service: other}}
"""
RULES = """\
groups:
  - name: queue
    rules:
      - {{record: closed_slow, expr: 'count(closed_slow_total{{from="elsewhere"}})'}}
      - alert: QueueHigh
        expr: {expr}
        for: 2s
        labels: {labels}
{more}"""
DEEP, SHALLOW = 100.0, 3.0


class Server(ThreadingHTTPServer):
    """A server on a free port of loopback that answers GET by `answer`: status, content type and body of a path."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, answer: Callable[[str], tuple[int, str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.do_GET()

    def do_GET(self) -> None:
        status, kind, body = self.server.answer(self.path)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's signature
        """Nothing."""


class Exporter:
    """What is scraped: the depth of a queue, the share of a budget, and a counter of errors.

    The counter grows by `errors` a second. `depth` None drops that series.
    """

    def __init__(self) -> None:
        self.depth: float | None = SHALLOW
        self.errors = 0.0
        self.service = ""
        """The label `service` of the queue, where it has one."""
        self.more = ""
        self.status = 200
        self.slow = 0.0
        """For how many seconds whoever reads from elsewhere waits."""
        self._base, self._since, self._crashing = 1000.0, time.monotonic(), False
        self._hang, self._closed = threading.Event(), threading.Event()
        self._hang.set()
        self._server = Server(self._answer)
        self.port = self._server.port

    def rate(self, errors: float) -> None:
        """Let the counter grow by that many a second from now on."""
        self._base, self._since, self.errors = self._count(), time.monotonic(), errors

    def crash(self) -> None:
        """Die before every scrape from now on, and have counted less each time."""
        self.rate(0.0)
        self._crashing = True

    def hang(self) -> None:
        """Take connections and answer none, until the end."""
        self._hang.clear()

    def close(self) -> None:
        """Stop answering, and let go of who still waits."""
        self._hang.set()
        self._closed.set()
        self._server.close()

    def _count(self) -> float:
        if self._crashing:
            self._base /= 2.0
        return self._base + self.errors * (time.monotonic() - self._since)

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        if path == "/read":
            self._closed.wait(self.slow)
            return 404, "text/plain", b"nothing is here"
        self._hang.wait(60.0)
        label = self.service.replace("\\", "\\\\").replace('"', '\\"')
        name = f'closed_depth{{service="{label}"}}' if label else "closed_depth"
        lines = [f"closed_errors_total {self._count()}", "closed_budget_ratio 0.2"]
        if self.depth is not None:
            lines.append(f"{name} {'NaN' if self.depth != self.depth else self.depth}")
        return self.status, "text/plain; version=0.0.4", ("\n".join(lines) + "\n" + self.more).encode()


class Prometheus:
    """One process of the real thing, with rules like those of manifests/overlays/smoke."""

    def __init__(self, program: Path, folder: Path, exporter: Exporter, *, rules: str) -> None:
        self._program, self._folder = program, folder
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"
        (folder / "rules.yaml").write_text(rules)
        config = CONFIG.format(rules=folder / "rules.yaml", exporter=exporter.port)
        (folder / "prometheus.yaml").write_text(config)

    def start(self) -> None:
        """Run it, and wait until it answers and has looked at the exporter. Raises where it does not."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._program),
                    f"--config.file={self._folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                    "--log.level=warn",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "GOMAXPROCS": "1"},
            )
        deadline = time.monotonic() + 20.0
        while not self._looks():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, "Prometheus does not scrape"
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL, and gone."""
        assert self._process is not None
        self.resume()
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """It stands still: neither dead nor alive."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """The other way."""
        self._signal(signal.SIGCONT)

    def forget(self) -> None:
        """Lose everything it knows; it is dead meanwhile."""
        shutil.rmtree(self._folder / "data")

    def close(self) -> None:
        """End it, however it is."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _looks(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query?query=up", timeout=2) as answer:  # noqa: S310
                return bool(json.load(answer)["data"]["result"])
        except (urllib.error.URLError, OSError):
            return False


class Skewed:
    """A Prometheus whose clock is `offset` seconds ahead: a door that moves every stamp in what it asks and answers."""

    def __init__(self, url: str, offset: float) -> None:
        self._url = url
        self.offset = self._first = offset
        self._server = Server(self._answer)
        self.url = f"http://127.0.0.1:{self._server.port}"

    def close(self) -> None:
        """Stop answering."""
        self._server.close()

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        offset = self.offset
        parts = urlsplit(path)
        asked = [(k, str(float(v) - offset) if k in ("time", "start", "end") else v) for k, v in parse_qsl(parts.query)]
        try:
            with urllib.request.urlopen(f"{self._url}{parts.path}?{urlencode(asked)}", timeout=15) as answer:  # noqa: S310
                body, status, kind = answer.read(), answer.status, answer.headers["Content-Type"]
        except urllib.error.HTTPError as error:
            return error.code, "application/json", error.read()
        except (urllib.error.URLError, OSError) as error:
            return 502, "text/plain", str(error).encode()
        if "json" in kind:
            body = json.dumps(
                _moved(json.loads(body), offset, self._first, is_time=dict(asked).get("query") == "time()")
            ).encode()
        return status, kind, body


def _moved(body: Any, offset: float, first: float, *, is_time: bool) -> Any:
    """An answer with its stamps moved; that of the process' start was taken before any step of the clock."""
    if isinstance(body, dict):
        by = {"lastEvaluation": offset, "activeAt": offset, "startTime": first}
        return {
            key: utc(parse_utc(value) + by[key])
            if key in by and not str(value).startswith("0001")
            else _moved(value, offset, first, is_time=is_time)
            for key, value in body.items()
        }
    if isinstance(body, list) and len(body) == 2 and isinstance(body[0], (int, float)) and isinstance(body[1], str):
        value = f"{float(body[1]) + offset:.3f}" if is_time else body[1]
        return [body[0] + offset, value]
    if isinstance(body, list):
        return [_moved(one, offset, first, is_time=is_time) for one in body]
    return body


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
