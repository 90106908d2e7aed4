"""The handshake on each new Redis connection, and its result: pure, for sockets and asyncio alike.

A connection is not used until its server has reported that it is a primary, and which *life* of Redis it is. A life is
one process (``run_id``) between two changes of its role (``master_replid``), because a server that was demoted and
promoted again may have missed acknowledged writes in between. FLUSHALL and the like also end a life: old data,
including the generation record, may be restored into the running process. If the generation record
(:class:`schemas.store.Generation`) does not contain the life, the connection is *closed*: popular lists may be read
there, but no personal data.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import hiredis

from adapters.redis.replies import code_of
from schemas.errors import StoreUnavailable
from schemas.store import Generation, TenantMark, decode_generation, generation_key

Command = tuple[Any, ...]
REPLICA_LAG_MAX_S: Final = 10
"""A replica that has not acknowledged for longer than this does not count as live."""
ANY_TENANT: Final = TenantMark()
NO_JOB_YET: Final = "there is no generation record of a job under this redis_prefix: start the job, or correct it"
INSPECT_EVERY_S: Final = 1.0
"""How long a check of role, replicas and generation record is valid."""
INSPECT_CLOSED_EVERY_S: Final = 0.1
"""The same while a connection is closed, so that personal lists return soon after the job has renewed the record."""
WHOLESALE: Final = ("flushall", "flushdb", "swapdb", "restore")
"""Commands that may reset all keys to an earlier state. CONFIG RESETSTAT clears their counts.

RESTORE-ASKING, which moves a slot of a Cluster, is not among them: it copies keys unchanged.
"""


class Inspection(NamedTuple):
    """A server's report of itself; `raw` is the generation record, None if it has none."""

    replid: str = ""
    wholesale_resets: int = 0
    """How often keys were removed or restored wholesale since the process started: :data:`WHOLESALE`."""
    replicas: int = 0
    raw: bytes | None = None
    elsewhere: bool = False
    """Whether the generation record is on another node of the Cluster."""
    refused: str = ""
    """The error code, if the Redis user may not inspect the server."""

    def life(self, run_id: str) -> str:
        """The life of the process `run_id`."""
        return f"{run_id}.{self.replid}" + (f".{self.wholesale_resets}" if self.wholesale_resets else "")


class Standing(NamedTuple):
    """The life of Redis behind a connection, and the `token` of its valid generation; None if *closed*.

    `because` says why it is closed. `foreign` says why no decision may be acknowledged on it; empty if decisions may.
    """

    life: str
    token: str | None
    because: str = ""
    foreign: str = ""


def inspection_commands(prefix: str) -> tuple[Command, ...]:
    """The commands whose replies :func:`parse_inspection` takes, :data:`INSPECTION_COMMANDS` of them."""
    return ("INFO", "replication"), ("INFO", "commandstats"), ("GET", generation_key(prefix))


INSPECTION_COMMANDS: Final = len(inspection_commands(""))


def parse_inspection(info: Any, stats: Any, raw: Any, *, reading: bool = False) -> Inspection:
    """Process the replies to :func:`inspection_commands`.

    Raises :class:`StoreUnavailable` if the server is not a primary, and error replies as `hiredis.ReplyError`. With
    `reading`, a user without the right to inspect gets a closed Redis: popular lists can still be read.
    """
    for answer in (info, stats, raw):
        if reading and isinstance(answer, hiredis.ReplyError) and code_of(answer) == "NOPERM":
            return Inspection(refused="NOPERM")
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
    return Inspection(replid, wholesale_resets(info_of(stats)), live_replicas(said), found, elsewhere)


def info_of(info: bytes) -> dict[str, str]:
    """Parse an ``INFO`` reply.

    >>> info_of(b"# Replication" + bytes([13, 10]) + b"role:master")
    {'role': 'master'}
    """
    return dict(line.split(":", 1) for line in info.decode(errors="replace").splitlines() if ":" in line)


def wholesale_resets(stats: Mapping[str, str]) -> int:
    """How often the commands in :data:`WHOLESALE` were called.

    >>> wholesale_resets({"cmdstat_flushall": "calls=2,usec=9,usec_per_call=4.50", "cmdstat_get": "calls=5,usec=3"})
    2
    """
    calls = (stats.get(f"cmdstat_{name}", "").partition("calls=")[2].partition(",")[0] for name in WHOLESALE)
    return sum(int(count) for count in calls if count.isdigit())


def live_replicas(replication: Mapping[str, str]) -> int:
    """How many replicas are online and have acknowledged within :data:`REPLICA_LAG_MAX_S`.

    >>> live_replicas({"slave0": "ip=a,port=1,state=online,lag=0", "slave1": "ip=b,port=1,state=online,lag=11"})
    1
    """
    found = 0
    for name, value in replication.items():
        if name.startswith("slave") and name[5:].isdigit():
            of_replica = dict(part.split("=", 1) for part in value.split(",") if "=" in part)
            lag = of_replica.get("lag", "")
            found += of_replica.get("state") == "online" and lag.isdigit() and int(lag) <= REPLICA_LAG_MAX_S
    return found


def life_of(server: Any, seen: Inspection) -> str:
    """The life of Redis from ``INFO server`` and a check; raises an error reply as `hiredis.ReplyError`."""
    if seen.refused:
        return ""
    if isinstance(server, hiredis.ReplyError):
        raise server
    run_id = info_of(server).get("run_id")
    if not run_id:
        raise StoreUnavailable("this Redis server does not report its run_id")
    return seen.life(run_id)


def standing_of(
    life: str, seen: Inspection, record: Generation | None, replicas_least: int = 0, tenant: TenantMark = ANY_TENANT
) -> Standing:
    """What may be read on a connection, and whether decisions of `tenant` may be acknowledged on it.

    With `replicas_least`, a primary that has lost its replicas is also closed.
    """
    if seen.refused:
        return Standing(life, None, f"its user may not inspect it ({seen.refused}): grant +info")
    foreign = why_foreign(tenant, record)
    if record is None:
        return Standing(life, None, "there is no generation record", foreign)
    if foreign:
        return Standing(life, None, foreign, foreign)
    if life not in record.runs:
        return Standing(life, None, "this life of Redis is not in the generation record")
    if seen.replicas < replicas_least:
        return Standing(life, None, f"{seen.replicas} of {replicas_least} replicas are in touch")
    return Standing(life, record.token)


def why_foreign(tenant: TenantMark, record: Generation | None) -> str:
    """Why decisions of `tenant` may not be acknowledged with this record; empty if they may.

    Only a record written by the job shows that lists are served from here, and under which pseudonyms.
    """
    if tenant == ANY_TENANT:
        return ""
    if record is None:
        return NO_JOB_YET
    return tenant.complaint_about(record.tenant)


def record_of(seen: Inspection) -> Generation | None:
    """The generation record in a report."""
    return decode_generation(seen.raw)
