"""Feedback: what joins a list, what is counted, and for how long."""

from typing import Any

import msgspec
import pytest

from schemas.consents import PURPOSES
from schemas.errors import SchemaError
from schemas.recommendation_ids import made_of
from tests.support.vocabulary import (
    BEGINNING,
    DAY,
    HOUR,
    MINUTE,
    PSEUDONYMISER,
    SECOND,
    a_consent,
    a_raw_interaction,
    a_user,
    an_ingest,
    an_interaction,
)
from udfs.account import Account
from udfs.consent import apply_consent
from udfs.elements import Element, EventRecord, ShownAt, unpack
from udfs.feedback import (
    POSITIONS_MAX,
    SHOWN_MAX,
    CountedInput,
    Counts,
    FeedbackSettings,
    FeedbackSums,
    Measuring,
    Series,
    added,
    decode_sums,
    encode_sums,
)
from udfs.feedback_windows import FeedbackWindows, metric_records, rates
from udfs.personalise import Users, apply
from udfs.profile import ProfileBounds
from udfs.state import Profile, UserState, encode_state

HOME = Series("online", "", "home")
MEASURE_ONLY = 1 << PURPOSES.index("measure")


def an_event(kind: str, position: int = 0, at: int = BEGINNING, made: bytes = b"list-one", **more: Any) -> EventRecord:
    shown: ShownAt = ("online", "", made, position, "home")
    named = f"{kind} {position} {at} {made!r}"
    return msgspec.structs.replace(an_interaction(kind=kind, at=at, id=named, **more), shown=shown)


def measured(*events: EventRecord, state: UserState | None = None, window_ms: int = 30 * MINUTE) -> Counts:
    """The counts of one user's events, in one element."""
    user = a_user() if state is None else state
    measuring = Measuring(FeedbackSettings(window_ms=window_ms))
    users = Users(lambda name: encode_state(user) if name == "ada" else None)
    changes = apply(Element(0, list(events)), users, Account(), ProfileBounds(), "t", None, measuring)
    sums = measuring.sums({event.pseudonym for event in [*changes.accepted, *changes.kept]})
    return sums.series.get(HOME, Counts())


def test_a_list_is_counted_once_and_each_position_once() -> None:
    counts = measured(
        *(an_event("impression", place) for place in range(3)),
        an_event("impression", 0, BEGINNING + SECOND),
        an_event("click", 1, BEGINNING + 2 * SECOND),
        an_event("click", 1, BEGINNING + 3 * SECOND),
    )
    assert (counts.lists, counts.impressions, counts.clicks, counts.hits) == (1, 3, 1, 1)


def test_a_purchase_of_what_was_clicked_is_one_hit() -> None:
    counts = measured(an_event("click", 7), an_event("purchase", 7, BEGINNING + SECOND))
    assert (counts.clicks, counts.purchases, counts.hits, counts.hits_at) == (1, 1, 1, [0, 1])


def test_what_was_clicked_was_seen() -> None:
    counts = measured(an_event("click", 2))
    assert (counts.lists, counts.impressions, counts.clicks) == (1, 1, 1)


@pytest.mark.parametrize(("position", "counted"), [(0, 1), (29, 1), (30, 0), (63, 0), (-1, 0)])
def test_position_beyond_the_longest_list_is_not_counted(position: int, counted: int) -> None:
    measuring = Measuring(FeedbackSettings(), longest=30)
    state, event = a_user(), an_event("click", position)
    state.profile = Profile(newest_ts=BEGINNING)
    measuring.accepted(state, event)
    assert len(measuring.sums({event.pseudonym}).series) == counted


@pytest.mark.parametrize(("made_ms", "counted"), [(BEGINNING - SECOND, 0), (BEGINNING + 2 * SECOND, 1)])
def test_list_from_before_a_withdrawal_is_not_counted_after_a_new_consent(made_ms: int, counted: int) -> None:
    state = UserState()
    for level, at in (("full", BEGINNING - MINUTE), ("none", BEGINNING), ("full", BEGINNING + SECOND)):
        apply_consent(state, a_consent(level=level, at=at))
    event = an_event("click", 0, BEGINNING + MINUTE, made=made_of(1, made_ms))
    assert measured(event, state=state).clicks == counted


def test_an_event_joins_only_within_the_window() -> None:
    late = an_event("click", 0, BEGINNING + HOUR)
    counts = measured(an_event("impression"), late)
    assert (counts.lists, counts.impressions, counts.clicks) == (2, 2, 1), "it begins anew"
    assert measured(an_event("impression"), late, window_ms=2 * HOUR).lists == 1


def test_only_the_last_lists_are_remembered() -> None:
    state = a_user()
    lists = [an_event("impression", 0, BEGINNING + n, b"list%4d" % n) for n in range(SHOWN_MAX + 5)]
    measuring = Measuring(FeedbackSettings())
    users = Users(lambda _: encode_state(state))
    apply(Element(0, lists), users, Account(), ProfileBounds(), "t", None, measuring)
    found = users.get("ada")
    assert found is not None
    assert found.profile is not None
    assert [one.made for one in found.profile.shown] == [event.shown[2] for event in lists[-SHOWN_MAX:] if event.shown]


@pytest.mark.parametrize("position", [POSITIONS_MAX, 100_000])
def test_a_position_that_no_list_has_counts_nothing(position: int) -> None:
    assert measured(an_event("click", position)) == Counts()


@pytest.mark.promise("feedback-needs-consent")
@pytest.mark.parametrize(
    ("state", "counted"),
    [
        (a_user(purposes=MEASURE_ONLY), 1),
        (a_user("none", purposes=0, kept_for=MEASURE_ONLY), 1),
        (a_user(purposes=~MEASURE_ONLY & 7), 0),
        (a_user("session"), 0),
        (a_user("none", purposes=0), 0),
    ],
)
def test_only_users_who_allow_measuring_are_measured(state: UserState, counted: int) -> None:
    event = an_event("impression")
    assert measured(event, state=state).lists == counted


def test_a_replayed_event_counts_once() -> None:
    event = an_event("impression")
    assert measured(event, event).impressions == 1


def test_events_of_users_who_were_denied_in_the_end_do_not_count() -> None:
    measuring = Measuring(FeedbackSettings())
    users = Users(lambda _: encode_state(a_user()))
    apply(Element(0, [an_event("click")]), users, Account(), ProfileBounds(), "t", None, measuring)
    assert measuring.sums([]).series == {}
    assert measuring.sums(["ada"]).series[HOME].clicks == 1


def the_event(**fields: Any) -> EventRecord:
    [(_, raw)] = an_ingest().pack([a_raw_interaction(**fields)])
    [event] = unpack(raw).events
    return event


def test_ingest_names_the_list_and_passes_no_other_request_on() -> None:
    own = PSEUDONYMISER.recommendations.of(PSEUDONYMISER.user("ada"), "mine", "b", 3, BEGINNING).decode()
    named = {"kind": "click", "position": 4, "surface": "home"}
    assert (the_event(request_id=own, **named).shown or ())[:2] == ("mine", "b")
    assert (the_event(request_id=own, **named).shown or ())[3:] == (4, "home")
    assert the_event(request_id=own, kind="click").shown is None, "no position"
    assert the_event(request_id="ada@example.org", **named).shown is None
    bens = PSEUDONYMISER.recommendations.of(PSEUDONYMISER.user("ben"), "mine", "b", 3, BEGINNING).decode()
    assert the_event(request_id=bens, **named).shown is None, "another user's list"


class Knows:
    """A model that knows tea."""

    name = "online@17"

    def knows(self, item: str) -> bool:
        return item == "tea"


def inputs_of(state: UserState, *events: EventRecord) -> dict[CountedInput, list[int]]:
    measuring = Measuring(FeedbackSettings())
    users = Users(lambda _: encode_state(state))
    apply(Element(0, list(events)), users, Account(), ProfileBounds(), "t", None, measuring)
    assert measuring.sums([], Knows()).inputs == {}, "nothing of users who were denied in the end"
    return dict(measuring.sums(["ada"], Knows()).inputs)


def test_lengths_of_histories_and_unknown_items_are_counted() -> None:
    items = ["tea", "cup", "tea", "pot", "jug"]
    events = [an_interaction(item=item, at=BEGINNING + n, id=f"e{n}") for n, item in enumerate(items)]
    scroll = an_interaction(item="tea", at=BEGINNING + 9, id="scrolled", kind="scroll")
    assert inputs_of(a_user(), *events, scroll) == {
        CountedInput("history"): [0, 1, 3, 1, 0, 0],
        CountedInput("unknown", "online"): [2, 3],
    }


@pytest.mark.promise("feedback-needs-consent")
@pytest.mark.parametrize(
    "state", [a_user(purposes=~MEASURE_ONLY & 7), a_user("session"), a_user("none", purposes=0, kept_for=MEASURE_ONLY)]
)
def test_inputs_count_only_users_who_allow_measuring_and_have_lists_of_their_own(state: UserState) -> None:
    assert inputs_of(state, an_interaction(item="tea")) == {}


def test_sums_survive_their_bytes_and_older_ones_are_read() -> None:
    series = {HOME: Counts(1, 2, 3, 4, 5, [6, 7], [8, 9])}
    sums = FeedbackSums(series, [1, 2, 3], {CountedInput("history"): [1, 2], CountedInput("unknown", "online"): [3, 4]})
    assert decode_sums(encode_sums(sums)) == sums
    assert decode_sums(msgspec.msgpack.encode((list(series.items()), [1, 2, 3]))) == FeedbackSums(series, [1, 2, 3])
    assert added([sums, sums]).inputs == {CountedInput("history"): [2, 4], CountedInput("unknown", "online"): [6, 8]}


def test_windows_slide() -> None:
    windows, one = FeedbackWindows(10), {HOME: Counts(lists=1, impressions=10, clicks=1)}
    for minute in (0, 30, 59):
        windows.add(one, BEGINNING + minute * MINUTE)
    now = BEGINNING + 59 * MINUTE

    def lists(length_ms: int, now_ms: int) -> int:
        return windows.window(length_ms, now_ms).get(HOME, Counts()).lists

    assert (lists(5 * MINUTE, now), lists(HOUR, now), lists(DAY, now)) == (1, 3, 3)
    assert (lists(HOUR, now + 32 * MINUTE), lists(DAY, now + 23 * HOUR)) == (1, 3)
    assert FeedbackWindows(10, windows.encode(now + 3 * DAY)).series() == set(), "nothing stays for ever"


def test_windows_survive_their_bytes_and_refuse_others() -> None:
    windows = FeedbackWindows(10)
    windows.add({HOME: Counts(lists=1)}, BEGINNING)
    again = FeedbackWindows(10, windows.encode(BEGINNING))
    assert again.window(HOUR, BEGINNING) == windows.window(HOUR, BEGINNING)
    with pytest.raises(SchemaError):
        FeedbackWindows(10, msgspec.msgpack.encode([2, {}, {}]))


def test_surfaces_beyond_the_bound_share_one_series() -> None:
    windows = FeedbackWindows(3)
    for n in range(10):
        windows.add({Series("online", "", f"s{n}"): Counts(lists=1)}, BEGINNING)
    assert {series.surface for series in windows.series()} == {"s0", "s1", "s2", "other"}
    assert windows.window(HOUR, BEGINNING)[Series("online", "", "other")].lists == 7


def test_rates() -> None:
    counts = Counts(1, 10, 2, 1, 2, [5, 10], [1, 2])
    assert rates(counts) == {
        "ctr": 0.2,
        "precision_at_5": 0.2,
        "recall_at_5": 0.5,
        "precision_at_10": 0.2,
        "recall_at_10": 1.0,
    }
    assert rates(Counts()) == {}


def test_a_metric_record_is_json_without_users() -> None:
    windows = FeedbackWindows(3)
    windows.add({HOME: Counts(1, 10, 2, 1, 2, [5, 10], [1, 2])}, BEGINNING)
    first = msgspec.json.decode(metric_records(windows, BEGINNING)[0])
    assert (first["kind"], first["window"], first["model"], first["surface"]) == ("feedback", "5m", "online", "home")
    assert first["ctr"] == 0.2
