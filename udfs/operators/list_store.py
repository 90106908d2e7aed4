"""The store interface of the operators; the job passes in :mod:`adapters.redis.store`.

Operators wait for an unavailable store inside the element (:mod:`udfs.operators.patience`): this needs no restart,
loses nothing, and gives the right backpressure.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from schemas.store import ListWrite, PublishedUpdate, PublishOutcome, SimilarList, Tombstone, WriteOutcome, Written
from udfs.elements import ConsentRecord


class ListStore(Protocol):
    """The data that frontends read. All methods raise :class:`StoreUnavailable` if the store does not answer.

    `outage_max_ms` is how long an operator waits for the store before its task fails.
    """

    outage_max_ms: int

    def current_generation(self) -> str:
        """The token of Redis' current generation; a new one if Redis may have lost decisions."""
        ...

    def write(
        self, consents: Sequence[ConsentRecord], lists: Sequence[ListWrite], want_popular: bool, token: str
    ) -> Written:
        """Write consents in the generation `token`, then lists; if `want_popular`, also read `popular:all`."""
        ...

    def forget(self, pseudonyms: Sequence[str]) -> None:
        """Delete the lists of users whose profiles have ended."""
        ...

    def tombstones(self, pseudonyms: Sequence[str]) -> dict[str, Tombstone]:
        """The tombstones of `pseudonyms` that have one, even if the user has consented again since."""
        ...

    def relink(self, links: Mapping[str, str]) -> None:
        """Move all keys of previous pseudonyms to current ones: `links` is current → previous.

        A decision already made under the current pseudonym stays. Idempotent.
        """
        ...

    def write_popular(self, segment: str, epoch: int, version: int, ttl_ms: int, payload: bytes) -> WriteOutcome:
        """Write the popular list of a segment."""
        ...

    def write_similar(self, lists: Sequence[SimilarList], ttl_ms: int) -> list[WriteOutcome]:
        """Write lists of similar items."""
        ...

    def publish_update(self, sequence: int, after: int, update: bytes) -> PublishOutcome:
        """Publish an update of the online model that follows `after`."""
        ...

    def publish_whole(self, sequence: int, whole: bytes) -> PublishOutcome:
        """Write the whole online model as of `sequence`."""
        ...

    def update_after(self, sequence: int) -> PublishedUpdate:
        """The update of the online model that follows `sequence`."""
        ...

    def whole_model(self) -> bytes | None:
        """The whole online model, or None if there is none."""
        ...

    def relearned(self, request: str, part: str) -> bytes | None:
        """A part of the learner's state that `request` is to replace; None if it is not there (any more)."""
        ...

    def confirm_relearned(self, request: str) -> None:
        """Say that the learner goes on from the state of `request`."""
        ...
