"""Calls Lua scripts by their SHA-1, and sends the source if the server does not know it yet.

Each is a file in ``adapters/redis/lua`` that starts with a description. The script that reads a list is published for
readers in other languages: ``schemas/wire/published/read_list.lua``.
"""

import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

import schemas as words
from adapters.redis.greeting import Command

_TEXTS: Final[dict[str, str]] = {}
_FOLDER: Final = files(__package__) / "lua"
_INCLUDE: Final = re.compile(r"^-- include (\w+\.lua)\n", re.MULTILINE)


class Script:
    """A Lua script; call it with keys and arguments to get the command that runs it.

    >>> Script("return 1")(["k"], 2)
    ('EVALSHA', 'e0e1f9fabfc9d4800c877a703b823ac0578ff8db', 1, 'k', 2)
    """

    def __init__(self, text: str) -> None:
        self.text: Final = text
        self.sha: Final = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        _TEXTS[self.sha] = text

    def __call__(self, keys: Sequence[str | bytes], *arguments: Any) -> Command:
        """The command that runs the script."""
        return "EVALSHA", self.sha, len(keys), *keys, *arguments


def with_source(command: Command) -> Command:
    """The same command with the script's source in place of its SHA-1; the server then remembers the script."""
    return ("EVAL", _TEXTS[command[1]], *command[2:]) if command[0] == "EVALSHA" else command


def keys_of(command: Command) -> list[Any]:
    """The keys of a script's command; for any other command, its first argument."""
    return list(command[3 : 3 + command[2]]) if command[0] in ("EVALSHA", "EVAL") else list(command[1:2])


def _included(found: re.Match[str]) -> str:
    return (_FOLDER / found[1]).read_text("utf-8")


def _load(source: Traversable) -> Script:
    """Load a script; a line ``-- include other.lua`` inserts that file, because Redis' Lua has no `require`."""
    return Script(_INCLUDE.sub(_included, source.read_text("utf-8")))


READ_LIST: Final = _load(files(words) / "wire" / "published" / "read_list.lua")
"""The user's list and the consent that allows it, or nothing if consent does not allow one.

`proof` is :func:`schemas.store.proof_of` the token of a generation record whose `runs` contain the life of this
connection.
"""

WRITE_LIST: Final = _load(_FOLDER / "write_list.lua")
WRITE_POPULAR: Final = _load(_FOLDER / "write_popular.lua")
PUBLISH_UPDATE: Final = _load(_FOLDER / "publish_update.lua")
PUBLISH_WHOLE: Final = _load(_FOLDER / "publish_whole.lua")
WRITE_CONSENT: Final = _load(_FOLDER / "write_consent.lua")
WITHDRAW: Final = _load(_FOLDER / "withdraw.lua")
WRITE_FEATURES: Final = _load(_FOLDER / "write_features.lua")
RELINK: Final = _load(_FOLDER / "relink.lua")
RENEW_GENERATION: Final = _load(_FOLDER / "renew_generation.lua")
REPAIR: Final = _load(_FOLDER / "repair.lua")
TRY_RIGHTS: Final = _load(_FOLDER / "try_rights.lua")
