"""The record of a take-over, in Redis: one job announces to follow another at a moment, both agree, and it is done.

There is at most one, under the key :func:`handover_key`. Each change replaces exactly the bytes that were read, so
that only one of those who decide at the same moment wins.
"""

from typing import Final, Literal

import msgspec

State = Literal["announced", "agreed", "done", "dropped"]
FOREVER: Final = 2**53 - 1
"""Later than every record, in ms."""


class Handover(msgspec.Struct, frozen=True):
    """The job of the epoch `to` follows the job of `since`: it writes what follows from records appended from `at` on.

    `at` is in ms by the brokers' clocks. `announced`: both jobs know, and whoever reaches `at` waits for the decision.
    `dropped`: the former job goes on. `agreed`: the later job writes from `at` on. `done`: the former job has ended.
    """

    since: int
    to: int
    at: int
    state: State


_decode: Final = msgspec.json.Decoder(Handover).decode


def handover_key(prefix: str) -> str:
    """The key of the record.

    >>> handover_key("shop:")
    'shop:handover'
    """
    return f"{prefix}handover"


def ready_key(prefix: str, to: int, epoch: int, subtask: int) -> str:
    """The key by which a subtask of the job of `epoch` says that it knows the announcement of the job `to`.

    >>> ready_key("shop:", 8, 5, 0)
    'shop:handover:8:5:0'
    """
    return f"{prefix}handover:{to}:{epoch}:{subtask}"


def encode_handover(handover: Handover) -> bytes:
    """
    >>> encode_handover(Handover(5, 8, 9, "agreed"))
    b'{"since":5,"to":8,"at":9,"state":"agreed"}'
    """
    return msgspec.json.encode(handover)


def decode_handover(raw: bytes | None) -> Handover | None:
    """The record in `raw`; an unreadable one counts as missing.

    >>> decode_handover(b'{"since":5,"to":8,"at":9,"state":"agreed"}').at, decode_handover(b"?")
    (9, None)
    """
    try:
        return None if raw is None else _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
