"""Which bucket a pseudonym belongs to, from the raw ids in `consents`: state holds no raw ids.

Every user in state has, or had, a record in `consents`. Raw ids do not leave this module.
"""

from typing import Final, NamedTuple

import numpy as np

from adapters.secrets.key_rings import load_key_ring
from jobs.settings import Settings
from privacy.consent_topic import recorded_changes
from schemas.pseudonyms import Pseudonymiser, digest_of

BYTES_EACH: Final = 20
"""Of memory for a pseudonym: 16 for the hash, 4 for the route."""
_ROW: Final = np.dtype([("high", ">u8"), ("low", ">u8"), ("route", ">u4")])


class UserRoutes(NamedTuple):
    """The route of each pseudonym, in columns sorted by hash."""

    high: "np.ndarray[tuple[int], np.dtype[np.uint64]]"
    low: "np.ndarray[tuple[int], np.dtype[np.uint64]]"
    route: "np.ndarray[tuple[int], np.dtype[np.uint32]]"

    def of(self, pseudonym: str) -> int | None:
        """The route of the user known as `pseudonym`; None if `consents` names no such user."""
        digest = digest_of(pseudonym)
        high, low = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
        place = int(np.searchsorted(self.high, np.uint64(high)))
        while place < len(self.high) and int(self.high[place]) == high:
            if int(self.low[place]) == low:
                return int(self.route[place])
            place += 1
        return None


def user_routes(settings: Settings) -> UserRoutes:
    """Read `consents` once. During a rotation, users are known under both pseudonyms."""
    pseudonymiser = Pseudonymiser(load_key_ring(settings.privacy.key_ring))
    rows = bytearray()
    for recorded in recorded_changes(settings):
        user = recorded.change.user_id
        route = pseudonymiser.route(user).to_bytes(4, "big")
        for pseudonym in pseudonymiser.all(user):
            rows += digest_of(pseudonym) + route
    return sorted_routes(bytes(rows))


def sorted_routes(rows: bytes) -> UserRoutes:
    """Columns from rows of 20 bytes: hash and route."""
    table = np.frombuffer(rows, _ROW)
    order = np.lexsort((table["low"], table["high"]))
    high, low, route = (table[name][order] for name in ("high", "low", "route"))
    return UserRoutes(high.astype(np.uint64), low.astype(np.uint64), route.astype(np.uint32))
