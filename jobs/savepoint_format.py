"""The bytes of Flink's canonical savepoints (FLIP-41), and of PyFlink's state in them. Pure.

Below an offset for each key group stand runs of entries: the number of a state, then its entries, each a key and a
value with their lengths. The highest bit of an entry's key says that it is the last of its run; then follows the number
of the next state, or the mark of the end. A key is the key group, the stream's key, the namespace, and in a map the
entry's own key.

The keyed state of a Python operator in process mode is written by Flink as lists and maps of bytes, which hold what
Python has encoded; in thread mode it has the types that the operator named. The two differ in how a map's keys and
values look.
"""

import io
import pickle
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from schemas.errors import SettingsError

END_OF_KEY_GROUP: Final = 0xFFFF
LAST_OF_RUN: Final = 0x80
_INT: Final = struct.Struct(">i")
_SHORT: Final = struct.Struct(">H")
_LONG: Final = struct.Struct(">q")
_NAMESPACE: Final = b"\0"
_SIGN: Final = 1 << 63


class Entry(NamedTuple):
    """An entry of a state: its key without the mark of the last, and its value, as stored."""

    state: int
    key: bytes
    value: bytes


class ByteReader:
    """Reads exact numbers of bytes; `more(size)` returns up to that many, and none at the end."""

    def __init__(self, more: Callable[[int], bytes], chunk: int = 1 << 20) -> None:
        self._more, self._chunk = more, chunk
        self._held, self._at = b"", 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes. Raises :class:`SettingsError` if there are fewer."""
        end = self._at + size
        while end > len(self._held):
            more = self._more(max(self._chunk, end - len(self._held)))
            if not more:
                raise SettingsError("the savepoint is cut off: a file of it ends within an entry; take another one")
            self._held, self._at = self._held[self._at :] + more, 0
            end = size
        taken = self._held[self._at : end]
        self._at = end
        return taken


def entries(reader: ByteReader) -> Iterator[Entry]:
    """The entries of a key group."""
    (state,) = _SHORT.unpack(reader.take(2))
    while state != END_OF_KEY_GROUP:
        is_last = False
        while not is_last:
            key = reader.take(_INT.unpack(reader.take(4))[0])
            is_last = bool(key[0] & LAST_OF_RUN)
            if is_last:
                key = bytes([key[0] & ~LAST_OF_RUN]) + key[1:]
            yield Entry(state, key, reader.take(_INT.unpack(reader.take(4))[0]))
        (state,) = _SHORT.unpack(reader.take(2))


class KeyGroupWriter:
    """Encodes the entries of one key group. Entries of one state should follow each other: each change costs bytes."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._last: Entry | None = None

    def add(self, entry: Entry) -> None:
        """Write the entry before, now that it is known whether it was the last of its run."""
        before = self._last
        if before is None or before.state != entry.state:
            self._flush(is_last=True)
            self._write(_SHORT.pack(entry.state))
        else:
            self._flush(is_last=False)
        self._last = entry

    def close(self) -> bool:
        """Write what is left; False if there was no entry, and nothing was written."""
        if self._last is None:
            return False
        self._flush(is_last=True)
        self._write(_SHORT.pack(END_OF_KEY_GROUP))
        return True

    def _flush(self, is_last: bool) -> None:
        if self._last is None:
            return
        _, key, value = self._last
        if is_last:
            key = bytes([key[0] | LAST_OF_RUN]) + key[1:]
        self._write(b"".join((_INT.pack(len(key)), key, _INT.pack(len(value)), value)))


class KeyFormat:
    """The keys of entries under integer stream keys, in a job with this maximum parallelism."""

    def __init__(self, max_parallelism: int) -> None:
        self._group_bytes = 1 if max_parallelism <= 128 else 2

    def of(self, key_group: int, key: int, own: bytes = b"") -> bytes:
        """The key of an entry; `own` is that of the entry in a map."""
        return self._group(key_group) + row_key(key) + _NAMESPACE + own

    def split(self, raw: bytes) -> tuple[int, bytes]:
        """The stream's key, and the entry's own."""
        start = self._group_bytes
        end = start + ROW_KEY_BYTES
        if raw[start] != 0 or raw[end : end + 1] != _NAMESPACE:
            raise _other_form("a key")
        return _INT.unpack(raw[start + 1 : end])[0], raw[end + 1 :]

    def of_timer(self, key_group: int, key: int, at_ms: int) -> bytes:
        """The key of a timer."""
        flipped = (at_ms + _SIGN).to_bytes(8, "big")
        return self._group(key_group) + flipped + row_key(key) + _NAMESPACE

    def split_timer(self, raw: bytes) -> tuple[int, int]:
        """The stream's key and the time (ms) of a timer."""
        start = self._group_bytes
        at_ms = int.from_bytes(raw[start : start + 8], "big") - _SIGN
        rest = raw[start + 8 :]
        if len(rest) != ROW_KEY_BYTES + 1 or rest[0] != 0 or rest[-1:] != _NAMESPACE:
            raise _other_form("a timer")
        return _INT.unpack(rest[1:ROW_KEY_BYTES])[0], at_ms

    def _group(self, key_group: int) -> bytes:
        return key_group.to_bytes(self._group_bytes, "big")


ROW_KEY_BYTES: Final = 5


def row_key(key: int) -> bytes:
    """A stream key as Flink's serializer of rows of one integer writes it: a mask without nulls, and the number."""
    return b"\0" + _INT.pack(key)


class _BytesOnly(pickle.Unpickler):
    """Our state is bytes, and needs no class."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name}")


def unpickled(raw: bytes) -> bytes:
    """The bytes that `raw` is the pickle of. Raises :class:`SettingsError` for anything else."""
    try:
        found = _BytesOnly(io.BytesIO(raw)).load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError):
        found = None
    if not isinstance(found, bytes):
        raise SettingsError("the savepoint holds state that is not bytes: no release of Freshet has written it")
    return found


class PythonState:
    """How the state of a Python operator is stored: names of states, text keys, values, lists and values in maps."""

    prefix = ""
    """What stands before the names that the operator gave."""

    def encode_key(self, text: str) -> bytes:
        """The key of an entry in a map."""
        raise NotImplementedError

    def decode_key(self, raw: bytes) -> str:
        """The text of a key."""
        raise NotImplementedError

    def encode_list(self, values: Sequence[bytes]) -> bytes:
        """A list; a value is a list of one."""
        raise NotImplementedError

    def decode_list(self, raw: bytes) -> list[bytes]:
        """The elements of a list."""
        raise NotImplementedError

    def encode_map_value(self, value: bytes) -> bytes:
        """A value in a map, behind a byte that says that it is not null."""
        return _NOT_NULL + self.encode_list([value])

    def decode_map_value(self, raw: bytes) -> bytes:
        """The value of an entry in a map."""
        if raw[:1] != _NOT_NULL:
            raise SettingsError("the savepoint has a map with nulls: no release of Freshet has written it")
        return self.decode_value(raw[1:])

    def decode_value(self, raw: bytes) -> bytes:
        """The one element of a value."""
        found = self.decode_list(raw)
        if len(found) != 1:
            raise _other_form("a value")
        return found[0]


class ThreadState(PythonState):
    """Thread mode: each element is an array of bytes for Flink, and Flink puts a comma between them."""

    def encode_key(self, text: str) -> bytes:
        """As Flink's `StringValue` writes text: its length plus one, then its characters; ours are ASCII, and short."""
        raw = text.encode("ascii")
        size = len(raw) + 1
        return (bytes([size]) if size < _LONG_TEXT else bytes([size & 0x7F | 0x80, size >> 7])) + raw

    def decode_key(self, raw: bytes) -> str:
        """The text of a key."""
        size, start = (raw[0], 1) if raw[0] < _LONG_TEXT else (raw[0] & 0x7F | raw[1] << 7, 2)
        text = raw[start:]
        if len(text) != size - 1 or not text.isascii():
            raise _other_form("a key of a map")
        return text.decode("ascii")

    def encode_list(self, values: Sequence[bytes]) -> bytes:
        """Elements with their lengths, and commas between them."""
        return _COMMA.join(_sized(pickle.dumps(value)) for value in values)

    def decode_list(self, raw: bytes) -> list[bytes]:
        """The elements of a list."""
        found, at = [], 0
        while at < len(raw):
            if at and raw[at : at + 1] != _COMMA:
                raise _other_form("a list")
            pickled, at = _unsized(raw, at + 1 if at else 0)
            found.append(unpickled(pickled))
        return found


class ProcessState(PythonState):
    """Process mode: Flink keeps what Python has encoded, which may be several elements, as one array of bytes."""

    prefix = "python-state-"

    def encode_key(self, text: str) -> bytes:
        """Text with its length, as an array of bytes."""
        return _sized(_sized(text.encode()))

    def decode_key(self, raw: bytes) -> str:
        """The text of a key."""
        encoded, end = _unsized(raw, 0)
        text, inner = _unsized(encoded, 0)
        if (end, inner) != (len(raw), len(encoded)):
            raise _other_form("a key of a map")
        return text.decode()

    def encode_list(self, values: Sequence[bytes]) -> bytes:
        """All elements in one array."""
        return _sized(b"".join(_sized(pickle.dumps(value)) for value in values))

    def decode_list(self, raw: bytes) -> list[bytes]:
        """The elements of a list: of all arrays."""
        found, at = [], 0
        while at < len(raw):
            if at and raw[at : at + 1] != _COMMA:
                raise _other_form("a list")
            array, at = _unsized(raw, at + 1 if at else 0)
            inner = 0
            while inner < len(array):
                pickled, inner = _unsized(array, inner)
                found.append(unpickled(pickled))
        return found


def _sized(raw: bytes) -> bytes:
    return _INT.pack(len(raw)) + raw


def _unsized(raw: bytes, at: int) -> tuple[bytes, int]:
    """The array of bytes at `at`, and where it ends."""
    if at + 4 > len(raw):
        raise _other_form("an array")
    end = at + 4 + _INT.unpack_from(raw, at)[0]
    if not at + 4 <= end <= len(raw):
        raise _other_form("an array")
    return raw[at + 4 : end], end


def _other_form(what: str) -> SettingsError:
    return SettingsError(f"the savepoint has {what} of another form than this release writes: it cannot be divided")


_COMMA: Final = b","
_NOT_NULL: Final = b"\0"
_LONG_TEXT: Final = 0x80
PYTHON_STATE: Final[dict[str, PythonState]] = {"thread": ThreadState(), "process": ProcessState()}
"""By `python.execution-mode`."""
