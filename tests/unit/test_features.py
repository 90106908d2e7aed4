"""Features of users: the same offline, online and in the job; correct at each point in time; gone with the consent."""

import doctest
import tempfile
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import privacy.feature_export
import schemas.wire.feast_layout
from adapters.files.export_parts import read_manifest
from adapters.files.feature_parts import write_feature_rows
from jobs.settings import FeatureSettings
from privacy.export import honour
from privacy.export_folder import delete_export
from privacy.feature_export import deriving, export_features
from schemas.consents import Level
from schemas.errors import ExportError
from schemas.events import EVENT_TYPES
from schemas.pseudonyms import ExportHashes
from schemas.stored_features import PROFILE_FIELD, RowWrite, Seen
from schemas.wire.feast_layout import time_field
from tests.support.examples import examples
from tests.support.exports import an_event_as_published, an_export, settings, standings
from tests.support.features import naive_features, profile_as_of
from tests.support.naive import Record, plain
from tests.support.oracle import Decision
from tests.support.oracle import standing as in_force
from tests.support.vocabulary import (
    BEGINNING,
    DAY,
    HOUR,
    KEY_RING,
    MINUTE,
    SECOND,
    a_consent,
    a_raw_consent,
    a_raw_interaction,
    a_user,
    an_erasure,
    an_interaction,
)
from udfs.feature_rows import FeatureRules, row_writes
from udfs.features import FEATURES, VIEW, accept, values_of
from udfs.model_inputs import ModelInputs
from udfs.profile import ProfileBounds, take
from udfs.state import Profile, decode_state, encode_state

BOUNDS = ProfileBounds()
TTL = 2 * DAY
HASHES = ExportHashes(KEY_RING, "train")
NOW = BEGINNING + 30 * DAY
LATER = 4_000_000_000_000
"""When exports of these tests are made, so that they are not past their retention."""


def test_examples_of_the_layout_run() -> None:
    assert doctest.testmod(schemas.wire.feast_layout) == (0, 4)


def by_name(values: list[Any]) -> dict[str, Any]:
    return {feature.name: value for feature, value in zip(FEATURES, values, strict=True)}


SHOPPED = [
    an_interaction(at=BEGINNING + n * MINUTE, item=item, kind=kind, session="s")
    for n, (item, kind) in enumerate(
        [
            ("tea", "view"),
            ("cup", "click"),
            ("tea", "purchase"),
            ("pot", "impression"),
            (None, "search"),
            ("cup", "view"),
        ]
    )
]


def test_values_are_those_of_models_in_the_job() -> None:
    state = a_user()
    for event in SHOPPED:
        take(state, event, BOUNDS)
    assert state.profile is not None
    wanted = ("kinds", "ages_s", "had_counts", "had_items", "kind_counts", "session_events")
    inputs = ModelInputs({"tea": 1, "cup": 2}, wanted, BOUNDS).of([state.profile], BEGINNING)
    found = by_name(values_of(state.profile, BOUNDS))
    assert found["items"] == ["tea", "cup"]
    for name in ("kinds", "ages_s", "had_counts"):
        assert inputs.features[name][0, -2:].tolist() == np.array(found[name], np.float32).tolist(), name
    assert inputs.weights[0, -2:].tolist() == np.array(found["weights"], np.float32).tolist()
    assert inputs.features["had_items"].tolist() == [[found["had_items"]]]
    assert inputs.features["session_events"].tolist() == [[found["session_events"]]]
    counts = [found[f"count_{name}"] for name in EVENT_TYPES]
    assert inputs.features["kind_counts"][0].tolist() == np.array(counts, np.float32).tolist()


def test_profile_of_a_release_with_fewer_event_types_has_zeros() -> None:
    assert by_name(values_of(Profile(counts=[2.0]), BOUNDS))["count_view"] == 0.0


# -- offline


class Shopped(msgspec.Struct, frozen=True):
    """An interaction: `at` is when it was appended, `late` how much earlier it happened."""

    user: str
    at: int
    late: int
    item: str | None
    kind: str
    session: str | None


GRID = 6 * HOUR
"""Append times are multiples of this, so that several events share one."""
EVENTS = st.lists(
    st.builds(
        Shopped,
        user=st.sampled_from(["ada", "bob", "without-consent"]),
        at=st.integers(1, 24).map(lambda n: BEGINNING + n * GRID),
        late=st.sampled_from([0, 0, MINUTE, 5 * DAY]),
        item=st.sampled_from(["tea", "cup", "pot"]),
        kind=st.sampled_from(["view", "click", "purchase", "impression"]),
        session=st.sampled_from([None, "s1", "s2"]),
    ),
    max_size=24,
)


def raw_records(events: list[Shopped]) -> list[Record]:
    """The interactions in the order in which the job reads them."""
    found = []
    for number, one in enumerate(events):
        fields = {} if one.session is None else {"session_id": one.session}
        raw = a_raw_interaction(
            one.user, one.at - one.late, one.item, one.kind, id=f"e{number}", appended=one.at, **fields
        )
        found.append((one.user, (raw.topic, raw.append_ts, number, raw.key, raw.value)))
    return found  # type: ignore[return-value]


def published(events: list[Shopped]) -> list[Any]:
    return [
        an_event_as_published(
            one.user,
            one.at,
            at=one.at - one.late,
            item=one.item,
            kind=one.kind,
            id=f"e{number}",
            **({} if one.session is None else {"session_id": one.session}),
        )
        for number, one in enumerate(events)
    ]


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [
        row
        for part in read_manifest(folder).features
        for row in pq.read_table(folder / "features" / part.name).to_pylist()
    ]


def with_features(**export: Any) -> Any:
    return msgspec.structs.replace(settings(**export), features=FeatureSettings(ttl_ms=TTL))


def as_of(rows: list[dict[str, Any]], name: str, at: int) -> dict[str, Any] | None:
    """Feast's join, naively: the last row up to `at` that is not older than the feature view's ttl."""
    mine = [row for row in rows if row["user"] == name and ms(row["event_timestamp"]) <= at]
    mine = [row for row in mine if ms(row["event_timestamp"]) > at - TTL]
    return max(mine, key=lambda row: row["event_timestamp"], default=None)


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        assert found[name] == (value if isinstance(value, int) or name.endswith("items") else pytest.approx(value)), (
            name
        )


def ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


@given(EVENTS, st.booleans())
@hypothesis_settings(max_examples=examples(60))
def test_offline_features_at_any_time_are_those_that_the_job_had_then(events: list[Shopped], shuffled: bool) -> None:
    events = sorted(events, key=lambda one: one.at)
    records = raw_records(events)
    stream = published(events)
    if shuffled:  # as `freshet erase rewrite-events` leaves a partition: some records are copied to its end
        stream = stream[len(stream) // 2 :] + stream[: len(stream) // 2]
        events_of_a_moment = Counter((one.user, one.at) for one in events)
        if max(events_of_a_moment.values(), default=0) > 1:
            return  # which of two came first is only known from their order in the partition
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        an_export(folder, stream, [a_raw_consent("ada"), a_raw_consent("bob", offset=1)], LATER)
        export_features(with_features(), folder, lambda line: None)
        rows = rows_in(folder)
    moments = [(row["user"], row["event_timestamp"]) for row in rows]
    assert len(moments) == len(set(moments)), "Feast could choose either of two rows"
    for user in ("ada", "bob"):
        mine = [record for name, record in records if name == user]  # type: ignore[misc]
        for at in (one.at + delta for one in events for delta in (-1, 0, 1, TTL - 1, TTL)):
            expected = profile_as_of(at, mine, user, BOUNDS, TTL)  # type: ignore[arg-type]
            found = as_of(rows, HASHES.user(user), at)
            assert (found is None) == (expected is None), (user, at)
            if found is not None and expected is not None:
                wanted = naive_features(expected, BOUNDS.recents_half_life_ms)
                assert_same(found, wanted)
    assert {row["user"] for row in rows} <= {HASHES.user("ada"), HASHES.user("bob")}


def an_export_with_features(folder: Path) -> None:
    events = published(
        [
            Shopped(user, BEGINNING + n * HOUR, 0, f"item-{n}", "view", None)
            for n in (1, 2, 3)
            for user in ("ada", "bob")
        ]
    )
    an_export(folder, events, [a_raw_consent("ada"), a_raw_consent("bob", offset=1)], LATER)
    export_features(with_features(), folder, lambda line: None)


def rewritten(folder: Path, *more: Any) -> None:
    consents = [a_raw_consent("ada"), a_raw_consent("bob", offset=1), *more]
    users = standings(consents, "train", by_export_name=True)
    honour(folder, read_manifest(folder), users, LATER, deriving(with_features(), folder))


def test_rewrite_of_an_export_removes_an_erased_user_from_the_features(tmp_path: Path) -> None:
    an_export_with_features(tmp_path)
    before = set(tmp_path.glob("features/*"))
    rewritten(tmp_path, a_raw_consent("bob", "none", BEGINNING + DAY, offset=2, erase=True))
    assert {row["user"] for row in rows_in(tmp_path)} == {HASHES.user("ada")}
    assert set(tmp_path.glob("features/*")) == {
        tmp_path / "features" / p.name for p in read_manifest(tmp_path).features
    }
    assert not before & set(tmp_path.glob("features/*"))


def test_features_after_a_new_consent_forget_what_came_before_it(tmp_path: Path) -> None:
    an_export_with_features(tmp_path)
    back = BEGINNING + 150 * MINUTE
    leaves = a_raw_consent("bob", "none", back - MINUTE, offset=2)
    rewritten(tmp_path, leaves, a_raw_consent("bob", at=back, offset=3))
    [row] = [row for row in rows_in(tmp_path) if row["user"] == HASHES.user("bob")]
    assert row["items"] == ["item-3"], "a kept row would still know items from before the withdrawal"


def test_export_past_its_retention_gets_no_features_and_is_deleted_with_them(tmp_path: Path) -> None:
    an_export(tmp_path / "old", published([]), [], BEGINNING)
    with pytest.raises(ExportError, match="past its retention"):
        export_features(with_features(), tmp_path / "old", lambda line: None)
    (tmp_path / "x").mkdir()
    an_export_with_features(tmp_path / "x")
    (tmp_path / "x" / "features" / ".share-0").write_bytes(b"left by a killed run")
    delete_export(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_failed_computation_of_features_leaves_the_export_as_it_was(tmp_path: Path, monkeypatch: Any) -> None:
    an_export_with_features(tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(privacy.feature_export, "rows_of", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_features(with_features(), tmp_path, lambda line: None)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_features_of_many_users_are_divided_into_shares(tmp_path: Path, monkeypatch: Any) -> None:
    an_export_with_features(tmp_path)
    one = sorted(map(str, rows_in(tmp_path)))
    monkeypatch.setattr(privacy.feature_export, "EVENTS_PER_SHARE", 1)
    export_features(with_features(), tmp_path, lambda line: None)
    assert len(read_manifest(tmp_path).features) == 2
    assert sorted(map(str, rows_in(tmp_path))) == one
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.glob("features/*"))


def test_no_rows_still_have_their_columns(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        assert write_feature_rows(file, [(one.name, one.kind) for one in FEATURES], 0, []) == 0
    names = [field.name for field in pq.read_schema(tmp_path / "x")]
    assert names == ["user", "event_timestamp", "created", *(one.name for one in FEATURES)]


# -- online

RULES = FeatureRules(BOUNDS, TTL, 8 * DAY)


class Rows:
    """What is stored, after the writes of each batch; a row that has ended is gone."""

    def __init__(self) -> None:
        self.stored: dict[str, RowWrite] = {}
        self.counts: Counter[str] = Counter()

    def apply(self, *records: Any, now: int) -> None:
        consents = [one for one in records if hasattr(one, "said_at")]
        events = [one for one in records if not hasattr(one, "said_at")]
        seen = {one.pseudonym: self.seen(one.pseudonym, now) for one in (*consents, *events)}
        for write in row_writes(consents, events, seen, RULES, now, self.counts):
            assert write.seen == seen[write.user]
            self.stored[write.user] = write

    def seen(self, user: str, now: int) -> Seen:
        one = self.stored.get(user)
        if one is None or not one.state or 0 < one.state_ends_at <= now:
            return Seen()
        profile = self.fields(user, now).get(PROFILE_FIELD, b"")
        return Seen(one.state, profile)

    def fields(self, user: str, now: int) -> dict[bytes, bytes]:
        one = self.stored.get(user)
        if one is None or not one.fields or one.row_ends_at <= now:
            return {}
        return dict(zip(one.fields[::2], one.fields[1::2], strict=True))

    def items(self, user: str, now: int) -> list[str]:
        raw = self.fields(user, now).get(PROFILE_FIELD)
        profile = decode_state(raw).profile if raw else None
        return [] if profile is None else [item for item, _, _ in profile.recents]


T = BEGINNING


def test_row_begins_with_the_first_event_and_goes_with_the_consent() -> None:
    rows = Rows()
    rows.apply(a_consent(at=T), now=T)
    assert rows.fields("ada", T) == {}
    rows.apply(an_interaction(at=T + MINUTE, item="tea"), now=T + MINUTE)
    assert rows.items("ada", T + MINUTE) == ["tea"]
    assert time_field(VIEW) in rows.fields("ada", T + MINUTE)
    rows.apply(a_consent(level="none", at=T + HOUR), now=T + HOUR)
    assert rows.fields("ada", T + HOUR) == {}
    rows.apply(an_interaction(at=T + 2 * MINUTE, item="late"), now=T + HOUR)
    assert rows.fields("ada", T + HOUR) == {}, "an event from before the withdrawal that is read after it"
    rows.apply(a_consent(at=T + 2 * HOUR), an_interaction(at=T + 3 * MINUTE, item="later"), now=T + 2 * HOUR)
    assert rows.fields("ada", T + 2 * HOUR) == {}, "nor does a new consent bring anything back"


def test_erasure_leaves_neither_row_nor_state() -> None:
    rows = Rows()
    rows.apply(a_consent(at=T), an_interaction(at=T + 1), now=T + 1)
    rows.apply(an_erasure(at=T + HOUR), now=T + HOUR)
    assert rows.stored["ada"].state == b"" and not rows.stored["ada"].fields
    rows.apply(an_interaction(at=T + 2), now=T + HOUR)
    assert rows.stored["ada"].state == b"" and not rows.stored["ada"].fields


def test_narrowing_to_a_session_deletes_the_row() -> None:
    rows = Rows()
    rows.apply(a_consent(at=T), an_interaction(at=T + 1), now=T + 1)
    rows.apply(a_consent(level="session", at=T + HOUR), now=T + HOUR)
    assert rows.fields("ada", T + HOUR) == {}


def test_row_ends_with_a_consent_that_expires_and_with_idleness() -> None:
    rows = Rows()
    rows.apply(a_consent(at=T, expires_at=T + HOUR), an_interaction(at=T + 1), now=T + 1)
    rows.apply(a_consent("bob", at=T), an_interaction("bob", at=T + 1), now=T + 1)
    assert rows.stored["ada"].row_ends_at == T + HOUR
    assert rows.stored["bob"].row_ends_at == T + 1 + TTL
    assert (rows.stored["ada"].state_ends_at, rows.stored["bob"].state_ends_at) == (T + HOUR + 8 * DAY, 0)


def test_events_without_a_consent_on_record_make_no_row() -> None:
    rows = Rows()
    rows.apply(an_interaction(at=T), now=T)
    assert rows.stored == {}


@pytest.mark.parametrize("part", [0, 1])
def test_damaged_bytes_count_as_no_consent_and_are_deleted(part: int) -> None:
    rows = Rows()
    rows.apply(a_consent(at=T), an_interaction(at=T + 1), now=T + 1)
    good = rows.seen("ada", T + 1)
    bad = Seen(*(b"\x01\xc1" if place == part else raw for place, raw in enumerate(good)))
    [write] = row_writes([], [an_interaction(at=T + 2)], {"ada": bad}, RULES, T + 2, rows.counts)
    assert (write.state, write.fields, write.seen) == (b"", (), bad)


def test_applying_a_batch_again_changes_no_feature() -> None:
    rows = Rows()
    batch = a_consent(at=T), *SHOPPED
    rows.apply(*batch, now=T + HOUR)
    first = rows.fields("ada", T + HOUR)
    rows.apply(*batch, now=T + HOUR)
    assert rows.fields("ada", T + HOUR) == first
    assert rows.counts["duplicate"] == len(SHOPPED)


def test_row_that_is_written_from_old_events_is_continued() -> None:
    rows = Rows()
    now = T + 10 * DAY
    rows.apply(a_consent(at=T), an_interaction(at=T + 1, item="tea"), now=now)
    rows.apply(an_interaction(at=T + TTL - 1, item="cup"), now=now + 1)
    assert rows.items("ada", now + 1) == ["tea", "cup"], "as if they had been read in time"
    rows.apply(an_interaction(at=T + 3 * TTL, item="pot"), now=now + 2)
    assert rows.items("ada", now + 2) == ["pot"], "and an idle user begins anew"


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["full", "session", "none", "erase", "alone", "event", "late event"]), st.integers(1, 3 * HOUR)
    ),
    max_size=20,
)


@pytest.mark.promise("features-consent")
@given(ACTS, st.integers(1, 4))
@hypothesis_settings(max_examples=examples(200))
def test_row_never_holds_more_than_consents_allow(acts: list[tuple[str, int]], batch: int) -> None:
    now, records, decisions, appended = BEGINNING, [], [], {}
    for number, (act, gap) in enumerate(acts):
        now += gap
        if act.endswith("event"):
            at = now - (2 * HOUR if act == "late event" else 0)
            records.append(an_interaction(at=max(BEGINNING, at), item=f"i{number}", appended=max(BEGINNING, at)))
            appended[f"i{number}"] = max(BEGINNING, at)
            continue
        level = {"full": "full", "session": "session"}.get(act, "none")
        purposes = 0b110 if act == "alone" else None
        one = a_consent(level=level, at=now, purposes=purposes, erase=act == "erase")
        records.append(one)
        decisions.append(Decision("ada", now, one.level, one.said_at, one.purposes, erase=one.erase))
    rows, end = Rows(), now + SECOND
    for begin in range(0, len(records), batch):
        rows.apply(*records[begin : begin + batch], now=end)
    standing = in_force(decisions)
    for item in rows.items("ada", end):
        assert standing.level == Level.FULL and standing.allows(appended[item]), item


def test_online_and_offline_rows_agree() -> None:
    state = a_user()
    for event in SHOPPED:
        accept(state, event, BOUNDS, TTL)
    raw = encode_state(state)
    found = naive_features(plain(decode_state(raw))["profile"], BOUNDS.recents_half_life_ms)
    assert_same(by_name(values_of(state.profile or Profile(), BOUNDS)), found)
