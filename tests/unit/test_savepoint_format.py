"""Entries of canonical savepoints and PyFlink's state in them are read and written exactly."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.savepoint_format import PYTHON_STATE, ByteReader, Entry, KeyFormat, KeyGroupWriter, entries, unpickled
from schemas.errors import SettingsError

MODES = sorted(PYTHON_STATE)
some_entries = st.lists(
    st.builds(Entry, st.integers(0, 30), st.binary(min_size=1, max_size=9).map(lambda raw: b"\x10" + raw), st.binary())
)


def written(some: list[Entry]) -> bytes:
    held = bytearray()
    writer = KeyGroupWriter(held.extend)
    for entry in some:
        writer.add(entry)
    writer.close()
    return bytes(held)


def read(raw: bytes, at_once: int) -> list[Entry]:
    place = 0

    def more(size: int) -> bytes:
        nonlocal place
        taken = raw[place : place + min(size, at_once)]
        place += len(taken)
        return taken

    return list(entries(ByteReader(more, at_once)))


@given(some=some_entries.filter(bool), at_once=st.integers(1, 50))
def test_entries_are_read_as_written_however_the_file_arrives(some: list[Entry], at_once: int) -> None:
    assert read(written(some), at_once) == some


def test_file_without_entries_is_none() -> None:
    assert written([]) == b""


def test_file_that_ends_too_early_is_reported() -> None:
    raw = written([Entry(1, b"\x10key", b"value")])
    with pytest.raises(SettingsError, match="cut off"):
        read(raw[:-3], 100)


@pytest.mark.parametrize("most", [4, 128, 129, 1_024])
@given(key=st.integers(-(2**31), 2**31 - 1), at_ms=st.integers(0, 2**50), own=st.binary(max_size=9))
def test_keys_and_timers_of_any_maximum_parallelism_are_read_as_written(
    most: int, key: int, at_ms: int, own: bytes
) -> None:
    form = KeyFormat(most)
    assert form.split(form.of(most - 1, key, own)) == (key, own)
    assert form.split_timer(form.of_timer(most - 1, key, at_ms)) == (key, at_ms)


@pytest.mark.parametrize("mode", MODES)
@given(values=st.lists(st.binary(max_size=300), min_size=1), text=st.text(st.characters(max_codepoint=127)))
def test_values_lists_and_text_keys_of_a_mode_are_read_as_written(mode: str, values: list[bytes], text: str) -> None:
    stored = PYTHON_STATE[mode]
    assert stored.decode_list(stored.encode_list(values)) == values
    assert stored.decode_value(stored.encode_list(values[:1])) == values[0]
    assert stored.decode_map_value(stored.encode_map_value(values[0])) == values[0]
    assert stored.decode_key(stored.encode_key(text)) == text


ACCOUNT = b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00C\x0c\x01\x9aG\x00\x00\x80G\x00\x00\x00\x00\x00\x94."
"""As a job wrote it into a savepoint."""


def test_what_flink_wrote_in_thread_mode_is_read_and_written_in_its_bytes() -> None:
    stored = PYTHON_STATE["thread"]
    value, key = b"\x00\x00\x00\x1b" + ACCOUNT, b"\x1ap1.0tE-9HCnjIZDzCW-SSD2hA"
    assert stored.encode_list([stored.decode_value(value)]) == value
    assert stored.encode_key(stored.decode_key(key)) == key
    assert stored.decode_list(value + b"," + value) == [unpickled(ACCOUNT)] * 2
    assert KeyFormat(128).split(b"\x10\x00\x00\x00\x01+\x00" + key) == (299, key)
    assert KeyFormat(128).split_timer(b"\x10\x80\x00\x01\xa21\xa8T\x88\x00\x00\x00\x01+\x00") == (299, 0x1A231A85488)


def test_what_flink_wrote_in_process_mode_is_read_and_written_in_its_bytes() -> None:
    stored = PYTHON_STATE["process"]
    value, key = b"\x00\x00\x00\x1f\x00\x00\x00\x1b" + ACCOUNT, b"\0\0\0\x1d\0\0\0\x19p1.-9YhT4MysXRUCoAyhJfm8Q"
    assert stored.encode_list([stored.decode_value(value)]) == value
    assert stored.encode_key(stored.decode_key(key)) == key
    assert stored.decode_list(value + b"," + value) == [unpickled(ACCOUNT)] * 2


@pytest.mark.parametrize("other", [["a list"], "text", ByteReader])
def test_pickle_of_anything_but_bytes_is_refused(other: object) -> None:
    with pytest.raises(SettingsError, match="not bytes"):
        unpickled(pickle.dumps(other))


@pytest.mark.parametrize("mode", MODES)
@given(raw=st.binary(max_size=40))
def test_other_bytes_are_refused_with_a_sentence_and_nothing_else(mode: str, raw: bytes) -> None:
    stored = PYTHON_STATE[mode]
    for decode in (stored.decode_list, stored.decode_value, stored.decode_map_value):
        try:
            decode(raw)
        except SettingsError as error:
            assert "the savepoint" in str(error)
