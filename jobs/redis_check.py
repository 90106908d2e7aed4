"""Checks of Redis before submission."""

import json
import logging

from adapters.redis.address import RedisSettings
from adapters.redis.client import always, connect
from adapters.redis.fitness import check_rights, fitness
from schemas.errors import SettingsError, StoreUnavailable
from schemas.store import owner_key

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
