"""Text edited by people: Windows editors add a byte order mark, or write UTF-16."""

from typing import Final

_UTF8_MARK: Final = b"\xef\xbb\xbf"
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")


def in_utf8(raw: bytes) -> bytes:
    """The text `raw` in UTF-8, without a byte order mark. Bytes that are no text are returned unchanged, for the caller
    to reject.

    >>> in_utf8(b"\\xef\\xbb\\xbf[job]"), in_utf8("[job]".encode("utf-16")), in_utf8(b"[job]")
    (b'[job]', b'[job]', b'[job]')
    """
    if raw.startswith(_UTF16_MARKS):
        try:
            return raw.decode("utf-16").encode()
        except UnicodeDecodeError:
            return raw
    return raw.removeprefix(_UTF8_MARK)
