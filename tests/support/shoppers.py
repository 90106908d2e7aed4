"""Shoppers and readers who notice what happens to the job: they click, read, consent and withdraw all the time."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import count

from adapters.secrets.key_rings import load_key_ring
from schemas import topics
from schemas.consents import ConsentChange
from serving.reader import Reader
from tests.support.live import Live, consents_of, until

USERS = [f"user-{number}" for number in range(20)]


class Shoppers:
    """They begin and end with the block; what failed for one of them fails there. `slowest_s` is the longest wait for
    the list that follows from a click.
    """

    def __init__(self, live: Live, left: int = 0) -> None:
        """`left` is how many users earlier ones have let withdraw: these are others."""
        self._live, self._ended = live, threading.Event()
        self.sent = 0
        self.reads = 0
        self.slowest_s = 0.0
        self.left: list[str] = []
        self._first = left
        self.failed: list[str] = []
        loops = self._click, self._read, self._leave
        self._threads = [threading.Thread(target=self._guarded, args=(each,)) for each in loops]

    def __enter__(self) -> "Shoppers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        assert self.failed == []

    def _guarded(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:
            self.failed.append(repr(error))

    def _click(self) -> None:
        """One click after the other, each read back from its list: the longest wait is what a shopper sees."""
        live = self._live
        version = live.list_of("user-0").v if live.list_of("user-0") else 0
        for number in count():
            if self._ended.is_set():
                return
            item = f"item-{number % 400:05}"
            users = ["user-0", USERS[1 + number % 19], USERS[1 + (number * 7) % 19]]
            began_s = time.monotonic()
            live.send(topics.INTERACTIONS, [(user.encode(), live.event(user, item)) for user in users])
            self.sent += len(users)
            version = live.wait_for_version("user-0", version + 1).v
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
            time.sleep(0.01)

    def _read(self) -> None:
        endpoints = self._live.product.endpoints
        reader = Reader(endpoints["redis"], load_key_ring(endpoints["key_ring"]))
        try:
            until(lambda: self._ended.is_set() or reader.recommend("user-0").reason == "personalised", "a list")
            while not self._ended.is_set():
                found = reader.recommend("user-0")
                assert found.reason == "personalised" and found.items
                self.reads += 1
                time.sleep(0.005)
        finally:
            reader.close()

    def _leave(self) -> None:
        """One user after the other consents and withdraws; an acknowledged withdrawal is in force at once."""
        with consents_of(self._live) as consents:
            for number in count(self._first):
                if self._ended.is_set():
                    return
                user = f"leaver-{number}"
                consents.record(ConsentChange(user, "full", time.time_ns() // 1_000_000))
                time.sleep(0.1)
                consents.withdraw(user)
                assert b'"level":"none"' in self._live.redis.get(self._live.keys(user)[1])
                self.left.append(user)


def listed(live: Live) -> dict[str, tuple[int, list[str]]]:
    """Version and items of each user's list."""
    found = {user: live.list_of(user) for user in USERS}
    return {user: (one.v, [item.id for item in one.items]) for user, one in found.items() if one is not None}


def published(live: Live) -> Counter[str]:
    return Counter(json.loads(record.value)["event"] for record in live.records(topics.EVENTS))
