"""The meaning and remedy of each Redis error reply: one table for job, readers and gateway.

Messages contain Redis' error code and the pattern of our keys, never a key, a value or anything that was sent.
"""

import re
from enum import Enum, auto
from typing import Final

import hiredis

from schemas.errors import FreshetError, StoreFull, StoreMisconfigured, StoreUnavailable


class Remedy(Enum):
    """What to do about an error reply."""

    RETRY = auto()
    """Temporary: ask again later, on the same connection."""
    RELOCATE = auto()
    """The wrong server, or one that is not ready: close the connection, find the primary, and shake hands again."""
    REMAP = auto()
    """Another node of the Cluster serves the slot: look up the slots again."""
    LOAD = auto()
    """The server does not know the script: send its source."""
    MAKE_ROOM = auto()
    """Redis has reached `maxmemory`: deletions work, additions do not."""
    REPAIR = auto()
    """A key holds a value that is not ours: remove it and go on, with less consent rather than more."""
    FIX = auto()
    """A configuration error that only an operator can fix: stop visibly."""


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
    "NOAUTH": Remedy.FIX,
    "NOPERM": Remedy.FIX,
    "WRONGPASS": Remedy.FIX,
    "CROSSSLOT": Remedy.FIX,
    "EXECABORT": Remedy.RETRY,
    "NOPROTO": Remedy.FIX,
}
"""By error code. Others (`ERR …`: an unknown command, a script that fails) are configuration errors."""

HOW_TO_FIX: Final = {
    "NOAUTH": "set `username` and `password_variable` in the settings of Redis",
    "WRONGPASS": "the user name or the password in the variable that `password_variable` names is wrong",
    "NOPERM": "give the Redis user the rights listed in docs/data-engineers/permissions.md, for keys under this prefix",
    "CROSSSLOT": 'this is a Cluster: set kind = "cluster"',
}

_NESTED: Final = re.compile(r"-?\b(" + "|".join(REMEDIES) + r")\b")
_NO_RIGHT_IN_SCRIPT: Final = "The user executing the script can't"
_WRONG_PASSWORD: Final = ("ERR invalid password", "ERR AUTH ", "ERR Client sent AUTH")


def code_of(error: hiredis.ReplyError) -> str:
    """The code of an error reply; for a failed script, that of the command inside it.

    Redis 6 wraps it (``ERR Error running script … -READONLY You can't write …``), later versions do not.

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
    """What to do about `error`."""
    return REMEDIES.get(code_of(error), Remedy.FIX)


def exception_for(error: hiredis.ReplyError, prefix: str) -> FreshetError:
    """The exception for `error`. Its text shows only the pattern of keys under `prefix`."""
    code, remedy = code_of(error), remedy_for(error)
    if remedy == Remedy.MAKE_ROOM:
        return StoreFull("Redis has reached maxmemory (OOM)")
    if remedy == Remedy.FIX:
        how = HOW_TO_FIX.get(code, f"Redis says {kind_of(error)!r}: see its version and its configuration")
        return StoreMisconfigured(f"Redis refuses ({code}, keys {prefix}*): {how}")
    return StoreUnavailable(f"Redis refused ({code}, keys {prefix}*)")


def kind_of(error: hiredis.ReplyError) -> str:
    """The first words of an error without a code, which never contain sent data.

    >>> kind_of(hiredis.ReplyError("ERR unknown command `X`, with args beginning with: 'secret'"))
    'unknown command'
    """
    words = str(error).partition(" ")[2]
    return re.split(r"[^A-Za-z ]", words)[0].strip()[:40] or "ERR"
