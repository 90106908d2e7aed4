"""What accepted events teach: made where histories are, summed over a second, and without users from then on.

A lesson is one event of a user who allows training, with the items before it. Sums of a second keep items, pairs of
items, one of 64 bits of each user, and gradients. In a second with a single event, its pairs still show the ten items
before it, of a user that nothing names; the learner merges them within a second.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Final

import msgspec
import numpy as np

from models.online.dimensions import CONTEXTS, FEATURES, LAG_DECAY, LAGS, NEAR_LAGS, PAIR_HALF_LIFE_MS
from models.online.pair_table import FOLLOWS, NEAR, NEXT, WAYS, Pairs, summed
from models.online.score_weights import Gradients
from models.online.updates import packed
from schemas.errors import SchemaError


class Lesson(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An event: its item, time in ms, its user's bit (0 to 63), and up to `LAGS` items before it, the newest first."""

    item: str
    ts: int
    user_bit: int
    before: Sequence[str]


class LessonSums(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The lessons of a second: `items` are what the columns number. Arrays are little-endian.

    Of events: ``event_items`` int32, ``event_times`` int64, ``event_bits`` uint64. Of pairs: ``left``, ``right`` int32,
    ``counts`` float32[n, 3] as of ``reference_ts``, ``bits`` uint64. ``gradients``: (lists, sums, squares).
    """

    reference_ts: int
    items: list[str]
    event_items: bytes
    event_times: bytes
    event_bits: bytes
    left: bytes
    right: bytes
    counts: bytes
    bits: bytes
    gradients: tuple[int, bytes, bytes] | None = None


def sum_lessons(lessons: Sequence[Lesson], gradients: Gradients | None = None) -> LessonSums:
    """The sums of `lessons`, which must not be empty."""
    names = [(lesson.item, *lesson.before[:LAGS]) for lesson in lessons]
    index = {name: number for number, name in enumerate(dict.fromkeys(chain.from_iterable(names)))}
    places = np.full((len(names), LAGS + 1), -1, np.int64)
    sizes = np.array([len(each) for each in names])
    places[np.arange(LAGS + 1) < sizes[:, None]] = [index[name] for name in chain.from_iterable(names)]
    times = np.array([lesson.ts for lesson in lessons], np.int64)
    user_bits = np.uint64(1) << np.array([lesson.user_bit for lesson in lessons], np.uint64)
    reference = int(times.max())
    pairs = _pairs(places, user_bits, np.exp2((times - reference) / PAIR_HALF_LIFE_MS))
    return LessonSums(
        reference,
        list(index),
        packed(places[:, 0].astype(np.int32)),
        packed(times),
        packed(user_bits),
        packed(pairs.left.astype(np.int32)),
        packed(pairs.right.astype(np.int32)),
        packed(pairs.counts),
        packed(pairs.bits),
        None if gradients is None else encode_gradients(gradients),
    )


_LAG_WEIGHTS: Final = LAG_DECAY ** np.arange(LAGS)


def _pairs(
    places: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]",
    user_bits: "np.ndarray[tuple[int, ...], np.dtype[np.uint64]]",
    fading: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]",
) -> Pairs:
    """The pairs of events `places` [n, 1 + LAGS] (its item, then those before it, -1 for none)."""
    item, before = places[:, :1], places[:, 1:]
    real = before >= 0
    other = real & (before != item)
    counts = np.zeros((*before.shape, WAYS), np.float64)
    counts[:, :, FOLLOWS] = other * _LAG_WEIGHTS
    counts[:, 0, NEXT] = real[:, 0]
    counts[:, :NEAR_LAGS, NEAR] = other[:, :NEAR_LAGS]
    counts *= fading[:, None, None]
    event, lag = np.nonzero(counts.any(axis=2))
    back_event, back_lag = np.nonzero(counts[:, :, NEAR])
    back = np.zeros((len(back_event), WAYS))
    back[:, NEAR] = counts[back_event, back_lag, NEAR]
    left = np.concatenate([before[event, lag], places[back_event, 0]])
    right = np.concatenate([places[event, 0], before[back_event, back_lag]])
    all_counts = np.concatenate([counts[event, lag], back]).astype(np.float32)
    bits = np.concatenate([user_bits[event], user_bits[back_event]])
    return Pairs(*summed(left, right, all_counts, bits))


def encode_gradients(gradients: Gradients) -> tuple[int, bytes, bytes]:
    """As :class:`LessonSums` has them."""
    return gradients.lists, packed(gradients.sums), packed(gradients.squares)


def decode_gradients(raw: tuple[int, bytes, bytes]) -> Gradients:
    """The gradients behind `raw`."""
    shape = CONTEXTS + 1, FEATURES
    lists, sums, squares = raw
    return Gradients(lists, np.frombuffer(sums, "<f8").reshape(shape), np.frombuffer(squares, "<f8").reshape(shape))


SUMS_VERSION: Final = 1
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(LessonSums)


def encode_sums(sums: LessonSums) -> bytes:
    """Versioned bytes of `sums`, between two operators and in state."""
    return bytes([SUMS_VERSION]) + _encoder.encode(sums)


def decode_sums(raw: bytes) -> LessonSums:
    """The sums behind `raw`; raises :class:`SchemaError` for an unknown version, or what are no sums."""
    if not raw or raw[0] != SUMS_VERSION:
        raise SchemaError(f"lessons of version {raw[:1].hex()}, this release reads {SUMS_VERSION:02x}: upgrade")
    try:
        sums = _decoder.decode(memoryview(raw)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SchemaError(f"not lessons of the online model: {error}") from None
    if (fault := _fault_of(sums)) is not None:
        raise SchemaError(f"not lessons of the online model: {fault}")
    return sums


def _fault_of(sums: LessonSums) -> str | None:
    """Why `sums` cannot be merged, or None."""
    events, pairs = len(sums.event_items) // 4, len(sums.left) // 4
    columns = (sums.event_items, sums.event_times, sums.event_bits, sums.left, sums.right, sums.counts, sums.bits)
    wanted = (4 * events, 8 * events, 8 * events, 4 * pairs, 4 * pairs, 4 * WAYS * pairs, 8 * pairs)
    if tuple(map(len, columns)) != wanted:
        return "columns of different lengths"
    numbers = np.concatenate([np.frombuffer(column, "<i4") for column in (sums.event_items, sums.left, sums.right)])
    if len(numbers) and not (numbers.min() >= 0 and numbers.max() < len(sums.items)):
        return "an item that has no id"
    counts = np.frombuffer(sums.counts, "<f4")
    if not np.isfinite(counts).all() or (counts < 0).any():
        return "a count that is negative or no number"
    if len(set(sums.items)) < len(sums.items) or "" in sums.items:
        return "an id that is empty or comes twice"
    if sums.gradients is not None and {len(raw) for raw in sums.gradients[1:]} != {8 * (CONTEXTS + 1) * FEATURES}:
        return "gradients of another shape"
    return None
