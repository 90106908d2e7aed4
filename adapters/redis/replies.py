"""The meaning and remedy of each Redis error reply: one table for job, readers and gateway.

Messages have Redis' error code and the pattern of our keys, never a key, a value or what was sent.
"""

import re
from enum import Enum, auto
from typing import Final

import hiredis

from schemas.errors import FreshetError, StoreFull, StoreMisconfigured, StoreUnavailable


class Remedy(Enum):
    """What helps against an error answer."""

    RETRY = auto()
    """It passes by itself: ask again, later, on the same connection."""
    RELOCATE = auto()
    """The wrong server, or one that is not ready: close the connection, find the primary again, shake hands again."""
    REMAP = auto()
    """The slot is served by another node of the Cluster: ask for the slots again."""
    LOAD = auto()
    """The script is not known to this server: send its text."""
    MAKE_ROOM = auto()
    """Redis has reached `maxmemory`: what removes goes through, what adds does not."""
    REPAIR = auto()
    """What stands under one key is not of ours: remove it and go on, with less consent rather than more."""
    MEND = auto()
    """Configuration: only an operator can fix it. Stop visibly."""


REMEDIES: Final = {
    "LOADING": Remedy.RELOCATE,
    "MASTERDOWN": Remedy.RELOCATE,
    "READONLY": Remedy.RELOCATE,
    "UNBLOCKED": Remedy.RELOCATE,
    "NOREPLICAS": Remedy.RETRY,
    "BUSY": Remedy.RETRY,
    "MISCONF": Remedy.RETRY,
    "TRYAGAIN": Remedy.RETRY,
    "CLUSTERDOWN": Remedy.REMAP,
    "MOVED": Remedy.REMAP,
    "ASK": Remedy.REMAP,
    "NOSCRIPT": Remedy.LOAD,
    "OOM": Remedy.MAKE_ROOM,
    "WRONGTYPE": Remedy.REPAIR,
    "NOAUTH": Remedy.MEND,
    "NOPERM": Remedy.MEND,
    "WRONGPASS": Remedy.MEND,
    "CROSSSLOT": Remedy.MEND,
    "EXECABORT": Remedy.RETRY,
    "NOPROTO": Remedy.MEND,
}
"""By error code. What is not here (`ERR …`: an unknown command, a script that fails) is configuration, too."""

HOW_TO_MEND: Final = {
    "NOAUTH": "set `username` and `password_variable` in the settings of Redis",
    "WRONGPASS": "the user name or the password in the variable that `password_variable` names is wrong",
    "NOPERM": "give the Redis user the rights listed in docs/data-engineers/permissions.md, for keys under this prefix",
    "CROSSSLOT": 'this is a Cluster: set kind = "cluster"',
}

_NESTED: Final = re.compile(r"-?\b(" + "|".join(REMEDIES) + r")\b")
_NO_RIGHT_IN_SCRIPT: Final = "The user executing the script can't"
_WRONG_PASSWORD: Final = ("ERR invalid password", "ERR AUTH ", "ERR Client sent AUTH")


def code_of(error: hiredis.ReplyError) -> str:
    """The code of an error answer; that of the command inside of a script where a script failed.

    Redis 6 wraps it (``ERR Error running script … -READONLY You can't write …``), later ones do not.

    >>> code_of(hiredis.ReplyError("MOVED 3999 127.0.0.1:6381"))
    'MOVED'
    """
    text = str(error)
    code = text.partition(" ")[0].lstrip("-")
    if code != "ERR":
        return code
    if text.startswith(_WRONG_PASSWORD):
        return "WRONGPASS"
    if text.startswith("ERR Error running script"):
        if _NO_RIGHT_IN_SCRIPT in text:
            return "NOPERM"
        found = _NESTED.search(text.partition("@user_script")[2])
        return found[1] if found else "ERR"
    return code


def remedy_for(error: hiredis.ReplyError) -> Remedy:
    """What helps against `error`."""
    return REMEDIES.get(code_of(error), Remedy.MEND)


def raised_for(error: hiredis.ReplyError, prefix: str) -> FreshetError:
    """`error` as what we raise. Keys are told as the pattern of those under `prefix`."""
    code, remedy = code_of(error), remedy_for(error)
    if remedy == Remedy.MAKE_ROOM:
        return StoreFull("Redis has reached maxmemory (OOM)")
    if remedy == Remedy.MEND:
        how = HOW_TO_MEND.get(code, f"Redis says {kind_of(error)!r}: see its version and its configuration")
        return StoreMisconfigured(f"Redis refuses ({code}, keys {prefix}*): {how}")
    return StoreUnavailable(f"Redis refused ({code}, keys {prefix}*)")


def kind_of(error: hiredis.ReplyError) -> str:
    """The first words of an error without code: they never hold what was sent.

    >>> kind_of(hiredis.ReplyError("ERR unknown command `X`, with args beginning with: 'secret'"))
    'unknown command'
    """
    words = str(error).partition(" ")[2]
    return re.split(r"[^A-Za-z ]", words)[0].strip()[:40] or "ERR"
