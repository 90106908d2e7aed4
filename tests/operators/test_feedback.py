"""Feedback in the operators: from events that name a list to the topic `metrics`."""

from typing import Any

import msgspec

from schemas.events import EVENT_TYPES
from schemas.receipts import DriftReceipt
from tests.support.bucket import ITEMS, Bucket, receipts
from tests.support.fakes import Harness, Keyed
from tests.support.vocabulary import BEGINNING, DAY, HOUR, MINUTE, SECOND, a_consent, an_erasure, an_interaction
from udfs.drift import DriftSettings
from udfs.drift_watch import decode_watch
from udfs.elements import EventRecord
from udfs.feedback import CountedInput, Counts, FeedbackSettings, FeedbackSums, Series, decode_sums, encode_sums
from udfs.operators.feedback_keeper import FEEDBACK
from udfs.operators.feedback_operator import FeedbackOperator

SETTINGS = FeedbackSettings(publish_every_ms=10 * SECOND)


class Measured:
    """A bucket, and the operator that adds up what its users do."""

    def __init__(self) -> None:
        self.bucket = Bucket()
        self.keyed = Keyed(0, BEGINNING)
        self.feedback = Harness(FeedbackOperator(SETTINGS, DriftSettings()), self.keyed)
        self.passed_on: list[bytes] = []

    def take(self, *records: Any) -> None:
        self.pass_on(self.bucket.take(*records))

    def pass_time(self, ms: int) -> list[dict[str, Any]]:
        """Returns the records of `metrics`."""
        records = []
        for _ in range(ms // SECOND):
            self.pass_on(self.bucket.pass_time(SECOND))
            records += self.feedback.advance_to(self.bucket.keyed.now_ms)
        return [msgspec.json.decode(raw) for raw in records]

    def pass_on(self, outputs: list[Any]) -> None:
        for output in outputs:
            if isinstance(output, tuple) and output[0] is FEEDBACK:
                self.passed_on.append(output[1])
                self.keyed.now_ms = max(self.keyed.now_ms, self.bucket.keyed.now_ms)
                self.feedback.element(output[1])


def an_event(kind: str, position: int, at: int, user: str = "ada") -> EventRecord:
    event = an_interaction(user, at, f"item-{position}", kind)
    return msgspec.structs.replace(event, shown=("online", "b", b"list-one", position, "home"))


def test_what_users_do_is_in_metrics_by_window_and_without_users() -> None:
    shop = Measured()
    shop.take(a_consent("ada"), a_consent("ben"))
    for user in ("ada", "ben"):
        seen = [an_event("impression", place, BEGINNING + SECOND, user) for place in range(4)]
        shop.take(*seen, an_event("click", 1, BEGINNING + 2 * SECOND, user))
    records = shop.pass_time(10 * SECOND)
    assert {record["window"] for record in records} == {"5m", "1h", "24h"}
    for record in records:
        assert (record["model"], record["arm"], record["surface"]) == ("online", "b", "home")
        assert (record["lists"], record["impressions"], record["clicks"], record["ctr"]) == (2, 8, 2, 0.25)
    assert b"ada" not in b"".join(shop.passed_on)
    labels = 'model="online"arm="b"surface="home"'
    assert shop.keyed.counts[f"feedback_impressions_total{{{labels}}}"] == 8


def test_counts_are_passed_on_once_a_second_and_once() -> None:
    shop = Measured()
    shop.take(a_consent("ada"))
    shop.take(an_event("impression", 0, BEGINNING + 100))
    shop.take(an_event("impression", 1, BEGINNING + 200))
    shop.pass_time(3 * SECOND)
    [raw] = shop.passed_on
    assert [counts.impressions for counts in decode_sums(raw).series.values()] == [2]


def test_windows_empty_themselves_and_the_operator_sleeps() -> None:
    shop = Measured()
    shop.take(a_consent("ada"))
    shop.take(an_event("impression", 0, BEGINNING + SECOND))
    assert len(shop.pass_time(20 * SECOND)) == 6, "two publications of three windows"
    assert shop.feedback.advance_to(BEGINNING + 10 * MINUTE)[-2:] != []
    shop.feedback.advance_to(BEGINNING + 2 * DAY)
    assert shop.keyed.timers == set()


def test_a_restart_keeps_the_windows() -> None:
    shop = Measured()
    shop.take(a_consent("ada"))
    shop.take(an_event("impression", 0, BEGINNING + SECOND))
    shop.pass_time(15 * SECOND)
    shop.feedback = Harness(FeedbackOperator(SETTINGS, DriftSettings()), shop.keyed.snapshot())
    shop.keyed = shop.feedback.keyed
    shop.take(an_event("impression", 1, BEGINNING + 16 * SECOND))
    assert {record["impressions"] for record in shop.pass_time(15 * SECOND)} == {2}


def test_unreadable_counts_are_left_out() -> None:
    shop = Measured()
    shop.feedback.element(b"\xc1")
    assert shop.feedback.advance_to(BEGINNING + 15 * SECOND) == []


def test_lists_seen_go_with_the_profile_and_after_a_day() -> None:
    bucket = Bucket()
    bucket.take(a_consent("ada"), a_consent("ben"))
    for user in ("ada", "ben"):
        bucket.take(an_event("impression", 0, BEGINNING + SECOND, user), an_event("click", 0, BEGINNING + SECOND, user))
    user = bucket.user("ada")
    assert user is not None
    assert user.profile is not None
    assert len(user.profile.shown) == 1
    bucket.take(an_erasure("ben", BEGINNING + 2 * SECOND))
    assert bucket.user("ben") is None
    bucket.pass_time(2 * DAY)
    user = bucket.user("ada")
    assert user is not None
    assert user.profile is not None
    assert user.profile.shown == []


def test_a_fallen_rate_is_a_receipt_and_in_metrics() -> None:
    keyed, told, named = Keyed(0, BEGINNING), [], []
    feedback = Harness(FeedbackOperator(SETTINGS, DriftSettings()), keyed)
    for minute in range(120):
        counts = Counts(impressions=1_000, clicks=50 if minute < 80 else 20)
        feedback.element(encode_sums(FeedbackSums({Series("mine", "", "home"): counts}, [0] * len(EVENT_TYPES))))
        outputs = feedback.advance_to(BEGINNING + (minute + 1) * MINUTE)
        told += receipts(outputs, DriftReceipt)
        named += [raw for raw in outputs if isinstance(raw, bytes) and b'"kind":"drift"' in raw]
    assert [(one.what, one.model) for one in told] == [("ctr", "mine")]
    assert len(named) == 1
    assert keyed.counts["drift_alarms_total"] == 1


def test_what_models_rank_from_is_passed_on_by_the_active_model() -> None:
    shop = Measured()
    shop.take(a_consent("ada"))
    known, unknown = an_interaction("ada", BEGINNING + 1, ITEMS[0]), an_interaction("ada", BEGINNING + 2, "never seen")
    shop.take(known, unknown)
    shop.pass_time(2 * SECOND)
    [raw] = shop.passed_on
    assert decode_sums(raw).inputs == {
        CountedInput("history"): [0, 1, 1, 0, 0, 0],
        CountedInput("unknown", "fixed"): [1, 1],
    }


def test_changed_inputs_are_a_receipt() -> None:
    keyed, told = Keyed(0, BEGINNING), []
    feedback = Harness(FeedbackOperator(SETTINGS, DriftSettings()), keyed)
    for hour in range(40):
        known = [9_000, 100] if hour < 30 else [6_000, 3_100]
        kinds = [9_100, *[0] * (len(EVENT_TYPES) - 1)]
        feedback.element(encode_sums(FeedbackSums({}, kinds, {CountedInput("unknown", "mine"): known})))
        told += receipts(feedback.advance_to(BEGINNING + (hour + 1) * HOUR), DriftReceipt)
    assert [(one.what, one.model) for one in told] == [("unknown", "mine")]


def test_state_with_fewer_kinds_of_events_is_continued() -> None:
    keyed = Keyed(0, BEGINNING)
    feedback = Harness(FeedbackOperator(SETTINGS, DriftSettings()), keyed)
    for hour, kinds in enumerate([[2_000], [2_000], [2_000], [2_000] * len(EVENT_TYPES), [2_000] * len(EVENT_TYPES)]):
        feedback.element(encode_sums(FeedbackSums({}, kinds)))
        outputs = feedback.advance_to(BEGINNING + (hour + 1) * HOUR)
    assert [one.what for one in receipts(outputs, DriftReceipt)] == ["kinds"]


def test_unreadable_drift_begins_anew() -> None:
    keyed = Keyed(0, BEGINNING)
    feedback = Harness(FeedbackOperator(SETTINGS, DriftSettings()), keyed)
    for raw in (b"\xc1", b"\x91\x09"):
        keyed.states["drift-v1"].update(raw)
        feedback.element(encode_sums(FeedbackSums({}, [5])))
        feedback.advance_to(keyed.now_ms + MINUTE)
        assert decode_watch(keyed.states["drift-v1"].value()).shares.keys() == {"kinds\n"}
