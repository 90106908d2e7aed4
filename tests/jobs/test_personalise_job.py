"""The personalise job as a whole, on Flink's own mini cluster and a real Redis, with neither Kafka nor its connector.

All tests share one run, because starting Java and the workers takes nearly all of the time. The source is bounded and
there is one task, so that the output is complete, and a failure ends the run instead of restarting it for ever.
"""

import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from pyflink.common import Configuration, Row, Types
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway

from adapters.kafka.settings import KafkaSettings
from adapters.redis.address import RedisSettings
from adapters.secrets.key_rings import load_key_ring, write_key_ring
from adapters.secrets.signing_keys import write_signing_key
from jobs.deployment import deployment_of
from jobs.flink import bucket_keys
from jobs.personalise import Streams, build
from jobs.settings import AuditSettings, JobSettings, ModelSettings, PrivacySettings, Settings
from models.random_model import random_model
from schemas.consents import Level
from schemas.receipts import AccountTotals, ConsentReceipt, ElementReceipt, decode_receipt
from schemas.store import consent_value, user_keys
from tests.support.naive import NaiveReplay
from tests.support.redis_server import RealRedis, running_redis
from tests.support.vocabulary import (
    KEY_RING,
    MINUTE,
    PSEUDONYMISER,
    SECOND,
    a_raw_consent,
    a_raw_interaction,
    a_tombstone,
)
from udfs.ingest import RawRecord
from udfs.profile import ProfileBounds

START = time.time_ns() // 1_000_000 - MINUTE
"""Not long ago: what was done long ago would be forgotten by timers while the run goes on."""
EPOCH = START
BUCKETS = 4
PEOPLE = ["ada", "bob", "cyd", "dan", "eve"]
RECORDS = [
    *(a_raw_consent(user, at=START, offset=n) for n, user in enumerate(PEOPLE)),
    *(
        a_raw_interaction(user, START + n * SECOND, f"item-0000{n % 7 + 1}", id=f"{user}{n}", offset=n)
        for n in range(1, 9)
        for user in PEOPLE
    ),
    a_raw_interaction("ada", START + SECOND, "item-00002", id="ada1", offset=70),
    a_raw_interaction("nobody", START + SECOND, id="x", offset=71),
    a_raw_interaction("ada", START, item=None, offset=72),
    a_raw_interaction("ada", START + MINUTE * 6, appended=START, offset=73),
    a_tombstone("gil", START, offset=74),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="module")
def settings(server: RealRedis, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    directory = tmp_path_factory.mktemp("job")
    random_model(directory / "model", items=60, neighbours=4, top_k=40)
    write_key_ring(KEY_RING, directory / "ring.json")
    write_signing_key(directory / "signing-key")
    return Settings(
        KafkaSettings("nowhere:1", topic_prefix="t."),
        RedisSettings((server.url,), prefix="t."),
        ModelSettings(directory=str(directory / "model")),
        privacy=PrivacySettings(str(directory / "ring.json")),
        audit=AuditSettings(str(directory / "signing-key")),
        job=JobSettings(buckets=BUCKETS),
    )


def as_stream(env: StreamExecutionEnvironment, records: list[RawRecord]) -> DataStream:
    """`records` as the Kafka source packs them."""
    packed = get_gateway().jvm.java.util.ArrayList()
    for record in records:
        packed.add(msgspec.msgpack.encode(record))
    kind = Types.PRIMITIVE_ARRAY(Types.BYTE()).get_java_type_info()
    return DataStream(env._j_stream_execution_environment.fromData(packed, kind))


def run(settings: Settings, records: list[RawRecord]) -> dict[str, list[bytes]]:
    """What left the job, by output."""
    configuration = Configuration()
    configuration.set_string("restart-strategy.type", "none")
    configuration.set_string("python.fn-execution.bundle.time", "50")
    env = StreamExecutionEnvironment.get_execution_environment(configuration)
    env.set_parallelism(1)
    env.set_max_parallelism(settings.job.max_parallelism)
    env.set_python_executable(sys.executable)
    keys = bucket_keys(BUCKETS, settings.job.max_parallelism)
    ring = load_key_ring(settings.privacy.key_ring)
    deployment = msgspec.structs.replace(deployment_of(settings, ring, "process", {}, "a trail"), epoch=EPOCH)
    streams = Streams(as_stream(env, records))
    outputs = build(streams, settings, deployment, keys)
    kind = Types.ROW([Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE())])
    named = [
        getattr(outputs, name).map(lambda raw, name=name: Row(name, raw), output_type=kind)
        for name in ("rejects", "clean_events", "receipts")
    ]
    emitted: dict[str, list[bytes]] = {"rejects": [], "clean_events": [], "receipts": []}
    with named[0].union(*named[1:]).execute_and_collect("test") as results:
        for name, raw in results:
            emitted[name].append(bytes(raw))
    return emitted


def summed(receipts: list[ElementReceipt]) -> dict[str, Any]:
    """The last account of each bucket, added up."""
    last: dict[int, AccountTotals] = {receipt.bucket: receipt.account for receipt in receipts}
    total: dict[str, Any] = {"rejected": {}}
    for account in last.values():
        for name, value in msgspec.structs.asdict(account).items():
            if name == "rejected":
                for reason, count in value.items():
                    total["rejected"][reason] = total["rejected"].get(reason, 0) + count
            else:
                total[name] = total.get(name, 0) + value
    return total


def test_job_processes_a_small_journey(settings: Settings, server: RealRedis) -> None:
    emitted = run(settings, RECORDS)
    receipts = [decode_receipt(raw) for raw in emitted["receipts"]]
    elements = [receipt for receipt in receipts if isinstance(receipt, ElementReceipt)]
    consents = [receipt for receipt in receipts if isinstance(receipt, ConsentReceipt)]

    twin = NaiveReplay(KEY_RING, ProfileBounds())
    twin.feed((record.topic, record.append_ts, record.offset, record.key, record.value) for record in RECORDS)
    assert summed(elements) == twin.account(), "the account"

    assert {receipt.consent_at for receipt in consents} == {START}, "append time is not moved by a time zone"
    assert {receipt.pseudonym for receipt in consents} == {PSEUDONYMISER.user(name) for name in (*PEOPLE, "gil")}

    writes = [write for element in elements for write in element.lists]
    assert {write.outcome for write in writes} == {"written"}
    assert {write.pseudonym for write in writes} == {PSEUDONYMISER.user(name) for name in PEOPLE}
    assert max(write.version for write in writes) == 1 + 8

    assert sorted(msgspec.json.decode(raw)["reason"] for raw in emitted["rejects"]) == [
        "missing_item",
        "time_in_future",
    ]
    assert sum(len(lines.split(b"\n")) for lines in emitted["clean_events"]) == 8 * len(PEOPLE)
    for raw in (*emitted["clean_events"], *emitted["receipts"], *emitted["rejects"]):
        assert not any(f'"{name}"'.encode() in raw for name in PEOPLE)

    # Not the lists: at the end of a bounded source every timer may fire, so all lists may be deleted by now.
    assert server.client.get(user_keys("t.", PSEUDONYMISER.user("ada"))[1]) == consent_value(
        Level.FULL, 0, START, 0, PEOPLE.index("ada")
    )


def test_bucket_keys_spread_evenly() -> None:
    keys = bucket_keys(8, 128)
    assert len(set(keys)) == 8
