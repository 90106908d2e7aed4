"""The handling of each Redis error reply, in the wording of Redis 6.2 and later."""

import hiredis
import pytest

from adapters.redis.fitness import evaluate
from adapters.redis.replies import Remedy, code_of, exception_for, remedy_for
from schemas.errors import StoreFull, StoreMisconfigured, StoreUnavailable

IN_SCRIPT = "ERR Error running script (call to f_bd6f3018): @user_script:1: "
ANSWERS = [
    ("LOADING Redis is loading the dataset in memory", "LOADING", Remedy.RELOCATE),
    ("READONLY You can't write against a read only replica.", "READONLY", Remedy.RELOCATE),
    (
        IN_SCRIPT + "@user_script: 1: -READONLY You can't write against a read only replica.",
        "READONLY",
        Remedy.RELOCATE,
    ),
    (
        "READONLY You can't write against a read only replica. script: f1, on @user_script:2.",
        "READONLY",
        Remedy.RELOCATE,
    ),
    ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "MASTERDOWN", Remedy.RELOCATE),
    ("BUSY Redis is busy running a script.", "BUSY", Remedy.RETRY),
    ("TRYAGAIN Multiple keys request during rehashing of slot", "TRYAGAIN", Remedy.RETRY),
    ("CLUSTERDOWN The cluster is down", "CLUSTERDOWN", Remedy.REMAP),
    ("MOVED 3999 127.0.0.1:6381", "MOVED", Remedy.REMAP),
    ("NOSCRIPT No matching script. Please use EVAL.", "NOSCRIPT", Remedy.LOAD),
    ("OOM command not allowed when used memory > 'maxmemory'.", "OOM", Remedy.MAKE_ROOM),
    (IN_SCRIPT + "@user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.", "OOM", Remedy.MAKE_ROOM),
    ("WRONGTYPE Operation against a key holding the wrong kind of value", "WRONGTYPE", Remedy.REPAIR),
    (IN_SCRIPT + "WRONGTYPE Operation against a key holding the wrong kind of value", "WRONGTYPE", Remedy.REPAIR),
    ("NOPERM this user has no permissions to run the 'info' command", "NOPERM", Remedy.FIX),
    (IN_SCRIPT + "@user_script: 1: The user executing the script can't run this command", "NOPERM", Remedy.FIX),
    ("NOAUTH Authentication required.", "NOAUTH", Remedy.FIX),
    ("WRONGPASS invalid username-password pair or user is disabled.", "WRONGPASS", Remedy.FIX),
    ("ERR unknown command `EVALSHA`, with args beginning with: `secret`", "ERR", Remedy.FIX),
    ("ERR Error compiling script (new function): user_script:1: '=' expected near 'is'", "ERR", Remedy.FIX),
    (IN_SCRIPT + "user_script:1: attempt to compare nil with number", "ERR", Remedy.FIX),
]
RAISED = {Remedy.FIX: StoreMisconfigured, Remedy.MAKE_ROOM: StoreFull}


@pytest.mark.parametrize(("text", "code", "remedy"), ANSWERS)
def test_error_reply_is_recognised_by_its_code(text: str, code: str, remedy: Remedy) -> None:
    error = hiredis.ReplyError(text)
    assert (code_of(error), remedy_for(error)) == (code, remedy)
    raised = exception_for(error, "shop:")
    assert type(raised) is RAISED.get(remedy, StoreUnavailable)
    assert "secret" not in str(raised)


def test_permanent_error_names_code_keys_and_remedy() -> None:
    said = str(exception_for(hiredis.ReplyError("NOPERM this user has no permissions"), "shop:"))
    assert "NOPERM" in said and "shop:*" in said and "permissions.md" in said


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_evicting_redis_is_unfit_and_non_persistent_one_weak(policy: str) -> None:
    found = evaluate({"maxmemory_policy": policy, "aof_enabled": "0"})
    assert policy in found.wrong[0] and "noeviction" in found.wrong[0] and "appendonly yes" in found.weak[0]
