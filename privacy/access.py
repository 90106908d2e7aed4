"""All that is held of one person, as one JSON document: rights of access and portability (GDPR, articles 15 and 20)::

    python -m privacy.access --settings freshet.toml --user ID --role officer --purpose "request 47" > held.json

`--user -` reads the id from standard input, so that it stands in no history of commands. The job answers with its state
while it runs; Redis and the topics are read as they stand. The reading itself goes into the audit trail. Exports are
files of their own, under names of their own: they are not looked into.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec

from adapters.redis.client import connect
from jobs.clock import clock_ms
from jobs.registration import load_deployed
from jobs.settings import Settings
from schemas.errors import FreshetError, SettingsError
from schemas.pseudonyms import Pseudonymiser, load_key_ring
from schemas.wire.codec_choice import codec_of
from serving.access import Collector, access_command


def held_of(settings: Settings, user_id: str, role: str, purpose: str) -> dict[str, Any]:
    """Everything that is held of `user_id`, by where it is held; what is not there is null or empty."""
    names = Pseudonymiser(load_key_ring(settings.privacy.key_ring)).all(user_id)
    client = connect(settings.redis)
    try:
        command = access_command(user_id, role, purpose)
        collector = Collector(settings.kafka, client, codec_of(settings.input), everywhere=True)
        return collector.held(names, command) | {"collected_at": clock_ms()}
    finally:
        client.close()


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m privacy.access", description="All that is held of one person, as JSON."
    )
    parser.add_argument("--settings", type=Path, required=True, help="the TOML file of the job")
    parser.add_argument("--user", required=True, metavar="ID", help="the user id; - reads it from standard input")
    parser.add_argument("--role", required=True, help="who asks; goes into the audit trail")
    parser.add_argument("--purpose", required=True, help="what for; goes into the audit trail")
    options = parser.parse_args(arguments)
    user_id = sys.stdin.readline().rstrip("\n") if options.user == "-" else options.user
    try:
        if not user_id:
            raise SettingsError("no user id was given")
        document = held_of(load_deployed(options.settings), user_id, options.role, options.purpose)
    except FreshetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
