"""A person's data over HTTP, with Kafka and without a job: who waits, and that nobody else is delayed."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.kafka.reading import records
from adapters.kafka.settings import KafkaSettings
from schemas import topics
from schemas.pseudonyms import Pseudonymiser
from serving.kept_answers import KeptAnswers, read_ticket
from tests.support.gateway import RunningGateway, a_token, new_rings, running_gateway
from tests.support.kafka import running_kafka, with_topics_of_its_own
from tests.support.live import until
from tests.support.redis_server import RealRedis, running_redis

NARROW = "admission.writes_max = 1\naccess.at_once = 1\naccess.waiting_max = 1\n"


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    with running_kafka(tmp_path_factory.mktemp("kafka")) as settings:
        yield settings


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def tenant(kafka: KafkaSettings) -> KafkaSettings:
    return with_topics_of_its_own(kafka)


@pytest.fixture
def gateways(server: RealRedis, tenant: KafkaSettings, tmp_path: Path) -> Iterator[list[RunningGateway]]:
    """Two gateways of one tenant. No job runs, so collections continue until they are stopped."""
    ring, file = new_rings(tmp_path, "default")["default"], tmp_path / "tenant.toml"
    file.write_text(f'key_ring = "{ring}"\nredis_prefix = "default:"\ntopic_prefix = "{tenant.topic_prefix}"\n')
    where = {"kafka": tenant.bootstrap_servers, "server": NARROW, "default": str(file)}
    with (
        running_gateway(tmp_path / "one", server.url, **where) as one,
        running_gateway(tmp_path / "other", server.url, **where) as other,
    ):
        yield [one, other]


def officer(
    gateway: RunningGateway, path: str, sub: str = "olga", method: str = "GET", **claims: Any
) -> httpx.Response:
    """A response to a client that may read personal data, the same at every gateway."""
    token = a_token(sub=sub, **{"roles": ["privacy"], **claims})
    return gateway.ask(method, path, None, headers={"authorization": f"Bearer {token}"})


def ask(gateway: RunningGateway, user: str = "ada", purpose: str = "x", **who: Any) -> httpx.Response:
    return officer(gateway, f"/v1/users/{user}/data?purpose={purpose}", **who)


def an_event(number: int) -> dict[str, Any]:
    return {"event_id": f"e{number}", "type": "search", "ts": time.time_ns() // 1_000_000, "user_id": "ada"}


def test_access_request_returns_the_same_poll_url_on_every_gateway(
    gateways: list[RunningGateway],
) -> None:
    one, other = gateways
    told = ask(one, "a%2Fdata")
    assert (told.status_code, told.json()["status"]) == (202, "collecting")
    assert int(told.headers["retry-after"]) >= 1 and told.headers["cache-control"] == "no-store"
    assert told.headers["location"] == f"/v1/users/a%2Fdata/data/{told.json()['id']}"
    for gateway in (other, one, other):
        assert ask(gateway, "a%2Fdata").json() == told.json(), "a retry is no second collection"
        later = officer(gateway, told.headers["location"])
        assert (later.status_code, later.json()) == (202, told.json())
    assert re.fullmatch(r"[0-9]+-[0-9]+-[0-9a-f]{32}", told.json()["id"])


def test_access_result_is_visible_only_to_requester_role_and_user(gateways: list[RunningGateway]) -> None:
    id = ask(gateways[0]).json()["id"]
    for gateway in gateways:
        assert officer(gateway, f"/v1/users/ada/data/{id}").status_code == 202
        assert officer(gateway, f"/v1/users/ada/data/{id}", sub="otto").status_code == 404
        assert officer(gateway, f"/v1/users/ada/data/{id}", roles=["admin"]).status_code == 404
        assert officer(gateway, f"/v1/users/bob/data/{id}").status_code == 404
        assert officer(gateway, f"/v1/users/ada/data/{id}", roles=["frontend", "producer"]).status_code == 403
        assert officer(gateway, f"/v1/users/ada/data/{id}", tenant="elsewhere").status_code == 403
        assert gateway.get(f"/v1/users/ada/data/{id}", None).status_code == 401
        for wrong in ("0-0-" + "0" * 32, "99999-0-" + "0" * 32, id[:-1], "1", "-", "f" * 100):
            assert officer(gateway, f"/v1/users/ada/data/{wrong}").status_code == 404, wrong
        assert officer(gateway, "/v1/users/ada/data/data?purpose=x").status_code == 404, "no id, and no user either"


def test_waiting_for_access_does_not_block_event_recording(gateways: list[RunningGateway]) -> None:
    """One write slot, and all slots for documents are in use."""
    one, _ = gateways
    assert [ask(one, user).status_code for user in ("ada", "bob")] == [202, 202]
    full = ask(one, "cyd")
    assert (full.status_code, full.json()["type"]) == (429, "urn:freshet:problem:too-many-requests")
    assert int(full.headers["retry-after"]) >= 1
    for number in range(20):
        answer = one.ask("POST", "/v1/events", "producer", json=an_event(number))
        assert (answer.status_code, answer.json()["status"]) == (202, "accepted")
    assert ask(one, "ada").status_code == 202, "still the same"


@pytest.mark.privacy
def test_access_result_is_withheld_after_erasure(gateways: list[RunningGateway], tenant: KafkaSettings) -> None:
    one, other = gateways
    told = {user: ask(one, user) for user in ("ada", "bob")}
    answers = KeptAnswers(tenant, 600)
    for user, answer in told.items():
        ticket = read_ticket(answer.json()["id"])
        assert ticket is not None
        answers.finish(ticket, Pseudonymiser(one.rings["default"]).user(user), b'{"user_id":"%b"}' % user.encode())
        assert officer(other, answer.headers["location"]).json() == {"user_id": user}
    answers.close()
    assert officer(other, "/v1/users/ada", method="DELETE").status_code == 200
    gone = officer(other, told["ada"].headers["location"])
    assert (gone.status_code, gone.json()["type"]) == (410, "urn:freshet:problem:not-collected")
    assert "erased" in gone.json()["detail"]
    assert officer(other, told["bob"].headers["location"]).status_code == 200


def test_shutdown_of_collecting_gateway_is_reported_by_others(
    gateways: list[RunningGateway], tenant: KafkaSettings
) -> None:
    one, other = gateways
    told = {user: ask(one, user) for user in ("ada", "bob")}
    asked = sum(b'"access"' in record.value for record in records(tenant, topics.CONTROL))
    assert one.close() == 0
    for user, answer in told.items():
        gone = officer(other, answer.headers["location"])
        assert (gone.status_code, gone.json()["type"]) == (410, "urn:freshet:problem:not-collected"), user
        assert "request it again" in gone.json()["detail"]
    assert asked <= 1, "the job was asked for what was collected, not for what waited"
    again = ask(other, "ada")
    assert again.status_code == 202 and again.json() != told["ada"].json()
    until(lambda: officer(other, again.headers["location"]).status_code == 202, "the new one to be collected")
