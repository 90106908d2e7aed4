"""Escapes paths and other values for the parts of the stack; for Flink's locations, see `jobs/locations.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.local.errors import StackError

_REFUSED = {
    ":": "a colon",
    ",": "a comma",
    ";": "a semicolon",
    "\\": "a backslash",
    "'": "a single quotation mark",
    "${": "the beginning of a placeholder, ${",
}


def check_directory(directory: Path, encoding: str = sys.getfilesystemencoding()) -> None:
    """Raise StackError if `directory`, which Python decoded with `encoding`, cannot contain a stack.

    Colons separate the entries of class paths, commas and semicolons those of lists in settings, and none can be
    escaped there. Flink treats a backslash as a slash, and its thread mode puts the path between single quotes in
    Python code. Java's security configuration expands `${…}`, and Java loads no class from a path with a character
    beyond U+FFFF, such as an emoji.
    """
    text = str(directory)
    if not text.isascii() and encoding.lower().replace("-", "") != "utf8":
        raise StackError(
            f"the path {text!r} is not ASCII, and Python reads the names of files as {encoding}, Java as UTF-8: "
            "start with make, or set PYTHONUTF8=1"
        )
    found = [name for part, name in _REFUSED.items() if part in text]
    if not text.isprintable():
        found.append("a control character, or bytes that are not UTF-8,")
    if any(ord(character) > 0xFFFF for character in text):
        found.append("an emoji or another character beyond U+FFFF")
    if found:
        raise StackError(
            f"the path {text!r} has {' and '.join(found)} in it, which Java and the lists of paths that it is "
            "given cannot hold: move or rename the folder"
        )


def properties_of(values: Mapping[str, str]) -> bytes:
    """A file of Java properties, which is Latin-1: all characters but plain ASCII are escaped.

    >>> properties_of({"log.dirs": "/josé/my shop"})
    b'log.dirs=/jos\\\\u00e9/my\\\\u0020shop\\n'
    """
    return "".join(f"{key}={_escaped(value)}\n" for key, value in values.items()).encode()


def toml_of(value: Any) -> str:
    """A string, a number or a list of strings in TOML, which unlike JSON has no surrogate pairs.

    >>> print(toml_of("/my shop/josé"))
    "/my shop/josé"
    """
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _escaped(value: str) -> str:
    units = memoryview(value.encode("utf-16-be")).cast("B")
    codes = [units[at] << 8 | units[at + 1] for at in range(0, len(units), 2)]
    return "".join(chr(code) if 0x20 < code < 0x7F and code != 0x5C else f"\\u{code:04x}" for code in codes)
