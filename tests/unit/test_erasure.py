"""The rules of erasure: who must be erased, how a partition is rewritten, what a proof needs; with naive twins."""

import gzip
import stat
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import privacy.erasure
from adapters.secrets.key_rings import new_key_ring, write_key_ring
from jobs.savepoints import _folder
from privacy.erasure import Where, _savepoint, _taken_at, summary, verify
from privacy.erasure_search import in_files, is_leftover, snapshot_times
from privacy.retention import DEFAULTS
from privacy.rewrite_events import REWRITTEN, chunked, copied_from, owner_of, with_append_time
from privacy.rules.erasure import (
    LEFTOVERS,
    SNAPSHOT_DURATION_MAX_MS,
    Evidence,
    NamedChange,
    RewritePlan,
    SeenRecord,
    is_older,
    last_erasures,
    must_be_erased,
    occurrences,
    plan,
    verdict,
    with_returns,
)
from schemas.errors import JobSilent, RestError, SettingsError
from schemas.receipts import ErasureReceipt, decode_receipt, encode_receipt
from tests.support.vocabulary import BEGINNING, DAY, MINUTE, SECOND, a_consent, an_erasure

# -- the search


@given(
    st.binary(max_size=60).map(lambda raw: bytes(byte % 3 + 97 for byte in raw)),
    st.lists(st.integers(0, 60), max_size=8),
    st.lists(st.text("abc", min_size=1, max_size=5).map(str.encode), min_size=1, max_size=3),
)
def test_chunked_search_equals_whole_search(text: bytes, cuts: list[int], patterns: list[bytes]) -> None:
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[a:b] for a, b in pairwise(borders)]
    naive = [sum(text.startswith(p, place) for place in range(len(text))) for p in patterns]
    assert occurrences(chunks, patterns) == naive


def test_search_covers_folders_but_not_compressed_content(tmp_path) -> None:
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "state").write_bytes(b"\0" * ((1 << 20) - 2) + b"p1.ada" + b"p1.ada")
    (tmp_path / "compressed").write_bytes(gzip.compress(b"p1.bob"))
    assert in_files(tmp_path, ["p1.ada", "p1.bob"]) == [2, 0]


def test_unreadable_savepoint_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").write_bytes(b"p1.ada")

    def broken(path: Path, mode: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", broken)
    with pytest.raises(SettingsError, match="cannot be read: Input/output error"):
        in_files(tmp_path, ["p1.ada"])


def test_missing_savepoint_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--work-dir must be a folder that both share"):
        _folder({"location": f"file:{tmp_path}"})
    with pytest.raises(JobSilent, match="could not take the savepoint: Declined"):
        _folder({"location": f"file:{tmp_path}", "failure-cause": {"class": "Declined"}})
    with pytest.raises(SettingsError, match="is not a savepoint"):
        _taken_at(tmp_path)
    (tmp_path / "_metadata").write_bytes(b"")
    assert _folder({"location": f"file:{tmp_path}"}) == tmp_path and _taken_at(tmp_path) > 0


@pytest.mark.parametrize(
    ("where", "error"),
    [
        (Where(flink="http://127.0.0.1:1"), "Flink at http://127.0.0.1:1 does not answer"),
        (Where(savepoint=Path("/nowhere")), "/nowhere is not a savepoint"),
        (Where(flink="http://127.0.0.1:1", work_dir=Path("/nowhere")), "--work-dir /nowhere is not a folder"),
    ],
)
def test_impossible_search_is_refused_before_anything_is_planted(where: Where, error: str, tmp_path: Path) -> None:
    write_key_ring(new_key_ring(), tmp_path / "ring")
    privacy_settings = msgspec.structs.replace(DEFAULTS.privacy, key_ring=str(tmp_path / "ring"))
    said: list[str] = []
    with pytest.raises((SettingsError, RestError), match=error):
        verify(msgspec.structs.replace(DEFAULTS, privacy=privacy_settings), "ada", where, said.append)
    assert said == [], "neither Kafka nor Redis was asked"


def test_savepoint_folder_is_private_and_always_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(flink: str, name: str, folder: Path, timeout_s: float) -> Path:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "state").write_bytes(b"everybody")
        return folder

    monkeypatch.setattr(privacy.erasure, "take_savepoint", taken)
    with (
        pytest.raises(KeyboardInterrupt),
        _savepoint(DEFAULTS, Where(flink="http://flink", work_dir=tmp_path), print) as folder,
    ):
        assert folder.parent == tmp_path and (folder / "state").exists()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SettingsError, match="--savepoint"), _savepoint(DEFAULTS, Where(), print):
        pass


# -- who must be erased


USERS = ("ada", "bob")
a_change = st.one_of(
    st.builds(a_consent, st.sampled_from(USERS), st.sampled_from(["none", "session", "full"])),
    st.builds(an_erasure, st.sampled_from(USERS)),
)


@st.composite
def histories(draw: st.DrawFn) -> list[NamedChange]:
    """Changes in one partition per user, appended at growing times; some grants were made long before."""
    changes = []
    for number, change in enumerate(draw(st.lists(a_change, max_size=12))):
        at, late = BEGINNING + number * MINUTE, draw(st.integers(0, 4)) * MINUTE
        again = an_erasure if change.erase else a_consent
        level = {} if change.erase else {"level": ("none", "session", "full")[change.level]}
        made = again(change.pseudonym, at=at, offset=number, said_at=at - late, **level)
        changes.append(NamedChange([made.pseudonym, f"old-{made.pseudonym}"], made))
    return changes


def naive_must_be_erased(history: Sequence[NamedChange], user: str, appended: int) -> bool:
    """Walk back from the last change: is there an erasure with no grant between it and the event?"""
    mine = [change for _, change in history if change.pseudonym == user]
    erasures = [place for place, change in enumerate(mine) if change.erase]
    if not erasures:
        return False
    since = mine[erasures[-1] :]
    grants = [c.append_ts for c in since[1:] if c.level and c.said_at > since[0].said_at]
    return not grants or appended < grants[0]


@given(histories(), st.sampled_from(USERS), st.integers(-1, 12).map(lambda n: BEGINNING + n * MINUTE + SECOND))
def test_erasure_covers_events_before_the_first_grant_after_it(
    history: list[NamedChange], user: str, appended: int
) -> None:
    erased = with_returns(last_erasures(history), history)
    returns = {name: one.returned_at for one in erased.values() for name in one.names}
    for name in (user, f"old-{user}"):
        assert must_be_erased(returns, name, appended) == naive_must_be_erased(history, user, appended)


@given(histories(), st.randoms())
def test_reading_order_of_changes_does_not_matter(history: list[NamedChange], random) -> None:
    shuffled = random.sample(history, len(history))
    assert with_returns(last_erasures(shuffled), shuffled) == with_returns(last_erasures(history), history)


def test_append_time_decides_last_erasure_across_partitions() -> None:
    early = NamedChange(["ada"], an_erasure(at=BEGINNING, partition=0, offset=9))
    late = NamedChange(["ada"], an_erasure(at=BEGINNING + MINUTE, partition=1, offset=2))
    assert last_erasures([late, early])["ada"].erasure == late.change


def test_offset_decides_within_a_partition_despite_clock_steps() -> None:
    erasure = NamedChange(["ada"], an_erasure(at=BEGINNING, offset=5))
    back = NamedChange(["ada"], a_consent(at=BEGINNING - MINUTE, offset=6, said_at=BEGINNING + MINUTE))
    assert with_returns(last_erasures([erasure, back]), [erasure, back])["ada"].returned_at == BEGINNING - MINUTE


def test_unreadable_record_naming_erased_user_is_a_leftover() -> None:
    left = is_leftover(["p1.ada"], returned_at=20)
    assert left(a_record(b"not JSON p1.ada"))
    assert left(a_record(b'{"pseudonym":"p1.bob","query":"p1.ada"}'))
    assert left(a_record(b'{"pseudonym":"p1.ada","appended":19}', timestamp=99))
    assert not left(a_record(b'{"pseudonym":"p1.ada","appended":20}'))
    assert not left(a_record(b'{"pseudonym":"p1.bob"}'))


def a_record(value: bytes, timestamp: int = 0) -> SimpleNamespace:
    return SimpleNamespace(key=None, value=value, headers=[], timestamp=timestamp)


# -- the rewrite of a partition


class NaivePartition:
    """A partition in memory: records that stay until a prefix is deleted, each (offset, copy of, content)."""

    def __init__(self, told: Sequence[tuple[str, int]]) -> None:
        self.records: list[tuple[int, int | None, tuple[str, int]]] = []
        self.end = 0
        for one in told:
            self.append(None, one)

    def append(self, copy_of: int | None, told: tuple[str, int]) -> None:
        self.records.append((self.end, copy_of, told))
        self.end += 2  # control records take offsets, too

    def run(self, erased: set[str], copies_max: int | None, cut: bool) -> None:
        """One run of the command, interrupted after so many copies, or before the deletion."""
        steps = plan([SeenRecord(offset, copy_of, told[0] in erased) for offset, copy_of, told in self.records])
        if steps is None:
            return
        stay = [r for r in self.records if steps.copied < r[0] <= steps.up_to and r[2][0] not in erased]
        for offset, _, told in stay[:copies_max]:
            self.append(offset, told)
        if cut and (copies_max is None or copies_max >= len(stay)):
            self.records = [r for r in self.records if r[0] > steps.up_to]


PEOPLE = ("ada", "bob", "cyd", "dan")
runs = st.tuples(
    st.sets(st.sampled_from(PEOPLE), max_size=2), st.integers(0, 6), st.booleans(), st.lists(st.sampled_from(PEOPLE))
)


@given(st.lists(st.sampled_from(PEOPLE), max_size=12), st.lists(runs, max_size=5))
def test_interrupted_rewrites_keep_others_once_and_in_order(people, interrupted) -> None:
    partition = NaivePartition([(who, number) for number, who in enumerate(people)])
    sent, erased = list(enumerate(people)), set[str]()
    for more, copies_max, cut, newcomers in interrupted:
        erased |= more
        partition.run(erased, copies_max, cut)
        for who in newcomers:
            if who not in erased:
                partition.append(None, (who, len(sent)))
                sent.append((len(sent), who))
    partition.run(erased, None, cut=True)
    stands = [told for _, _, told in partition.records]
    assert sorted(stands) == sorted((who, number) for number, who in sent if who not in erased)
    assert plan([SeenRecord(offset, copy_of, False) for offset, copy_of, _ in partition.records]) is None


def test_rewrite_keeps_order_and_leaves_later_records() -> None:
    partition = NaivePartition([("bob", 0), ("cyd", 1), ("ada", 2), ("bob", 3)])
    partition.run({"ada"}, None, cut=True)
    assert [number for _, _, (_, number) in partition.records] == [3, 0, 1]


def test_partition_without_erased_users_is_untouched() -> None:
    assert plan([SeenRecord(7, None, False), SeenRecord(9, 5, False)]) is None
    assert plan([]) is None
    assert plan([SeenRecord(7, None, True), SeenRecord(9, None, False), SeenRecord(11, 7, False)]) == RewritePlan(7, 7)


def test_copies_of_interrupted_run_are_removed() -> None:
    assert plan([SeenRecord(1, None, False), SeenRecord(3, None, False), SeenRecord(5, 1, False)]) == RewritePlan(1, 1)


def test_copy_carries_original_offset_and_append_time() -> None:
    assert copied_from([("other", b"1"), (REWRITTEN, b"42")]) == 42
    assert copied_from([]) is None
    old = b'{"purposes":["train"],"pseudonym":"p1.a","event":"0"}'
    copied = with_append_time(old, BEGINNING)
    assert copied is not None and owner_of(copied).appended == BEGINNING  # type: ignore[union-attr]
    assert with_append_time(copied, BEGINNING + 1) == copied, "a copy of a copy is as old as its event"
    assert with_append_time(b"no event", 1) == b"no event"


@given(st.lists(st.integers()), st.integers(1, 4))
def test_chunks_are_complete_ordered_and_bounded(numbers: list[int], size: int) -> None:
    chunks = list(chunked(iter(numbers), size))
    assert [number for chunk in chunks for number in chunk] == numbers
    assert all(0 < len(chunk) <= size for chunk in chunks)


# -- the verdict


NOW = BEGINNING + 30 * DAY
times = st.integers(0, 40).map(lambda days: BEGINNING + days * DAY)
evidence = st.builds(
    Evidence,
    erased_at=times,
    now=st.just(NOW),
    applied_at=st.none() | times,
    returned_at=st.none() | times,
    tombstone_until=times,
    snapshots_kept_ms=st.sampled_from([DAY, 7 * DAY]),
    found=st.dictionaries(
        st.sampled_from([*LEFTOVERS, "redis.gone", "interactions", "answers", "receipts"]), st.integers(0, 2)
    ),
    planted=st.fixed_dictionaries({"savepoint": st.integers(0, 2), "redis": st.just(1), "events": st.just(1)}),
    snapshots=st.none() | st.integers(0, 2),
)


def naive_status(seen: Evidence) -> str:
    if min(seen.planted.values()) == 0:
        return "not_proved"
    if seen.returned_at is not None:
        return "incomplete" if seen.found.get("events", 0) else "returned"
    tombstone = seen.found.get("redis.gone", 0) > 0 or seen.tombstone_until <= NOW
    if not tombstone or any(seen.found.get(place, 0) for place in LEFTOVERS):
        return "incomplete"
    by_time = seen.applied_at is not None and NOW - seen.applied_at >= seen.snapshots_kept_ms + SNAPSHOT_DURATION_MAX_MS
    no_snapshot = by_time if seen.snapshots is None else seen.snapshots == 0
    copies = seen.found.get("interactions", 0) + seen.found.get("answers", 0)
    return "complete" if no_snapshot and not copies else "effective"


@given(evidence)
def test_verdict_equals_naive_reading_and_gives_reasons(seen: Evidence) -> None:
    status, reasons = verdict(seen)
    assert status == naive_status(seen)
    assert bool(reasons) == (status not in ("complete", "returned"))


PROVED = Evidence(
    BEGINNING,
    NOW,
    BEGINNING,
    None,
    BEGINNING + DAY,
    DAY,
    {"receipts": 1, "consents": 1},
    {"savepoint": 1},
)


@pytest.mark.parametrize(
    ("place", "status"),
    [
        ("consents", "complete"),
        ("receipts", "complete"),
        ("redis.gone", "complete"),
        ("interactions", "effective"),
        ("answers", "effective"),
        ("savepoint", "incomplete"),
        ("redis.list", "incomplete"),
        ("redis.consent", "incomplete"),
        ("redis.past", "incomplete"),
        ("redis.elsewhere", "incomplete"),
        ("events", "incomplete"),
        ("exports", "incomplete"),
    ],
)
def test_location_of_leftovers_decides_the_verdict(place: str, status: str) -> None:
    assert verdict(msgspec.structs.replace(PROVED, found={**PROVED.found, place: 2})).status == status


def test_nothing_planted_proves_nothing() -> None:
    assert verdict(Evidence(0, NOW, 0, None, 0, DAY, {}, {})).status == "not_proved"


def test_snapshot_possibly_begun_before_erasure_is_older() -> None:
    assert is_older(BEGINNING + SNAPSHOT_DURATION_MAX_MS, BEGINNING)
    assert not is_older(BEGINNING + SNAPSHOT_DURATION_MAX_MS + 1, BEGINNING)
    assert is_older(NOW, None), "nobody knows when the job carried it out"


def test_empty_snapshot_folder_is_an_error(tmp_path) -> None:
    with pytest.raises(SettingsError, match="no snapshot"):
        snapshot_times([tmp_path])
    (tmp_path / "chk-1").mkdir()
    (tmp_path / "chk-1" / "_metadata").touch()
    assert len(snapshot_times([tmp_path])) == 1
    assert snapshot_times([]) == []


def test_receipt_round_trips_and_summary_names_the_pseudonym() -> None:
    receipt = ErasureReceipt("p1.ada", "effective", BEGINNING, NOW, {"receipts": 3}, {"receipts": NOW}, ["x: 1"], True)
    assert decode_receipt(encode_receipt(receipt)) == receipt
    assert summary(receipt).splitlines()[0] == "p1.ada: effective, erased 2025-06-11"
    assert "3 records" in summary(receipt)
