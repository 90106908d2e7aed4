"""The handshake on each new Redis connection, and its verdict: pure, for sockets and asyncio alike.

A connection counts for nothing until its server has said that it is a primary and which life of Redis it is. A life is
one process (``run_id``) between two changes of its role (``master_replid``): whoever was demoted and promoted again may
have missed what was acknowledged in between. It ends with FLUSHALL and the like, too: what was copied before may be put
back into the running process, the generation record with it. Where that record (:class:`schemas.store.Generation`) does
not hold the life, the connection is *closed*: popular lists may be read there, and nothing personal.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import hiredis

from adapters.redis.replies import code_of
from schemas.errors import StoreUnavailable
from schemas.store import Generation, TenantMark, decode_generation, generation_key

Command = tuple[Any, ...]
REPLICA_LAG_MAX_S: Final = 10
"""A replica that has not acknowledged for longer than this does not count as in touch."""
ANY_TENANT: Final = TenantMark()
NO_JOB_YET: Final = "there is no generation record of a job under this redis_prefix: start the job, or correct it"
LOOK_EVERY_S: Final = 1.0
"""So long a look at role, replicas and generation record holds."""
LOOK_CLOSED_EVERY_S: Final = 0.1
"""The same while a connection is closed: personal lists come back soon after the job has renewed the record."""
WHOLESALE: Final = ("flushall", "flushdb", "swapdb", "restore")
"""Commands by which all keys may go back to what they were. CONFIG RESETSTAT forgets how often they were called.

RESTORE-ASKING, with which a slot of a Cluster moves, is none of them: it brings keys along as they are.
"""


class Look(NamedTuple):
    """What a server says of itself now; `raw` is the generation record, None where there is none or not here."""

    replid: str = ""
    put_back: int = 0
    """How often keys were removed or put back wholesale, since the process began: :data:`WHOLESALE`."""
    replicas: int = 0
    raw: bytes | None = None
    elsewhere: bool = False
    """Whether the generation record is in a slot of another node of the Cluster."""
    refused: str = ""
    """The error code, where the user of Redis may not look."""

    def life(self, run_id: str) -> str:
        """The life of the process `run_id`."""
        return f"{run_id}.{self.replid}" + (f".{self.put_back}" if self.put_back else "")


class Standing(NamedTuple):
    """Which life of Redis a connection leads to, and the generation `token` that it holds for; None is *closed*.

    `because` says why it is closed. `foreign` says why no decision may be acknowledged on it, empty where it may.
    """

    life: str
    token: str | None
    because: str = ""
    foreign: str = ""


def look(prefix: str) -> tuple[Command, ...]:
    """The commands whose answers :func:`looked` takes, :data:`LOOK_COMMANDS` of them."""
    return ("INFO", "replication"), ("INFO", "commandstats"), ("GET", generation_key(prefix))


LOOK_COMMANDS: Final = len(look(""))


def looked(info: Any, stats: Any, raw: Any, *, reading: bool = False) -> Look:
    """The answers to :func:`look`.

    Raises :class:`StoreUnavailable` for a server that is no primary, and an error answer as `hiredis.ReplyError`. With
    `reading`, a user who may not look sees a closed Redis: popular lists can be read all the same.
    """
    for answer in (info, stats, raw):
        if reading and isinstance(answer, hiredis.ReplyError) and code_of(answer) == "NOPERM":
            return Look(refused="NOPERM")
    for answer in (info, stats):
        if isinstance(answer, hiredis.ReplyError):
            raise answer
    said = info_of(info)
    if said.get("role") != "master":
        raise StoreUnavailable("this Redis server is not a primary")
    elsewhere = isinstance(raw, hiredis.ReplyError) and str(raw).startswith(("MOVED", "ASK"))
    if isinstance(raw, hiredis.ReplyError) and not elsewhere and not str(raw).startswith("WRONGTYPE"):
        raise raw
    replid, found = said.get("master_replid", ""), raw if isinstance(raw, bytes) else None
    return Look(replid, put_back(info_of(stats)), in_touch(said), found, elsewhere)


def info_of(info: bytes) -> dict[str, str]:
    """The lines of an ``INFO`` answer.

    >>> info_of(b"# Replication" + bytes([13, 10]) + b"role:master")
    {'role': 'master'}
    """
    return dict(line.split(":", 1) for line in info.decode(errors="replace").splitlines() if ":" in line)


def put_back(stats: Mapping[str, str]) -> int:
    """How often the commands :data:`WHOLESALE` were called.

    >>> put_back({"cmdstat_flushall": "calls=2,usec=9,usec_per_call=4.50", "cmdstat_get": "calls=5,usec=3"})
    2
    """
    calls = (stats.get(f"cmdstat_{name}", "").partition("calls=")[2].partition(",")[0] for name in WHOLESALE)
    return sum(int(count) for count in calls if count.isdigit())


def in_touch(replication: Mapping[str, str]) -> int:
    """How many replicas are online and have acknowledged within :data:`REPLICA_LAG_MAX_S`.

    >>> in_touch({"slave0": "ip=a,port=1,state=online,offset=3,lag=0", "slave1": "ip=b,port=1,state=online,lag=11"})
    1
    """
    found = 0
    for name, value in replication.items():
        if name.startswith("slave") and name[5:].isdigit():
            of_replica = dict(part.split("=", 1) for part in value.split(",") if "=" in part)
            lag = of_replica.get("lag", "")
            found += of_replica.get("state") == "online" and lag.isdigit() and int(lag) <= REPLICA_LAG_MAX_S
    return found


def life_of(server: Any, seen: Look) -> str:
    """The life of Redis behind ``INFO server`` and a look; raises an error answer as `hiredis.ReplyError`."""
    if seen.refused:
        return ""
    if isinstance(server, hiredis.ReplyError):
        raise server
    run_id = info_of(server).get("run_id")
    if not run_id:
        raise StoreUnavailable("this Redis server does not report its run_id")
    return seen.life(run_id)


def standing_of(
    life: str, seen: Look, record: Generation | None, replicas_least: int = 0, tenant: TenantMark = ANY_TENANT
) -> Standing:
    """What may be read on a connection, and whether decisions of `tenant` may be acknowledged on it.

    With `replicas_least` a primary that has lost its replicas is closed, too.
    """
    if seen.refused:
        return Standing(life, None, f"its user may not look at it ({seen.refused}): give them +info")
    foreign = foreign_to(tenant, record)
    if record is None:
        return Standing(life, None, "there is no generation record", foreign)
    if foreign:
        return Standing(life, None, foreign, foreign)
    if life not in record.runs:
        return Standing(life, None, "this life of Redis is not in the generation record")
    if seen.replicas < replicas_least:
        return Standing(life, None, f"{seen.replicas} of {replicas_least} replicas are in touch")
    return Standing(life, record.token)


def foreign_to(tenant: TenantMark, record: Generation | None) -> str:
    """Why decisions of `tenant` may not be acknowledged where this record is; empty where they may.

    Only a record of the job tells that lists are served from here, and under which pseudonyms.
    """
    if tenant == ANY_TENANT:
        return ""
    if record is None:
        return NO_JOB_YET
    return tenant.complaint_about(record.tenant)


def record_of(seen: Look) -> Generation | None:
    """The generation record that was seen."""
    return decode_generation(seen.raw)
