"""Searches for pseudonyms in the files of a savepoint, in Redis, topics and exports. Returns only counts."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from adapters.files.export_parts import part_events, read_manifest
from adapters.files.feature_parts import users_in
from adapters.kafka.opening import open_admin
from adapters.kafka.reading import mentions_any
from adapters.kafka.settled_topic import settled, settled_ends
from adapters.redis.client import connect
from adapters.redis.feature_rows import FeatureRows, keys_of
from jobs.savepoints import completed_ms
from jobs.settings import Settings
from jobs.topic_creation import topic_settings
from privacy.export import hashes_of
from privacy.rewrite_events import owner_of
from privacy.rules.erasure import must_be_erased, occurrences
from schemas import topics
from schemas.errors import SettingsError
from schemas.exports import FEATURES
from schemas.store import all_user_keys
from schemas.topics import RETENTION_CHECK_MAX_MS
from schemas.wire.codecs import Codec
from schemas.wire.raw_records import RecordMatcher, in_consents, in_interactions, in_json
from udfs.features import ENTITY

CHUNK_BYTES: Final = 1 << 20
BY_PSEUDONYM: Final = (topics.RECEIPTS, topics.ANSWERS, topics.DEAD_LETTERS, topics.AUDIT)
"""Topics that may mention an erased user until their retention ends."""


class InTopic(NamedTuple):
    """What a topic holds of a user: `records`, and when (ms) retention will have deleted them; 0 for never or none."""

    records: int
    ends_by: int


def in_files(folder: Path, names: Sequence[str]) -> list[int]:
    """How often each of `names` occurs in the files below `folder`, which is read as a stream."""
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
    """How many keys mention a user: `redis.list`, `.consent`, `.gone`, `.past`, and `.elsewhere` for all others.

    Features count as `.features`: in a Redis of their own, or beside lists whose keys have no prefix.
    """
    prefix = settings.redis.prefix
    kinds: dict[bytes, str] = {}
    for name in names:
        keys = (key.encode() for key in all_user_keys(prefix, name))
        kinds.update(zip(keys, ("list", "consent", "gone", "past"), strict=True))
        kinds.update(dict.fromkeys(keys_of(settings.features.project, ENTITY, name), "features"))
    wanted, seen = [name.encode() for name in names], {}
    client = connect(settings.redis)
    try:
        for key, value in client.entries():
            if any(name in key or name in value for name in wanted):
                seen[key] = "redis." + kinds.get(key, "elsewhere")
    finally:
        client.close()
    found = Counter(seen.values())
    if settings.features.url is not None:
        # The URL may be that of the job's Redis, whose keys have been counted.
        found["redis.features"] = max(found["redis.features"], _in_features(settings, names))
    return +found


def _in_features(settings: Settings, names: Sequence[str]) -> int:
    """How many keys a user has in a Redis of Feast."""
    client = connect(settings.features.address(settings.redis))
    try:
        seen = FeatureRows(client, settings.features.project, ENTITY).seen(names)
        return sum(bool(part) for one in seen.values() for part in one)
    finally:
        client.close()


Concerns = dict[str, Callable[[Any], bool]]
"""Topic → predicate: does a record concern the user?"""


def by_topic(codec: Codec, user_id: str, names: Sequence[str], returned_at: int | None) -> Concerns:
    """Predicates for a user who was erased and has perhaps returned; `codec` is the job's."""
    return {
        topics.EVENTS: is_leftover(names, returned_at),
        topics.INTERACTIONS: RecordMatcher(user_id, in_interactions(codec)).concerns,
        topics.CONSENTS: RecordMatcher(user_id, in_consents(codec)).concerns,
        topics.CONTROL: RecordMatcher(user_id, in_json).concerns,
        **{topic: mentions_any(names) for topic in BY_PSEUDONYM},
    }


def in_topics(settings: Settings, *searches: Concerns) -> list[dict[str, InTopic]]:
    """What each of `searches`, which cover the same topics, finds in the existing ones; reads each topic once.

    Waits for open transactions.
    """
    admin = open_admin(settings.kafka)
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
    """The append times of what each search finds in a topic."""
    times: list[list[int]] = [[] for _ in searches]
    for record in settled(settings.kafka, settled_ends(settings.kafka, name)):
        for one, concerns in zip(times, searches, strict=True):
            if concerns[name](record):
                one.append(record.timestamp)
    return times


def _ends_by(config: dict[str, str], times: Sequence[int]) -> int:
    """When retention will have deleted the records; 0 for never.

    The broker deletes a whole segment once its newest record is too old, and a segment may grow for segment.ms. It
    checks periodically, and deletes the file a moment later.
    """
    retention_ms = int(config.get("retention.ms", -1))
    if not times or retention_ms < 0 or "delete" not in config.get("cleanup.policy", ""):
        return 0
    late_ms = RETENTION_CHECK_MAX_MS + int(config.get("file.delete.delay.ms", 0))
    return max(times) + retention_ms + int(config.get("segment.ms", 0)) + late_ms


def is_leftover(names: Sequence[str], returned_at: int | None) -> Callable[[Any], bool]:
    """Predicate: does a record of `events` belong to an erased user, from before they returned?"""
    returns, tells = dict.fromkeys(names, returned_at), mentions_any(names)

    def left(record: Any) -> bool:
        if not tells(record):
            return False
        owner = owner_of(record.value)
        # Anything that mentions them but is not a clean event of theirs is also a leftover.
        known = owner is not None and owner.pseudonym in returns
        return not known or must_be_erased(returns, owner.pseudonym, owner.appended or record.timestamp)  # type: ignore[union-attr]

    return left


def in_exports(settings: Settings, folders: Sequence[Path], user_id: str) -> int:
    """How many events and rows of features in the exports in `folders` are of the user, by their export pseudonym."""
    count = 0
    for folder in folders:
        manifest = read_manifest(folder)
        name = hashes_of(settings, folder, manifest).user(user_id)
        count += sum(event.pseudonym == name for part in manifest.parts for event in part_events(folder, part))
        places = (folder / FEATURES / part.name for part in manifest.features)
        count += sum(user == name for place in places for user in users_in(place))
    return count


def snapshot_times(folders: Sequence[Path]) -> list[int]:
    """When each checkpoint or savepoint below `folders` completed, in ms. There must be at least one."""
    found = completed_ms(folders)
    if folders and not found:
        raise SettingsError("no snapshot found in the folders of --snapshots: are they the right ones?")
    return found
