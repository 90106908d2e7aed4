"""Ends the transactions that a job has left open and no job will commit: those before a start with empty state.

A job that continues from a snapshot commits them, or ends them. One that starts with empty state would end only those
whose numbers it meets, and readers of committed records would wait behind the others until Kafka ends them, in a week.
"""

import itertools
import logging
from typing import Final

from kafka.errors import KafkaError

from adapters.kafka.opening import open_admin, open_producer
from adapters.kafka.settings import KafkaSettings
from schemas import topics

EXACTLY_ONCE: Final = (topics.DEAD_LETTERS, topics.EVENTS, topics.AUDIT, topics.AUDIT_HEADS)
"""The topics to which the job writes in transactions."""
logger = logging.getLogger(__name__)


def transactional_prefix(kafka: KafkaSettings, topic: str) -> str:
    """What the transactional ids of the sink of `topic` begin with."""
    return f"{kafka.group()}-{topic}"


def end_transactions_left_open(kafka: KafkaSettings) -> list[str]:
    """End the open transactions of the job's sinks; returns their ids.

    No job of these settings may run. If Kafka refuses, the log says so, and nothing else changes.
    """
    try:
        left = _left_open(kafka)
        for transactional_id in left:
            producer = open_producer(kafka, transactional_id=transactional_id)
            try:
                producer.init_transactions()  # fences the job that began it, and ends it
            finally:
                producer.close()
    except KafkaError as error:
        logger.warning("transactions of an earlier job could not be ended (%s)", type(error).__name__)
        return []
    return left


def _left_open(kafka: KafkaSettings) -> list[str]:
    prefixes = tuple(f"{transactional_prefix(kafka, topic)}-" for topic in EXACTLY_ONCE)
    admin = open_admin(kafka)
    try:
        listed = itertools.chain.from_iterable(admin.list_transactions(state_filters=["Ongoing"]).values())
        return sorted(one.transactional_id for one in listed if one.transactional_id.startswith(prefixes))
    finally:
        admin.close()
