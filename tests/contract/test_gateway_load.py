"""Which requests are served under overload, over HTTP. Redis is paused, so that reads stay in progress."""

import json
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from adapters.waiting import until
from deploy.local.ports import LOOPBACK
from tests.support.gateway import RunningGateway, a_token, give_list, give_popular, jwks_of, new_rings, running_gateway
from tests.support.redis_server import RealRedis, running_redis

PATIENCE_S = 20
"""Who was not answered by then is not going to be: Redis, and whoever is shed, is waited for three times as long."""
MUCH_LATER_MS = 3_000 * PATIENCE_S
LOW, NORMAL, HIGH = "u=7", "u=3", "u=0"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def gateway(server: RealRedis, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RunningGateway]:
    """A gateway that admits one low-priority read, two normal ones, three in all, and one write."""
    shed_wait_ms = getattr(request, "param", 1)
    more = (
        f"redis.timeout_ms = {MUCH_LATER_MS}\nadmission.low_max = 1\nadmission.normal_max = 2\n"
        f"admission.high_max = 3\nadmission.writes_max = 1\nadmission.shed_wait_ms = {shed_wait_ms}\n"
    )
    with running_gateway(tmp_path, server.url, server=more) as gateway:
        give_list(server.client, gateway.rings["default"], "ada", ["tea"])
        give_popular(server.client, ["socks"])
        assert gateway.get("/v1/recommendations/nobody").json()["reason"] == "popular"  # it is held from here on
        yield gateway


def test_withdrawals_and_revoked_keys_do_not_wait_for_events(server: RealRedis, tmp_path: Path) -> None:
    """Kafka is absent, and events wait for it."""
    with running_gateway(tmp_path, server.url) as gateway:
        give_list(server.client, gateway.rings["default"], "ada", ["tea"])
        bearer = {"authorization": f"Bearer {a_token()}"}
        assert gateway.get("/v1/recommendations/ada", None, **bearer).json()["reason"] == "personalised"
        body = '{"event_id":"e","type":"click","ts":1750000000000,"user_id":"bob","item_id":"tea"}'
        lines = ("Content-Type: application/json", f"Content-Length: {len(body)}")
        events = [JobSession(gateway, "producer", "POST /v1/events", *lines) for _ in range(32)]
        for event in events:
            event.send(body)
        refused = JobSession(gateway, "producer", "POST /v1/events", *lines)
        refused.send(body)
        assert b" 429 " in refused.answer(), "all that may be under way are"
        withdrawing = JobSession(gateway, "privacy", "DELETE /v1/users/ada")
        until(lambda: gateway.get("/v1/recommendations/ada").json()["reason"] == "popular", "the fence", PATIENCE_S)
        assert not any(event.is_answered() for event in events), "it came before any of them was given up"
        (tmp_path / "jwks.json").write_text(json.dumps(jwks_of(k2=b"another secret, of 32 bytes or more")))
        refused_now = lambda: gateway.get("/v1/recommendations/ada", None, **bearer).status_code == 401  # noqa: E731
        until(refused_now, "the key to be forgotten", PATIENCE_S)
        withdrawing.answer()


class JobSession:
    """A request that is sent without waiting for the response."""

    def __init__(self, gateway: RunningGateway, role: str, target: str, *lines: str) -> None:
        self._socket = socket.create_connection((LOOPBACK, gateway.port), timeout=PATIENCE_S)
        head = [f"{target} HTTP/1.1", "Host: x", f"X-API-Key: {gateway.keys[role]}", "Connection: close", *lines]
        self.send("\r\n".join(head) + "\r\n\r\n")

    def send(self, text: str) -> None:
        self._socket.sendall(text.encode())

    def is_answered(self) -> bool:
        """Whether a response has arrived."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def answer(self) -> bytes:
        """Wait for the response."""
        with self._socket:
            return b"".join(iter(lambda: self._socket.recv(65_536), b""))


def reading(gateway: RunningGateway, priority: str, *lines: str) -> JobSession:
    return JobSession(gateway, "frontend", "GET /v1/recommendations/ada", f"Priority: {priority}", *lines)


def in_order_of_answers(pair: list[JobSession]) -> list[JobSession]:
    """Wait until one of them is answered, and put that one last."""
    until(lambda: any(session.is_answered() for session in pair), "one of two answers", PATIENCE_S)
    return sorted(pair, key=JobSession.is_answered)


def is_shed(answer: bytes) -> bool:
    """Whether the response is that of a shed request: a popular list and the header."""
    says_so = b"freshet-shed: overload" in answer
    assert answer.startswith(b"HTTP/1.1 200") and (b'"socks"' if says_so else b'"tea"') in answer
    return says_so


def test_low_priority_reads_are_shed_and_others_get_personal_lists(server: RealRedis, gateway: RunningGateway) -> None:
    taken = []
    with server.paused():
        for priority in (LOW, NORMAL, HIGH):
            pair = [reading(gateway, priority) for _ in range(2)]  # which one comes first is not known
            waiting, answered = in_order_of_answers(pair)
            taken.append(waiting)
            assert is_shed(answered.answer())
        assert not [session for session in taken if session.is_answered()]
    assert [is_shed(session.answer()) for session in taken] == [False] * 3


@pytest.mark.parametrize("gateway", [MUCH_LATER_MS], indirect=True)
def test_shed_requests_are_delayed_within_their_deadline(server: RealRedis, gateway: RunningGateway) -> None:
    with server.paused():
        pair = [reading(gateway, LOW) for _ in range(2)]
        assert is_shed(reading(gateway, LOW, "Freshet-Deadline-Ms: 100").answer())
        assert not any(session.is_answered() for session in pair)
    waiting, answered = in_order_of_answers(pair)
    assert not is_shed(answered.answer()) and not waiting.is_answered()


def test_read_meets_its_deadline_while_redis_is_slow(server: RealRedis, gateway: RunningGateway) -> None:
    with server.paused():
        answer = reading(gateway, HIGH, "Freshet-Deadline-Ms: 50").answer()
    assert answer.startswith(b"HTTP/1.1 200") and b'"socks"' in answer and b"freshet-shed" not in answer


def test_overloaded_writes_get_retry_after_then_succeed(gateway: RunningGateway) -> None:
    event = '{"event_id": "e", "type": "click", "ts": 1750000000000, "user_id": "ada"}'  # refused, once it is read
    writing = JobSession(gateway, "producer", "POST /v1/events", f"Content-Length: {len(event)}")
    until(lambda: gateway.get("/metrics", "operator").status_code == 429, "a write to be under way", PATIENCE_S)
    for method, path, role in [("POST", "/v1/events", "producer"), ("GET", "/v1/model", "operator")]:
        refused = gateway.ask(method, path, role)
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:freshet:problem:too-many-requests")
        assert int(refused.headers["retry-after"]) >= 1
    assert gateway.get("/v1/recommendations/ada").json()["reason"] == "personalised", "reads are none of these"
    assert gateway.get("/readyz", None).status_code == 200
    writing.send(event)
    assert b"HTTP/1.1 400" in writing.answer()
    assert gateway.get("/metrics", "operator").status_code == 200


@pytest.mark.parametrize("path", ["/v1/recommendations/ada", "/v1/popular"])
def test_rate_limit_applies_to_one_key_only(server: RealRedis, tmp_path: Path, path: str) -> None:
    limits = "admission.per_key_rate = 1\nadmission.per_key_burst = 1\n"
    rings = new_rings(tmp_path, "north", "south")
    with running_gateway(tmp_path / "gateway", server.url, server=limits, **rings) as gateway:

        def ask(tenant: str, subject: str) -> httpx.Response:
            return gateway.get(path, None, authorization=f"Bearer {a_token(tenant=tenant, sub=subject)}")

        until(lambda: ask("north", "busy").status_code == 429, "the limit", PATIENCE_S)
        refused = ask("north", "busy")
        assert refused.json()["type"] == "urn:freshet:problem:too-many-requests"
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["ratelimit"] == '"key";r=0' and refused.headers["ratelimit-policy"]
        assert ask("south", "busy").status_code == 200, "of the same name, but of another tenant"
        assert ask("north", "other").status_code == 200
        until(lambda: ask("north", "busy").status_code == 200, "the end of it", PATIENCE_S)
