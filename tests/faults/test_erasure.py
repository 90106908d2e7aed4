"""Erasure on real parts: a restore of a savepoint from before it brings nothing back."""

import json
from collections.abc import Iterator

import pytest

from deploy.local import product
from jobs.audit import verification
from schemas import topics
from schemas.signing import load_signing_key
from tests.support.live import Live, start_live, until

pytestmark = pytest.mark.privacy

CONSENTS_AHEAD = 60_000


@pytest.fixture(scope="module", params=["thread", "process"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    running = start_live(tmp_path_factory.mktemp("erasure"), 1, {"python.execution-mode": request.param})
    try:
        yield running
    finally:
        running.close()
        running.stack.stop()


def go_on_from(live: Live, savepoint: str) -> None:
    """Submit the job on `savepoint`, on fresh interpreters."""
    live.job_id = product.submit(live.stack, live.product.settings_path, ("-s", savepoint))
    live.stack.rest.wait_running(live.job_id)


def clean_events_of(live: Live, user: str) -> int:
    mine = live.pseudonymiser.user(user)
    return sum(json.loads(record.value)["pseudonym"] == mine for record in live.records(topics.EVENTS))


def hold_up_consents_behind(live: Live, user: str) -> None:
    """So many changes of somebody else in the partition of `user` that a replay reads interactions long before."""
    name = live.settings.kafka.topic(topics.CONSENTS)
    [mine] = [r for r in live.records(topics.CONSENTS) if r.key == user.encode()]
    other = json.dumps({"user_id": "somebody-else", "level": "full", "ts": mine.timestamp}).encode()
    sender = live.producer()
    for _ in range(CONSENTS_AHEAD):
        sender.send(name, key=b"somebody-else", value=other, partition=mine.partition)
    sender.close()


def test_a_restore_from_before_an_erasure_brings_nothing_back(live: Live):
    live.consent(["ada", "bob"])
    for user in ("ada", "bob"):
        live.interact(user, "item-00001")
        live.wait_for_version(user, 2)
    before = live.stack.rest.stop_with_savepoint(live.job_id)
    go_on_from(live, before)
    for _ in range(20):
        live.interact("ada", "item-00002")
    live.interact("bob", "item-00003")
    live.wait_for_version("ada", 22)
    hold_up_consents_behind(live, "ada")
    live.consent(["ada"], level="none", erase=True)
    assert live.redis.exists(*live.keys("ada")) == 1, "the tombstone alone"
    assert live.pseudonymiser.user("ada") not in live.states()
    after = live.stack.rest.stop_with_savepoint(live.job_id)
    assert after != before
    published = clean_events_of(live, "ada")
    assert published == 21

    go_on_from(live, before)
    live.interact("bob", "item-00004")
    live.wait_for_version("bob", 4)
    live.checkpoint()
    states = live.states()
    assert live.pseudonymiser.user("bob") in states
    assert live.pseudonymiser.user("ada") not in states
    assert live.list_of("ada") is None
    until(lambda: clean_events_of(live, "bob") > 3, "bob's events, published again")
    assert clean_events_of(live, "ada") == published
    assert_the_trail_tells_of_it(live)


def assert_the_trail_tells_of_it(live: Live) -> None:
    """The chain goes on from the older savepoint and says so; what was given up still stands there."""
    key = load_signing_key(live.settings.audit.signing_key)
    trail = verification(live.settings, [key.public], [])
    assert trail.findings == []
    assert any("an older savepoint was restored" in remark for remark in trail.remarks)
    mine = live.pseudonymiser.user("ada").encode()
    erasures = [r for r in live.records(topics.AUDIT) if b'"kind":"erasure"' in r.value and mine in r.value]
    assert len(erasures) >= 1
    assert not any(b'"ada"' in record.value for record in live.records(topics.AUDIT))
