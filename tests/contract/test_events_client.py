"""The producer for interactions on a real Kafka, in a separate process that exits abruptly."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.kafka.reading import records
from adapters.kafka.settings import KafkaSettings
from adapters.waiting import until
from deploy.local.java import Java
from deploy.local.kafka import KafkaBroker
from deploy.local.ports import free_port
from deploy.local.processes import ProcessTable
from deploy.local.product import create_local_topics
from schemas import topics
from tests.support.standstill import standing_still

START_TIMEOUT_S = 300
SHOP = """
import sys, time
from adapters.kafka import sender as kafka_sender
from schemas.events import Interaction
from serving.events import EventProducer

kafka_sender.CLOSE_S = 4.0
events = EventProducer({"bootstrap_servers": sys.argv[1]})
event = Interaction("e", "click", time.time_ns() // 1_000_000, "ada", item_id="tea")
events.record(event)
print("ready", flush=True)
input()
for _ in range(100):
    events.send(event)
print("sent", flush=True)
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KafkaSettings, int]]:
    """The broker's settings and process id."""
    directory = tmp_path_factory.mktemp("kafka")
    table = ProcessTable(directory)
    (directory / "tmp").mkdir()
    broker = KafkaBroker(table, Java(directory / "tmp"), free_port(), free_port())
    record = broker.start()
    try:
        until(broker.is_ready, "Kafka", START_TIMEOUT_S)
        settings = KafkaSettings(broker.bootstrap_servers)
        create_local_topics(settings)
        yield settings, record.pid
    finally:
        table.end(table.records(), 5)


@pytest.fixture
def shop(broker: tuple[KafkaSettings, int]) -> Iterator["subprocess.Popen[str]"]:
    """A shop that has sent one interaction, and waits for a line to send a hundred more."""
    shop = subprocess.Popen(
        [sys.executable, "-c", SHOP, broker[0].bootstrap_servers],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    try:
        assert shop.stdout is not None and shop.stdout.readline() == "ready\n"
        yield shop
    finally:
        shop.kill()
        shop.communicate()


def send(shop: "subprocess.Popen[str]") -> None:
    assert shop.stdin is not None and shop.stdout is not None
    shop.stdin.write("\n")
    shop.stdin.flush()
    assert shop.stdout.readline() == "sent\n"


def complaints(shop: "subprocess.Popen[str]") -> str:
    """The errors that it reported, after it has exited successfully."""
    assert shop.wait(60) == 0
    assert shop.stderr is not None
    return shop.stderr.read()


def test_unclosed_producer_delivers_to_slow_kafka(
    broker: tuple[KafkaSettings, int], shop: "subprocess.Popen[str]"
) -> None:
    kafka, pid = broker
    with standing_still(pid):
        send(shop)
        with pytest.raises(subprocess.TimeoutExpired):  # longer than the second that kafka-python gives itself
            shop.wait(2.5)
    assert complaints(shop) == ""
    assert sum(record.key == b"ada" for record in records(kafka, topics.INTERACTIONS)) == 101


def test_producer_exiting_while_kafka_is_down_reports_losses(
    broker: tuple[KafkaSettings, int], shop: "subprocess.Popen[str]"
) -> None:
    with standing_still(broker[1]):
        send(shop)
        said = complaints(shop)
    assert said == "Kafka did not accept all pending records within 4 s\n"
