"""Test vectors for readers in other languages: ids with their pseudonyms, and servers with whether to trust them.

The rule for the second kind is in :mod:`adapters.redis.greeting`; a test keeps the two consistent.
"""

import hashlib
from typing import Any, Final

import msgspec

from schemas.pseudonyms import JOURNEY_DOMAINS, KeyRing, Pseudonymiser
from schemas.store import Generation, proof_of

USER_IDS: Final = (
    "ada",
    "42",
    "ada@example.com",
    "a b+c/d=e&f%20{g}:h",
    "Zo\u00eb",
    "Zoe\u0308",
    "\u7528\u6237-7",
    "\u0645\u06cc\u200c\u0631\u0648\u0645",
    "\U0001f469\u200d\U0001f680",
    "x" * 200,
)
"""They include a name in two normal forms: an id is identified by its bytes, so these are two users."""
_RUN, _REPLID, _TOKEN = "5" * 40, "c" * 40, "0123456789ab"
_CALLS: Final = "cmdstat_{}:calls={},usec=9,usec_per_call=4.50,rejected_calls=0,failed_calls=0"


def published_ring() -> KeyRing:
    """A key ring during a rotation. Its keys are published: never use it."""
    keys = {
        domain: {kid: hashlib.sha256(f"published {domain} {kid}".encode()).hexdigest() for kid in ("1", "2")}
        for domain in JOURNEY_DOMAINS
    }
    routing = hashlib.sha256(b"published routing").hexdigest()
    return KeyRing(2, routing, keys, previous=1, rotating_since=1_750_000_000_000)


def pseudonym_vectors() -> dict[str, Any]:
    """A key ring, and the pseudonyms it gives for each of :data:`USER_IDS`."""
    ring = published_ring()
    names = Pseudonymiser(ring)
    vectors = [
        {
            "user_id": user_id,
            "utf8": user_id.encode().hex(),
            "current": names.user(user_id),
            "previous": names.previous(user_id),
        }
        for user_id in USER_IDS
    ]
    return {
        "description": "Pseudonyms of user ids under a key ring in the middle of a rotation. Never use these keys.",
        "key_ring": msgspec.to_builtins(ring),
        "vectors": vectors,
    }


def standing_vectors() -> dict[str, Any]:
    """The responses of a server, and the suffix that consents there must have; null if no personal data may be read."""
    life = f"{_RUN}.{_REPLID}"
    vectors = [
        _vector("a server whose life is in the record", _TOKEN, runs=(life,)),
        _vector("one of several lives in the record", _TOKEN, runs=(f"{'6' * 40}.{_REPLID}", life)),
        _vector("another life is in the record", None, runs=(f"{'6' * 40}.{_REPLID}",)),
        _vector("demoted and promoted again since", None, runs=(f"{_RUN}.{'d' * 40}",)),
        _vector("flushed since", None, {"flushall": 1}, runs=(life,)),
        _vector("flushed and restored before", _TOKEN, {"flushall": 1, "restore": 2}, runs=(f"{life}.3",)),
        _vector("every command by which keys go back", _TOKEN, _each(1), runs=(f"{life}.4",)),
        _vector("a command that moves slots", _TOKEN, {"restore-asking": 5, "get": 7}, runs=(life,)),
        _vector("a replica", None, runs=(life,), role="slave"),
        _vector("there is no record", None) | {"generation": None},
        _vector("a record that cannot be read", None, runs=(life,)) | {"generation": "{"},
        _vector("a record without runs", None) | {"generation": f'{{"token":"{_TOKEN}"}}'},
    ]
    return {
        "description": "Answers to INFO server, INFO replication, INFO commandstats and GET {prefix}generation, with "
        "the proof that consents must end with on that connection; null: read nothing personal there.",
        "vectors": vectors,
    }


def _each(calls: int) -> dict[str, int]:
    return dict.fromkeys(("flushall", "flushdb", "swapdb", "restore"), calls)


def _vector(
    name: str,
    token: str | None,
    calls: dict[str, int] | None = None,
    *,
    runs: tuple[str, ...] = (),
    role: str = "master",
) -> dict[str, Any]:
    stats = [_CALLS.format(command, count) for command, count in (calls or {"get": 5}).items()]
    return {
        "name": name,
        "server": _info("Server", f"run_id:{_RUN}", "tcp_port:6379"),
        "replication": _info("Replication", f"role:{role}", "connected_slaves:0", f"master_replid:{_REPLID}"),
        "commandstats": _info("Commandstats", *stats),
        "generation": msgspec.json.encode(Generation(_TOKEN, runs, 1_750_000_000_000)).decode(),
        "proof": None if token is None else proof_of(token).decode(),
    }


def _info(section: str, *lines: str) -> str:
    return "".join(f"{line}\r\n" for line in (f"# {section}", *lines))
