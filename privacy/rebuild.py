"""Makes the job rewrite consents and lists in Redis from its state, without user events (`freshet rebuild`).

The job does so by itself if Redis has lost data or another process took over. This command is for losses that it cannot
see, such as keys that somebody deleted. It also restores the tombstones of erased users, who are no longer in any
state.
"""

from adapters.kafka.reachability import require_reachable_broker
from adapters.redis.client import Keyed, RedisClient, always
from adapters.redis.scripts import WRITE_CONSENT
from adapters.secrets.key_rings import load_key_ring
from jobs.clock import clock_ms
from jobs.marks import connect_as_tenant, write_marks
from jobs.settings import Settings
from privacy.erased_users import erased_users
from schemas.pseudonyms import Pseudonymiser
from schemas.store import all_user_keys, decision_of

WRITES_MAX = 500


def rebuild(settings: Settings) -> int:
    """Start a new generation; returns how many tombstones were written. The job does the rest."""
    require_reachable_broker(settings.kafka)
    client = connect_as_tenant(settings)
    try:
        written = _write_tombstones(settings, client)
        write_marks(settings.kafka, client.renew_generation(by_force=True))
        return written
    finally:
        client.close()


def _write_tombstones(settings: Settings, client: RedisClient) -> int:
    """Write the tombstones of recent erasures, as the job wrote them. Later decisions stay."""
    pseudonymiser = Pseudonymiser(load_key_ring(settings.privacy.key_ring))
    since_ms = clock_ms() - settings.tombstone_ms()
    recent = [one for one in erased_users(settings, pseudonymiser.all).values() if one.erasure.append_ts > since_ms]
    commands: list[Keyed] = []
    for one in recent:
        arguments = decision_of(one.erasure).arguments(settings.tombstone_ms())
        for name in one.names:
            keys = all_user_keys(settings.redis.prefix, name)
            commands.append((keys[0], WRITE_CONSENT(keys, *arguments)))
    for begin in range(0, len(commands), WRITES_MAX):
        client.run(always(commands[begin : begin + WRITES_MAX]), durable=True)
    return len(recent)
