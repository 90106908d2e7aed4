"""What the learner publishes: updates by sequence, whose rows replace those of before; and their bytes.

A whole model is an update that `begins` anew: everything before it counts no more. Updates are applied in the order of
their sequences, each once; one that is missing is noticed by `after`.
"""

from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from models.online.dimensions import CHANNELS, CONTEXTS, FEATURES, NEIGHBOURS, POPULARITIES
from schemas.errors import SchemaError

UPDATE_VERSION: Final = 1
ROWS_MAX: Final = 1 << 24
"""More rows than any learner has."""


class UpdateColumns(msgspec.Struct, array_like=True, frozen=True):
    """Arrays as little-endian bytes, by place; see :class:`Update` for each."""

    item_rows: bytes = b""
    item_counts: bytes = b""
    right_roots: bytes = b""
    pair_rows: bytes = b""
    neighbours: bytes = b""
    shares: bytes = b""
    mixed: bytes = b""


class Update(msgspec.Struct, array_like=True, frozen=True):
    """`sequence` counts up, in ms where time allows; `after` is the sequence that it follows, 0 for none (`begins`).

    ``names``: (row, item id, time of birth in ms) of items that are new to scorers; an id of "" takes a row's name
    away. ``totals`` float64[4] and ``columns.item_counts`` float64[items, 4] are as of ``landmark_ms``;
    ``columns.right_roots`` float32[items]. ``columns.pair_rows`` int32[pairs] have ``neighbours`` int32[pairs, 32],
    ``shares`` float16[pairs, 32 * 4] by :data:`models.online.dimensions.CHANNELS`, ``mixed`` float16[pairs, 32].
    ``weights`` float64[contexts + 1, features].
    """

    sequence: int
    after: int
    at_ms: int
    landmark_ms: int
    totals: bytes
    weights: bytes
    names: list[tuple[int, str, int]]
    columns: UpdateColumns

    @property
    def begins(self) -> bool:
        """Whether this update is a whole model."""
        return self.after == 0

    def item_rows(self) -> npt.NDArray[np.int32]:
        """int32[items]."""
        return np.frombuffer(self.columns.item_rows, "<i4")

    def item_counts(self) -> npt.NDArray[np.float64]:
        """float64[items, 4]."""
        return np.frombuffer(self.columns.item_counts, "<f8").reshape(-1, POPULARITIES)

    def right_roots(self) -> npt.NDArray[np.float32]:
        """float32[items]."""
        return np.frombuffer(self.columns.right_roots, "<f4")

    def pair_rows(self) -> npt.NDArray[np.int32]:
        """int32[pairs]."""
        return np.frombuffer(self.columns.pair_rows, "<i4")

    def neighbours(self) -> npt.NDArray[np.int32]:
        """int32[pairs, 32]."""
        return np.frombuffer(self.columns.neighbours, "<i4").reshape(-1, NEIGHBOURS)

    def shares(self) -> npt.NDArray[np.float16]:
        """float16[pairs, 32 * 4]."""
        return np.frombuffer(self.columns.shares, "<f2").reshape(-1, NEIGHBOURS * len(CHANNELS))

    def mixed(self) -> npt.NDArray[np.float16]:
        """float16[pairs, 32]."""
        return np.frombuffer(self.columns.mixed, "<f2").reshape(-1, NEIGHBOURS)

    def score_weights(self) -> npt.NDArray[np.float64]:
        """float64[contexts + 1, features]."""
        return np.frombuffer(self.weights, "<f8").reshape(CONTEXTS + 1, FEATURES)


def packed(array: npt.NDArray[Any]) -> bytes:
    """The bytes of `array`, little-endian, in C order."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Update)


def encode_update(update: Update) -> bytes:
    """Versioned bytes of `update`."""
    return bytes([UPDATE_VERSION]) + _encoder.encode(update)


def decode_update(raw: bytes) -> Update:
    """The update behind `raw`; raises :class:`SchemaError` for an unknown version, or what is no update."""
    if not raw or raw[0] != UPDATE_VERSION:
        raise SchemaError(f"an update of version {raw[:1].hex()}, this release reads {UPDATE_VERSION:02x}: upgrade")
    try:
        update = _decoder.decode(memoryview(raw)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SchemaError(f"not an update of the online model: {error}") from None
    if (fault := _fault_of(update)) is not None:
        raise SchemaError(f"not an update of the online model: {fault}")
    return update


def _fault_of(update: Update) -> str | None:
    """Why `update` cannot be applied, or None."""
    columns = update.columns
    items, pairs = len(columns.item_rows) // 4, len(columns.pair_rows) // 4
    half = 2 * pairs * NEIGHBOURS
    wanted = (4 * items, 8 * POPULARITIES * items, 4 * items, 4 * pairs, 2 * half, half * len(CHANNELS), half)
    if tuple(map(len, msgspec.structs.astuple(columns))) != wanted:
        return "columns of different lengths"
    if (len(update.totals), len(update.weights)) != (8 * POPULARITIES, 8 * (CONTEXTS + 1) * FEATURES):
        return "totals or weights of another shape"
    named = np.array([row for row, _, _ in update.names], np.int64)
    rows = np.concatenate([named, update.item_rows(), update.pair_rows(), update.neighbours().reshape(-1)])
    if len(rows) and not (rows.min() >= 0 and rows.max() < ROWS_MAX):
        return "a row out of bounds"
    return None
