"""A job that reads framed Avro, with three kinds of producers: the library, plain Avro, JSON."""

import contextlib
import io
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from adapters.kafka.settings import python_kafka_options
from deploy.local import product
from deploy.local.stack import LocalStack
from freshet.cli.main import run
from jobs.settings import load_settings
from models.random_model import random_model
from privacy.rewrite_events import rewrite_events
from schemas import topics
from schemas.consents import ConsentChange
from schemas.events import Interaction
from schemas.wire import avro_codec
from schemas.wire.writers import WriteSettings
from serving.events import EventProducer
from tests.golden.schemas import schema_files
from tests.support.live import Live, consents_of

pytestmark = pytest.mark.privacy


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture(scope="module")
def avro(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    directory = tmp_path_factory.mktemp("mixed")
    random_model(directory / "model", items=60)
    product.make_keys(directory / "ring.json")
    registry = directory / "schemas"
    registry.mkdir()
    for name, schema in schema_files().items():
        (registry / name).write_bytes(schema)
    with LocalStack(directory / "stack", flink_settings={"execution.checkpointing.interval": "500 ms"}) as stack:
        text = product.settings_text(stack, directory / "ring.json", directory / "model")
        path = directory / "freshet.toml"
        path.write_text(f'{text}\n[input]\nformat = "avro"\nframing = "confluent"\nschema_source = "{registry}"\n')
        settings = load_settings(path)
        product.create_local_topics(settings.kafka)
        job = product.submit(stack, path)
        stack.rest.wait_running(job)
        endpoints = {**stack.addresses, "key_ring": str(directory / "ring.json")}
        with contextlib.closing(Live(stack, product.Product(endpoints, settings, path, job))) as live:
            yield live


def writing(live: Live) -> WriteSettings:
    return WriteSettings("avro", "confluent", live.settings.input.schema_source, 7, 10)


def click(user: str, number: int) -> Interaction:
    return Interaction(f"{user}-{number}", "click", now_ms(), user, item_id=f"item-{number:05d}")


@pytest.mark.promise("mixed-formats")
def test_acknowledged_records_take_effect_next_to_json_and_plain_avro(avro: Live):
    kafka: dict[str, Any] = python_kafka_options(avro.settings.kafka)
    with (
        contextlib.closing(consents_of(avro, input=writing(avro))) as consents,
        EventProducer(kafka, input=writing(avro)) as events,
    ):
        consents.record(ConsentChange("framed", "full", now_ms()))
        avro.wait_for_consent("framed")
        avro.consent(["json"])
        plain = ConsentChange("plain", "full", now_ms())
        avro.send(topics.CONSENTS, [(b"plain", avro_codec.encode(plain))])
        avro.wait_for_consent("plain")
        events.record(click("framed", 3))
        avro.interact("json", "item-00004")
        avro.send(topics.INTERACTIONS, [(b"plain", avro_codec.encode(click("plain", 5)))])
        for user in ("framed", "json", "plain"):
            assert avro.wait_for_version(user, 2).reason == "personalised"
        consents.withdraw("framed")
    raw = [record.value for record in avro.records(topics.CONSENTS) if record.key == b"framed"]
    assert [value[:5] for value in raw] == [b"\0\0\0\0\x0a"] * 2, "the library writes what the registry knows"
    assert not list(avro.records(topics.DEAD_LETTERS))


def test_erasure_is_proved_when_the_job_reads_avro(
    avro: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    gone = ConsentChange("gone", "full", now_ms())
    avro.send(topics.CONSENTS, [(b"gone", avro_codec.encode(gone))])
    avro.wait_for_consent("gone")
    avro.send(topics.INTERACTIONS, [(None, avro_codec.encode(click("gone", 6)))])
    avro.wait_for_version("gone", 2)
    with contextlib.closing(consents_of(avro, input=writing(avro))) as consents:
        consents.erase("gone")
    avro.wait_for_consent("gone")
    rewrite_events(avro.settings, lambda line: None)
    monkeypatch.setattr(sys, "stdin", io.StringIO("gone\n"))
    command = ["erase", "verify", "--settings", str(avro.product.settings_path), "--user", "-"]
    assert run([*command, "--flink", avro.product.endpoints["flink"]]) == 0
    assert '"interactions":1' in capsys.readouterr().out.replace(" ", ""), "the record without a key is of the user"
