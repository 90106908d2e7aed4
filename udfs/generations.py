"""Redis generations as a pure rule: a bucket's grants count only once it has caught up in the current generation.

Redis may have lost acknowledged decisions (:class:`schemas.store.Generation`), and the bucket may not have read some of
them yet. So it writes grants without a proof until it has read the marks of the new generation from every partition of
`consents`. From then on it knows at least what was acknowledged before.
"""

from typing import Final

import msgspec

from schemas.consents import Level
from udfs.due import RefreshSettings
from udfs.elements import BucketMark, ConsentRecord
from udfs.profile import ProfileBounds
from udfs.state import UserState

MARKED_MAX: Final = 4
"""Marks are kept for this many generations; no one needs those of older ones."""


class Caught(msgspec.Struct, array_like=True, gc=False):
    """How far a bucket has caught up. Its grants count in the generation `proven`; "" for none.

    `marked` holds the partitions whose marks were read, by token, oldest token first. `wanted` is how many are needed.
    """

    proven: str = ""
    marked: dict[str, list[int]] = {}
    wanted: dict[str, int] = {}

    def note(self, mark: BucketMark) -> bool:
        """Record a mark; returns True if it completes its generation."""
        if mark.token == self.proven:
            return False
        partitions = self.marked.setdefault(mark.token, [])
        if mark.partition not in partitions:
            partitions.append(mark.partition)
        # If a partition was added while marks were written, there may be one more mark.
        self.wanted[mark.token] = max(mark.partitions, self.wanted.get(mark.token, 0))
        complete = len(partitions) >= self.wanted[mark.token]
        if complete:
            self.proven = mark.token
        for old in [mark.token] if complete else list(self.marked)[:-MARKED_MAX]:
            del self.marked[old], self.wanted[old]
        return complete


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Caught)
_HEAD: Final = b"\x01"


def encode_caught(caught: Caught) -> bytes:
    """Encode `caught`: a version byte, then MessagePack with positional fields."""
    return _HEAD + _encoder.encode(caught)


def decode_caught(raw: bytes | None) -> Caught:
    """Decode `raw`; nothing is proven for no bytes, or for an unknown version."""
    if raw is None or raw[:1] != _HEAD:
        return Caught()
    return _decoder.decode(raw[1:])


def current_decision(pseudonym: str, state: UserState) -> ConsentRecord:
    """The record of the consent in `state`, to write it to Redis again.

    State does not keep when a grant was given. It was later than the last withdrawal, or it would not apply.
    """
    place = state.consent_at, state.consent_partition, state.consent_offset
    said_at = state.withdrawn_at + (state.level != Level.NONE)
    return ConsentRecord(pseudonym, state.level, state.purposes, *place, state.expires_at, said_at)


def should_have_list(state: UserState, now_ms: int, bounds: ProfileBounds, refresh: RefreshSettings) -> bool:
    """Whether Redis would have a list of the user now if it had lost nothing."""
    if state.profile is None or not state.profile.recents:
        return False
    kept_ms = bounds.session_gap_ms if state.level == Level.SESSION else refresh.active_within_ms
    return now_ms - state.profile.active_at < kept_ms
