"""Terminal text: escaping, width, truncation and colours. Pure."""

import re
import unicodedata
from typing import Final

_SGR: Final = re.compile("\x1b\\[[0-9;]*m")
BOLD, DIM, RED, GREEN, YELLOW, BLUE, CYAN = "1", "2", "31", "32", "33", "34", "36"
BARS: Final = " ▁▂▃▄▅▆▇█"
ELLIPSIS: Final = "…"


def paint(text: str, *codes: str) -> str:
    """`text` in colours, reset at its end."""
    return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if text else ""


def plain(text: str) -> str:
    """`text` without colours.

    >>> plain(paint("tea", GREEN))
    'tea'
    """
    return _SGR.sub("", text)


def safe(text: str) -> str:
    """`text` from a user's file without terminal control characters.

    >>> safe("tea\\x1b[2J")
    'tea·[2J'
    """
    return "".join(letter if letter.isprintable() else "·" for letter in text)


def width_of(text: str) -> int:
    """The number of columns that `text` takes, without colour codes.

    >>> width_of("茶"), width_of(paint("tea", BOLD))
    (2, 3)
    """
    return sum(_columns(letter) for letter in plain(text))


def _columns(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Cf", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def fit(text: str, width: int) -> str:
    """`text` in exactly `width` columns: truncated with an ellipsis, or padded with spaces; colours are kept.

    >>> fit("Green Tea", 6), fit("tea", 5)
    ('Green…', 'tea  ')
    """
    missing = width - width_of(text)
    if missing >= 0:
        return text + " " * missing
    return _cut(text, width)


def _cut(text: str, width: int) -> str:
    if width <= 0:
        return ""
    kept, used, coloured = [], 0, False
    for part in re.split("(\x1b\\[[0-9;]*m)", text):
        if _SGR.fullmatch(part):
            kept.append(part)
            coloured = part != "\x1b[0m"
            continue
        for letter in part:
            if used + _columns(letter) > width - 1:
                end = ELLIPSIS + " " * (width - 1 - used)
                return "".join(kept) + end + ("\x1b[0m" if coloured else "")
            kept.append(letter)
            used += _columns(letter)
    return "".join(kept)


def sparkline(values: list[int], columns: int) -> str:
    """The last `columns` values as bars.

    >>> sparkline([0, 1, 2, 4], 3)
    '▂▄█'
    """
    shown = values[-columns:] if columns > 0 else []
    top = max(shown, default=0) or 1
    return "".join(BARS[round(8 * value / top)] for value in shown)


def ago(ms: int) -> str:
    """
    >>> ago(400), ago(3_400), ago(125_000)
    ('now', '3 s ago', '2 min ago')
    """
    if ms < 1_000:
        return "now"
    return f"{ms // 1000} s ago" if ms < 60_000 else f"{ms // 60_000} min ago"


def clock(seconds: float) -> str:
    """
    >>> clock(83), clock(3_683)
    ('1:23', '1:01:23')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
