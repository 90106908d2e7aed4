"""Keeps the counts of users per key id (:mod:`udfs.kids`) in Flink's keyed state.

A bucket whose users are older than these counts is counted once, at the first request; until then no change is
recorded.
"""

from collections import Counter
from collections.abc import Collection
from typing import Any

from pyflink.common import Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.state import ValueStateDescriptor

from udfs.kids import changed_kids, count_kids, decode_kids, encode_kids


class KidsKeeper:
    """Counts the users of the bucket being processed by key id. `users` is their map state."""

    def __init__(self, context: RuntimeContext, users: Any) -> None:
        self._counts = context.get_state(ValueStateDescriptor("kids-v1", Types.PICKLED_BYTE_ARRAY()))
        self._users = users

    def note(self, entered: Collection[str], gone: Collection[str]) -> None:
        """Count users that are about to be stored for the first time (`entered`) or removed (`gone`)."""
        if not entered and not gone:
            return
        kids = decode_kids(self._counts.value())
        if kids is None:
            if not self._users.is_empty():
                return
            kids = Counter()
        self._counts.update(encode_kids(changed_kids(kids, entered, gone)))

    def kids(self) -> Counter[str]:
        """Number of users by key id."""
        kids = decode_kids(self._counts.value())
        if kids is None:
            kids = count_kids(self._users.keys())
            self._counts.update(encode_kids(kids))
        return kids
