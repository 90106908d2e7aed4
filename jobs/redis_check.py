"""Checks of Redis before the job is submitted, and of Flink settings that depend on the longest Redis outage."""

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
"""So many more may fail than an outage takes: those that it begins and ends in, and one that was slow before."""
logger = logging.getLogger(__name__)


def check_redis(settings: RedisSettings) -> None:
    """Raise :class:`SettingsError` or :class:`StoreMisconfigured` for what the running job would stop for.

    A Redis that is unavailable is none of it: the job waits for it as it does later.
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
    """Write down that the prefix of these settings is that of `deployment`, the id of its topic `consents`.

    Raises :class:`SettingsError` where it is another's, unless it is to `replace` that: two jobs with one prefix have
    each other's consents, generations and lists refused. What Redis has lost, the next submission writes again.
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


def ride_out(env: StreamExecutionEnvironment, outage_max_ms: int) -> None:
    """Let as many checkpoints fail in a row as time out while Redis is unavailable for `outage_max_ms`.

    While an operator waits for Redis no checkpoint completes. Flink's own tolerance would restart the job in the middle
    of an outage, to wait again.
    """
    config = env.get_checkpoint_config()
    if not config.is_checkpointing_enabled():
        return
    wanted = tolerable_failures(outage_max_ms, config.get_checkpoint_timeout())
    config.set_tolerable_checkpoint_failure_number(max(wanted, config.get_tolerable_checkpoint_failure_number()))


def tolerable_failures(outage_max_ms: int, checkpoint_timeout_ms: int) -> int:
    """How many checkpoints in a row time out in an outage, and a few more.

    >>> tolerable_failures(3_600_000, 120_000)
    33
    """
    return math.ceil(outage_max_ms / checkpoint_timeout_ms) + SPARE_CHECKPOINTS
