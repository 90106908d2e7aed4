"""Confluent framing, and how long schemas are cached."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SchemaError
from schemas.wire.codecs import BadRecord
from schemas.wire.confluent import (
    MESSAGE_DEPTH_MAX,
    SCHEMA_BYTES_MAX,
    SCHEMAS_CACHED_MAX,
    UNKNOWN_CACHED_MAX,
    UNKNOWN_TTL_S,
    Form,
    SchemaCache,
    frame,
    message_place,
    split_frame,
    split_message_place,
)


class Counting:
    """A source that knows the ids up to `last`, counts its calls, and has a clock."""

    def __init__(self, last: int = 10_000) -> None:
        self.last = last
        self.asked: list[int] = []
        self.now = 0.0
        self.down = False

    def fetch(self, form: Form, schema_id: int) -> bytes | None:
        self.asked.append(schema_id)
        if self.down:
            raise SchemaError("down")
        return b"%d" % schema_id if schema_id <= self.last else None


def cache_over(source: Counting) -> SchemaCache[int]:
    return SchemaCache(source, "avro", int, clock=lambda: source.now)


def is_unknown(cache: SchemaCache[int], schema_id: int) -> bool:
    with pytest.raises(BadRecord) as caught:
        cache.get(schema_id)
    return caught.value.reason == "unknown_schema"


@given(st.integers(0, 2**32 - 1), st.binary())
def test_a_frame_is_a_zero_byte_an_id_and_the_payload(schema_id: int, payload: bytes) -> None:
    assert frame(schema_id, payload) == b"\0" + schema_id.to_bytes(4, "big") + payload
    assert split_frame(frame(schema_id, payload)) == (schema_id, payload)


@pytest.mark.parametrize("raw", [b"", b"\0", b"\0\0\0\0", b"\1\0\0\0\1payload", b'{"user_id":"ada"}'])
def test_unframed_bytes_are_malformed(raw: bytes) -> None:
    with pytest.raises(BadRecord) as caught:
        split_frame(raw)
    assert caught.value.reason == "malformed"


@given(st.lists(st.integers(0, 63), min_size=1, max_size=MESSAGE_DEPTH_MAX).map(tuple), st.binary())
def test_message_index_round_trips(place: tuple[int, ...], payload: bytes) -> None:
    assert split_message_place(message_place(place) + payload) == (place, payload)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x02",
        b"\x80" * 9,
        b"\x80" * 5 + b"\0",
        b"\x01",
        b"\xfe\xff\xff\xff\x0f",
        bytes([2 * MESSAGE_DEPTH_MAX + 2]) + b"\0" * 99,
    ],
)
def test_invalid_message_index_is_malformed(raw: bytes) -> None:
    with pytest.raises(BadRecord) as caught:
        split_message_place(raw)
    assert caught.value.reason == "malformed"


def test_schema_is_fetched_once() -> None:
    source = Counting()
    cache = cache_over(source)
    assert [cache.get(7), cache.get(7), cache.get(8)] == [7, 7, 8]
    assert source.asked == [7, 8]


def test_unknown_schema_id_is_retried_later() -> None:
    source = Counting(last=0)
    cache = cache_over(source)
    assert is_unknown(cache, 7)
    assert is_unknown(cache, 7)
    assert source.asked == [7]
    source.last, source.now = 7, UNKNOWN_TTL_S
    assert cache.get(7) == 7


@pytest.mark.parametrize("schema_id", [0, 2**31, 2**32 - 1])
def test_impossible_schema_id_is_not_fetched(schema_id: int) -> None:
    source = Counting()
    assert is_unknown(cache_over(source), schema_id)
    assert source.asked == []


def test_unavailable_source_rejects_no_record() -> None:
    source = Counting()
    cache = cache_over(source)
    source.down = True
    with pytest.raises(SchemaError):
        cache.get(7)
    source.down = False
    assert cache.get(7) == 7


def test_schema_caches_are_bounded() -> None:
    source = Counting(last=SCHEMAS_CACHED_MAX + 1)
    cache = cache_over(source)
    for schema_id in range(1, SCHEMAS_CACHED_MAX + 2):
        cache.get(schema_id)
    assert len(cache._known) == SCHEMAS_CACHED_MAX
    for schema_id in range(1_000, 1_000 + UNKNOWN_CACHED_MAX + 1):
        assert is_unknown(cache, schema_id)
    assert len(cache._unknown_until) == UNKNOWN_CACHED_MAX
    assert cache.get(SCHEMAS_CACHED_MAX + 1) == SCHEMAS_CACHED_MAX + 1, "unknown ids push no known schema out"


def test_oversized_schema_counts_as_unknown() -> None:
    class Huge(Counting):
        def fetch(self, form: Form, schema_id: int) -> bytes | None:
            return b"7".rjust(SCHEMA_BYTES_MAX + 1)

    assert is_unknown(cache_over(Huge()), 7)
