"""Redis generations as a pure rule: a bucket's grants count only after it has caught up in the current generation.

Redis may have forgotten decisions that were acknowledged (:class:`schemas.store.Generation`). The bucket may have to
read some of them yet, so what its state grants is written without a proof until it has met the marks of the new
generation from every partition of `consents`. From then on it knows at least what was acknowledged before.
"""

from typing import Final

import msgspec

from schemas.consents import Level
from udfs.due import RefreshSettings
from udfs.elements import BucketMark, ConsentRecord
from udfs.profile import ProfileBounds
from udfs.state import UserState

MARKED_MAX: Final = 4
"""Of how many generations marks are kept: of older ones nobody asks any more."""


class Caught(msgspec.Struct, array_like=True, gc=False):
    """What a bucket has met. `proven` is the generation in which its grants count, "" for none.

    `marked` has the partitions of the marks met, by token, oldest token first. `wanted` is how many there are.
    """

    proven: str = ""
    marked: dict[str, list[int]] = {}
    wanted: dict[str, int] = {}

    def note(self, mark: BucketMark) -> bool:
        """Take a mark in; whether those of its generation are complete with it, and were not before."""
        if mark.token == self.proven:
            return False
        partitions = self.marked.setdefault(mark.token, [])
        if mark.partition not in partitions:
            partitions.append(mark.partition)
        # A partition that was added while marks were written may have one mark more.
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
    """The bytes of `caught`: a version, then MessagePack with fields by place."""
    return _HEAD + _encoder.encode(caught)


def decode_caught(raw: bytes | None) -> Caught:
    """What `raw` says; of a bucket that has met nothing yet, or of a version not known here, nothing is proven."""
    if raw is None or raw[:1] != _HEAD:
        return Caught()
    return _decoder.decode(raw[1:])


def standing_decision(pseudonym: str, state: UserState) -> ConsentRecord:
    """The consent in `state` as the record that brought it, for Redis to be told again.

    When the user said so is not kept of a grant; it was later than their last withdrawal, or it would not be in force.
    """
    place = state.consent_at, state.consent_partition, state.consent_offset
    said_at = state.withdrawn_at + (state.level != Level.NONE)
    return ConsentRecord(pseudonym, state.level, state.purposes, *place, state.expires_at, said_at)


def has_a_list(state: UserState, now_ms: int, bounds: ProfileBounds, refresh: RefreshSettings) -> bool:
    """Whether a list of the user would be in Redis now, had it lost nothing."""
    if state.profile is None or not state.profile.recents:
        return False
    kept_ms = bounds.session_gap_ms if state.level == Level.SESSION else refresh.active_within_ms
    return now_ms - state.profile.active_at < kept_ms
