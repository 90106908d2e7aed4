"""The only HTTP client: its requests, what it refuses to do, and how it reports a missing response."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from adapters.flink.rest import FlinkRest
from adapters.http_client import HttpClient
from deploy.local.ports import LOOPBACK
from schemas.errors import HttpUnanswered, RestError, SettingsError

Seen = list[tuple[str, str, bytes, str | None]]


@contextmanager
def serving(status: int = 200, body: bytes = b"{}", location: str | None = None) -> Iterator[tuple[str, Seen]]:
    """A server with a constant response, and the requests it got: method, target, body, header `X-Key`."""
    seen: Seen = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen.append((self.command, self.path, content, self.headers.get("X-Key")))
            self.send_response(status)
            if location is not None:
                self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer((LOOPBACK, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """A listener that writes `answer` and disconnects; with None, it accepts no connection."""
    with socket.create_server((LOOPBACK, 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer or b"")

        thread = threading.Thread(target=hang_up) if answer is not None else None
        if thread:
            thread.start()
        yield f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        if thread:
            thread.join()


def nobody() -> str:
    with socket.create_server((LOOPBACK, 0)) as listener:
        return f"http://{LOOPBACK}:{listener.getsockname()[1]}"


def test_requests_are_sent_below_the_base_address() -> None:
    with serving(status=404, body=b"none") as (url, seen):
        assert HttpClient(f"{url}/base/", 5, {"X-Key": "a"}).get("/page") == (404, b"none")
        HttpClient(f"{url}/purge/?zone=1", 5).ask("POST", body=b"x", headers={"X-Key": "b"})
        HttpClient(url, 5).get()
    assert seen == [("GET", "/base/page", b"", "a"), ("POST", "/purge/?zone=1", b"x", "b"), ("GET", "/", b"", None)]


def test_redirects_are_returned_and_not_followed() -> None:
    with serving(status=302, location="http://elsewhere.example/") as (url, seen):
        assert HttpClient(url, 5).get().status == 302
    assert len(seen) == 1


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", nobody())
    with serving() as (url, _):
        assert HttpClient(url, 5).get().status == 200


def test_a_long_answer_is_cut() -> None:
    with serving(body=b"x" * 10_000) as (url, _):
        assert HttpClient(url, 5, answer_bytes_max=100).get().body == b"x" * 100


def test_unresponsive_server_is_reported_by_the_kind_of_error() -> None:
    with pytest.raises(HttpUnanswered, match=r"^ConnectionRefusedError$"):
        HttpClient(nobody(), 5).get()
    with answering(None) as url, pytest.raises(HttpUnanswered, match=r"^TimeoutError$"):
        HttpClient(url, 0.05).get()
    with answering(b"hello\r\n") as url, pytest.raises(HttpUnanswered, match=r"^BadStatusLine$"):
        HttpClient(url, 5).get()


@pytest.mark.parametrize(
    "url",
    ["", "host:80", "ftp://host", "http://", "http://host:port", "http://[", "http://me:secret@host", "http://h#a"],
)
def test_invalid_address_is_refused_and_not_echoed(url: str) -> None:
    with pytest.raises(SettingsError, match="an address is") as caught:
        HttpClient(url, 5)
    assert "secret" not in str(caught.value)


def test_refusal_by_flink_is_quoted_with_its_status() -> None:
    with serving(404, b'{"errors":["no such job"]}') as (url, _), pytest.raises(RestError) as caught:
        FlinkRest(url).get("/jobs/1")
    assert caught.value.status == 404
    assert str(caught.value) == f'Flink at {url} refused GET /jobs/1: 404 {{"errors":["no such job"]}}'


def test_unavailable_flink_is_named_with_its_address() -> None:
    url = nobody()
    assert not FlinkRest(url).is_up()
    with pytest.raises(RestError, match=r"does not answer GET /overview \(ConnectionRefusedError\)") as caught:
        FlinkRest(url).get("/overview")
    assert url in str(caught.value) and caught.value.status == 0
    with serving(200, b"<html>") as (page, _), pytest.raises(RestError, match="no JSON"):
        FlinkRest(page).get("/overview")
