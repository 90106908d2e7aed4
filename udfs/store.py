"""The one place where the job writes to Redis: consents first, then lists, one pipeline for an element.

Redis down is retried here, inside the element, with backoff: no restart, no loss, backpressure is right (rule 9).
"""

import functools
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple, Protocol, TypeVar

import msgspec
import redis
from msgspec import Meta
from redis.backoff import NoBackoff
from redis.retry import Retry

from schemas.consents import Level
from schemas.errors import StoreUnavailable
from schemas.lists import RecommendationList, decode_list
from schemas.store import (
    RELINK,
    WRITE_CONSENT,
    WRITE_LIST,
    WRITE_POPULAR,
    ConsentOutcome,
    Decision,
    WriteOutcome,
    all_user_keys,
    past_key,
    popular_key,
    user_keys,
)
from udfs.elements import ConsentRecord
from udfs.popularity import ALL
from udfs.ranking import ListWrite

T = TypeVar("T")
logger = logging.getLogger(__name__)

BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 2.0


class RedisSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How Redis is reached. The password comes from the variable that `password_variable` names, never from here."""

    url: str
    prefix: str = ""
    username: str | None = None
    password_variable: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    timeout_ms: Annotated[int, Meta(ge=1)] = 1_000


class Tombstone(msgspec.Struct, frozen=True, gc=False):
    """Where in `consents` a user's last withdrawal or erasure stands; `append_ts` in ms."""

    append_ts: int = msgspec.field(name="at")
    partition: int
    offset: int
    erased: bool


class Written(NamedTuple):
    """What Redis answered, in the order of what was asked."""

    consents: list[ConsentOutcome]
    lists: list[WriteOutcome]
    popular: RecommendationList | None


class ListStore(Protocol):
    """The store as operators see it; all methods raise :class:`StoreUnavailable` when it does not answer."""

    def write(self, consents: Sequence[ConsentRecord], lists: Sequence[ListWrite], want_popular: bool) -> Written:
        """Put consents in force, then write lists; `popular:all` comes along where it is wanted."""
        ...

    def forget(self, pseudonyms: Sequence[str]) -> None:
        """Delete the lists of users of whom nothing is kept any more."""
        ...

    def tombstones(self, pseudonyms: Sequence[str]) -> dict[str, Tombstone]:
        """The tombstones of those of `pseudonyms` who have one, also where the user has come back since."""
        ...

    def relink(self, links: Mapping[str, str]) -> None:
        """Move all that stands under previous pseudonyms to current ones: `links` is current → previous.

        Where something was decided under the current one, that stays. Twice is as good as once.
        """
        ...

    def write_popular(self, segment: str, epoch: int, version: int, ttl_ms: int, payload: bytes) -> WriteOutcome:
        """Write the popular list of a segment."""
        ...


class RedisStore:
    """A :class:`ListStore` in Redis 6.2 or later, or Valkey. Withdrawals hold for `tombstone_ms`."""

    def __init__(self, client: "redis.Redis[bytes]", prefix: str, epoch: int, tombstone_ms: int) -> None:
        self._client = client
        self._tombstone_ms = tombstone_ms
        self._connection: Any = None
        self._prefix = prefix
        self._epoch = epoch
        self._scripts: dict[str, str] = {}

    def write(self, consents: Sequence[ConsentRecord], lists: Sequence[ListWrite], want_popular: bool) -> Written:
        """See :class:`ListStore`. One round trip."""
        commands = [self._consent_command(change) for change in consents]
        commands += [self._list_command(write) for write in lists]
        if want_popular:
            commands.append(("GET", popular_key(self._prefix, ALL)))
        answers = self._run(commands)
        lists_at, popular_at = len(consents), len(consents) + len(lists)
        raw_popular = answers[popular_at] if want_popular else None
        return Written(
            [ConsentOutcome(answer) for answer in answers[:lists_at]],
            [WriteOutcome(answer) for answer in answers[lists_at:popular_at]],
            _popular(raw_popular),
        )

    def forget(self, pseudonyms: Sequence[str]) -> None:
        """See :class:`ListStore`."""
        self._run([("DEL", user_keys(self._prefix, pseudonym)[0]) for pseudonym in pseudonyms])

    def tombstones(self, pseudonyms: Sequence[str]) -> dict[str, Tombstone]:
        """See :class:`ListStore`. One round trip."""
        commands = [
            ("MGET", user_keys(self._prefix, pseudonym)[2], past_key(self._prefix, pseudonym))
            for pseudonym in pseudonyms
        ]
        found = zip(pseudonyms, self._run(commands), strict=True)
        return {pseudonym: _decode_tombstone(gone or past) for pseudonym, (gone, past) in found if gone or past}

    def relink(self, links: Mapping[str, str]) -> None:
        """See :class:`ListStore`. Three round trips: the two pseudonyms of a user may lie in different slots."""
        before = [self._keys(previous) for previous in links.values()]
        raw = self._run([command for keys in before for key in keys for command in (("GET", key), ("PTTL", key))])
        size = 2 * 4  # a value and a life for each key
        moves = [
            ("EVALSHA", self._sha(RELINK), 4, *self._keys(current), *raw[size * place : size * (place + 1)])
            for place, current in enumerate(links)
        ]
        self._run([tuple(b"" if part is None else part for part in move) for move in moves])
        self._run([("DEL", *keys) for keys in before])

    def write_popular(self, segment: str, epoch: int, version: int, ttl_ms: int, payload: bytes) -> WriteOutcome:
        """See :class:`ListStore`."""
        key = popular_key(self._prefix, segment)
        [answer] = self._run([("EVALSHA", self._sha(WRITE_POPULAR), 1, key, epoch, version, ttl_ms, payload)])
        return WriteOutcome(answer)

    def _keys(self, pseudonym: str) -> tuple[str, str, str, str]:
        return all_user_keys(self._prefix, pseudonym)

    def _consent_command(self, change: ConsentRecord) -> tuple[Any, ...]:
        arguments = decision_of(change).arguments(self._tombstone_ms)
        return "EVALSHA", self._sha(WRITE_CONSENT), 4, *self._keys(change.pseudonym), *arguments

    def _list_command(self, write: ListWrite) -> tuple[Any, ...]:
        keys = user_keys(self._prefix, write.pseudonym)
        epoch, version, ttl_ms = self._epoch, write.version, write.ttl_ms
        return "EVALSHA", self._sha(WRITE_LIST), 3, *keys, epoch, version, ttl_ms, write.consent, write.payload

    def _sha(self, script: str) -> str:
        sha = self._scripts.get(script)
        if sha is None:
            sha = self._scripts[script] = str(self._once(lambda: self._client.script_load(script)))
        return sha

    def _run(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        if not commands:
            return []
        answers = self._once(lambda: self._pipelined(commands))
        if any(isinstance(answer, redis.exceptions.NoScriptError) for answer in answers):
            for script in self._scripts:
                self._once(functools.partial(self._client.script_load, script))
            answers = self._once(lambda: self._pipelined(commands))
        for answer in answers:
            if isinstance(answer, redis.exceptions.RedisError):
                raise StoreUnavailable(f"Redis refused a write: {type(answer).__name__}")
        return answers

    def _pipelined(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """All commands in one write and one read on a connection of our own, past redis-py's pool and pipeline.

        For a handful of commands their bookkeeping costs more than the commands. A closed connection opens by itself.
        """
        connection = self._connection
        if connection is None:
            connection = self._connection = self._client.connection_pool.get_connection()
        try:
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            return [_answer(connection) for _ in commands]
        except BaseException:
            connection.disconnect()
            raise

    def _once(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except redis.exceptions.RedisError as error:
            raise StoreUnavailable(f"Redis did not answer: {type(error).__name__}") from None


def decision_of(change: ConsentRecord) -> Decision:
    """`change` as Redis is told of it."""
    place = change.append_ts, change.partition, change.offset
    return Decision(Level(change.level), change.expires_at, *place, change.said_at, change.erase)


def value_of(change: ConsentRecord) -> bytes:
    """What stands in Redis of `change` when it is in force."""
    return decision_of(change).value()


_decode_tombstone: Final = msgspec.json.Decoder(Tombstone).decode


def _popular(raw: bytes | None) -> RecommendationList | None:
    """A popular list; one that cannot be read is none, for it is written anew within a second."""
    try:
        return None if raw is None else decode_list(raw)
    except msgspec.DecodeError:
        return None


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response(disable_decoding=True)
    except redis.exceptions.ResponseError as error:
        return error


def connect(settings: RedisSettings, password: str | None) -> "redis.Redis[bytes]":
    """A client that does not retry by itself: :func:`patiently` decides that."""
    timeout_s = settings.timeout_ms / 1000
    tls = {
        "ssl_ca_certs": settings.ca_file,
        "ssl_certfile": settings.cert_file,
        "ssl_keyfile": settings.key_file,
    }
    return redis.Redis.from_url(
        settings.url,
        username=settings.username,
        password=password,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        **({key: value for key, value in tls.items() if value} if settings.url.startswith("rediss:") else {}),
    )


def entries(client: "redis.Redis[bytes]", prefix: str) -> Iterator[tuple[bytes, bytes]]:
    """Every key under `prefix` with its value, empty where it is no text; needs `+scan +mget`. Some may come twice.

    Raises :class:`StoreUnavailable`.
    """
    pattern = re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + "*"
    try:
        cursor = None
        while cursor != 0:
            cursor, keys = client.scan(cursor or 0, match=pattern, count=1_000)
            values = client.mget(keys) if keys else []
            yield from ((key, value or b"") for key, value in zip(keys, values, strict=True))
    except redis.exceptions.RedisError as error:
        raise StoreUnavailable(f"Redis could not be searched: {type(error).__name__}") from None


def patiently(call: Callable[[], T], on_failure: Callable[[], None], sleep: Callable[[float], None] = time.sleep) -> T:
    """`call()`, again and again with doubling pauses until the store answers; `on_failure` is told of each failure."""
    pause_s = BACKOFF_FIRST_S
    while True:
        try:
            return call()
        except StoreUnavailable as error:
            logger.warning("%s; trying again in %.2f s", error, pause_s)
            on_failure()
            sleep(pause_s)
            pause_s = min(2 * pause_s, BACKOFF_MAX_S)
