"""All data held about one person, as one document: rights of access and portability (GDPR, articles 15 and 20).

The running job provides its state; Redis and the topics are read directly. The access itself is recorded in the audit
trail. Exports are separate files with other names for users: they are not searched.
"""

import contextlib
import math
import uuid
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import msgspec

from adapters.kafka.job_session import ANSWER_TIMEOUT_S, state_of
from adapters.kafka.partitions import likely_partitions
from adapters.kafka.reading import OnPoll, TopicAsOfNow, do_nothing, mentions_any
from adapters.kafka.settings import KafkaSettings
from adapters.redis.client import RedisClient, always
from schemas import topics
from schemas.control import AccessCommand
from schemas.errors import TooMuchHeld
from schemas.store import all_user_keys, past_key, user_keys
from schemas.wire.codecs import Codec
from schemas.wire.raw_records import RecordMatcher, in_consents, in_interactions

Choose = Callable[[int], Collection[int]]
"""Selects the partitions to read, given their number."""
CLOCKS_DIFFER_MS: Final = topics.MINUTE_MS
WITHHELD: Final = {"withheld": "the value of this record does not tell of this user alone"}
NO_PARTITION: Final = -1
"""In state: no consent of the user was read."""


class Collector:
    """Collects the data held about one person. `on_poll` is called while topics are read; it may raise to stop.

    With `everywhere`, every partition of the raw topics is read; otherwise only those where the usual producers put the
    user's records, or all if the state names a partition elsewhere. The user's records are found by the rule that
    proves an erasure (:mod:`schemas.wire.raw_records`); `codec` is the job's. Collecting more than `bytes_max` fails.
    Raises :class:`schemas.errors.FreshetError`.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        store: RedisClient,
        codec: Codec,
        *,
        everywhere: bool,
        bytes_max: int | None = None,
        on_poll: OnPoll = do_nothing,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        self._kafka, self._store, self._codec = kafka, store, codec
        self._on_turn, self._timeout_s = on_poll, timeout_s
        self._everywhere, self._bytes_left = everywhere, math.inf if bytes_max is None else bytes_max
        self._partitions: dict[str, dict[str, Any]] = {}

    def collect(self, names: Sequence[str], command: AccessCommand) -> dict[str, Any]:
        """Everything held about the user known under `names`; missing parts are null or empty.

        `command` names the user, the role and the purpose. `partitions` lists the partitions read of each topic, and
        how many there are. For a raw record that concerns the user but also others, only its place is included.
        """
        user_id = command.user_id
        # Read this first: the request to the job adds this access to the trail, at an unknown later time.
        audit_trail = self._records_of(topics.AUDIT, mentions_any(names))
        state = msgspec.json.decode(state_of(self._kafka, command, self._timeout_s, self._on_turn).state)
        choose = everything if self._everywhere else partitions_of_user(user_id.encode(), state)
        return {
            "user_id": user_id,
            "pseudonyms": list(names),
            "profile_and_consent": state,
            "redis": self._in_redis(names),
            "consent_history": self._raw(topics.CONSENTS, RecordMatcher(user_id, in_consents(self._codec)), choose),
            "raw_interactions": self._raw(
                topics.INTERACTIONS, RecordMatcher(user_id, in_interactions(self._codec)), choose
            ),
            # The job writes these two without keys, so they may be in any partition.
            "clean_events": self._records_of(topics.EVENTS, mentions_any(names)),
            "audit_trail": audit_trail,
            "partitions": self._partitions,
        }

    def _raw(self, topic: str, of_user: RecordMatcher, choose: Choose) -> list[dict[str, Any]]:
        return self._records_of(topic, of_user.concerns, choose, of_user.may_see)

    def _records_of(
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
        """The user's keys in Redis, lists as JSON."""
        keys = [key for name in names for key in all_user_keys(self._store.prefix, name)]
        values = self._store.run(always([(key, ("GET", key)) for key in keys]))
        return {key: _readable(value) for key, value in zip(keys, values, strict=True) if value is not None}


def everything(count: int) -> Collection[int]:
    """All of `count` partitions."""
    return range(count)


def partitions_of_user(raw: bytes, state: Any) -> Choose:
    """The partitions that can hold records of the user with the id `raw`; `state` (or None) names the last consent's.

    >>> sorted(partitions_of_user(b"ada", None)(12)), len(partitions_of_user(b"ada", {"consent_partition": 3})(12))
    ([0, 5, 7], 12)
    """
    consented_in = NO_PARTITION if state is None else state["consent_partition"]

    def choose(count: int) -> Collection[int]:
        likely = likely_partitions(raw, count)
        is_elsewhere = consented_in != NO_PARTITION and consented_in not in likely
        return everything(count) if is_elsewhere else likely

    return choose


def is_erased_since(store: RedisClient, names: Sequence[str], at_ms: int) -> bool:
    """Whether Redis knows that a user was erased after `at_ms`, or shortly before it, because clocks may differ."""
    keys = [key for name in names for key in (user_keys(store.prefix, name)[2], past_key(store.prefix, name))]
    values = store.run(always([(key, ("GET", key)) for key in keys]))
    tombstones = [msgspec.json.decode(value) for value in values if value is not None]
    return any(one["erased"] and one["withdrawn"] + CLOCKS_DIFFER_MS > at_ms for one in tombstones)


def access_command(user_id: str, role: str, purpose: str) -> AccessCommand:
    """A command that requests all data about a user, in `role`, for `purpose`."""
    return AccessCommand(user_id, uuid.uuid4().hex, role, purpose)


def _readable(value: bytes | None) -> Any:
    """Decode JSON; show records of other formats as hexadecimal digits."""
    try:
        return None if value is None else msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"hex": (value or b"").hex()}
