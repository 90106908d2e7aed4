"""The store as operators see it: the job passes one in, and :mod:`adapters.redis.store` is it.

Operators wait for an unavailable store inside the element (:mod:`udfs.operators.patience`): no restart, no loss, and
backpressure is right.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from schemas.store import ListWrite, Tombstone, WriteOutcome, Written
from udfs.elements import ConsentRecord


class ListStore(Protocol):
    """What frontends read. All methods raise :class:`StoreUnavailable` when it does not answer.

    `outage_max_ms` is how long an operator waits for it before its task fails.
    """

    outage_max_ms: int

    def in_force(self) -> str:
        """The token of the generation that Redis is in; a new one where Redis may have forgotten decisions."""
        ...

    def write(
        self, consents: Sequence[ConsentRecord], lists: Sequence[ListWrite], want_popular: bool, token: str
    ) -> Written:
        """Put consents in force in the generation `token`, then write lists; `popular:all` comes along where wanted."""
        ...

    def forget(self, pseudonyms: Sequence[str]) -> None:
        """Delete the lists of users of whom nothing is kept any more."""
        ...

    def tombstones(self, pseudonyms: Sequence[str]) -> dict[str, Tombstone]:
        """The tombstones of those of `pseudonyms` who have one, also where the user has come back since."""
        ...

    def relink(self, links: Mapping[str, str]) -> None:
        """Move all that stands under previous pseudonyms to current ones: `links` is current → previous.

        Where something was decided under the current one, that stays. Idempotent.
        """
        ...

    def write_popular(self, segment: str, epoch: int, version: int, ttl_ms: int, payload: bytes) -> WriteOutcome:
        """Write the popular list of a segment."""
        ...
