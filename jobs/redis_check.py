"""What is checked of Redis before the job is submitted, and what of Flink follows from how long it may be away."""

import logging
import math
from typing import Final

from pyflink.datastream import StreamExecutionEnvironment

from adapters.redis.address import RedisSettings
from adapters.redis.client import connect
from adapters.redis.fitness import check_rights, fitness
from schemas.errors import SettingsError, StoreUnavailable

SPARE_CHECKPOINTS: Final = 3
"""So many more may fail than an outage takes: those that it begins and ends in, and one that was slow before."""
logger = logging.getLogger(__name__)


def check_redis(settings: RedisSettings) -> None:
    """Raise :class:`SettingsError` or :class:`StoreMisconfigured` for what the running job would stop for.

    A Redis that is away is none of it: the job waits for it as it does later.
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


def ride_out(env: StreamExecutionEnvironment, outage_max_ms: int) -> None:
    """Let as many checkpoints fail in a row as time out while Redis is away for `outage_max_ms`.

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
