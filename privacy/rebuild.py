"""Has consents and lists in Redis written again from the job's state, without any event of a user::

    python -m privacy.rebuild --settings freshet.toml

The job does so by itself, within a second, where Redis has lost data or another process took over. This command is for
whatever the job cannot see, such as keys that somebody deleted; and it does one thing more: it writes the tombstones of
erased users again, who are in nobody's state any more. It waits for nothing: the job writes lists as it catches up, at
`refresh.rebuilt_per_second`. Until then the answers are popular lists.
"""

import argparse
import sys
from pathlib import Path

from adapters.redis.client import Keyed, RedisClient, always, connect
from adapters.redis.scripts import Script
from jobs.clock import clock_ms
from jobs.marks import write_marks
from jobs.settings import Settings, load_settings
from privacy.erased_users import erased_users
from schemas.errors import FreshetError
from schemas.pseudonyms import Pseudonymiser, load_key_ring
from schemas.store import WRITE_CONSENT, all_user_keys
from udfs.store import decision_of

WRITES_MAX = 500
_WRITE_CONSENT = Script(WRITE_CONSENT)


def rebuild(settings: Settings) -> int:
    """Begin a new generation; returns how many tombstones were written. The job does the rest."""
    client = connect(settings.redis)
    try:
        written = _write_tombstones(settings, client)
        write_marks(settings.kafka, client.renew_generation(by_force=True))
        return written
    finally:
        client.close()


def _write_tombstones(settings: Settings, client: RedisClient) -> int:
    """The erasures that tombstones are still kept of, as the job wrote them. What was decided since stands."""
    pseudonymiser = Pseudonymiser(load_key_ring(settings.privacy.key_ring))
    since_ms = clock_ms() - settings.tombstone_ms()
    recent = [one for one in erased_users(settings, pseudonymiser.all).values() if one.erasure.append_ts > since_ms]
    commands: list[Keyed] = []
    for one in recent:
        arguments = decision_of(one.erasure).arguments(settings.tombstone_ms())
        for name in one.names:
            keys = all_user_keys(settings.redis.prefix, name)
            commands.append((keys[0], _WRITE_CONSENT(keys, *arguments)))
    for begin in range(0, len(commands), WRITES_MAX):
        client.run(always(commands[begin : begin + WRITES_MAX]), durable=True)
    return len(recent)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m privacy.rebuild", description="Have the job write consents and lists in Redis again."
    )
    parser.add_argument("--settings", type=Path, required=True, help="the TOML file of the job")
    try:
        written = rebuild(load_settings(parser.parse_args(arguments).settings))
    except FreshetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"tombstones of {written} erased users stand again; the job writes consents and lists as it catches up")
    return 0


if __name__ == "__main__":
    sys.exit(main())
