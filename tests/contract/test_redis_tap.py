"""The tap sees what scripts write, whatever the bytes, and whose command it was."""

import doctest
from pathlib import Path

from adapters.waiting import until
from tests.support import redis_tap
from tests.support.redis_server import running_redis
from tests.support.redis_tap import RedisTap

WRITE = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])"


def test_examples() -> None:
    assert doctest.testmod(redis_tap) == (0, 2)


def test_commands_come_in_order_with_the_bytes_that_scripts_write(tmp_path: Path) -> None:
    value = 'é "quoted" \\ \n'.encode() + bytes(range(256))
    with running_redis(tmp_path) as server:
        with RedisTap(server.url) as tap:
            server.client.set("plain", value)
            server.client.eval(WRITE, 1, "scripted", value)
            server.client.get("plain")
            until(lambda: len(tap.commands()) >= 5, "the commands", 10, every_s=0.01)
        commands = tap.commands()
        assert not tap.is_alive()
    told = [(one.words[0], one.in_script) for one in commands]
    assert told == [(b"SET", False), (b"EVAL", False), (b"SET", True), (b"GET", True), (b"GET", False)]
    assert commands[0].words == (b"SET", b"plain", value)
    assert commands[2].words == (b"SET", b"scripted", value)
    assert len({one.client for one in commands}) == 1
