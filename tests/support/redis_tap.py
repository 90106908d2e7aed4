"""All commands that a Redis server executes, in its order, with the values that scripts write."""

import re
import threading
from ast import literal_eval
from typing import Any, Final, NamedTuple, Self

import redis

_LINE: Final = re.compile(r"[\d.]+ \[\d+ (\S+)\] (.*)", re.DOTALL)
_WORD: Final = re.compile(r'"(?:[^"\\]|\\.)*"')


class Executed(NamedTuple):
    """A command of `client`, an address. A command that is in a script follows that of the script."""

    client: str
    words: tuple[bytes, ...]
    in_script: bool


def executed(line: str, client: str) -> Executed:
    r"""A line of MONITOR; `client` is that of the line before.

    >>> executed(r'1.5 [0 10.0.0.1:99] "SET" "k" "\xc3\xa9 \"\\"', "")
    Executed(client='10.0.0.1:99', words=(b'SET', b'k', b'\xc3\xa9 "\\'), in_script=False)
    >>> executed('1.5 [0 lua] "DEL" "k"', "10.0.0.1:99")
    Executed(client='10.0.0.1:99', words=(b'DEL', b'k'), in_script=True)
    """
    found = _LINE.fullmatch(line)
    assert found is not None, line
    words = tuple(literal_eval(f"b{word}") for word in _WORD.findall(found[2]))
    in_script = found[1] == "lua"
    return Executed(client if in_script else found[1], words, in_script)


class RedisTap(threading.Thread):
    """Listens to the server at `url` during the block."""

    def __init__(self, url: str) -> None:
        super().__init__(name="redis-tap", daemon=True)
        self._redis: Any = redis.Redis.from_url(url)
        self._lines: list[bytes] = []

    def __enter__(self) -> Self:
        self._connection = self._redis.connection_pool.get_connection()
        self._connection.send_command("MONITOR")
        assert self._connection.read_response() == b"OK"
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._connection.send_command("QUIT")
        self.join()
        self._connection.disconnect()
        self._redis.close()

    def run(self) -> None:
        """The thread's main function; ends with the answer to QUIT."""
        while (line := self._connection.read_response()) != b"OK":
            self._lines.append(line)

    def commands(self) -> list[Executed]:
        """What was executed so far."""
        client, found = "", []
        for line in list(self._lines):
            one = executed(line.decode("ascii"), client)
            client = one.client
            found.append(one)
        return found
