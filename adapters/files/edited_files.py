"""Reads text files that people write and edit."""

from pathlib import Path

from schemas.edited_text import in_utf8


def read_edited(path: Path) -> bytes:
    """The text of the file `path`, normalised by :func:`schemas.edited_text.in_utf8`; raises :class:`OSError`."""
    return in_utf8(path.read_bytes())
