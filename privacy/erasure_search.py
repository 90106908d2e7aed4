"""Where a pseudonym stands: in the files of a savepoint, in Redis, in topics, in exports. Counts only leave here."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from kafka import KafkaAdminClient

from adapters.files.export_parts import part_events, read_manifest
from adapters.kafka.reading import mentions_any
from adapters.kafka.settings import python_kafka_options
from adapters.kafka.settled_topic import settled, settled_ends
from adapters.redis.client import connect
from jobs.savepoints import completed_ms
from jobs.settings import Settings
from jobs.topic_creation import topic_settings
from privacy.export import hashes_of
from privacy.rewrite_events import whose_of
from privacy.rules.erasure import must_be_erased, occurrences
from schemas import topics
from schemas.errors import SettingsError
from schemas.store import all_user_keys
from schemas.topics import RETENTION_CHECK_MAX_MS
from schemas.wire.codecs import Codec
from schemas.wire.raw_records import OfUser, in_consents, in_interactions, in_json

CHUNK_BYTES: Final = 1 << 20
BY_PSEUDONYM: Final = (topics.RECEIPTS, topics.ANSWERS, topics.DEAD_LETTERS, topics.AUDIT)
"""Topics that may tell of an erased user until their retention ends."""


class InTopic(NamedTuple):
    """What a topic holds of somebody: `records` of them; by when (ms) retention has ended them, 0 for never or none."""

    records: int
    ends_by: int


def in_files(folder: Path, names: Sequence[str]) -> list[int]:
    """How often each of `names` stands in the files below `folder`, which is read as a stream."""
    patterns, counts = [name.encode() for name in names], [0] * len(names)
    try:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                found = occurrences(_chunks(path), patterns)
                counts = [before + more for before, more in zip(counts, found, strict=True)]
    except OSError as error:
        raise SettingsError(f"savepoint {folder} cannot be read: {error.strerror}") from None
    return counts


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def in_redis(settings: Settings, names: Sequence[str]) -> Counter[str]:
    """How many keys tell of a user: `redis.list`, `.consent`, `.gone`, `.past`, and `.elsewhere` for all others."""
    prefix = settings.redis.prefix
    kinds: dict[bytes, str] = {}
    for name in names:
        keys = (key.encode() for key in all_user_keys(prefix, name))
        kinds.update(zip(keys, ("list", "consent", "gone", "past"), strict=True))
    wanted, seen = [name.encode() for name in names], {}
    client = connect(settings.redis)
    try:
        for key, value in client.entries():
            if any(name in key or name in value for name in wanted):
                seen[key] = "redis." + kinds.get(key, "elsewhere")
    finally:
        client.close()
    return Counter(seen.values())


Concerns = dict[str, Callable[[Any], bool]]
"""Topic → whether a record of it is meant."""


def by_topic(codec: Codec, user_id: str, names: Sequence[str], returned_at: int | None) -> Concerns:
    """What of each topic concerns a user who was erased and, perhaps, returned; `codec` is the job's."""
    return {
        topics.EVENTS: is_left(names, returned_at),
        topics.INTERACTIONS: OfUser(user_id, in_interactions(codec)).concerns,
        topics.CONSENTS: OfUser(user_id, in_consents(codec)).concerns,
        topics.CONTROL: OfUser(user_id, in_json).concerns,
        **{topic: mentions_any(names) for topic in BY_PSEUDONYM},
    }


def in_topics(settings: Settings, *searches: Concerns) -> list[dict[str, InTopic]]:
    """What each of `searches`, which are of the same topics, finds in those that there are; each is read once.

    Open transactions are waited for.
    """
    admin = KafkaAdminClient(**python_kafka_options(settings.kafka))
    try:
        found: list[dict[str, InTopic]] = [{} for _ in searches]
        there = set(admin.list_topics())
        for name in searches[0]:
            if settings.kafka.topic(name) in there:
                config = topic_settings(admin, settings.kafka.topic(name))
                for into, times in zip(found, _times(settings, name, searches), strict=True):
                    into[name] = InTopic(len(times), _ends_by(config, times))
        return found
    finally:
        admin.close()


def _times(settings: Settings, name: str, searches: Sequence[Concerns]) -> list[list[int]]:
    """When what each search finds in a topic was appended."""
    times: list[list[int]] = [[] for _ in searches]
    for record in settled(settings.kafka, settled_ends(settings.kafka, name)):
        for one, concerns in zip(times, searches, strict=True):
            if concerns[name](record):
                one.append(record.timestamp)
    return times


def _ends_by(config: dict[str, str], times: Sequence[int]) -> int:
    """The broker deletes a whole segment when its newest record is too old, and a segment may grow for segment.ms.

    It looks once in a while, and leaves the file for a moment.
    """
    retention_ms = int(config.get("retention.ms", -1))
    if not times or retention_ms < 0 or "delete" not in config.get("cleanup.policy", ""):
        return 0
    late_ms = RETENTION_CHECK_MAX_MS + int(config.get("file.delete.delay.ms", 0))
    return max(times) + retention_ms + int(config.get("segment.ms", 0)) + late_ms


def is_left(names: Sequence[str], returned_at: int | None) -> Callable[[Any], bool]:
    """Whether a record of `events` tells of an erased user and is from before they returned."""
    returns, tells = dict.fromkeys(names, returned_at), mentions_any(names)

    def left(record: Any) -> bool:
        if not tells(record):
            return False
        whose = whose_of(record.value)
        # What is no clean event of theirs and tells of them all the same is left over, whatever it is.
        known = whose is not None and whose.pseudonym in returns
        return not known or must_be_erased(returns, whose.pseudonym, whose.appended or record.timestamp)  # type: ignore[union-attr]

    return left


def in_exports(settings: Settings, folders: Sequence[Path], user_id: str) -> int:
    """How many events of the exports in `folders` are of the user, under the name that exports give them."""
    count = 0
    for folder in folders:
        manifest = read_manifest(folder)
        name = hashes_of(settings, folder, manifest).user(user_id)
        count += sum(event.pseudonym == name for part in manifest.parts for event in part_events(folder, part))
    return count


def snapshot_times(folders: Sequence[Path]) -> list[int]:
    """When each checkpoint or savepoint below `folders`, which hold some, was completed, in ms."""
    found = completed_ms(folders)
    if folders and not found:
        raise SettingsError("no snapshot found in the folders of --snapshots: are they the right ones?")
    return found
