"""All data about one person, as one JSON document: rights of access and portability (GDPR, articles 15 and 20).

The running job provides its state; Redis and the topics are read directly (`freshet access`).
"""

from typing import Any

from adapters.redis.client import connect
from adapters.schema_sources import codec_of
from adapters.secrets.key_rings import load_key_ring
from jobs.clock import clock_ms
from jobs.settings import Settings
from schemas.pseudonyms import Pseudonymiser
from serving.held_data import Collector, access_command


def collect_personal_data(settings: Settings, user_id: str, role: str, purpose: str) -> dict[str, Any]:
    """Everything held about `user_id`, by place; missing parts are null or empty."""
    names = Pseudonymiser(load_key_ring(settings.privacy.key_ring)).all(user_id)
    client = connect(settings.redis)
    try:
        client.standing()  # before the job and the topics are asked, which takes long
        command = access_command(user_id, role, purpose)
        collector = Collector(settings.kafka, client, codec_of(settings.input), everywhere=True)
        return collector.collect(names, command) | {"collected_at": clock_ms()}
    finally:
        client.close()
