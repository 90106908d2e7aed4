"""Reads and changes the record of a take-over (:mod:`schemas.handover`)."""

import msgspec

from adapters.redis.client import RedisClient, always
from adapters.redis.scripts import RENEW_GENERATION
from schemas.handover import Handover, State, decode_handover, encode_handover, handover_key, ready_key

READY_TTL_MS = 60_000


class Handovers:
    """The record under the prefix of `client`. All methods raise :class:`StoreUnavailable` if Redis does not answer."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._key = handover_key(client.prefix)

    def read(self) -> Handover | None:
        """The record; None if there is none."""
        [raw] = self._client.run(always([(self._key, ("GET", self._key))]))
        return decode_handover(raw)

    def announce(self, handover: Handover) -> bool:
        """Write the record of a new take-over; False if another is agreed and not done, or was written meanwhile."""
        known = self.read()
        if known is not None and known.state in ("announced", "agreed"):
            return False
        return self._swap(known, handover)

    def change(self, known: Handover, state: State) -> bool:
        """Change the state of the record that is `known`; False if it has changed since."""
        return self._swap(known, msgspec.structs.replace(known, state=state))

    def put_back(self, known: Handover) -> bool:
        """Write a record that Redis has lost."""
        return self._swap(None, known)

    def _swap(self, before: Handover | None, after: Handover) -> bool:
        raw = b"" if before is None else encode_handover(before)
        command = RENEW_GENERATION((self._key,), raw, encode_handover(after))
        [won] = self._client.run(always([(self._key, command)]), durable=True)
        return bool(won)

    def say_ready(self, handover: Handover, epoch: int, subtask: int) -> None:
        """Say that `subtask` of the job of `epoch` knows what is announced, and has read nothing from `at` on."""
        key = ready_key(self._client.prefix, handover.to, epoch, subtask)
        self._client.run(always([(key, ("SET", key, handover.at, "PX", READY_TTL_MS))]))

    def ready(self, handover: Handover, epoch: int, subtasks: int) -> int:
        """How many of the `subtasks` of the job of `epoch` have said so."""
        keys = [ready_key(self._client.prefix, handover.to, epoch, subtask) for subtask in range(subtasks)]
        found = self._client.run(always([(key, ("GET", key)) for key in keys]))
        return sum(raw == b"%d" % handover.at for raw in found)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
