"""A learner as versioned bytes: a head, and blocks of 64 rows each, so that only what changed is written.

Counts fade as time passes without being touched, so each block names the landmarks that its counts are as of.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from models.online.dimensions import (
    CONTEXTS,
    FEATURES,
    PAIR_HALF_LIFE_MS,
    POPULARITIES,
    POPULARITY_HALF_LIVES_MS,
    SLOTS,
)
from models.online.learner import Learner
from models.online.pair_table import WAYS
from models.online.updates import packed
from schemas.errors import SchemaError

STATE_VERSION: Final = 1
BLOCK_ROWS: Final = 64
_HALF_LIVES: Final = np.array(POPULARITY_HALF_LIVES_MS, np.float64)


class LearnerHead(msgspec.Struct, array_like=True):
    """What does not belong to a row. Arrays are little-endian: `totals` float64[4], `weights` and `squares` float64."""

    sequence: int
    pair_landmark_ms: int
    popularity_landmark_ms: int
    totals: bytes
    weights: bytes
    squares: bytes


class Block(msgspec.Struct, array_like=True):
    """64 rows from `first` on; of their slots, only those in use: `sizes` says how many each row has."""

    first: int
    pair_landmark_ms: int
    popularity_landmark_ms: int
    ids: list[str]
    popularity: bytes
    born_ms: bytes
    item_bits: bytes
    left_mass: bytes
    right_mass: bytes
    sizes: bytes
    items: bytes
    counts: bytes
    bits: bytes


_encoder: Final = msgspec.msgpack.Encoder()
_head_decoder: Final = msgspec.msgpack.Decoder(LearnerHead)
_block_decoder: Final = msgspec.msgpack.Decoder(Block)


def encode_head(learner: Learner) -> bytes:
    """Versioned bytes for `learner-v1`."""
    head = LearnerHead(
        learner.sequence,
        learner.pairs.landmark_ms,
        learner.popularity.landmark_ms,
        packed(learner.popularity.totals),
        packed(learner.weights.weights),
        packed(learner.weights.squares),
    )
    return bytes([STATE_VERSION]) + _encoder.encode(head)


def encode_blocks(learner: Learner, blocks: Iterable[int]) -> dict[int, bytes]:
    """Versioned bytes for `rows-v1` of each of `blocks`; block n has the rows from 64 n on."""
    return {block: bytes([STATE_VERSION]) + _encoder.encode(_block(learner, block)) for block in blocks}


def _block(learner: Learner, block: int) -> Block:
    first = block * BLOCK_ROWS
    rows = slice(first, min(first + BLOCK_ROWS, len(learner.ids)))
    pairs, popularity = learner.pairs, learner.popularity
    used = pairs.items[rows] > 0
    return Block(
        first,
        pairs.landmark_ms,
        popularity.landmark_ms,
        learner.ids[rows],
        packed(popularity.counts[rows]),
        packed(popularity.born_ms[rows]),
        packed(popularity.bits[rows]),
        packed(pairs.left_mass[rows]),
        packed(pairs.right_mass[rows]),
        packed(used.sum(axis=1).astype(np.uint8)),
        packed(pairs.items[rows][used]),
        packed(pairs.counts[rows][used]),
        packed(pairs.bits[rows][used]),
    )


def decode_learner(head: bytes | None, blocks: Mapping[int, bytes], learner: Learner) -> None:
    """Put what is in state into a new `learner`; raises :class:`SchemaError` for an unknown version."""
    if head is None:
        return
    found: LearnerHead = _decoded(head, _head_decoder)
    learner.sequence = found.sequence
    learner.pairs.landmark_ms, learner.popularity.landmark_ms = found.pair_landmark_ms, found.popularity_landmark_ms
    learner.popularity.totals = np.frombuffer(found.totals, "<f8").copy()
    shape = CONTEXTS + 1, FEATURES
    learner.weights.weights = np.frombuffer(found.weights, "<f8").reshape(shape).copy()
    learner.weights.squares = np.frombuffer(found.squares, "<f8").reshape(shape).copy()
    for block in sorted(blocks):
        _put(learner, _decoded(blocks[block], _block_decoder), found)
    learner.number_items()


def _put(learner: Learner, block: Block, head: LearnerHead) -> None:
    end = block.first + len(block.ids)
    learner.ids += [""] * (end - len(learner.ids))
    learner.pairs.grow(end)
    learner.popularity.grow(end)
    rows, size = slice(block.first, end), len(block.ids)
    learner.ids[rows] = block.ids
    pairs, popularity = learner.pairs, learner.popularity
    fading = np.exp2((block.popularity_landmark_ms - head.popularity_landmark_ms) / _HALF_LIVES)
    popularity.counts[rows] = _array(block.popularity, "<f8").reshape(size, POPULARITIES) * fading
    popularity.born_ms[rows] = _array(block.born_ms, "<i8")
    popularity.bits[rows] = _array(block.item_bits, "<u8")
    older = 2.0 ** ((block.pair_landmark_ms - head.pair_landmark_ms) / PAIR_HALF_LIFE_MS)
    pairs.left_mass[rows] = _array(block.left_mass, "<f8").reshape(size, WAYS) * older
    pairs.right_mass[rows] = _array(block.right_mass, "<f8").reshape(size, WAYS) * older
    used = np.arange(SLOTS) < _array(block.sizes, "u1")[:, None]
    pairs.items[rows][used] = _array(block.items, "<i4")
    pairs.counts[rows][used] = _array(block.counts, "<f4").reshape(-1, WAYS) * np.float32(older)
    pairs.bits[rows][used] = _array(block.bits, "<u8")


def _array(raw: bytes, dtype: str) -> npt.NDArray[Any]:
    return np.frombuffer(raw, dtype)


def _decoded(raw: bytes, decoder: Any) -> Any:
    if raw[0] != STATE_VERSION:
        raise SchemaError(
            f"a learner of version {raw[0]}, this release reads {STATE_VERSION}: upgrade one release at a time"
        )
    return decoder.decode(memoryview(raw)[1:])
