"""Admission under overload: urgency (RFC 9218), shedding, and rate limits per key.

Reads are shed by answering with a popular list after a pause, so that those who ask again as soon as they are answered
leave room for the others. As long as somebody waits, requests of the low class wait, too.
"""

import asyncio
import contextlib
import random
from collections.abc import Hashable, Iterator, Mapping
from concurrent.futures import Future
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from serving.gateway.problems import Headers, too_many
from serving.gateway.roles import Admitted
from serving.gateway.security import Principal

Class = Literal["high", "normal", "low"]
URGENCY_DEFAULT: Final = 3
KEYS_HELD_MAX: Final = 10_000
LEFT: Final = b'"key";r=%d'
"""What the RateLimit header says: `left` requests of one key."""
AtLeastOne = Annotated[int, Meta(ge=1)]


class AdmissionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many requests one worker serves at a time, and what happens to the others."""

    low_max: AtLeastOne = 32
    """Shed reads of low priority (urgency 5 to 7) while this many reads are in progress: they get a popular list."""
    normal_max: AtLeastOne = 64
    """The same for normal priority (urgency 3 and 4)."""
    high_max: AtLeastOne = 512
    """The same for high priority (urgency 0 to 2)."""
    shed_wait_ms: AtLeastOne = 250
    """How long a shed request waits for its popular list (on average), so that clients do not retry at once."""
    shed_waiting_max: AtLeastOne = 5_000
    """Shed requests that may wait. Further ones are answered immediately."""
    writes_max: AtLeastOne = 32
    """Consent changes in progress, and, separately, other writes. Further ones get 429."""
    access_max: AtLeastOne = 4
    """Requests about a person's data in progress."""
    per_key_rate: AtLeastOne = 50_000
    """Requests per second of one client to one worker."""
    per_key_burst: AtLeastOne = 50_000
    """Requests that one client may make at once."""


def urgency_of(priority: bytes | None) -> int:
    """The urgency in a `Priority` header (RFC 9218): 0 to 7, smaller is more urgent; the default where it has none.

    >>> urgency_of(b"u=1, i"), urgency_of(b"i"), urgency_of(b"u=9"), urgency_of(None)
    (1, 3, 3, 3)
    """
    if priority is None:
        return URGENCY_DEFAULT
    for part in priority.split(b","):
        name, _, value = part.strip().partition(b"=")
        if name == b"u" and len(value) == 1 and b"0" <= value <= b"7":
            return value[0] - 48
    return URGENCY_DEFAULT


def class_of(principal: Principal, urgency: int) -> Class:
    """The class of a request: what it asks for, no better than its role may ask for."""
    urgency = max(urgency, principal.urgency_best)
    return "high" if urgency <= 2 else "normal" if urgency <= 4 else "low"


class Admission:
    """Counts what is under way in one worker."""

    def __init__(self, settings: AdmissionSettings) -> None:
        self._settings = settings
        self._max: Mapping[Class, int] = {
            "high": settings.high_max,
            "normal": settings.normal_max,
            "low": settings.low_max,
        }
        self.under_way = 0
        self.writes_max: Mapping[Admitted, int] = {
            "write": settings.writes_max,
            "consent": settings.writes_max,
            "access": settings.access_max,
        }
        self.writes_under_way: dict[Admitted, int] = dict.fromkeys(self.writes_max, 0)
        self.waiting = 0

    def takes(self, of: Class) -> bool:
        """Whether a read of this class is to be answered as it should be."""
        return self.under_way < self._max[of] and not (self.waiting and of == "low")

    @contextlib.contextmanager
    def room_for(self, kind: Admitted) -> Iterator[None]:
        """Hold room for a write, or a request of an administrator; reads have rules of their own.

        No withdrawal waits behind events. Raises :class:`Problem` (429) where there is none.
        """
        if kind not in self.writes_under_way:
            yield
            return
        if self.writes_under_way[kind] >= self.writes_max[kind]:
            raise too_many(1, "the gateway is overloaded: try again")
        self.writes_under_way[kind] += 1
        try:
            yield
        finally:
            self.writes_under_way[kind] -= 1

    def hold_until_done(self, kind: Admitted, work: "Future[Any]") -> None:
        """Hold room for `work` that goes on in a thread after its request was given up, however it ends."""
        loop = asyncio.get_running_loop()
        self.writes_under_way[kind] += 1

        def release() -> None:
            self.writes_under_way[kind] -= 1

        def done(work: "Future[Any]") -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the gateway
                loop.call_soon_threadsafe(release)

        work.add_done_callback(done)

    async def pause(self, deadline_s: float | None = None) -> None:
        """Wait as who is shed has to, but no longer than a caller's deadline.

        Beyond `shed_waiting_max` nobody waits: their number is bounded.
        """
        if self.waiting >= self._settings.shed_waiting_max:
            return
        self.waiting += 1
        try:
            # Who was shed together must not come back together.
            wait_s = self._settings.shed_wait_ms / 1000 * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
            await asyncio.sleep(wait_s if deadline_s is None else min(wait_s, deadline_s))
        finally:
            self.waiting -= 1


class Limits:
    """A token bucket for each key; of more than :data:`KEYS_HELD_MAX`, the one met first is forgotten."""

    def __init__(self, settings: AdmissionSettings) -> None:
        self._rate, self._burst = float(settings.per_key_rate), float(settings.per_key_burst)
        self._left: dict[Hashable, list[float]] = {}
        window_s = max(1, round(self._burst / self._rate))
        self.policy = (b"ratelimit-policy", b'"key";q=%d;w=%d' % (settings.per_key_burst, window_s))

    def headers(self, left: int) -> Headers:
        """What tells a caller of the limit, and how many requests are left of it."""
        return [self.policy, (b"ratelimit", LEFT % left)]

    def take(self, key: Hashable, now_s: float) -> int:
        """How many requests `key` has left after this one, -1 where there is none for this one.

        `now_s` is of a monotonic clock: the wall clock may be set back.
        """
        bucket = self._left.get(key)
        if bucket is None:
            if len(self._left) >= KEYS_HELD_MAX:
                del self._left[next(iter(self._left))]
            bucket = self._left[key] = [self._burst, now_s]
        left, then_s = bucket
        left = min(self._burst, left + max(0.0, now_s - then_s) * self._rate)
        if left < 1.0:
            return -1
        bucket[:] = left - 1.0, now_s
        return int(left - 1.0)

    def again_in_s(self, key: Hashable, now_s: float) -> int:
        """In how many whole seconds `key` has at least one again."""
        left, then_s = self._left.get(key, (self._burst, now_s))
        return max(1, round((1.0 - left) / self._rate - (now_s - then_s)))
