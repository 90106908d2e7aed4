"""An error says which Redis does not answer, and what was to be done."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.kafka.settings import KafkaSettings
from adapters.redis.address import RedisAddress, RedisSettings
from adapters.redis.client import RedisClient
from adapters.secrets.key_rings import new_key_ring, write_key_ring
from jobs.settings import PrivacySettings, Settings
from privacy.access import collect_personal_data
from schemas.consents import ConsentChange
from schemas.errors import NotAcknowledged, StoreUnavailable
from serving.consents import Consents

DAY = 86_400_000


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def asked(address: RedisAddress) -> str:
    client = RedisClient(address)
    try:
        with pytest.raises(StoreUnavailable) as caught:
            client.standing()
        return str(caught.value)
    finally:
        client.close()


def test_error_names_the_redis_that_does_not_answer_and_no_password(silent: str) -> None:
    refused = asked(RedisAddress(("redis://ada:secret@127.0.0.1:1/3",)))
    assert refused == "Redis at 127.0.0.1:1 cannot be reached: ConnectionRefusedError"
    slow = asked(RedisAddress((f"redis://{silent}",), timeout_ms=50))
    assert slow == f"Redis at {silent} did not answer: TimeoutError"
    urls = ("redis://:secret@127.0.0.1:1", "redis://127.0.0.1:2")
    sentinels = asked(RedisAddress(urls, kind="sentinel", service="shop"))
    assert sentinels == "no Sentinel at 127.0.0.1:1, 127.0.0.1:2 knows the primary shop"
    assert "127.0.0.1:2" in asked(RedisAddress(urls, kind="cluster"))


def test_error_of_a_consent_change_names_the_address_and_the_change() -> None:
    kafka = {"bootstrap_servers": "127.0.0.1:1", "bootstrap_timeout_ms": 100}
    consents = Consents("redis://127.0.0.1:1", kafka, new_key_ring(), tombstone_ms=DAY)
    try:
        with pytest.raises(NotAcknowledged, match=re.escape("Redis at 127.0.0.1:1 cannot be reached")):
            consents.record(ConsentChange("ada", "full", 1_700_000_000_000))
        with pytest.raises(NotAcknowledged, match=r"did not acknowledge the erasure .*: it is in force where"):
            consents.erase("ada")
        with pytest.raises(NotAcknowledged, match=r"did not acknowledge the withdrawal .*: it is in force where"):
            consents.withdraw("ada")
    finally:
        consents.close()


def test_access_asks_redis_first_because_the_rest_takes_long(silent: str, tmp_path: Path) -> None:
    write_key_ring(new_key_ring(), tmp_path / "ring.json")
    settings = Settings(
        KafkaSettings("127.0.0.1:1"),
        RedisSettings((f"redis://{silent}",), timeout_ms=50),
        privacy=PrivacySettings(str(tmp_path / "ring.json")),
    )
    with pytest.raises(StoreUnavailable, match=f"Redis at {silent} did not answer"):
        collect_personal_data(settings, "ada", "officer", "request")
