"""Reads recommendation lists: one round trip for a user, and always an answer.

The user's own list → the segment's popular list → ``popular:all`` → the last popular list held in this process.
Consent is checked in Redis, in the same script that reads the list, so nothing of a user is ever held here.
"""

import hashlib
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from schemas.lists import ListedItem, Reason, RecommendationList, decode_list
from schemas.pseudonyms import KeyRing, Pseudonymiser
from schemas.store import READ_LIST, popular_key, user_keys

Keys = tuple[str, str, str]
ALL: Final = "all"
TIMEOUT_S: Final = 0.25
POPULAR_FRESH_MS: Final = 1_000
"""A popular list that is held longer than this is asked for again, together with the next user's list."""

PAUSE_AFTER_FAILURE_MS: Final = 250
"""Redis is left alone for so long after it did not answer, so that callers do not wait for it one after the other."""

SEGMENTS_HELD_MAX: Final = 1_000
_SHA: Final = hashlib.sha1(READ_LIST.encode(), usedforsecurity=False).hexdigest()


class Recommendation(msgspec.Struct, frozen=True, gc=False):
    """An answer: at most as many items as were asked for, best first.

    `reason` says which kind of list it is. `version` is the list's, `age_ms` how long ago it was made; both are 0
    where there is no list at all.
    """

    items: tuple[ListedItem, ...]
    reason: Reason
    version: int
    age_ms: int


class _Held(msgspec.Struct, frozen=True, gc=False):
    popular: RecommendationList | None
    asked_at_ms: int


class Reader:
    """Reads the lists under `prefix`. Never raises because of Redis; several threads may share one.

    `store` is the address, or a client of your own that returns bytes; give such a client a timeout. `on_read` is told
    of whose own list was read, such as :meth:`serving.accesses.AccessLog.note`.
    """

    def __init__(
        self,
        store: "str | redis.Redis[bytes]",
        key_ring: KeyRing,
        prefix: str = "",
        *,
        timeout_s: float = TIMEOUT_S,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        on_read: Callable[[str], None] | None = None,
    ) -> None:
        self._client = _client(store, timeout_s) if isinstance(store, str) else store
        self._pseudonyms = Pseudonymiser(key_ring).all
        self._prefix = prefix
        self._clock_ms = clock_ms
        self._on_read = on_read
        self._held: dict[str, _Held] = {}
        self._ask_again_at_ms = 0

    def recommend(self, user_id: str, n: int = 10, segment: str | None = None) -> Recommendation:
        """Up to `n` items for `user_id`; `segment`, such as ``country:GB``, says which popular list may stand in."""
        now_ms = self._clock_ms()
        segments = (ALL,) if segment is None else (segment, ALL)
        found = self._own_list(user_id, segments, now_ms)
        if found is not None and self._on_read is not None:
            self._on_read(user_id)
        found = found or self._popular(segments)
        if found is None:
            return Recommendation((), "popular", 0, 0)
        return Recommendation(found.items[:n], found.reason, found.v, max(0, now_ms - found.at))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _own_list(self, user_id: str, segments: tuple[str, ...], now_ms: int) -> RecommendationList | None:
        """The user's list, with the popular lists of `segments` coming along where those held are old."""
        if now_ms < self._ask_again_at_ms:
            return None
        keys = [user_keys(self._prefix, pseudonym) for pseudonym in self._pseudonyms(user_id)]
        wanted = [segment for segment in segments if self._is_old(segment, now_ms)]
        try:
            raw, popular = self._ask(keys, wanted)
        except redis.RedisError:
            self._ask_again_at_ms = now_ms + PAUSE_AFTER_FAILURE_MS
            return None
        for segment, raw_popular in zip(wanted, popular, strict=True):
            self._hold(segment, _decoded(raw_popular), now_ms)
        return _decoded(raw)

    def _ask(self, keys: list[Keys], wanted: list[str]) -> tuple[bytes | None, list[bytes | None]]:
        """The user's list and the popular lists `wanted`, in one round trip.

        While a rotation is under way a user has two pseudonyms; the list under the current one goes first.
        """
        try:
            return self._read("EVALSHA", _SHA, keys, wanted)
        except redis.exceptions.NoScriptError:  # the first call after Redis was started
            return self._read("EVAL", READ_LIST, keys, wanted)

    def _read(
        self, command: str, script: str, keys: list[Keys], wanted: list[str]
    ) -> tuple[bytes | None, list[bytes | None]]:
        if not wanted and len(keys) == 1:
            answer: Any = self._client.execute_command(command, script, 3, *keys[0])
            return answer, []
        pipeline = self._client.pipeline(transaction=False)
        for of_a_pseudonym in keys:
            pipeline.execute_command(command, script, 3, *of_a_pseudonym)
        for segment in wanted:
            pipeline.get(popular_key(self._prefix, segment))
        answers: list[bytes | None] = pipeline.execute()
        own = [raw for raw in answers[: len(keys)] if raw is not None]
        return own[0] if own else None, answers[len(keys) :]

    def _is_old(self, segment: str, now_ms: int) -> bool:
        held = self._held.get(segment)
        return held is None or now_ms - held.asked_at_ms >= POPULAR_FRESH_MS

    def _hold(self, segment: str, popular: RecommendationList | None, now_ms: int) -> None:
        """Hold what was read; where Redis has lost its popular lists, the last that was read stays."""
        known = self._held.pop(segment, None)
        if popular is None and known is not None:
            popular = known.popular
        while len(self._held) >= SEGMENTS_HELD_MAX:
            self._held.pop(next(segment for segment in self._held if segment != ALL), None)
        self._held[segment] = _Held(popular, now_ms)

    def _popular(self, segments: tuple[str, ...]) -> RecommendationList | None:
        for segment in segments:
            held = self._held.get(segment)
            if held is not None and held.popular is not None:
                return held.popular
        return None


def _decoded(raw: bytes | None) -> RecommendationList | None:
    """A list that cannot be read is as good as none."""
    try:
        return None if raw is None else decode_list(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _client(url: str, timeout_s: float) -> "redis.Redis[bytes]":
    """One retry, for a pooled connection that Redis closed in the meantime; none after a timeout."""
    retry = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    return redis.Redis.from_url(
        url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=retry, retry_on_error=[]
    )
