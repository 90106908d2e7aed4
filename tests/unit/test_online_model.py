"""The online model against its naive twin, and what no scorer may ever be given."""

import contextlib
import random
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.model_recall import score_all
from models.online.blend import Blend, Histories
from models.online.dimensions import HISTORY, OWN_ITEMS, PAIR_HALF_LIFE_MS, SLOTS
from models.online.item_popularity import ItemPopularity
from models.online.learner import Learner
from models.online.lessons import Lesson, decode_sums, encode_sums, sum_lessons
from models.online.pair_table import Pairs, PairTable, summed
from models.online.score_weights import Gradients
from models.online.tables import Tables, largest
from models.online.trending import trending
from models.online.updates import Update, decode_update, encode_update
from schemas.errors import ModelError, SchemaError
from schemas.topics import DAY_MS
from tests.support.examples import examples
from tests.support.naive_online import NaivePairs, naive_scores
from udfs.online_model import OnlineModel
from udfs.ranking import ListRules
from udfs.state import Profile

BEGINNING = 1_700_000_000_000
GOLDEN = Path(__file__).parents[1] / "golden" / "state"
BLEND = Blend()
lesson_seeds = st.integers(0, 2**32)


def a_stream(seed: int, events: int = 60, items: int = 12, users: int = 5, step_ms: int = DAY_MS // 3) -> list[Lesson]:
    """Users drawn evenly, items more or less popular; `before` as the job has it: each item once, newest first."""
    draw, pasts, lessons = random.Random(seed), dict[int, list[str]](), []
    for number in range(events):
        user, item = draw.randrange(users), f"i{min(draw.randrange(items), draw.randrange(items))}"
        past = pasts.setdefault(user, [])
        lessons.append(Lesson(item, BEGINNING + number * step_ms, user, tuple(past[:-12:-1])))
        if item in past:
            past.remove(item)
        past.append(item)
    return lessons


def taught(
    lessons: Sequence[Lesson], size: int = 7, learner: Learner | None = None
) -> Iterator[tuple[Learner, Update]]:
    """A learner after each of its updates, of so many lessons each."""
    learner = Learner() if learner is None else learner
    for begin in range(0, len(lessons), size):
        some = lessons[begin : begin + size]
        yield learner, decode_update(encode_update(learner.learn([sum_lessons(some)], some[-1].ts)))


def tables_of(updates: Sequence[Update]) -> Tables:
    tables = Tables()
    for update in updates:
        tables.apply(update)
    tables.refresh()
    return tables


def named(tables: Tables, row: int) -> dict[str, int]:
    """The neighbours of a row by id, and their places."""
    places = enumerate(tables.feed["neighbours"][row].tolist())
    return {tables.ids[neighbour]: place for place, neighbour in places if neighbour}


def some_histories(tables: Tables, seed: int, users: int = 4) -> Histories:
    draw = np.random.default_rng(seed)
    rows = np.array([0, *tables.index.values()])
    items = np.zeros((users, HISTORY), np.int32)
    own, own_counts = np.zeros((users, OWN_ITEMS), np.int32), np.zeros((users, OWN_ITEMS), np.float32)
    sizes = draw.integers(1, min(len(rows), HISTORY), users, endpoint=True)
    for user, size in enumerate(sizes):
        met = draw.permutation(rows[1:])[:size]
        items[user, HISTORY - len(met) :] = met
        own[user, : len(met)] = met
        own_counts[user, : len(met)] = draw.random(len(met)) + 0.1
    return Histories(items, draw.choice(rows, (users, 3)).astype(np.int32), own, own_counts, sizes)


@given(seed=lesson_seeds, size=st.integers(1, 30))
@settings(max_examples=examples(20), deadline=None)
def test_pair_counts_equal_those_of_the_twin(seed: int, size: int) -> None:
    lessons = a_stream(seed)
    *_, (learner, _) = taught(lessons, size)
    twin, table = NaivePairs(lessons, lessons[-1].ts), learner.pairs
    grown = 2.0 ** ((lessons[-1].ts - table.landmark_ms) / PAIR_HALF_LIFE_MS)
    found = {
        (learner.ids[row], learner.ids[table.items[row, slot]]): table.counts[row, slot] / grown
        for row, slot in zip(*np.nonzero(table.items), strict=True)
    }
    assert found.keys() == twin.counts.keys()
    for pair, counts in twin.counts.items():
        assert found[pair] == pytest.approx(counts, rel=1e-4, abs=1e-9), pair
    for item in twin.item_users:
        assert table.left_mass[learner.index[item]] / grown == pytest.approx(twin.mass(item), rel=1e-4, abs=1e-9)


@given(seed=lesson_seeds, size=st.integers(1, 30))
@settings(max_examples=examples(20), deadline=None)
def test_what_is_published_is_what_two_users_met(seed: int, size: int) -> None:
    lessons = a_stream(seed, events=40, users=3)
    tables = tables_of([update for _, update in taught(lessons, size)])
    twin = NaivePairs(lessons, lessons[-1].ts)
    assert set(tables.index) == {item for item, users in twin.item_users.items() if len(users) >= 2}
    for item, row in tables.index.items():
        places, expected = named(tables, row), twin.published(item)
        assert places.keys() == expected.keys()
        for neighbour, (follows, following, near) in expected.items():
            found = tables.feed["shares"][row].reshape(-1, 4)[places[neighbour]]
            assert found[:3] == pytest.approx([follows, near, following], rel=2e-3, abs=1e-5)
            mixed = 0.45 * follows + 0.2 * near + 0.2 * following
            assert tables.feed["mixed"][row][places[neighbour]] == pytest.approx(mixed, rel=2e-3, abs=1e-5)


@given(seed=lesson_seeds, size=st.integers(1, 30))
@settings(max_examples=examples(20), deadline=None)
def test_nothing_that_one_user_met_is_in_an_update(seed: int, size: int) -> None:
    short = a_stream(seed, events=40, items=20, users=4)
    # Three letters may be in the bytes of floats by chance.
    lessons = [
        msgspec.structs.replace(one, item=f"item-{one.item}", before=tuple(f"item-{item}" for item in one.before))
        for one in short
    ]
    for done, (learner, update) in enumerate(taught(lessons, size), start=1):
        some = lessons[: done * size]
        twin = NaivePairs(some, some[-1].ts)
        alone = {item for item, users in twin.item_users.items() if len(users) < 2}
        assert not alone & {name for _, name, _ in update.names}
        assert not alone & {learner.ids[row] for row in update.item_rows().tolist()}
        for row, neighbours in zip(update.pair_rows().tolist(), update.neighbours().tolist(), strict=True):
            for neighbour in filter(None, neighbours):
                assert len(twin.users[learner.ids[row], learner.ids[neighbour]]) >= 2
        assert not any(item.encode() in encode_update(update) for item in alone if len(item) == 8)


def many_pairs(rows: int = 3, neighbours: int = 3 * SLOTS) -> list[Lesson]:
    """More pairs than there are slots."""
    draw = random.Random(1)
    return [
        Lesson(f"n{draw.randrange(neighbours)}", BEGINNING + number, number % 3, (f"left{draw.randrange(rows)}",))
        for number in range(4_000)
    ]


def test_full_rows_admit_the_same_pairs_each_time() -> None:
    first, again = ([encode_update(update) for _, update in taught(many_pairs(), 200)] for _ in range(2))
    *_, (learner, _) = taught(many_pairs(), 200)
    assert (learner.pairs.items[learner.index["left0"]] > 0).all()
    assert first == again


def test_grouping_of_lessons_changes_no_pairs() -> None:
    lessons = many_pairs()
    one, two = Learner(), Learner()
    for begin in range(0, len(lessons), 200):
        some = lessons[begin : begin + 200]
        # Counts of equal times are whole numbers, so that sums do not depend on their order.
        some = [Lesson(each.item, BEGINNING, each.user_bit, each.before) for each in some]
        one.learn([sum_lessons(some)], BEGINNING + begin)
        two.learn([sum_lessons(some[:90]), sum_lessons(some[90:91]), sum_lessons(some[91:])], BEGINNING + begin)
    for learner in (one, two):
        assert (learner.pairs.items[learner.index["left0"]] > 0).all()
    assert one.ids == two.ids
    for column in ("items", "counts", "bits", "left_mass", "right_mass"):
        assert getattr(one.pairs, column).tobytes() == getattr(two.pairs, column).tobytes(), column


def test_admission_keeps_heavy_pairs_and_the_weight_of_the_row() -> None:
    table, draw = PairTable(500), np.random.default_rng(3)
    heavy = np.arange(1, 21)
    total = 0.0
    for sequence in range(60):
        right = np.r_[heavy, draw.integers(21, 500, 200)]
        counts = np.zeros((len(right), 3), np.float32)
        counts[:, 0] = np.where(np.arange(len(right)) < 20, 5.0, 1.0)
        total += counts.sum()
        table.merge(Pairs(np.ones(len(right), np.int64), right, counts, np.full(len(right), 3, np.uint64)), 1, sequence)
    assert set(heavy.tolist()) <= set(table.items[1].tolist())
    assert table.left_mass[1, 0] == pytest.approx(total)
    assert len(set(table.items[1].tolist())) == SLOTS, "a pair has one slot"
    assert set(table.best(np.array([1]), 2, np.ones(500, bool)).neighbours[0].tolist()) >= set(heavy.tolist())


def test_newcomer_takes_the_lightest_slot_and_its_weight() -> None:
    table, both = PairTable(400), np.uint64(3)
    weights = np.random.default_rng(4).permutation(np.arange(1, SLOTS + 1)).astype(np.float32)
    for begin in range(0, SLOTS, 16):
        counts = np.zeros((16, 3), np.float32)
        counts[:, 0] = weights[begin : begin + 16]
        right = np.arange(begin + 1, begin + 17)
        table.merge(Pairs(np.ones(16, np.int64), right, counts, np.full(16, both)), 1, begin)
    heavy = np.zeros((3, 3), np.float32)
    heavy[:, 0] = [1e6, 3e6, 2e6]
    table.merge(Pairs(np.ones(3, np.int64), np.array([300, 301, 302]), heavy, np.full(3, both)), 1, 999)
    kept = dict(zip(table.items[1].tolist(), table.counts[1, :, 0].tolist(), strict=True))
    assert {300: kept[300], 301: kept[301], 302: kept[302]} == {300: 1e6 + 3, 301: 3e6 + 1, 302: 2e6 + 2}
    assert sorted(kept[row] for row in kept if row < 300) == list(range(4, SLOTS + 1))


@given(st.lists(st.tuples(*[st.integers(0, 3) | st.integers(2**31 - 3, 2**31 - 1)] * 2), max_size=40))
def test_sums_of_pairs_equal_a_dict_for_small_and_large_rows(pairs: list[tuple[int, int]]) -> None:
    expected: dict[tuple[int, int], int] = {}
    for pair in pairs:
        expected[pair] = expected.get(pair, 0) + 1
    left, right = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    ones = np.ones((len(pairs), 3), np.float32)
    rows, others, counts, _ = summed(left, right, ones, np.ones(len(pairs), np.uint64))
    assert list(zip(rows.tolist(), others.tolist(), strict=True)) == sorted(expected)
    assert counts[:, 0].tolist() == [expected[pair] for pair in sorted(expected)]


@given(seed=lesson_seeds)
@settings(max_examples=examples(10), deadline=None)
def test_tables_after_updates_equal_tables_after_the_whole(seed: int) -> None:
    lessons = a_stream(seed, events=80, items=30)
    updates = [update for _, update in taught(lessons, 9)]
    half = tables_of(updates[:4])
    whole = tables_of([decode_update(encode_update(half.whole()))])
    size = max(half.index.values()) + 1
    for name, column in half.feed.items():
        assert whole.feed[name][:size].tobytes() == column[:size].tobytes(), name
    for tables in (half, whole):
        for update in updates[4:]:
            tables.apply(update)
        tables.refresh()
    followed = tables_of(updates)
    histories = some_histories(followed, seed)
    for tables in (half, whole):
        assert tables.index == followed.index and tables.sequence == followed.sequence
        rows = max(followed.index.values()) + 1
        for name, column in followed.feed.items():
            mine = tables.feed[name]
            assert mine[:rows].tobytes() == column[:rows].tobytes(), name
        for ours, theirs in zip(BLEND.rank(histories, tables), BLEND.rank(histories, followed), strict=True):
            assert ours.tobytes() == theirs.tobytes()


@given(seed=lesson_seeds)
@settings(max_examples=examples(15), deadline=None)
def test_scores_equal_the_documented_formula(seed: int) -> None:
    tables = tables_of([update for _, update in taught(a_stream(seed, events=150, items=25), 20)])
    draw = np.random.default_rng(seed)
    tables.score_weights = draw.normal(size=tables.score_weights.shape)
    histories = some_histories(tables, seed)
    scores, rows = BLEND.rank(histories, tables)
    for user, size in enumerate(histories.sizes.tolist()):
        context = sum(size > length for length in (1, 3, 9))
        weights = (tables.score_weights[4] + tables.score_weights[context]).tolist()
        expected = naive_scores(tables.feed, histories, user, weights)
        listed = np.isfinite(scores[user])
        found = dict(zip(rows[user][listed].tolist(), scores[user][listed].tolist(), strict=True))
        assert found.keys() == expected.keys()
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)
        assert all(one >= two for one, two in pairwise(scores[user][listed].tolist()))


@given(seed=lesson_seeds)
@settings(max_examples=examples(15), deadline=None)
def test_scores_of_all_items_equal_the_documented_formula(seed: int) -> None:
    tables = tables_of([update for _, update in taught(a_stream(seed, events=150, items=16), 20)])
    tables.score_weights = np.random.default_rng(seed).normal(size=tables.score_weights.shape)
    histories = some_histories(tables, seed)
    for user, size in enumerate(histories.sizes.tolist()):
        weights = (tables.score_weights[4] + tables.score_weights[sum(size > length for length in (1, 3, 9))]).tolist()
        scores = score_all(histories, user, tables)
        listed = np.flatnonzero(np.isfinite(scores))
        expected = naive_scores(tables.feed, histories, user, weights)
        assert dict(zip(listed.tolist(), scores[listed].tolist(), strict=True)) == pytest.approx(expected, abs=1e-4)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 8), st.randoms())
def test_largest_rows_are_found_whatever_was_largest_before(keys: list[int], size: int, draw: random.Random) -> None:
    expected = sorted(range(len(keys)), key=lambda row: (-keys[row], row))[:size]
    before = np.array(draw.sample(range(len(keys)), min(size, len(keys))), np.int64)
    assert largest(np.array(keys, np.float64), before, size).tolist() == expected


@given(seed=lesson_seeds)
@settings(max_examples=examples(10), deadline=None)
def test_list_is_the_same_alone_and_in_a_batch(seed: int) -> None:
    tables = tables_of([update for _, update in taught(a_stream(seed, events=150, items=25), 20)])
    histories = some_histories(tables, seed, users=40)
    together = BLEND.rank(histories, tables)
    for user in range(40):
        alone = BLEND.rank(histories.part(slice(user, user + 1)), tables)
        for one, all_of_them in zip(alone, together, strict=True):
            assert one[0].tobytes() == all_of_them[user].tobytes()


@given(seed=lesson_seeds)
@settings(max_examples=examples(15), deadline=None)
def test_excluded_unnamed_and_padding_rows_are_never_listed(seed: int) -> None:
    learner = Learner(items_max=12, pair_rows_max=3)
    tables = Tables()
    for _, update in taught(a_stream(seed, events=120, items=40, users=3), 5, learner):
        tables.apply(update)
        tables.refresh()
        if tables.is_empty:
            continue
        histories = some_histories(tables, seed)
        scores, rows = BLEND.rank(histories, tables)
        for user in range(len(rows)):
            listed = rows[user][np.isfinite(scores[user])].tolist()
            assert len(set(listed)) == len(listed)
            assert not {0, *histories.excluded[user].tolist()} & set(listed)
            assert all(tables.ids[row] for row in listed)


def test_item_met_before_its_user_allowed_training_is_not_listed() -> None:
    lessons = [Lesson("b", BEGINNING + user, user, ("unlearned", "a")) for user in range(3)]
    lessons += [Lesson("a", BEGINNING + 10 + user, user, ("b",)) for user in range(3)]
    tables = tables_of([update for _, update in taught(lessons, 6)])
    items = np.zeros((1, HISTORY), np.int32)
    items[0, -1] = tables.index["b"]
    none = np.zeros((1, OWN_ITEMS), np.int32)
    histories = Histories(items, np.zeros((1, 1), np.int32), none, none.astype(np.float32), np.ones(1, np.int64))
    scores, rows = BLEND.rank(histories, tables)
    assert sorted(tables.ids[row] for row in rows[0][np.isfinite(scores[0])]) == ["a", "b"]


def test_recycled_row_brings_nothing_of_its_former_item() -> None:
    old = [Lesson(f"old{n % 8}", BEGINNING + n, n % 5, (f"old{(n + 1) % 8}",)) for n in range(80)]
    new = [Lesson(f"new{n % 6}", BEGINNING + DAY_MS + n, n % 5, (f"new{(n + 1) % 6}",)) for n in range(60)]
    learner = Learner(items_max=10, pair_rows_max=1)
    tables = Tables()
    for _, update in taught(old + new, 10, learner):
        tables.apply(update)
        tables.refresh()
        for item, row in tables.index.items():
            assert all(name[:3] == item[:3] for name in named(tables, row) if name), "old and new were never met"
    assert {f"new{n}" for n in range(6)} <= set(tables.index)
    assert len(tables.index) <= 10


def test_updates_out_of_order_are_refused() -> None:
    first, second, third = (update for _, update in taught(a_stream(1, events=21), 7))
    tables = tables_of([first])
    with pytest.raises(ModelError, match="follows"):
        tables.apply(third)
    tables.apply(second)
    with pytest.raises(ModelError, match="follows"):
        tables.apply(second)


@pytest.mark.parametrize("raw", [b"", b"\x00", b"\x02\x90", b"\x01", b"\x01\x90", b"\x01garbage", b"\xff" * 40])
def test_unknown_versions_and_broken_bytes_raise_schema_errors(raw: bytes) -> None:
    for decode in (decode_update, decode_sums):
        with pytest.raises(SchemaError):
            decode(raw)


@given(st.data())
@settings(max_examples=examples(300), deadline=None)
def test_corrupt_bytes_raise_schema_errors_and_nothing_else(data: st.DataObject) -> None:
    for made, decode, use in (
        (encode_sums(golden_lessons()), decode_sums, lambda sums: Learner().learn([sums], BEGINNING)),
        (encode_update(golden_update()), decode_update, lambda update: tables_of([update])),
    ):
        place = data.draw(st.integers(0, len(made) - 1))
        raw = bytearray(made)
        raw[place] = data.draw(st.integers(0, 255))
        raw = raw[: data.draw(st.sampled_from([len(raw), place]))]
        try:
            found = decode(bytes(raw))
        except SchemaError:
            continue
        # A number that was changed may make an update that follows another one, or counts beyond what float32 holds.
        with np.errstate(over="ignore", invalid="ignore"), contextlib.suppress(ModelError):
            use(found)


def test_gradients_that_are_no_numbers_leave_the_weights() -> None:
    learner = Learner()
    before = learner.weights.weights.copy()
    for value in (np.nan, np.inf, -np.inf):
        broken = Gradients(1, np.full((5, 24), value), np.full((5, 24), abs(value)))
        learner.learn([sum_lessons([Lesson("a", BEGINNING, 1, ())], broken)], BEGINNING)
    assert learner.weights.weights.tobytes() == before.tobytes()


@given(st.lists(st.sampled_from([0, 1, BEGINNING, BEGINNING + 1, 2**53 - 1, 2**53]), min_size=1, max_size=12))
@settings(max_examples=examples(60), deadline=None)
def test_no_time_makes_a_warning_or_a_number_that_is_none(times: list[int]) -> None:
    learner, tables = Learner(), Tables()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number, at_ms in enumerate(times):
            lessons = [Lesson(item, at_ms, user, ("a", "b", "c")) for item in "abc" for user in (number % 3, 5)]
            tables.apply(decode_update(encode_update(learner.learn([sum_lessons(lessons)], BEGINNING + number))))
            tables.refresh()
            for name, column in tables.feed.items():
                # Of rows without an item, the front's share is -inf.
                assert not np.isnan(column).any(), name
            scores, _ = BLEND.rank(some_histories(tables, number, users=2), tables) if tables.index else ([], [])
            assert not np.isnan(scores).any()


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_failures_and_in_no_list(number: float) -> None:
    model = OnlineModel()
    model.apply([update for _, update in taught(a_stream(1))])
    profiles = [Profile(recents=[(item, 1, 0)], newest_ts=1) for item in ("i0", "i1")]
    assert model.ranked(profiles, ListRules(), BEGINNING).kept.any(axis=1).all() and model.failed == 0
    model.tables.score_weights = np.full_like(model.tables.score_weights, number)
    assert not model.ranked(profiles, ListRules(), BEGINNING).kept.any()
    assert model.failed == 2


def golden_lessons() -> Any:
    gradients = Gradients(2, np.full((5, 24), 0.5), np.full((5, 24), 0.25))
    lessons = [Lesson(item, BEGINNING, user, before) for user in (1, 2) for item, before in (("a", ()), ("b", ("a",)))]
    return sum_lessons([*lessons, Lesson("c", BEGINNING, 1, ("b", "a"))], gradients)


def golden_update() -> Update:
    return Learner().learn([golden_lessons()], BEGINNING)


@pytest.mark.parametrize(
    ("name", "made", "encode", "decode"),
    [
        ("lesson-sums-v1", golden_lessons, encode_sums, decode_sums),
        ("online-update-v1", golden_update, encode_update, decode_update),
    ],
)
def test_golden_bytes_are_read_and_written(name: str, made: Any, encode: Any, decode: Any) -> None:
    golden = (GOLDEN / f"{name}.bin").read_bytes()
    assert decode(golden) == made()
    assert encode(made()) == golden, "bytes of this release differ: new version, and a reader for the old one"


def test_flood_of_clicks_by_one_user_makes_no_trend() -> None:
    popularity = ItemPopularity(4)
    met = [(1, user, day) for user in range(40) for day in range(7)]  # all week
    met += [(2, user, 7) for user in range(30)] + [(3, user, 7) for user in range(5)] + [(3, 5, 7)] * 2_000
    rows, users, days = np.array(sorted(met, key=lambda one: one[2])).T
    bits, times = np.left_shift(np.uint64(1), users.astype(np.uint64)), BEGINNING + days * DAY_MS
    popularity.merge(rows, np.ones(len(rows), np.float32), bits, times)
    assert trending(popularity, 3, users_min=5)[0].tolist() == [2, 3]
    assert popularity.fair_counts(np.array([2, 3]))[:, 0].tolist() == [30, pytest.approx(4 * 64 * np.log(64 / 58))]
