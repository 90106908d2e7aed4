"""Admission under overload: urgency (RFC 9218), shedding, and rate limits per key.

A shed read is answered with a popular list after a pause, so that clients that retry at once leave room for others.
While any shed request waits, requests of the low class wait as well.
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
KEYS_TRACKED_MAX: Final = 10_000
REMAINING: Final = b'"key";r=%d'
"""The RateLimit header: `left` requests remaining for one key."""
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
    """The urgency in a `Priority` header (RFC 9218): 0 to 7, smaller is more urgent; the default if it has none.

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
    """The class of a request: the requested urgency, limited by the role."""
    urgency = max(urgency, principal.urgency_best)
    return "high" if urgency <= 2 else "normal" if urgency <= 4 else "low"


class Admission:
    """Counts requests in progress in one worker."""

    def __init__(self, settings: AdmissionSettings) -> None:
        self._settings = settings
        self._max: Mapping[Class, int] = {
            "high": settings.high_max,
            "normal": settings.normal_max,
            "low": settings.low_max,
        }
        self.in_progress = 0
        self.writes_max: Mapping[Admitted, int] = {
            "write": settings.writes_max,
            "consent": settings.writes_max,
            "access": settings.access_max,
        }
        self.writes_in_progress: dict[Admitted, int] = dict.fromkeys(self.writes_max, 0)
        self.waiting = 0

    def admits(self, of: Class) -> bool:
        """Whether to serve a read of this class normally."""
        return self.in_progress < self._max[of] and not (self.waiting and of == "low")

    @contextlib.contextmanager
    def reserve(self, kind: Admitted) -> Iterator[None]:
        """Reserve capacity for a write, or for an administrator's request; reads have their own rules.

        No withdrawal waits behind events. Raises :class:`Problem` (429) if there is no capacity.
        """
        if kind not in self.writes_in_progress:
            yield
            return
        if self.writes_in_progress[kind] >= self.writes_max[kind]:
            raise too_many(1, "the gateway is overloaded: try again")
        self.writes_in_progress[kind] += 1
        try:
            yield
        finally:
            self.writes_in_progress[kind] -= 1

    def reserve_until_done(self, kind: Admitted, work: "Future[Any]") -> None:
        """Reserve capacity for `work` that continues in a thread after its request was given up, however it ends."""
        loop = asyncio.get_running_loop()
        self.writes_in_progress[kind] += 1

        def release() -> None:
            self.writes_in_progress[kind] -= 1

        def done(work: "Future[Any]") -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: the gateway is shutting down
                loop.call_soon_threadsafe(release)

        work.add_done_callback(done)

    async def pause(self, deadline_s: float | None = None) -> None:
        """Delay a shed request, but no longer than the caller's deadline.

        At most `shed_waiting_max` requests wait; further ones are not delayed.
        """
        if self.waiting >= self._settings.shed_waiting_max:
            return
        self.waiting += 1
        try:
            # Clients shed at the same time must not retry at the same time.
            wait_s = self._settings.shed_wait_ms / 1000 * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
            await asyncio.sleep(wait_s if deadline_s is None else min(wait_s, deadline_s))
        finally:
            self.waiting -= 1


class Limits:
    """A token bucket per key; with more than :data:`KEYS_TRACKED_MAX` keys, the oldest is dropped."""

    def __init__(self, settings: AdmissionSettings) -> None:
        self._rate, self._burst = float(settings.per_key_rate), float(settings.per_key_burst)
        self._left: dict[Hashable, list[float]] = {}
        window_s = max(1, round(self._burst / self._rate))
        self.policy = (b"ratelimit-policy", b'"key";q=%d;w=%d' % (settings.per_key_burst, window_s))

    def headers(self, left: int) -> Headers:
        """Headers that tell the caller the limit, and how many requests are left."""
        return [self.policy, (b"ratelimit", REMAINING % left)]

    def take(self, key: Hashable, now_s: float) -> int:
        """How many requests `key` has left after this one; -1 if this one exceeds the limit.

        `now_s` comes from a monotonic clock: the wall clock may be set back.
        """
        bucket = self._left.get(key)
        if bucket is None:
            if len(self._left) >= KEYS_TRACKED_MAX:
                del self._left[next(iter(self._left))]
            bucket = self._left[key] = [self._burst, now_s]
        left, then_s = bucket
        left = min(self._burst, left + max(0.0, now_s - then_s) * self._rate)
        if left < 1.0:
            return -1
        bucket[:] = left - 1.0, now_s
        return int(left - 1.0)

    def retry_after_s(self, key: Hashable, now_s: float) -> int:
        """In how many whole seconds `key` will have at least one request again."""
        left, then_s = self._left.get(key, (self._burst, now_s))
        return max(1, round((1.0 - left) / self._rate - (now_s - then_s)))
