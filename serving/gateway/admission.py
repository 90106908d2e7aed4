"""Who is served first when there is more to do than can be done: urgency (RFC 9218), shedding and limits by key.

Reads are shed by answering with a popular list, in a queue that is emptied at a bounded rate, so that those who ask
again and again as fast as they are answered leave room for the others. Pure but for the queue: time is an argument.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from serving.gateway.security import Principal

Class = Literal["high", "normal", "low"]
URGENCY_DEFAULT: Final = 3
KEYS_HELD_MAX: Final = 10_000
SHED_EVERY_S: Final = 0.002
AtLeastOne = Annotated[int, Meta(ge=1)]


class AdmissionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many requests one worker takes at a time before it sheds those of a class, and how fast it answers these.

    `per_key_rate` is requests a second that one subject may make of one worker, `per_key_burst` how many at once.
    """

    low_max: AtLeastOne = 32
    normal_max: AtLeastOne = 64
    high_max: AtLeastOne = 512
    shed_per_s: AtLeastOne = 4_000
    shed_waiting_max: AtLeastOne = 5_000
    writes_max: AtLeastOne = 32
    per_key_rate: AtLeastOne = 50_000
    per_key_burst: AtLeastOne = 50_000


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


def class_of(principal: Principal, priority: bytes | None) -> Class:
    """The class of a request: what it asks for, no better than its role may ask for."""
    urgency = max(urgency_of(priority), principal.urgency_best)
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
        self.writes_under_way = 0
        self._waiting: deque[asyncio.Future[bool]] = deque()

    def takes(self, of: Class) -> bool:
        """Whether a read of this class is to be answered as it should be."""
        return self.under_way < self._max[of]

    def takes_write(self) -> bool:
        """Whether a write, or a request of an administrator, is to be taken."""
        return self.writes_under_way < self._settings.writes_max

    async def shed_turn(self) -> None:
        """Wait until one who was shed may be answered. Beyond `shed_waiting_max` nobody waits."""
        if len(self._waiting) >= self._settings.shed_waiting_max:
            return
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_later(SHED_EVERY_S, self._let_some_go)
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _let_some_go(self) -> None:
        for _ in range(min(len(self._waiting), max(1, int(self._settings.shed_per_s * SHED_EVERY_S)))):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(True)
        if self._waiting:
            asyncio.get_running_loop().call_later(SHED_EVERY_S, self._let_some_go)


class Limits:
    """A token bucket for each subject; those that are full again are forgotten first."""

    def __init__(self, settings: AdmissionSettings) -> None:
        self._rate, self._burst = float(settings.per_key_rate), float(settings.per_key_burst)
        self._left: dict[str, tuple[float, float]] = {}
        self.policy = b'"key";q=%d;w=%d' % (settings.per_key_burst, max(1, round(self._burst / self._rate)))

    def take(self, subject: str, now_s: float) -> int:
        """How many requests `subject` has left after this one, -1 where there is none for this one."""
        left, then_s = self._left.get(subject, (self._burst, now_s))
        left = min(self._burst, left + (now_s - then_s) * self._rate)
        if left < 1.0:
            return -1
        if subject not in self._left and len(self._left) >= KEYS_HELD_MAX:
            del self._left[next(iter(self._left))]
        self._left[subject] = (left - 1.0, now_s)
        return int(left - 1.0)

    def again_in_s(self, subject: str, now_s: float) -> int:
        """In how many whole seconds `subject` has at least one again."""
        left, then_s = self._left.get(subject, (self._burst, now_s))
        return max(1, round((1.0 - left) / self._rate - (now_s - then_s)))
