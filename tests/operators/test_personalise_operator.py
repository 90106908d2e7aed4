"""The personalise operator on fakes: its effect on state, timers, store and outputs, and its failures."""

import time
from collections.abc import Sequence

import pytest

from schemas import metrics
from schemas.lists import encode_list, item_fragment
from schemas.receipts import AccountReceipt, ConsentReceipt, ElementReceipt
from schemas.rejects import RejectReason
from schemas.store import ALL
from tests.support.bucket import BOUNDS, CRASH, EPOCH, ITEMS, Bucket, Record, answers, receipts, side
from tests.support.fakes import TOKEN
from tests.support.naive import plain, plain_answer
from tests.support.vocabulary import (
    BEGINNING,
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    a_command,
    a_consent,
    a_reject,
    an_interaction,
)
from udfs.elements import AccessRequest
from udfs.frozen_model import FrozenModel
from udfs.operators.outputs import CLEAN_EVENTS, REJECTS
from udfs.popularity import decode_sums
from udfs.ranking import ListRules, PopularItems, Ranker
from udfs.state import UserState

# the journey


def test_click_updates_the_list_at_once(bucket: Bucket) -> None:
    bucket.take(a_consent())
    assert bucket.list() is None
    bucket.take(an_interaction(item="tea"))
    first = bucket.list()
    assert first is not None and (first.v, first.reason) == (2, "personalised")
    bucket.take(an_interaction(at=BEGINNING + SECOND, item="oil"))
    second = bucket.list()
    assert second is not None and second.v == 3
    assert [item.id for item in second.items] != [item.id for item in first.items]


def test_nothing_is_kept_or_written_without_consent(bucket: Bucket) -> None:
    emitted = bucket.take(an_interaction())
    assert (bucket.user(), bucket.pages) == (None, {})
    assert not bucket.store.has_list_key("ada")
    assert bucket.account.denied == 1
    assert side(emitted, CLEAN_EVENTS) == []


def test_users_of_an_element_are_scored_in_one_batch(bucket: Bucket) -> None:
    names = ["ada", "bob", "cyd"]
    bucket.take(
        *(a_consent(name) for name in names),
        *(an_interaction(name, BEGINNING + n, item) for n, item in enumerate(ITEMS) for name in names),
    )
    assert bucket.model.batches == [3]


def test_element_emits_receipts_rejects_and_clean_events(bucket: Bucket) -> None:
    emitted = bucket.take(a_consent(), an_interaction(), rejects=[a_reject(offset=5)])
    [consent] = receipts(emitted, ConsentReceipt)
    assert (consent.pseudonym, consent.level, consent.outcome, consent.version) == ("ada", "full", "in_force", 2)
    [element] = receipts(emitted, ElementReceipt)
    [written] = element.lists
    assert (written.pseudonym, written.version, written.outcome, written.event_at) == ("ada", 2, "written", BEGINNING)
    assert (element.bucket, element.account.sent, element.account.accepted) == (3, 2, 1)
    [dead] = side(emitted, REJECTS)
    assert (dead["reason"], dead["offset"]) == (RejectReason.MALFORMED, 5)
    [clean] = side(emitted, CLEAN_EVENTS)
    assert clean == {"purposes": ["personalise", "measure", "train"], "pseudonym": "ada", "item_id": "tea"}
    assert all(isinstance(out, tuple) for out in emitted), "nothing goes to popularity before the second ends"


def test_popularity_is_emitted_once_per_second(bucket: Bucket) -> None:
    bucket.take(a_consent(), an_interaction())
    snapshot = bucket.keyed.snapshot()
    bucket.take(an_interaction(item="cup", segments=("country:NL",)), an_interaction(kind="impression"))
    emitted = bucket.pass_time(SECOND)
    sums = [(segment, decode_sums(raw)) for segment, raw in emitted if isinstance(segment, str)]
    assert [(segment, set(its.items)) for segment, its in sums] == [("all", {"tea", "cup"}), ("country:NL", {"cup"})]
    assert bucket.pass_time(SECOND) == []
    bucket.restart(snapshot)
    [again] = [raw for segment, raw in bucket.pass_time(SECOND) if isinstance(segment, str)]
    assert set(decode_sums(again).items) == {"tea"}, (
        "what a checkpoint held is not lost, what came after it comes again"
    )


def test_denied_or_duplicate_interaction_adds_no_popularity(bucket: Bucket) -> None:
    bucket.take(a_consent(), an_interaction())
    bucket.pass_time(SECOND)
    bucket.take(an_interaction(), an_interaction("bob"))
    assert bucket.pass_time(SECOND) == []


def test_segments_beyond_the_limit_are_dropped_and_counted(bucket: Bucket) -> None:
    bucket.take(a_consent())
    passed_on = set()
    for n in range(20):
        bucket.take(an_interaction(at=BEGINNING + n, item="tea", id=f"e{n}", segments=(f"surface:{n}", "country:NL")))
        passed_on |= {segment for segment, _ in bucket.pass_time(SECOND) if isinstance(segment, str)}
        bucket.restart(bucket.keyed.snapshot())
    assert passed_on == {"all", "surface:0", "country:NL", "surface:1"}
    assert bucket.account.segments_left_out == bucket.keyed.counts["segments_left_out_total"] == 18
    assert bucket.account.accepted == 20


def test_duplicates_write_nothing(bucket: Bucket) -> None:
    bucket.take(a_consent(), an_interaction())
    before, writes = bucket.keyed.snapshot(), bucket.store.writes
    emitted = bucket.take(an_interaction(), an_interaction())
    assert bucket.store.writes == writes
    assert bucket.keyed.states["users-v1"] == before.states["users-v1"]
    assert (bucket.account.accepted, bucket.account.duplicates) == (1, 2)
    assert side(emitted, CLEAN_EVENTS) == []


def test_metrics_count_outcomes(bucket: Bucket) -> None:
    bucket.take(a_consent(), an_interaction(), rejects=[a_reject()])
    counts = bucket.keyed.counts
    assert counts['events_total{outcome="accepted"}'] == counts['events_total{outcome="rejected"}'] == 1
    assert counts['rejects_total{reason="malformed"}'] == 1
    assert (counts['lists_total{outcome="written"}'], counts['lists_total{outcome="gone"}']) == (1, 0)


def test_each_interaction_is_counted_with_one_outcome(bucket: Bucket) -> None:
    bucket.take(a_consent(), an_interaction(), an_interaction(), an_interaction("stranger"), rejects=[a_reject()])
    found = {name: count for name, count in bucket.keyed.counts.items() if name.startswith("events_total")}
    assert found == {f'events_total{{outcome="{outcome}"}}': 1 for outcome in metrics.EVENT_OUTCOMES}


def test_event_to_list_is_measured_from_append_to_the_written_list(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: (BEGINNING + 1_040) / 1_000)
    bucket.take(a_consent(), an_interaction())
    bucket.store.write([a_consent("bob")], [], want_popular=False, token=TOKEN)
    bucket.pass_time(2 * SECOND)
    counts = bucket.keyed.counts
    assert [counts[f'event_to_list_seconds_bucket{{le="{le}"}}'] for le in ("0.5", "1.0", "2.5", "+Inf")] == [
        0,
        0,
        1,
        1,
    ]
    assert (counts["event_to_list_seconds_count"], counts["event_to_list_seconds_sum"]) == (1, 1)


def test_the_model_in_service_is_a_label(bucket: Bucket) -> None:
    bucket.take(a_consent(), an_interaction())
    assert {name: count for name, count in bucket.keyed.counts.items() if name.startswith("model_buckets")} == {
        'model_buckets{model="fixed"}': 1
    }


# consent


def test_opt_out_clears_profile_list_and_due_entries(bucket: Bucket) -> None:
    bucket.take(a_consent(), an_interaction())
    bucket.take(a_consent(level="none", at=BEGINNING + MINUTE))
    state = bucket.user()
    assert state is not None and (state.profile, state.purposes) == (None, 0)
    assert not bucket.store.has_list_key("ada")
    bucket.run_out_of_timers()
    state = bucket.user()
    assert state is not None and state.due_slot == 0
    assert (bucket.pages, bucket.timers) == ({}, set())


def test_opt_out_and_interaction_in_one_element_write_no_list(bucket: Bucket) -> None:
    bucket.take(a_consent(), an_interaction())
    bucket.take(an_interaction(at=BEGINNING + SECOND), a_consent(level="none", at=BEGINNING + MINUTE))
    assert not bucket.store.has_list_key("ada")


def test_frontend_fence_refuses_the_list(bucket: Bucket) -> None:
    bucket.take(a_consent(), an_interaction())
    bucket.store.write([a_consent(level="none", at=BEGINNING + HOUR)], [], want_popular=False, token=TOKEN)
    emitted = bucket.take(an_interaction(at=BEGINNING + SECOND, item="oil"))
    assert not bucket.store.has_list_key("ada")
    assert receipts(emitted, ElementReceipt)[0].lists[0].outcome == "gone"
    assert bucket.keyed.counts['lists_total{outcome="gone"}'] == 1


def test_renewed_consent_restores_the_list_at_once(bucket: Bucket) -> None:
    bucket.take(a_consent(), an_interaction())
    bucket.take(a_consent(at=BEGINNING + MINUTE))
    found = bucket.list()
    assert found is not None and found.v == 3


def test_consent_expires_without_events(bucket: Bucket) -> None:
    bucket.take(a_consent(expires_at=BEGINNING + HOUR), an_interaction())
    bucket.pass_time(HOUR + 2 * MINUTE)
    state = bucket.user()
    assert state is not None and (state.level, state.profile) == (0, None)
    assert not bucket.store.has_list_key("ada")
    assert (bucket.pages, bucket.timers) == ({}, set())


def test_already_expired_consent_leaves_nothing(bucket: Bucket) -> None:
    bucket.keyed.now_ms = BEGINNING + DAY
    bucket.take(a_consent(expires_at=BEGINNING + HOUR), an_interaction())
    bucket.run_out_of_timers()
    state = bucket.user()
    assert state is not None and state.profile is None
    assert bucket.list() is None
    assert bucket.pages == {}


# time


def test_session_ends_without_events(bucket: Bucket) -> None:
    bucket.take(a_consent(level="session"), an_interaction(session="s"))
    found = bucket.list()
    assert found is not None and found.reason == "session"
    bucket.pass_time(BOUNDS.session_gap_ms - MINUTE)
    state = bucket.user()
    assert state is not None and state.profile is not None
    bucket.pass_time(3 * MINUTE)
    state = bucket.user()
    assert state is not None and (state.profile, state.level) == (None, 1)
    assert not bucket.store.has_list_key("ada")
    assert (bucket.pages, bucket.timers) == ({}, set())
    assert bucket.keyed.counts["profiles_forgotten_total"] == 1


def test_continuing_session_is_not_ended(bucket: Bucket) -> None:
    bucket.take(a_consent(level="session"))
    for n in range(10):
        bucket.take(an_interaction(at=BEGINNING + n * 20 * MINUTE, session="s", item=ITEMS[n % 3]))
        bucket.pass_time(20 * MINUTE)
    state = bucket.user()
    assert state is not None and state.profile is not None and len(state.profile.recents) == 3
    assert bucket.list() is not None
    bucket.run_out_of_timers()
    assert bucket.pages == {}


def test_active_user_list_is_refreshed_and_inactive_one_expires(bucket: Bucket) -> None:
    bucket.take(a_consent(), an_interaction())
    for _ in range(7 * 24 - 1):
        bucket.pass_time(HOUR)
        assert bucket.list() is not None
    bucket.pass_time(2 * DAY + HOUR)
    assert bucket.list() is None
    state = bucket.user()
    assert state is not None and state.profile is not None, "but the profile stays"
    bucket.take(an_interaction(at=bucket.keyed.now_ms, item="oil"))
    assert bucket.list() is not None
    bucket.pass_time(DAY)
    assert bucket.list() is not None, "and is kept fresh again"


def test_idle_profile_is_deleted(bucket: Bucket) -> None:
    bucket.take(a_consent(), an_interaction())
    bucket.pass_time(BOUNDS.idle_profile_ttl_ms + 2 * MINUTE)
    state = bucket.user()
    assert state is not None and (state.profile, state.level) == (None, 2)
    assert (bucket.pages, bucket.timers) == ({}, set())


def test_refresh_keeps_the_version(bucket: Bucket) -> None:
    bucket.take(a_consent(), an_interaction())
    before = bucket.list()
    bucket.pass_time(DAY)
    after = bucket.list()
    assert before is not None and after is not None
    assert (after.v, after.items) == (before.v, before.items)
    assert after.at > before.at


# faults


def test_store_outage_is_retried_without_loss(bucket: Bucket) -> None:
    bucket.store.fail_next(7)
    bucket.take(a_consent(), an_interaction())
    assert bucket.list() is not None
    assert bucket.keyed.counts["redis_retries_total"] == 7
    assert bucket.account.accepted == 1


def test_store_outage_at_session_end_is_retried(bucket: Bucket) -> None:
    bucket.take(a_consent(level="session"), an_interaction(session="s"))
    bucket.store.fail_next(3)
    bucket.pass_time(HOUR)
    assert not bucket.store.has_list_key("ada")
    assert bucket.keyed.counts["redis_retries_total"] >= 3


def run(records: Sequence[Record | str], snapshot_at: int, packing: int) -> Bucket:
    """Process records one by one; at CRASH, restore the snapshot and replay in elements of `packing`."""
    bucket, snapshot = Bucket(), None
    for place, record in enumerate(records):
        if place == snapshot_at:
            snapshot = bucket.keyed.snapshot()
        if isinstance(record, str):
            assert snapshot is not None
            bucket.restart(snapshot)
            again = [one for one in records[snapshot_at:place] if not isinstance(one, str)]
            for start in range(0, len(again), packing):
                bucket.take(*again[start : start + packing])
        else:
            bucket.take(record)
    return bucket


STORY: list[Record | str] = [
    a_consent("ada"),
    a_consent("bob", "session"),
    an_interaction("ada", BEGINNING + 1, "tea"),
    an_interaction("bob", BEGINNING + 2, "cup", session="s"),
    an_interaction("ada", BEGINNING + 3, "pot", kind="purchase"),
    CRASH,
    an_interaction("ada", BEGINNING + 3, "pot", kind="purchase"),
    an_interaction("ada", BEGINNING + 4, "jam"),
    an_interaction("bob", BEGINNING + 5, "rye", session="s"),
]


@pytest.mark.parametrize("snapshot_at", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("packing", [1, 2, 5])
def test_replay_with_other_batches_gives_equal_results(snapshot_at: int, packing: int) -> None:
    smooth = run([record for record in STORY if record != CRASH], 0, 1)
    crashed = run(STORY, snapshot_at, packing)
    for name in ("ada", "bob"):
        expected, actual = smooth.user(name), crashed.user(name)
        assert expected is not None and actual is not None
        assert plain(actual) == plain(expected)
        one, other = smooth.list(name), crashed.list(name)
        assert one is not None and other is not None
        assert (other.v, other.items, other.reason) == (one.v, one.items, one.reason)
    assert crashed.account == smooth.account
    assert crashed.account.sent == 6


def test_restore_from_before_opt_out_serves_nothing(bucket: Bucket) -> None:
    bucket.take(a_consent(), an_interaction())
    snapshot = bucket.keyed.snapshot()
    opt_out = a_consent(level="none", at=BEGINNING + MINUTE)
    bucket.take(opt_out)
    bucket.restart(snapshot)
    bucket.take(an_interaction(at=BEGINNING + SECOND, item="oil"))
    assert not bucket.store.has_list_key("ada"), "the fence in the store holds, though state has forgotten"
    bucket.take(a_consent())
    assert bucket.store.level("ada") == "none"
    bucket.take(opt_out)
    state = bucket.user()
    assert state is not None and state.profile is None


def test_older_deployment_never_wins(bucket: Bucket) -> None:
    bucket.take(a_consent(), an_interaction())
    newer = bucket.store.at_epoch(EPOCH + 1)
    found = bucket.list()
    assert found is not None
    ranker, model = Ranker(ListRules(items=4), BOUNDS, EPOCH + 1), FrozenModel(bucket.model, "newer")
    state = bucket.user()
    assert state is not None
    lists = ranker.rank({"ada": state}, PopularItems(), model, BEGINNING, DAY)
    newer.write([], lists, want_popular=False, token=TOKEN)
    emitted = bucket.take(an_interaction(at=BEGINNING + SECOND, item="oil"))
    [receipt] = receipts(emitted, ElementReceipt)
    assert (receipt.model, receipt.lists[0].model, receipt.lists[0].outcome) == ("fixed", "fixed", "stale")
    found = bucket.list()
    assert found is not None and found.model == "newer"


# commands


def test_commands_are_answered_on_receipts(bucket: Bucket) -> None:
    bucket.take(a_consent("ada"), an_interaction("ada"))
    emitted = bucket.take(commands=[a_command("account", 3, "r1")])
    [account] = receipts(emitted, AccountReceipt)
    assert (account.request, account.bucket, account.account.accepted) == ("r1", 3, 1)


def test_state_request_returns_one_user_only(bucket: Bucket) -> None:
    bucket.take(a_consent("ada"), a_consent("bob"), an_interaction("ada"))
    emitted = bucket.take(access_requests=[AccessRequest("ada", "r2", "privacy officer", "GDPR 15")])
    [answer] = answers(emitted)
    assert (answer.request, answer.bucket, answer.pseudonym) == ("r2", 3, "ada")
    assert plain_answer(bytes(answer.state)) == plain(bucket.user("ada") or UserState())


def test_unread_consent_gauge_updates_every_second(bucket: Bucket) -> None:
    bucket.take(a_consent(), an_interaction())
    for unread_ms in (7_000, 90_000, 1_300):
        bucket.unread.age_ms, bucket.unread.records = unread_ms, 17
        bucket.pass_time(SECOND)
        bucket.watch()
        assert bucket.keyed.counts["oldest_unread_consent_seconds"] == unread_ms // 1000
        assert bucket.keyed.counts["unread_records"] == 17


def test_unread_consent_gauge_grows_while_redis_is_unavailable(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.take(a_consent(), an_interaction())
    shown = []

    def nap(seconds: float) -> None:
        bucket.unread.age_ms += 1_000
        shown.append(bucket.keyed.counts["oldest_unread_consent_seconds"])

    monkeypatch.setattr("udfs.operators.patience.nap", nap)
    bucket.restart(bucket.keyed.snapshot())
    bucket.store.fail_next(5)
    bucket.take(an_interaction(at=BEGINNING + SECOND, item="oil"))
    assert shown[0] < shown[-1], "no timer fires meanwhile"


def test_one_popular_item_does_not_hide_the_models_popular_items(bucket: Bucket) -> None:
    """A new shop: five users have met one item, which then is the whole popular list."""
    payload = encode_list(1, EPOCH, b'"popularity"', BEGINNING, "popular", [item_fragment("tea")], [9.0])
    bucket.store.write_popular(ALL, EPOCH, 1, DAY, payload)
    bucket.take(a_consent())
    bucket.pass_time(2 * SECOND)
    for n in range(2):  # the first write of a second reads what is popular
        bucket.take(an_interaction(at=BEGINNING + (3 + n) * SECOND, item=f"unknown-to-the-model-{n}"))
    found = bucket.store.list_of("ada")
    assert found is not None
    assert {"figs", "salt"} <= {item.id for item in found.items}
