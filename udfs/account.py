"""The account of a bucket: exact counts of the outcome of every record, kept in keyed state.

accepted + rejected + duplicates + denied + ignored - extra = records of interactions sent, whatever failed and was
replayed in between. The last two are 0 unless the settings map records of others: some of those are no interaction of
ours, and one may hold several.
"""

from typing import Final

import msgspec

from schemas.errors import SchemaError
from schemas.rejects import RejectReason
from udfs.profile import Outcome


class Account(msgspec.Struct, array_like=True, gc=False):
    """Running totals of one bucket. `rejected` counts interactions by reason; `others_rejected` counts other records.

    `segments_left_out` is how often an accepted interaction was not counted for a segment, because there were too many.
    """

    accepted: int = 0
    duplicates: int = 0
    denied: int = 0
    rejected: dict[str, int] = {}
    consents_applied: int = 0
    consents_replayed: int = 0
    others_rejected: int = 0
    unknown_fields: int = 0
    consents_refused: int = 0
    segments_left_out: int = 0
    ignored: int = 0
    extra: int = 0

    def note(self, outcome: Outcome) -> None:
        """Count one interaction that passed ingest."""
        if outcome <= Outcome.MOVED:
            self.accepted += 1
        elif outcome == Outcome.DUPLICATE:
            self.duplicates += 1
        elif outcome == Outcome.DENIED:
            self.denied += 1
        else:
            self.reject(RejectReason.TOO_LATE)

    def reject(self, reason: RejectReason) -> None:
        """Count one rejected interaction."""
        self.rejected[reason.value] = self.rejected.get(reason.value, 0) + 1

    @property
    def sent(self) -> int:
        """All records of interactions that this bucket has accounted for."""
        told = self.accepted + self.duplicates + self.denied + sum(self.rejected.values())
        return told + self.ignored - self.extra


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Account)
ACCOUNT_VERSION: Final = 1


def encode_account(account: Account) -> bytes:
    """Versioned bytes of `account`."""
    return bytes([ACCOUNT_VERSION]) + _encoder.encode(account)


def decode_account(raw: bytes | None) -> Account:
    """Decode an account; an empty one for None. Raises :class:`SchemaError` for an unknown version."""
    if raw is None:
        return Account()
    if raw[0] != ACCOUNT_VERSION:
        raise SchemaError(f"account of version {raw[0]}, this release reads {ACCOUNT_VERSION}: upgrade step by step")
    return _decoder.decode(memoryview(raw)[1:])
