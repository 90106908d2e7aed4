"""Privacy on real parts during failures: opt-outs during a kill, expiry without events, tenants, raw ids."""

import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from adapters.secrets.key_rings import load_key_ring
from deploy.local import product
from deploy.local.files import write_atomically
from jobs.settings import load_settings
from schemas import topics
from schemas.receipts import ConsentReceipt, decode_receipt
from serving.reader import Reader
from tests.support.live import Live, start_live, until
from tests.support.raw_ids import keys_of, places_of

pytestmark = pytest.mark.privacy

RAW_ID = re.compile(rb"customer-\d{5}")
LEAVING = [f"customer-{number:05d}" for number in range(400)]
STAYING, EXPIRING = "customer-70000", [f"customer-{number:05d}" for number in range(80_000, 80_010)]
SAME = "customer-90000"
EXPIRES_AFTER_MS = 20_000


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A stack with a slot for each of two jobs. Some consents expire during the first tests, within a minute."""
    running = start_live(tmp_path_factory.mktemp("privacy"), 2)
    try:
        running.consent(EXPIRING, expires_at=now_ms() + EXPIRES_AFTER_MS)
        for user in EXPIRING:
            running.interact(user, "item-00003")
        assert running.wait_for_version(EXPIRING[-1], 2).reason == "personalised"
        yield running
    finally:
        running.close()
        running.stack.stop()


@pytest.fixture(scope="module")
def other(live: Live) -> Iterator[Live]:
    """A second tenant on the same stack, with its own topics, keys, Redis prefix and job."""
    stack, ring = live.stack, live.stack.directory / "other" / "key-ring.json"
    ring.parent.mkdir(parents=True, exist_ok=True)
    product.make_keys(ring)
    text = product.settings_text(stack, ring, stack.directory / "model")
    text = text.replace("[kafka]\n", '[kafka]\ntopic_prefix = "other."\ngroup_id = "other"\n', 1)
    path = ring.with_name("freshet.toml")
    write_atomically(path, text.replace("[redis]\n", '[redis]\nprefix = "other:"\n', 1))
    settings = load_settings(path)
    product.create_local_topics(settings.kafka)
    job = product.submit(stack, path)
    stack.rest.wait_running(job)
    tenant = Live(stack, product.Product({**stack.addresses, "key_ring": str(ring)}, settings, path, job))
    yield tenant
    tenant.close()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def recents(state: dict[str, Any]) -> list[str]:
    return [item for item, _, _ in state["profile"]["recents"]]


@pytest.mark.promise("consent-in-faults")
def test_tenants_with_equal_user_ids_stay_separate(live: Live, other: Live):
    for tenant, item in ((live, "item-00001"), (other, "item-00002")):
        tenant.consent([SAME])
        tenant.interact(SAME, item)
        tenant.wait_for_version(SAME, 2)
    mine, theirs = live.pseudonymiser.user(SAME), other.pseudonymiser.user(SAME)
    assert mine != theirs
    assert recents(live.states([SAME])[mine]) == ["item-00001"]
    assert recents(other.states([SAME])[theirs]) == ["item-00002"]

    live.consent([SAME], level="none", erase=True)
    assert live.list_of(SAME) is None and live.states([SAME]) == {}
    assert other.wait_for_version(SAME, 2).reason == "personalised"
    assert recents(other.states([SAME])[theirs]) == ["item-00002"]
    for tenant in (live, other):
        tenant.checkpoint()
    for tenant, strange in ((live, theirs), (other, mine)):
        known = tenant.redis.scan_iter(f"{tenant.settings.redis.prefix}{{{strange}}}*")
        assert list(known) == []
        told = tenant.records(topics.EVENTS, topics.AUDIT, topics.RECEIPTS, topics.DEAD_LETTERS)
        assert not any(strange.encode() in record.value for record in told)


@pytest.mark.promise("consent-in-faults")
def test_opt_outs_during_a_kill_hold_from_their_receipt(live: Live, other: Live):
    users = [*LEAVING, STAYING]
    live.consent(users)
    for user in users:
        live.interact(user, "item-00004")
    live.wait_until_accounted(len(users) + len(EXPIRING) + 1)
    live.checkpoint()
    stop = threading.Event()
    leaving = threading.Thread(target=leave_and_click, args=(live, stop))
    reader = Reader(live.product.endpoints["redis"], load_key_ring(live.product.endpoints["key_ring"]))
    leaving.start()
    killed = [live.stack.kill_task_manager(index).name for index in range(2)]
    try:
        until(lambda: nobody_who_left_is_shown(live, reader), "receipts of all who left", pause_s=0.2)
    finally:
        stop.set()
        leaving.join()
    assert len(set(killed)) == 2 and live.stack.rest.checkpoints(live.job_id)["counts"]["restored"] >= 1
    live.wait_until_accounted(sum(1 for _ in live.records(topics.INTERACTIONS)))
    assert nobody_who_left_is_shown(live, reader)
    assert reader.recommend(STAYING).reason == "personalised"
    reader.close()
    states = live.states(users)
    assert [u for u in LEAVING if states[live.pseudonymiser.user(u)]["profile"] is not None] == []
    assert states[live.pseudonymiser.user(STAYING)]["profile"] is not None


def leave_and_click(live: Live, stop: threading.Event) -> None:
    """All users withdraw, a few at a time, and continue to click."""
    sender, names = live.producer(), live.settings.kafka
    said = {"level": "none", "ts": now_ms()}
    for number, user in enumerate(LEAVING):
        change = json.dumps({"user_id": user, **said}).encode()
        sender.send(names.topic(topics.CONSENTS), key=user.encode(), value=change)
        event = {"event_id": f"behind-{number}", "type": "click", "ts": now_ms(), "user_id": user}
        click = json.dumps({**event, "item_id": "item-00005"}).encode()
        sender.send(names.topic(topics.INTERACTIONS), key=user.encode(), value=click)
        stop.wait(0.01)
    sender.close()


def nobody_who_left_is_shown(live: Live, reader: Reader) -> bool:
    """Whether all receipts have arrived; asserts that no user with a receipt has a personal list."""
    receipts = [decode_receipt(record.value) for record in live.records(topics.RECEIPTS)]
    left = {r.pseudonym for r in receipts if isinstance(r, ConsentReceipt) and r.level == "none"}
    gone = [user for user in LEAVING if live.pseudonymiser.user(user) in left]
    assert [user for user in gone if reader.recommend(user).reason != "popular"] == []
    return len(gone) == len(LEAVING)


@pytest.mark.promise("consent-in-faults")
def test_consents_expire_without_events(live: Live):
    mine = {live.pseudonymiser.user(user): user for user in EXPIRING}

    def told() -> set[str]:
        live.checkpoint()
        trail = [json.loads(r.value) for r in live.records(topics.AUDIT) if b'"kind":"expiry"' in r.value]
        return {record["pseudonym"] for record in trail}

    until(lambda: told() >= mine.keys(), "the expiries in the audit trail", pause_s=2)
    states = live.states(EXPIRING)
    assert [user for name, user in mine.items() if states[name]["profile"] or states[name]["level"]] == []
    assert [user for user in EXPIRING if live.list_of(user)] == []


@pytest.mark.promise("raw-ids-stay")
def test_raw_ids_and_keys_appear_nowhere_else(live: Live, other: Live):
    for tenant in (live, other):
        tenant.checkpoint()
        named = [RAW_ID.search(record.key or b"") for record in tenant.records(topics.CONSENTS)]
        assert any(named), "the search finds what is there"
        assert places_of(tenant, secrets_of(tenant)) == []
    savepoint = live.stack.rest.stop_with_savepoint(live.job_id)
    assert str(live.stack.directory / "flink") in savepoint
    assert places_of(live, secrets_of(live)) == []


def secrets_of(tenant: Live) -> re.Pattern[bytes]:
    return re.compile(RAW_ID.pattern + b"|" + keys_of(load_key_ring(tenant.product.endpoints["key_ring"])).pattern)
