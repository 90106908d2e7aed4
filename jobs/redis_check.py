"""Checks of Redis before submission, and Flink settings that depend on the longest Redis outage."""

import json
import logging
import math
from typing import Final

from pyflink.datastream import StreamExecutionEnvironment

from adapters.redis.address import RedisSettings
from adapters.redis.client import always, connect
from adapters.redis.fitness import check_rights, fitness
from schemas.errors import SettingsError, StoreUnavailable
from schemas.store import owner_key

SPARE_CHECKPOINTS: Final = 3
"""Extra failures to tolerate: the checkpoints in which an outage begins and ends, and one that was already slow."""
logger = logging.getLogger(__name__)


def check_redis(settings: RedisSettings) -> None:
    """Raise :class:`SettingsError` or :class:`StoreMisconfigured` for anything that would stop the running job.

    An unavailable Redis is no such problem: the job waits for it.
    """
    client = connect(settings)
    try:
        found = fitness(client)
        check_rights(client)
    except StoreUnavailable as error:
        logger.warning("Redis could not be checked (%s): the job will wait for it", error)
        return
    finally:
        client.close()
    refused = found.wrong + (found.weak if settings.persistence == "required" else ())
    if refused:
        raise SettingsError("; ".join(refused))
    for line in found.weak:
        logger.warning("%s", line)


def claim_prefix(settings: RedisSettings, deployment: str, replace: bool) -> None:
    """Record that the Redis prefix of these settings belongs to `deployment`, the id of its topic `consents`.

    Raises :class:`SettingsError` if it belongs to another deployment, unless `replace` is set: two jobs with one prefix
    would have each other's consents, generations and lists refused. If Redis loses this record, the next submission
    writes it again.
    """
    client = connect(settings)
    key = owner_key(settings.prefix)
    try:
        if replace:
            client.run(always([(key, ("SET", key, deployment))]))
        client.run(always([(key, ("SET", key, deployment, "NX"))]))
        [found] = client.run(always([(key, ("GET", key))]))
    except StoreUnavailable as error:
        logger.warning("the owner of the prefix could not be read from Redis (%s)", error)
        return
    finally:
        client.close()
    if found != deployment.encode():
        raise SettingsError(
            f"redis.prefix {json.dumps(settings.prefix)} belongs to another deployment, whose topic `consents` has the "
            f"id {(found or b'').decode(errors='replace')}: choose another prefix, or submit with --new-deployment if "
            "that one is gone for good"
        )


def tolerate_outage(env: StreamExecutionEnvironment, outage_max_ms: int) -> None:
    """Tolerate as many failed checkpoints in a row as can time out while Redis is unavailable for `outage_max_ms`.

    No checkpoint completes while an operator waits for Redis. With Flink's default tolerance, the job would restart in
    the middle of an outage, only to wait again.
    """
    config = env.get_checkpoint_config()
    if not config.is_checkpointing_enabled():
        return
    wanted = tolerable_failures(outage_max_ms, config.get_checkpoint_timeout())
    config.set_tolerable_checkpoint_failure_number(max(wanted, config.get_tolerable_checkpoint_failure_number()))


def tolerable_failures(outage_max_ms: int, checkpoint_timeout_ms: int) -> int:
    """How many checkpoints in a row time out during an outage, plus :data:`SPARE_CHECKPOINTS`.

    >>> tolerable_failures(3_600_000, 120_000)
    33
    """
    return math.ceil(outage_max_ms / checkpoint_timeout_ms) + SPARE_CHECKPOINTS
