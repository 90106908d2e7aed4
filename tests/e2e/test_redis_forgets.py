"""Redis returns outdated or empty: withdrawn users get no personal list, and all lists come back by themselves."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local import product
from serving.consents import Consents
from serving.reader import Reader
from tests.support.live import Live, until

pytestmark = pytest.mark.privacy
ITEMS = [f"item-{number:05d}" for number in range(1, 60)]


def with_lists(live: Live, *users: str) -> None:
    live.consent(users)
    for user in users:
        live.interact(user, ITEMS[0])
        live.wait_for_version(user, 2)


def reason(reader: Reader, user: str) -> str:
    return reader.recommend(user).reason


@pytest.mark.promise("redis-forgets")
def test_redis_losing_an_acknowledged_withdrawal_restores_no_list(
    live: Live, consents: Consents, reader: Reader, tmp_path: Path
):
    with_lists(live, "forgets-ada", "forgets-bob", "forgets-cyd")
    until(lambda: reason(reader, "forgets-ada") == "personalised", "a personal list")
    data, before = live.stack.directory / "redis", tmp_path / "before"
    savepoint = live.stack.rest.stop_with_savepoint(live.job_id)
    shutil.copytree(data, before)  # what a crash may leave, or a replica that lags may have
    try:
        consents.withdraw("forgets-ada")
        consents.erase("forgets-cyd")
        live.stack.kill_redis()
        shutil.rmtree(data)
        shutil.copytree(before, data)
        live.stack.start_redis()
        assert live.list_of("forgets-ada") is not None, "the list is there again"
        for user in ("forgets-ada", "forgets-bob", "forgets-cyd"):
            assert reason(reader, user) == "popular", "nothing is believed while the job is down"
    finally:
        live.job_id = product.submit(live.stack, live.product.settings_path, ("-s", savepoint))
        live.stack.rest.wait_running(live.job_id)
    until(lambda: reason(reader, "forgets-bob") == "personalised", "bob's list, without any event of bob's")
    assert [reason(reader, user) for user in ("forgets-ada", "forgets-cyd")] == ["popular"] * 2
    assert live.list_of("forgets-ada") is None, "and it was taken away"


@pytest.mark.promise("redis-forgets")
def test_lists_are_rebuilt_after_flushall_without_events(live: Live, reader: Reader):
    users = [f"flushed-{number}" for number in range(40)]
    live.consent(users)
    for user in users:
        live.interact(user, ITEMS[1])
    for user in users:
        live.wait_for_version(user, 2)
    live.consent(["flushed-left"])
    live.interact("flushed-left", ITEMS[1])
    live.wait_for_version("flushed-left", 2)
    live.consent(["flushed-left"], level="none")
    live.redis.flushall()
    until(lambda: [reason(reader, user) for user in users] == ["personalised"] * 40, "40 lists")
    assert reason(reader, "flushed-left") == "popular"
    until(live.popular, "the popular list of everybody")
    assert live.stack.rest.exceptions(live.job_id) == ""


def test_rebuild_command_rewrites_deleted_keys_and_tombstones(live: Live, consents: Consents, reader: Reader):
    with_lists(live, "deleted-dan", "deleted-eve")
    consents.erase("deleted-eve")
    until(lambda: live.redis.exists(live.keys("deleted-eve")[2]), "a tombstone")
    for user in ("deleted-dan", "deleted-eve"):
        live.redis.delete(*live.keys(user))
    done = subprocess.run(
        [sys.executable, "-m", "freshet", "rebuild", "--settings", str(live.product.settings_path)],
        capture_output=True,
        text=True,
    )
    assert "erased users were restored" in done.stdout, done.stderr
    until(lambda: reason(reader, "deleted-dan") == "personalised", "the list")
    assert live.redis.exists(live.keys("deleted-eve")[2])
