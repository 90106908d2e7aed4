"""`freshet doctor` on a real Kafka and Redis: it distinguishes sound deployments from faulty ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer

from adapters.kafka.reading import records
from adapters.kafka.settings import KafkaSettings
from adapters.secrets.key_rings import load_key_ring, new_key_ring, write_key_ring
from adapters.secrets.signing_keys import write_signing_key
from adapters.waiting import until
from deploy.local.java import Java
from deploy.local.kafka import KafkaBroker
from deploy.local.ports import free_port
from deploy.local.processes import ProcessTable
from deploy.local.product import create_local_topics
from freshet.cli.main import run
from jobs.deployment import Deployment, deployment_of
from jobs.doctor import run_checks
from jobs.registration import KEY, Registration, last_recorded
from jobs.settings import load_settings
from models.random_model import random_model
from schemas import topics
from schemas.errors import SettingsError
from tests.support.redis_server import RealRedis, running_redis
from tests.support.topics import alter
from tests.support.vocabulary import MINUTE

WAIT_S = 60


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    directory = tmp_path_factory.mktemp("kafka")
    table = ProcessTable(directory)
    (directory / "tmp").mkdir()
    made = KafkaBroker(table, Java(directory / "tmp"), free_port(), free_port(), {})
    made.start()
    try:
        until(made.is_ready, "Kafka", WAIT_S)
        yield made
    finally:
        table.end(table.records(), 5)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


def settings_in(folder: Path, kafka: str, redis_url: str) -> Path:
    write_key_ring(new_key_ring(), folder / "ring.json")
    write_signing_key(folder / "signing-key")
    random_model(folder / "model", 30)
    path = folder / "freshet.toml"
    path.write_text(
        f'kafka.bootstrap_servers = "{kafka}"\nkafka.topic_prefix = "{folder.name}."\nredis.url = "{redis_url}"\n'
        f'model.directory = "{folder / "model"}"\nprivacy.key_ring = "{folder / "ring.json"}"\n'
        f'audit.signing_key = "{folder / "signing-key"}"\n'
    )
    return path


def to_mend(path: Path) -> dict[str, str]:
    return {each.what: each.text for each in run_checks(path, None) if each.verdict == "mend"}


def test_healthy_deployment_has_no_findings_and_doctor_submits_nothing(
    broker: KafkaBroker, redis: RealRedis, tmp_path: Path
) -> None:
    path = settings_in(tmp_path, broker.bootstrap_servers, redis.url)
    assert "freshet topics" in to_mend(path)["topics"], "they are not there yet"
    kafka = KafkaSettings(broker.bootstrap_servers, topic_prefix=f"{tmp_path.name}.")
    create_local_topics(kafka)
    found = {each.what: each for each in run_checks(path, None)}
    assert {what for what, each in found.items() if each.verdict == "mend"} == set()
    assert found["clock"].verdict == found["deployment"].verdict == "ok"
    assert [record.key for record in records(kafka, topics.DEPLOYMENT)] == [b"doctor"]
    assert last_recorded(kafka) is None


def test_producer_timestamps_are_a_finding(broker: KafkaBroker, redis: RealRedis, tmp_path: Path) -> None:
    path = settings_in(tmp_path, broker.bootstrap_servers, redis.url)
    kafka = KafkaSettings(broker.bootstrap_servers, topic_prefix=f"{tmp_path.name}.")
    create_local_topics(kafka)
    alter(kafka, topics.CONSENTS, {"message.timestamp.type": "CreateTime"})
    until(lambda: "message.timestamp.type = LogAppendTime" in to_mend(path).get("topics", ""), "the finding", WAIT_S)


def test_redis_eviction_policy_is_a_finding(redis: RealRedis, tmp_path: Path) -> None:
    path = settings_in(tmp_path, "127.0.0.1:1", redis.url)
    client = redis.store_client()
    try:
        client.ask_each(("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"))
        assert "set maxmemory-policy noeviction" in to_mend(path)["redis"]
    finally:
        client.ask_each(("CONFIG", "SET", "maxmemory-policy", "noeviction"))
        client.close()


def test_doctor_upgrade_and_submit_all_refuse_an_unreadable_deployment_record(
    broker: KafkaBroker, redis: RealRedis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = settings_in(tmp_path, broker.bootstrap_servers, redis.url)
    kafka = load_settings(path).kafka
    create_local_topics(kafka)
    now = deployment_of(load_settings(path), load_key_ring(str(tmp_path / "ring.json")), "thread", {})

    def submit(replace: bool) -> Deployment:
        with Registration(kafka, MINUTE) as registration:
            return registration.take(now, replace)

    def upgrade() -> str:
        assert run(["upgrade", "--settings", str(path), "--flink", "http://127.0.0.1:1"]) == 2
        return capsys.readouterr().err

    first = submit(replace=False)
    with KafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        producer.send(kafka.topic(topics.DEPLOYMENT), key=KEY, value=b"{").get(WAIT_S)
    assert "cannot be read" in to_mend(path)["deployment"]
    assert "cannot be read" in upgrade()
    with pytest.raises(SettingsError, match="cannot be read"):
        submit(replace=False)
    assert submit(replace=True).epoch > first.epoch
    assert to_mend(path) == {}
    assert "Flink at http://127.0.0.1:1" in upgrade()
