"""All data held about one person, as one document: rights of access and portability (GDPR, articles 15 and 20).

The job answers with its state while it runs; Redis and the topics are read as they stand. The reading itself goes into
the audit trail. Exports are files of their own, under names of their own: they are not looked into.
"""

import contextlib
import math
import uuid
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import msgspec

from adapters.kafka.asking import ANSWER_TIMEOUT_S, state_of
from adapters.kafka.partitions import likely_partitions
from adapters.kafka.reading import OnTurn, TopicAsOfNow, names_any, nothing
from adapters.kafka.settings import KafkaSettings
from adapters.redis.client import RedisClient, always
from schemas import topics
from schemas.control import AccessCommand
from schemas.errors import TooMuchHeld
from schemas.store import all_user_keys, past_key, user_keys
from schemas.wire.codecs import Codec
from schemas.wire.raw_records import OfUser, in_consents, in_interactions

Choose = Callable[[int], Collection[int]]
"""The partitions to read, of so many."""
CLOCKS_DIFFER_MS: Final = topics.MINUTE_MS
WITHHELD: Final = {"withheld": "the value of this record does not tell of this user alone"}
NOBODYS_PARTITION: Final = -1
"""In state: no consent of the user was read."""


class Collector:
    """Collects what is held of one person. `on_turn` is called while topics are read, and ends it by raising.

    With `everywhere`, every partition of the raw topics is read; without, those in which the usual producers put the
    records of a user, and all where state tells of a record elsewhere. In those, the records of the user are found by
    the rule that proves an erasure (:mod:`schemas.wire.raw_records`); `codec` is the job's. More than `bytes_max` is
    not collected. Raises :class:`schemas.errors.FreshetError`.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        store: RedisClient,
        codec: Codec,
        *,
        everywhere: bool,
        bytes_max: int | None = None,
        on_turn: OnTurn = nothing,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        self._kafka, self._store, self._codec = kafka, store, codec
        self._on_turn, self._timeout_s = on_turn, timeout_s
        self._everywhere, self._bytes_left = everywhere, math.inf if bytes_max is None else bytes_max
        self._partitions: dict[str, dict[str, Any]] = {}

    def collect(self, names: Sequence[str], command: AccessCommand) -> dict[str, Any]:
        """Everything that is held of a user who is known under `names`; what is not there is null or empty.

        `command` says of whom, who asks and what for. `partitions` has the numbers of those that were read of each
        topic, and how many there are. Of a raw record that concerns the user, and whose value is not theirs alone, only
        the place is told.
        """
        user_id = command.user_id
        # Read before the job is asked, which tells the trail of this very reading: soon, at a time that is not known.
        audit_trail = self._told(topics.AUDIT, names_any(names))
        state = msgspec.json.decode(state_of(self._kafka, command, self._timeout_s, self._on_turn).state)
        choose = everything if self._everywhere else partitions_of_user(user_id.encode(), state)
        return {
            "user_id": user_id,
            "pseudonyms": list(names),
            "profile_and_consent": state,
            "redis": self._in_redis(names),
            "consent_history": self._raw(topics.CONSENTS, OfUser(user_id, in_consents(self._codec)), choose),
            "raw_interactions": self._raw(topics.INTERACTIONS, OfUser(user_id, in_interactions(self._codec)), choose),
            # The job writes these two without keys: they may be in any partition.
            "clean_events": self._told(topics.EVENTS, names_any(names)),
            "audit_trail": audit_trail,
            "partitions": self._partitions,
        }

    def _raw(self, topic: str, of_user: OfUser, choose: Choose) -> list[dict[str, Any]]:
        return self._told(topic, of_user.concerns, choose, of_user.may_see)

    def _told(
        self,
        topic: str,
        concerns: Callable[[Any], bool],
        choose: Choose | None = None,
        may_see: Callable[[Any], bool] = lambda record: True,
    ) -> list[dict[str, Any]]:
        found = []
        with contextlib.closing(TopicAsOfNow(self._kafka, topic, self._on_turn, choose)) as reading:
            self._partitions[topic] = {"read": reading.read, "of": reading.count}
            for record in reading:
                if concerns(record):
                    shown = _readable(record.value) if may_see(record) else WITHHELD
                    self._take(len(record.value or b""))
                    place = {"partition": record.partition, "offset": record.offset, "appended_at": record.timestamp}
                    found.append({**place, "record": shown})
        return found

    def _take(self, size: int) -> None:
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise TooMuchHeld

    def _in_redis(self, names: Sequence[str]) -> dict[str, Any]:
        """The user's keys as they stand, lists as JSON."""
        keys = [key for name in names for key in all_user_keys(self._store.prefix, name)]
        values = self._store.run(always([(key, ("GET", key)) for key in keys]))
        return {key: _readable(value) for key, value in zip(keys, values, strict=True) if value is not None}


def everything(count: int) -> Collection[int]:
    """All of `count` partitions."""
    return range(count)


def partitions_of_user(raw: bytes, state: Any) -> Choose:
    """Those that can hold records of the user whose id is `raw`; `state` (or None) says where the last consent stands.

    >>> sorted(partitions_of_user(b"ada", None)(12)), len(partitions_of_user(b"ada", {"consent_partition": 3})(12))
    ([0, 5, 7], 12)
    """
    consented_in = NOBODYS_PARTITION if state is None else state["consent_partition"]

    def choose(count: int) -> Collection[int]:
        likely = likely_partitions(raw, count)
        is_elsewhere = consented_in != NOBODYS_PARTITION and consented_in not in likely
        return everything(count) if is_elsewhere else likely

    return choose


def is_erased_since(store: RedisClient, names: Sequence[str], at_ms: int) -> bool:
    """Whether Redis knows that a user was erased after `at_ms`, or so shortly before that clocks may differ on it."""
    keys = [key for name in names for key in (user_keys(store.prefix, name)[2], past_key(store.prefix, name))]
    values = store.run(always([(key, ("GET", key)) for key in keys]))
    tombstones = [msgspec.json.decode(value) for value in values if value is not None]
    return any(one["erased"] and one["withdrawn"] + CLOCKS_DIFFER_MS > at_ms for one in tombstones)


def access_command(user_id: str, role: str, purpose: str) -> AccessCommand:
    """Somebody in `role` asks for all data about a user, for `purpose`."""
    return AccessCommand(user_id, uuid.uuid4().hex, role, purpose)


def _readable(value: bytes | None) -> Any:
    """JSON where it is JSON; records of other formats as the hexadecimal digits of their bytes."""
    try:
        return None if value is None else msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"hex": (value or b"").hex()}
