"""How much memory a client can make the gateway use, measured from outside during attacks."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local.ports import LOOPBACK
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.redis_server import running_redis

SENT_BYTES = 24_000_000
GROWN_BYTES_MAX = 48_000_000
CHUNKED = "POST /v1/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nTransfer-Encoding: chunked\r\n\r\n"
WAITING = "POST /v1/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Length: 99\r\n\r\n"
EVENT = json.dumps({"event_id": "e", "type": "click", "ts": 1_750_000_000_000, "user_id": "ada", "item_id": "tea"})
SHORT = b"GET / HTTP/1.1\r\nHost:\r\n\r\n"
ATTACKS = {
    "requests behind one that waits for Kafka": (WAITING + EVENT.ljust(99), SHORT * 1_000),
    "requests whose answers are not read": ("", b"GET /v1/recommendations/a HTTP/1.1\r\nHost:\r\n\r\n" * 1_000),
    "trailers": (CHUNKED + "3\r\nabc\r\n0\r\n", b"X: y\r\n" * 10_000),
    "one long trailer": (CHUNKED + "3\r\nabc\r\n0\r\nX: ", b"y" * 100_000),
    "the extension of a chunk": (CHUNKED + "3;", b"y" * 100_000),
    "a head of many headers": ("GET / HTTP/1.1\r\n", b"a:\r\n" * 10_000),
    "a body without credentials": (
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", b"x" * 100_000,
    ),
    "a body behind another": (
        WAITING + EVENT.ljust(99) + WAITING.replace("99", "99999999"), b"x" * 100_000,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("bounds")
    bounds = "server.held_bytes_max = 16_000_000\nserver.connections_max = 64"
    with running_redis(folder / "redis") as server, running_gateway(folder / "gw", server.url, server=bounds) as found:
        yield found


def push(port: int, head: bytes, again: bytes, peers: list[socket.socket]) -> None:
    """Send as much as the gateway accepts within some seconds, and read nothing."""
    peer = socket.create_connection((LOOPBACK, port), timeout=2)
    peers.append(peer)
    try:
        peer.sendall(head)
        for _ in range(SENT_BYTES // len(again)):
            peer.sendall(again)
    except OSError:  # it takes no more, or has hung up: either is right
        return


@pytest.mark.parametrize("attack", ATTACKS)
def test_never_cached_responses_are_not_kept(gateway: RunningGateway, attack: str) -> None:
    head, again = ATTACKS[attack]
    head = head.replace("{key}", gateway.keys["producer"])
    process = psutil.Process(gateway.process.pid)
    peers: list[socket.socket] = []
    before = process.memory_info().rss
    pushing = [threading.Thread(target=push, args=(gateway.port, head.encode(), again, peers)) for _ in range(8)]
    for thread in pushing:
        thread.start()
    highest = before
    while any(thread.is_alive() for thread in pushing):
        pushing[0].join(0.05)
        highest = max(highest, process.memory_info().rss)
    assert gateway.get("/livez", None).status_code == 200, "others are served"
    for peer in peers:
        peer.close()
    assert highest - before < GROWN_BYTES_MAX
    assert '"log.level": "ERROR"' not in gateway.logged()


def test_excess_connections_are_refused_and_earlier_ones_served(
    gateway: RunningGateway,
) -> None:
    assert gateway.get("/livez", None).status_code == 200
    peers = [socket.create_connection((LOOPBACK, gateway.port), timeout=30) for _ in range(70)]
    try:
        assert peers[-1].recv(12) == b"HTTP/1.1 503"
        assert gateway.get("/livez", None).status_code == 200
        peers[0].sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert peers[0].recv(12) == b"HTTP/1.1 200"
    finally:
        for peer in peers:
            peer.close()


def test_open_file_limit_is_raised_to_the_connection_limit() -> None:
    code = (
        "import resource; from serving.gateway.server import _allow_files; of = resource.RLIMIT_NOFILE;"
        "resource.setrlimit(of, (64, 1_000)); _allow_files(500); print(resource.getrlimit(of))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert told == "(500, 1000)\n"


def test_connection_limit_beyond_system_limit_is_refused_at_start(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match=r"server\.connections_max needs"),
        running_gateway(tmp_path, "redis://127.0.0.1:1", server="server.connections_max = 1_000_000_000"),
    ):
        pass
