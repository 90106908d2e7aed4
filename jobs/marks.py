"""Writes marks to `consents` (:mod:`schemas.marks`), at submission and from the job's workers."""

import logging
import threading
import time
from typing import Final

from kafka.errors import KafkaError

from adapters.kafka.opening import open_producer
from adapters.kafka.settings import KafkaSettings
from adapters.redis.client import RedisClient, connect
from adapters.secrets.key_rings import load_key_ring
from jobs.settings import Settings
from schemas import topics
from schemas.errors import SettingsError, StoreUnavailable
from schemas.marks import MARK_KEY, Mark, encode_mark
from schemas.store import mark_of
from schemas.threads import in_background

ACKNOWLEDGED_S: Final = 10.0
ASK_AGAIN_S: Final = 5.0
logger = logging.getLogger(__name__)


def write_marks(kafka: KafkaSettings, token: str) -> None:
    """Write a mark of the generation `token` to each partition of `consents`; returns once Kafka has acknowledged them.

    Raises :class:`SettingsError` if Kafka refuses or does not answer.
    """
    topic = kafka.topic(topics.CONSENTS)
    try:
        producer = open_producer(kafka)
        try:
            partitions = sorted(producer.partitions_for(topic) or ())
            value = encode_mark(Mark(token, len(partitions)))
            sent = [producer.send(topic, value, MARK_KEY, partition=partition) for partition in partitions]
            for future in sent:
                future.get(ACKNOWLEDGED_S)
        finally:
            producer.close(timeout=ACKNOWLEDGED_S)
    except (KafkaError, ValueError) as error:
        raise SettingsError(
            f"no marks could be written to {topic} ({type(error).__name__}): no consent takes effect in Redis without "
            "them. The job's user in Kafka needs Write and Describe on that topic"
        ) from None


def connect_as_tenant(settings: Settings) -> RedisClient:
    """Connect to Redis as this tenant: generation records name the tenant, and those of others are noticed."""
    ring = load_key_ring(settings.privacy.key_ring)
    return connect(settings.redis, mark_of(ring, settings.kafka.topic_prefix))


def mark_submission(settings: Settings) -> None:
    """Write marks of Redis' current generation, so that the job has caught up once it has read all present consents.

    If Redis is unavailable, the job does without: it requests marks itself when Redis is back.
    """
    client = connect_as_tenant(settings)
    try:
        write_marks(settings.kafka, client.renew_generation())
    except StoreUnavailable as error:
        logger.warning("%s: no personal list is served until Redis is back and the job has caught up", error)
    finally:
        client.close()


class Marker:
    """Writes marks in its own thread, one request at a time. Repeats a request only after :data:`ASK_AGAIN_S`."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._asked: tuple[str, float] = "", 0.0
        self._writing = threading.Lock()

    def __call__(self, token: str) -> None:
        """Request marks; returns at once."""
        asked, at_s = self._asked
        if asked == token and time.monotonic() < at_s + ASK_AGAIN_S:
            return
        if self._writing.acquire(blocking=False):
            self._asked = token, time.monotonic()
            in_background("freshet-marks", self._write, token)

    def _write(self, token: str) -> None:
        try:
            write_marks(self._kafka, token)
        except SettingsError as error:
            logger.error("%s; trying again", error)
        finally:
            self._writing.release()
