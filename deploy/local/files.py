"""Small files of the stack, written atomically."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace the file in one step: readers see the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(mode)
    draft.chmod(mode)
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def tail(path: Path, lines: int = 15, bytes_max: int = 64 * 1024) -> str:
    """The last lines of a log, or a note that it is empty."""
    if not path.exists() or path.stat().st_size == 0:
        return f"({path.name} is empty)"
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - bytes_max))
        text = log.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])
