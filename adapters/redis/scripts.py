"""Calls Lua scripts by their SHA-1, and sends the source if the server does not know it yet."""

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from adapters.redis.greeting import Command

_TEXTS: Final[dict[str, str]] = {}

REPAIR: Final = """
-- KEYS any
local removed = 0
for _, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'string' and kind ~= 'none' then removed = removed + redis.call('DEL', key) end
end
return removed
"""
"""Removes what is no string: nothing of ours is anything else. Answers how many keys that were."""


class Script:
    """A Lua script; call it with keys and arguments to get the command that runs it.

    >>> Script("return 1")(["k"], 2)
    ('EVALSHA', 'e0e1f9fabfc9d4800c877a703b823ac0578ff8db', 1, 'k', 2)
    """

    def __init__(self, text: str) -> None:
        self.sha: Final = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        _TEXTS[self.sha] = text

    def __call__(self, keys: Sequence[str], *arguments: Any) -> Command:
        """The command that runs the script."""
        return "EVALSHA", self.sha, len(keys), *keys, *arguments


def whole(command: Command) -> Command:
    """The same command with the text of its script in place of the SHA-1: the server knows the script from then on."""
    return ("EVAL", _TEXTS[command[1]], *command[2:]) if command[0] == "EVALSHA" else command


def keys_of(command: Command) -> list[Any]:
    """The keys of a script's command; of any other, its first argument."""
    return list(command[3 : 3 + command[2]]) if command[0] in ("EVALSHA", "EVAL") else list(command[1:2])
