"""Reads text as Excel, Windows and exporters write it.

With or without a byte order mark, in UTF-8, UTF-16 or Windows-1252, optionally compressed with gzip.
"""

import gzip
import io
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, NamedTuple, TextIO

from schemas.errors import FileError

REPLACED: Final = "\ufffd"
"""Replaces each byte that is invalid in the file's encoding."""
WINDOWS: Final = "cp1252"
_GZIP: Final = b"\x1f\x8b"
_UTF8_MARK: Final = b"\xef\xbb\xbf"
# UTF-32 first: its byte order mark begins with that of UTF-16.
_MARKS: Final = {
    _UTF8_MARK: "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_OTHERS: Final = {
    b"PK\x03\x04": "an Excel workbook or a zip archive: save it as CSV UTF-8, or unpack it",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save it as CSV UTF-8",
    b"\x28\xb5\x2f\xfd": "packed with zstd: unpack it, or pack it with gzip",
    b"BZh": "packed with bzip2: unpack it, or pack it with gzip",
    b"\xfd7zXZ": "packed with xz: unpack it, or pack it with gzip",
    b"SQLite format 3": "an SQLite database: export the table as CSV",
}
_PIECE_BYTES: Final = 1 << 20


class Encoding(NamedTuple):
    """The encoding of a file. ``bad_lines``: lines that are invalid in it; they contain :data:`REPLACED`."""

    name: str
    bad_lines: int = 0

    @property
    def replaces(self) -> bool:
        """Whether :data:`REPLACED` in the text means an invalid byte. Windows-1252 has no such character, and five of
        its bytes are undefined."""
        return self.bad_lines > 0 or self.name == WINDOWS


@contextmanager
def open_text(path: Path) -> Iterator[tuple[TextIO, Encoding]]:
    """The text of a file, line ends unchanged, and its encoding; raises :class:`FileError`, also while reading."""
    try:
        with _unpacked(path) as content:
            encoding = encoding_of(content)
        with _unpacked(path) as content, io.TextIOWrapper(content, encoding.name, "replace", "") as text:
            yield text, encoding
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"{path} cannot be read: {error}") from None


def read_beginning(path: Path, size: int = 16) -> bytes:
    """The first bytes of a file; raises :class:`FileError` if it is unreadable or not a regular file."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FileError(f"{path} is not a regular file: save its contents to one")
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from None


def encoding_of(content: IO[bytes]) -> Encoding:
    """The encoding from the byte order mark, else from all bytes.

    Without a mark, lines beyond ASCII decide: UTF-8 if most of them are valid, else Windows-1252, because no other
    encoding can be distinguished from it.
    """
    first = content.readline(_PIECE_BYTES)
    for mark, name in _MARKS.items():
        if first.startswith(mark):
            return _marked(first.removeprefix(mark), content, name)
    if len(first) > 1 and b"\x00" in first[:2]:
        return Encoding("utf-16-le" if first[1] == 0 else "utf-16-be")
    good, bad = _counted(first, content)
    return Encoding(WINDOWS) if bad > good else Encoding("utf-8", bad)


def _marked(first: bytes, content: IO[bytes], name: str) -> Encoding:
    return Encoding(name, _counted(first, content)[1] if name == "utf-8-sig" else 0)


def _counted(first: bytes, content: IO[bytes]) -> tuple[int, int]:
    """How many lines beyond ASCII are valid UTF-8, and how many are not."""
    good = bad = 0
    piece = first
    while piece:
        for line in () if piece.isascii() else piece.split(b"\n"):
            if not line.isascii():
                try:
                    line.decode()
                    good += 1
                except UnicodeDecodeError:
                    bad += 1
        piece = content.read(_PIECE_BYTES)
        if piece:
            piece += content.readline(_PIECE_BYTES)
    return good, bad


def lines_of(path: Path) -> list[str]:
    """The lines of a small UTF-8 or UTF-16 file, without line ends; raises :class:`FileError` for another encoding.

    Does not guess: an id in a wrong encoding is another id.
    """
    with open_text(path) as (text, encoding):
        if encoding.name == WINDOWS or encoding.bad_lines:
            raise FileError(f"{path} is not UTF-8: save it as UTF-8")
        lines = text.read().replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    return lines.removesuffix("\n").split("\n") if lines else []


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    head = read_beginning(path)
    for mark, what in _OTHERS.items():
        if head.startswith(mark):
            raise FileError(f"{path} is {what}")
    with path.open("rb") as file:
        if head.startswith(_GZIP):
            with gzip.open(file) as content:
                yield content  # type: ignore[misc] # what it lacks is not used here
        else:
            yield file
