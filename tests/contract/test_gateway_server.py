"""The gateway's server: TLS, several workers, and shutdown that drains requests despite slow clients."""

import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from adapters.waiting import until
from deploy.local.ports import LOOPBACK
from serving.gateway import bounds
from tests.support.certificates import certificates
from tests.support.gateway import a_token, give_list, give_popular, new_rings, running_gateway
from tests.support.redis_server import RealRedis, running_redis


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_mutual_tls_is_supported(server: RealRedis, tmp_path: Path) -> None:
    made = certificates(tmp_path / "tls")
    known = ssl.create_default_context(cafile=str(made.authority))
    known.load_cert_chain(made.client, made.client_key)
    lines = (
        f'server.cert_file = "{made.server}"\nserver.key_file = "{made.server_key}"\n'
        f'server.client_ca_file = "{made.authority}"\n'
    )
    with running_gateway(tmp_path / "gateway", server.url, server=lines, verify=known) as gateway:
        give_list(server.client, gateway.rings["default"], "ada", ["tea"])
        answer = gateway.get("/v1/recommendations/ada", None, authorization=f"Bearer {a_token()}")
        assert answer.json()["reason"] == "personalised"
        stranger = ssl.create_default_context(cafile=str(made.authority))
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{gateway.base}/livez", verify=stranger)
        known.maximum_version = ssl.TLSVersion.TLSv1_1
        known.minimum_version = ssl.TLSVersion.TLSv1
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{gateway.base}/livez", verify=known)


def test_workers_share_a_port_and_sum_their_metrics(server: RealRedis, tmp_path: Path) -> None:
    with running_gateway(tmp_path, server.url, server="server.workers = 2") as gateway:
        give_list(server.client, gateway.rings["default"], "ada", ["tea"])
        for _ in range(20):
            with httpx.Client(base_url=gateway.base) as fresh:  # a connection each, so that both workers have some
                answer = fresh.get("/v1/recommendations/ada", headers={"X-API-Key": gateway.keys["frontend"]})
                assert answer.json()["reason"] == "personalised"
        told = gateway.get("/metrics", "operator").text
        [count] = [
            float(line.rpartition(" ")[2])
            for line in told.splitlines()
            if line.startswith("freshet_gateway_request_seconds_count") and 'reason="personalised"' in line
        ]
        assert count == 20
        workers = psutil.Process(gateway.process.pid).children()
        gateway.process.terminate()
        assert gateway.process.wait(30) == 0
        assert not psutil.wait_procs(workers, timeout=30)[1], "no worker is left"


def test_tenants_are_isolated(server: RealRedis, tmp_path: Path) -> None:
    rings = new_rings(tmp_path, "north", "south")
    with running_gateway(tmp_path / "gateway", server.url, **rings) as gateway:
        for name in rings:
            give_list(server.client, gateway.rings[name], "ada", [f"of-{name}"], tenant=name)
            give_popular(server.client, [f"popular-{name}"], tenant=name)
        for name in rings:
            bearer = f"Bearer {a_token(tenant=name)}"
            [item] = gateway.get("/v1/recommendations/ada", None, authorization=bearer).json()["items"]
            assert item["id"] == f"of-{name}"
            unnamed = gateway.get("/v1/popular", None, authorization=bearer)
            assert unnamed.json()["items"][0]["id"] == f"popular-{name}"
            assert unnamed.headers["cache-control"] == "private, no-cache", "one URL, two answers: nobody may share it"
            named = gateway.get(f"/v1/popular?tenant={name}", None, authorization=bearer)
            assert named.headers["cache-control"].startswith("public")
            encoded = f"/v1/popular?tenant=%{ord(name[0]):x}{name[1:]}"
            assert gateway.get(encoded, None, authorization=bearer).status_code == 200
            other = gateway.get("/v1/popular?tenant=other", None, authorization=bearer)
            assert (other.status_code, other.json()["type"]) == (403, "urn:freshet:problem:other-tenant")
        nobody = gateway.get("/v1/recommendations/ada", None, authorization=f"Bearer {a_token(tenant='default')}")
        assert nobody.status_code == 403


def test_shutdown_reports_unready_and_drains_requests(server: RealRedis, tmp_path: Path) -> None:
    with running_gateway(tmp_path, server.url, server="server.drain_s = 3") as gateway:
        give_popular(server.client, ["socks"])
        assert gateway.get("/readyz", None).status_code == 200
        os.kill(gateway.process.pid, signal.SIGTERM)
        until(lambda: gateway.get("/readyz", None).status_code == 503, "the end to be announced", 30)
        assert gateway.get("/v1/recommendations/ada").status_code == 200, "whoever still comes is served"
        assert gateway.process.wait(30) == 0


def test_slow_request_is_dropped_and_others_are_served(server: RealRedis, tmp_path: Path) -> None:
    with running_gateway(tmp_path, server.url) as gateway:
        slow = [socket.create_connection((LOOPBACK, gateway.port), timeout=60) for _ in range(50)]
        for connection in slow[:25]:  # the others say nothing at all
            connection.sendall(b"GET /v1/recommendations/ada HTTP/1.1\r\nX-A:")
        stopping = threading.Event()

        def dawdle() -> None:
            while not stopping.wait(1.0):
                for connection in slow[:25]:
                    try:
                        connection.sendall(b" x")
                    except OSError:
                        return

        dawdling = threading.Thread(target=dawdle)
        dawdling.start()
        try:
            assert gateway.get("/v1/recommendations/ada").status_code == 200
            for connection in slow:
                assert connection.recv(12) in (b"HTTP/1.1 408", b"")
        finally:
            stopping.set()
            dawdling.join()
            for connection in slow:
                connection.close()
        assert gateway.get("/v1/recommendations/ada").status_code == 200
    assert bounds.HEAD_S_MAX < 60


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('server.cert_file = "/nowhere"', "server.cert_file and server.key_file go together"),
        ("server.workers = 0", "server.workers"),
        ("server.what = 1", "what"),
        ('server.workers = 2\nredis_password_variable = "NOT_THERE"', "NOT_THERE"),
        ('server.workers = 2\nserver.cert_file = "/nowhere"\nserver.key_file = "/nowhere"', "server.cert_file"),
    ],
)
def test_invalid_settings_prevent_start(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint), running_gateway(tmp_path, "redis://127.0.0.1:1", server=line):
        pass
