"""Reads recommendation lists: one round trip for a user, and always an answer.

The user's own list → the segment's popular list → ``popular:all`` → the last popular list held in this process.
Consent is checked in Redis, in the same script that reads the list, so nothing of a user is ever held here.
:mod:`serving.async_reader` is the same for asyncio.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import redis

from adapters.redis.address import RedisAddress
from schemas.catalogue import CatalogueItem
from schemas.pseudonyms import KeyRing, Pseudonymiser
from schemas.store import READ_LIST, READ_LIST_SHA, popular_key, user_keys
from serving.answers import PopularLists, Recommendation, answer, decoded, filter_of, segments_of
from serving.redis_client import AWAY, LazyCluster, client_of

Keys = tuple[str, str, str]
PAUSE_AFTER_FAILURE_MS: Final = 250
"""Redis is left alone for so long after it did not answer, so that callers do not wait for it one after the other."""
logger = logging.getLogger(__name__)


class Reader:
    """Reads the lists under `prefix`. Never raises because of Redis; several threads may share one.

    `store` is the address, or a client of your own that returns bytes; give such a client a timeout. `catalogue` is
    what filters know of items, such as :class:`serving.catalogue.Catalogue`. `on_read` is told of whose own list was
    read, such as :meth:`serving.accesses.AccessLog.note`.
    """

    def __init__(
        self,
        store: "RedisAddress | str | redis.Redis[bytes] | redis.RedisCluster",
        key_ring: KeyRing,
        prefix: str = "",
        *,
        password: str | None = None,
        catalogue: Mapping[str, CatalogueItem] | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        on_read: Callable[[str], None] | None = None,
    ) -> None:
        self._client = client_of(store, password)
        self._pseudonyms = Pseudonymiser(key_ring).all
        self._prefix = prefix
        self._catalogue = {} if catalogue is None else catalogue
        self._clock_ms = clock_ms
        self._on_read = on_read
        self._popular = PopularLists()
        self._ask_again_at_ms = 0

    def recommend(
        self,
        user_id: str,
        n: int = 10,
        surface: str | None = None,
        *,
        segment: str | None = None,
        exclude: Collection[str] = (),
        in_stock: bool = False,
        category: str | None = None,
    ) -> Recommendation:
        """Up to `n` items for `user_id`.

        `surface`, and `segment` such as ``country:GB``, say which popular lists may stand in. Filters take items out
        of whatever list is answered; where they leave nothing of one, the next one is answered.
        """
        now_ms = self._clock_ms()
        segments = segments_of(surface, segment)
        found = decoded(self._own_list(user_id, segments, now_ms))
        if found is not None and self._on_read is not None:
            self._on_read(user_id)
        lists = [] if found is None else [found]
        lists += [one.found for one in self._popular.of(segments)]
        keep = filter_of(exclude, in_stock, category, self._catalogue)
        return answer(lists, n, now_ms, keep)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _own_list(self, user_id: str, segments: tuple[str, ...], now_ms: int) -> bytes | None:
        """The user's list, with the popular lists of `segments` coming along where those held are old."""
        if now_ms < self._ask_again_at_ms:
            return None
        keys = [user_keys(self._prefix, pseudonym) for pseudonym in self._pseudonyms(user_id)]
        wanted = self._popular.to_ask(segments, now_ms)
        try:
            raw, popular = self._ask(keys, wanted)
        except AWAY as error:
            if not self._ask_again_at_ms:
                logger.warning("Redis cannot be read (%s): popular lists held here stand in", type(error).__name__)
            self._ask_again_at_ms = now_ms + PAUSE_AFTER_FAILURE_MS
            return None
        if self._ask_again_at_ms:
            self._ask_again_at_ms = 0
            logger.warning("Redis can be read again")
        for segment, raw_popular in zip(wanted, popular, strict=True):
            self._popular.hold(segment, raw_popular, now_ms)
        return raw

    def _ask(self, keys: list[Keys], wanted: list[str]) -> tuple[bytes | None, list[bytes | None]]:
        """The user's list and the popular lists `wanted`, in one round trip.

        While a rotation is under way a user has two pseudonyms; the list under the current one goes first.
        """
        try:
            return self._read("EVALSHA", READ_LIST_SHA, keys, wanted)
        except redis.exceptions.NoScriptError:  # the first call after Redis was started
            return self._read("EVAL", READ_LIST, keys, wanted)

    def _read(
        self, command: str, script: str, keys: list[Keys], wanted: list[str]
    ) -> tuple[bytes | None, list[bytes | None]]:
        asked: list[tuple[Any, ...]] = [(command, script, 3, *of_a_pseudonym) for of_a_pseudonym in keys]
        asked += [("GET", popular_key(self._prefix, segment)) for segment in wanted]
        answers = self._answers(asked)
        own = [found[0] for found in answers[: len(keys)] if found is not None]
        return own[0] if own else None, answers[len(keys) :]

    def _answers(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """In one round trip, but for a Cluster, where popular lists are on other nodes."""
        if len(commands) == 1 or isinstance(self._client, redis.RedisCluster | LazyCluster):
            return [self._client.execute_command(*command) for command in commands]
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = pipeline.execute()
        return answers
