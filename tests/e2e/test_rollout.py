"""A roll-out on the real stack: `freshet model` in the running job, frozen against online and back, across a kill."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.manifest import MODEL_FILE
from models.random_model import random_model
from schemas import topics
from schemas.receipts import ElementReceipt, decode_receipt
from tests.support.live import Live, start_live, until
from tests.support.models import edit_manifest

BUCKETS = 4


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    settings = {"execution.checkpointing.interval": "500 ms"}
    running = start_live(tmp_path_factory.mktemp("rollout"), flink_settings=settings, model=None)
    try:
        yield running
    finally:
        running.close()
        running.stack.stop()


def freshet_model(shop: Live, *words: str, expect: int = 0) -> str:
    command = [sys.executable, "-m", "freshet", "model", *words, "--settings", str(shop.product.settings_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == expect, done.stderr
    return done.stdout if expect == 0 else done.stderr


def status(shop: Live) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(freshet_model(shop, "status", "--json"))
    assert len(found) == BUCKETS
    return found


def listed(shop: Live, user: str) -> tuple[str, str]:
    """Model and arm of the list that the user's next event causes."""
    known = shop.list_of(user)
    shop.interact(user, "item-00001")
    found = until(
        lambda: (now := shop.list_of(user)) is not None and (known is None or now.v > known.v) and now,
        "a list after an event",
    )
    return found.model.partition("@")[0], found.arm


def test_frozen_model_is_rolled_out_against_the_online_one_and_survives_a_kill(shop: Live, tmp_path: Path) -> None:
    users, before = [f"user-{n}" for n in range(12)], [f"earlier-{n}" for n in range(24)]
    shop.consent([*users, *before])
    for user in before:
        for item in ("item-00002", "item-00003"):
            shop.interact(user, item)
    until(lambda: shop.popular(), "popular items, which fill up lists while the online model knows nobody")
    random_model(tmp_path / "model", items=50)
    version = freshet_model(shop, "push", str(tmp_path / "model"), "--licence", "CC-BY-4.0").strip()
    name, _, digest = version.partition("/")
    short = f"{name}/{digest[:12]}"
    assert re.search(f"{version} .*CC-BY-4.0", freshet_model(shop, "list"))

    freshet_model(shop, "arms", "test", "--arm", f"a={name}:50", "--arm", "b=online:50")
    arms = {user: listed(shop, user) for user in users}
    assert set(arms.values()) == {(short, "a"), ("online", "b")}
    # ... the same users are in the same arms, and receipts say so.
    assert {user: listed(shop, user)[1] for user in users} == {user: arm for user, (_, arm) in arms.items()}

    assert "canary: 5 % of users" in freshet_model(shop, "canary", name, "--percent", "5")
    freshet_model(shop, "activate", short)
    assert listed(shop, users[0]) == (short, "")
    shop.checkpoint()
    shop.stack.kill_task_manager()
    assert listed(shop, users[1]) == (short, ""), "the restored bucket serves what its plan names"
    assert {(one["active"], one["previous"]) for one in status(shop)} == {(version, "default")}

    random_model(tmp_path / "broken", items=50, seed=1)
    edit_manifest(tmp_path / "broken", name="broken-1")
    broken = freshet_model(shop, "push", str(tmp_path / "broken")).strip()
    graph = shop.stack.directory / "versions" / broken / MODEL_FILE
    graph.write_bytes(graph.read_bytes()[:-1])
    assert "damaged" in freshet_model(shop, "activate", "broken-1", expect=2)
    assert listed(shop, users[0]) == (short, "")

    freshet_model(shop, "rollback")
    assert listed(shop, users[0]) == ("online", "")
    told = [decode_receipt(record.value) for record in shop.records(topics.RECEIPTS)]
    assert {arm for one in told if isinstance(one, ElementReceipt) for arm in one.arms} == {"a", "b"}
