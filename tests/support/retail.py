"""The Online Retail data as records to send, and the naive twin's verdict on the raw topics."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.secrets.key_rings import load_key_ring
from deploy.demo.replay import Choice, consents_of
from deploy.demo.table import ONLINE_RETAIL, interactions_of, users_of
from schemas import topics
from tests.support.live import Live, until
from tests.support.naive import NaiveReplay, differences

PATH = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "online-retail.parquet"
needs_retail = pytest.mark.skipif(not PATH.exists(), reason=f"the Online Retail data is not there: {PATH}")
CONSENTING = Choice(share=0.9, level="full")


def lines(limit: int | None = None) -> Iterator[tuple[bytes | None, bytes]]:
    """The lines as (key, payload), the first `limit` of them."""
    return itertools.islice(interactions_of(PATH, ONLINE_RETAIL), limit)


def consent_all(live: Live) -> None:
    """Record a decision of every customer, mostly grants, and wait until the job has applied them."""
    by_level: dict[str, list[str]] = {}
    for change in consents_of(PATH, ONLINE_RETAIL, CONSENTING, 1_700_000_000_000):
        by_level.setdefault(change.level, []).append(change.user_id)
    assert sum(map(len, by_level.values())) == len(users_of(PATH, ONLINE_RETAIL))
    for level, users in by_level.items():
        live.consent(users, level)
    # Kafka does not order two topics, not even in a replay after a failure: keep consents out of the replay.
    live.checkpoint()


def twin(live: Live) -> NaiveReplay:
    """The naive twin after reading the raw topics from their beginning, consents first."""
    naive = NaiveReplay(load_key_ring(live.product.endpoints["key_ring"]), live.settings.profile)
    for topic in (topics.CONSENTS, topics.INTERACTIONS):
        naive.feed((r.topic, r.timestamp, r.offset, r.key, r.value) for r in live.records(topic))
    return naive


def assert_equals_twin(live: Live, sent: int) -> dict[str, Any]:
    """Account, states, lists and dead letters equal the twin's: nothing is lost or doubled. Returns the account."""
    account, naive = live.wait_until_accounted(sent), twin(live)
    expected = naive.account()
    outcomes = ("sent", "accepted", "duplicates", "denied", "rejected")
    assert {name: account[name] for name in outcomes} == {name: expected[name] for name in outcomes}
    assert account["accepted"] + account["duplicates"] + account["denied"] + sum(account["rejected"].values()) == sent
    sent_to = live.records(topics.CONSENTS, topics.INTERACTIONS)
    states = live.plain_states({record.key.decode() for record in sent_to if record.key})
    assert live.known_users().total() == len(states), "of nobody else"
    assert differences(naive.states(), states)[:3] == []
    assert _versions_in_redis(live, states) == {
        pseudonym: state["version"] for pseudonym, state in states.items() if (state["profile"] or {}).get("recents")
    }
    live.checkpoint()
    rejected = sum(account["rejected"].values())
    until(lambda: len(live.rejects()) >= rejected, f"{rejected} dead letters")
    assert len(live.rejects()) == rejected, "each reject exactly once"
    return account


def _versions_in_redis(live: Live, states: dict[str, Any]) -> dict[str, int]:
    names = list(states)
    prefix = live.settings.redis.prefix
    heads = live.redis.pipeline(transaction=False)
    for pseudonym in names:
        heads.getrange(f"{prefix}{{{pseudonym}}}:list", 0, 40)
    found = zip(names, heads.execute(), strict=True)
    return {pseudonym: int(head[5:].partition(b",")[0]) for pseudonym, head in found if head}
