"""Features through a real Feast: what it reads online is what was pushed, and its point-in-time join is the oracle's.

Feast is installed by pip in an environment of its own, `.local/feast`, when a test first needs it.
"""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import KafkaProducer

import privacy.push_features
from adapters.kafka.settings import KafkaSettings
from adapters.redis.address import RedisSettings
from adapters.redis.feature_rows import FeatureRows
from adapters.secrets.key_rings import write_key_ring
from deploy.local.ports import free_port
from freshet.cli.main import run
from jobs.feature_repository import write_repository
from jobs.settings import FeatureSettings, ModelSettings, PrivacySettings, Settings
from privacy.access import features_of
from privacy.feature_export import export_features
from privacy.push_features import FeaturePush, push
from schemas import topics
from schemas.errors import SettingsError, StoreFull, StoreUnavailable
from schemas.pseudonyms import ExportHashes
from schemas.stored_features import RowWrite, Seen
from schemas.wire.feast_layout import row_key
from tests.support.exports import an_event_as_published, an_export
from tests.support.feast import HISTORY, PUSH, READ, feast, feast_apply, feast_or_skip
from tests.support.features import naive_features, profile_as_of
from tests.support.kafka import running_kafka, with_topics_of_its_own
from tests.support.live import until
from tests.support.redis_server import RealRedis
from tests.support.vocabulary import (
    BEGINNING,
    DAY,
    HOUR,
    KEY_RING,
    PSEUDONYMISER,
    a_raw_consent,
    a_raw_interaction,
)
from udfs.features import FEATURES, values_of
from udfs.profile import ProfileBounds
from udfs.state import decode_state

BOUNDS = ProfileBounds()
LATER = 4_000_000_000_000
GONE_WITHIN_S = 5.0
"""The bound that docs/ml/features.md states."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    server = RealRedis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    with running_kafka(tmp_path_factory.mktemp("kafka")) as settings:
        yield settings


class Shop:
    """Topics and a project of its own; events are published as the job does, now."""

    def __init__(self, kafka: KafkaSettings, store: RealRedis, folder: Path) -> None:
        write_key_ring(KEY_RING, folder / "ring.json")
        self.settings = Settings(
            with_topics_of_its_own(kafka),
            RedisSettings(url=store.url),
            ModelSettings(),
            PrivacySettings(str(folder / "ring.json")),
            features=FeatureSettings(project=f"p{uuid.uuid4().hex[:8]}"),
        )
        self.redis: Any = store.client
        self._producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
        self._ids = 0
        self.records: dict[str, list[Any]] = {}

    def consent(self, user: str, level: str = "full", **more: Any) -> None:
        raw = a_raw_consent(user, level, now_ms(), **more)
        self._send(topics.CONSENTS, raw.key, raw.value)

    def interact(self, user: str, item: str, kind: str = "click", **more: Any) -> None:
        self._ids += 1
        at, name = now_ms(), f"e{self._ids}"
        event = an_event_as_published(user, at, item=item, kind=kind, id=name, **more)
        raw = a_raw_interaction(user, at, item, kind, id=name)
        self.records.setdefault(user, []).append((raw.topic, at, self._ids, raw.key, raw.value))
        self._send(topics.EVENTS, None, event.value)

    def send_event(self, value: bytes) -> None:
        self._send(topics.EVENTS, None, value)

    def _send(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        self._producer.send(self.settings.kafka.topic(topic), key=key, value=value, partition=0).get(30)

    def push(self, **options: Any) -> Any:
        return push(self.settings, True, options.get("rebuild", False), lambda line: None)

    def row(self, user: str) -> dict[bytes, bytes]:
        return self.redis.hgetall(row_key(self.settings.features.project, "user", PSEUDONYMISER.user(user)))

    def items(self, user: str) -> list[str]:
        raw = self.row(user).get(b"freshet:profile")
        profile = decode_state(raw).profile if raw else None
        return [] if profile is None else [item for item, _, _ in profile.recents]

    def stored(self) -> list[bytes]:
        return [key for key in self.redis.scan_iter() if self.settings.features.project.encode() in key]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def shop(kafka: KafkaSettings, store: RealRedis, tmp_path: Path) -> Shop:
    return Shop(kafka, store, tmp_path)


def a_repository(shop: Shop, tmp_path: Path, export: Path | None = None) -> Path:
    feast_or_skip()
    folder = tmp_path / "feast"
    write_repository(shop.settings, folder, export)
    applied = feast_apply(folder)
    assert applied.returncode == 0, applied.stdout + applied.stderr
    return folder


@pytest.mark.promise("features-consent")
def test_feast_reads_the_features_of_the_profile_and_nothing_after_withdrawal_and_erasure(
    shop: Shop, tmp_path: Path
) -> None:
    folder = a_repository(shop, tmp_path)
    for user in ("ada", "bob", "cleo"):
        shop.consent(user)
        shop.interact(user, "tea", "view")
        shop.interact(user, "cup", "purchase")
        shop.interact(user, "tea")
    shop.push()
    names = [PSEUDONYMISER.user(user) for user in ("ada", "bob", "cleo", "nobody")]
    *found, nobody = feast(READ, folder=str(folder), users=names)
    for user, features in zip(("ada", "bob", "cleo"), found, strict=True):
        profile = profile_as_of(LATER, shop.records[user], user, BOUNDS, 1 << 60)
        assert profile is not None
        for name, value in naive_features(profile, BOUNDS.recents_half_life_ms).items():
            assert features[name] == pytest.approx(value) if "items" not in name else features[name] == value, name
    assert set(nobody.values()) == {None}
    shop.consent("bob", "none")
    shop.consent("cleo", "none", erase=True)
    shop.push()
    ada, bob, cleo, _ = feast(READ, folder=str(folder), users=names)
    assert ada["items"] == ["cup", "tea"]
    assert set(bob.values()) == set(cleo.values()) == {None}
    assert not any(names[2].encode() in key for key in shop.stored()), "an erased user leaves no key at all"


def test_feast_itself_writes_the_same_bytes_through_the_push_source(shop: Shop, tmp_path: Path) -> None:
    folder = a_repository(shop, tmp_path)
    shop.consent("ada")
    for item in ("tea", "cup", "tea"):
        shop.interact("ada", item, "purchase")
    shop.push()
    ours = shop.row("ada")
    profile = decode_state(ours.pop(b"freshet:profile")).profile
    assert profile is not None
    values = {one.name: value for one, value in zip(FEATURES, values_of(profile, BOUNDS), strict=True)}
    row = {"user": "twin", "event_timestamp": profile.active_at, "created": profile.active_at, **values}
    feast(PUSH, folder=str(folder), row=row)
    theirs = shop.redis.hgetall(row_key(shop.settings.features.project, "user", "twin"))
    assert theirs == ours


def test_point_in_time_join_of_feast_is_that_of_the_oracle(shop: Shop, tmp_path: Path) -> None:
    moments = {"ada": [1, 1, 2, 5, 50], "bob": [2, 3], "without-consent": [1]}
    stream, records = [], {}
    for user, hours in moments.items():
        for number, hour in enumerate(hours):
            late = 3 * HOUR if number % 2 else 0
            fields = {
                "item": f"item-{number % 3}",
                "kind": "purchase" if number == 2 else "view",
                "id": f"{user}{number}",
            }
            at = BEGINNING + DAY + hour * HOUR
            stream.append(an_event_as_published(user, at, at=at - late, **fields))
            raw = a_raw_interaction(user, at - late, appended=at, **fields)
            records.setdefault(user, []).append((raw.topic, at, number, raw.key, raw.value))
    export, ttl = tmp_path / "export", DAY
    an_export(export, stream, [a_raw_consent("ada"), a_raw_consent("bob", offset=1)], LATER)
    settings = msgspec.structs.replace(shop.settings, features=FeatureSettings(ttl_ms=ttl))
    export_features(settings, export, lambda line: None)
    shop.settings = settings
    folder = a_repository(shop, tmp_path, export)
    hashes, asked = ExportHashes(KEY_RING, "train"), []
    for user, hours in moments.items():
        asked += [(user, BEGINNING + DAY + h * HOUR + d) for h in sorted({0, *hours}) for d in (-1, 0, 1, ttl - 1)]
    users, times = [hashes.user(user) for user, _ in asked], [at for _, at in asked]
    found = feast(HISTORY, folder=str(folder), users=users, times=times)
    by_moment = {(row["user"], row["event_timestamp"]): row for row in found}
    seen = 0
    for user, at in asked:
        row = by_moment.get((hashes.user(user), at))  # Feast's file store leaves out rows without features
        profile = None
        if user != "without-consent":
            profile = profile_as_of(at, records[user], user, BOUNDS, ttl)
        if profile is None:
            assert row is None or row["newest_ts"] is None, (user, at)
            continue
        assert row is not None, (user, at)
        seen += 1
        for name, value in naive_features(profile, BOUNDS.recents_half_life_ms).items():
            assert row[name] == pytest.approx(value) if "items" not in name else row[name] == value, (name, user, at)
    assert seen > 20


def test_another_layout_of_feast_is_refused_when_definitions_are_applied(shop: Shop, tmp_path: Path) -> None:
    folder = a_repository(shop, tmp_path)
    definitions = folder / "features.py"
    definitions.write_text(definitions.read_text().replace('EXPECTED = "01', 'EXPECTED = "02'))
    applied = feast_apply(folder)
    assert applied.returncode != 0
    assert "does not store rows where Freshet writes them" in applied.stdout + applied.stderr


@pytest.mark.promise("features-consent")
def test_withdrawal_deletes_the_row_within_the_stated_bound(shop: Shop) -> None:
    shop.consent("ada")
    shop.interact("ada", "tea")
    ends = threading.Event()

    def follow() -> None:
        with FeaturePush(shop.settings, False, lambda line: None) as pushing:
            while not ends.is_set():
                pushing.turn()

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        until(lambda: shop.items("ada") == ["tea"], "the row")
        shop.consent("ada", "none")
        until(lambda: not shop.row("ada"), "the row to be deleted", GONE_WITHIN_S)
    finally:
        ends.set()
        thread.join()


def test_full_redis_keeps_no_row_of_a_user_who_withdrew_or_consents_to_less(shop: Shop) -> None:
    for user in ("ada", "bob", "cyd", "dan", "eve"):
        shop.consent(user)
        shop.interact(user, "tea")
    shop.push()
    used = int(shop.redis.info("memory")["used_memory"])
    shop.redis.config_set("maxmemory", used // 2)
    try:
        shop.consent("eve", denied=["train"])  # their row is written again, which Redis refuses
        shop.consent("ada", "none")
        shop.consent("bob", "session")
        shop.consent("cyd", expires_at=now_ms() + 1)
        shop.consent("dan", erase=True, level="none")
        with FeaturePush(shop.settings, False, lambda line: None) as pushing, pytest.raises(StoreFull):
            pushing.turn()
        assert [user for user in ("ada", "bob", "cyd", "dan", "eve") if shop.row(user)] == ["eve"]
        with pytest.raises(StoreFull):
            shop.push()
    finally:
        shop.redis.config_set("maxmemory", 0)
    shop.consent("new")
    shop.interact("new", "cup")
    shop.push()
    assert [user for user in ("ada", "bob", "cyd", "dan", "eve", "new") if shop.row(user)] == ["eve", "new"]


def test_consents_beyond_the_first_that_is_refused_are_applied(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy.push_features, "RECORDS_MAX", 1)
    for user in ("ada", "bob", "cyd"):
        shop.consent(user)
        shop.interact(user, "tea")
    shop.push()
    shop.redis.config_set("maxmemory", 1)
    try:
        shop.consent("bob", denied=["train"])  # their rows are written again, which Redis refuses
        shop.consent("cyd", denied=["train"])
        shop.consent("ada", "none")
        with FeaturePush(shop.settings, False, lambda line: None) as pushing, pytest.raises(StoreFull):
            pushing.turn()
        assert not shop.row("ada")
    finally:
        shop.redis.config_set("maxmemory", 0)


def test_access_shows_the_row_and_the_consent_it_is_kept_under(shop: Shop) -> None:
    shop.consent("ada")
    shop.interact("ada", "tea")
    shop.push()
    names = PSEUDONYMISER.all("ada")
    [held] = features_of(shop.settings, names).values()
    assert held["row"]["items"] == ["tea"]
    assert held["consent"]["level"] == 2
    shop.consent("ada", "none")
    shop.push()
    [held] = features_of(shop.settings, names).values()
    assert held["row"] is None and held["consent"]["level"] == 0
    assert features_of(shop.settings, PSEUDONYMISER.all("nobody")) == {}


def test_push_continues_where_it_ended_and_again_after_redis_has_lost_everything(shop: Shop) -> None:
    shop.consent("ada")
    shop.interact("ada", "tea")
    assert shop.push()["rows"] == 1
    assert shop.push()["rows"] == 0
    shop.interact("ada", "cup")
    assert shop.push()["rows"] == 1
    before = shop.row("ada")
    shop.redis.delete(*shop.stored())
    shop.push()
    assert shop.row("ada") == before


def test_rebuild_leaves_rows_of_other_projects(shop: Shop) -> None:
    shop.consent("ada")
    shop.interact("ada", "tea")
    shop.push()
    other = row_key("other" + shop.settings.features.project, "user", PSEUDONYMISER.user("ada"))
    shop.redis.hset(other, "theirs", "1")
    shop.redis.hset(row_key(shop.settings.features.project, "user", "p1.left-behind"), "old", "1")
    shop.push(rebuild=True)
    assert shop.items("ada") == ["tea"]
    assert shop.redis.hgetall(other) == {b"theirs": b"1"}
    assert not any(b"left-behind" in key for key in shop.stored())


def test_events_that_may_not_be_used_or_read_make_no_row(shop: Shop) -> None:
    shop.consent("ada")
    shop.interact("ada", "tea", purposes=0b110)
    shop.interact("nobody", "tea")
    shop.send_event(b"{")
    shop.send_event(b'{"pseudonym":"p1.x","event":"zz","type":"click","ts":1,"purposes":["personalise"]}')
    counts = shop.push()
    assert not shop.row("ada") and not shop.row("nobody")
    assert (counts["not_personalised"], counts["denied"], counts["unreadable"]) == (1, 1, 2)


def test_another_key_ring_or_other_topics_are_refused(shop: Shop, tmp_path: Path) -> None:
    shop.push()
    key = b"freshet-features:" + shop.settings.features.project.encode()
    position = json.loads(shop.redis.get(key))
    for wrong in ({**position, "kid": 0}, {**position, "topics": {"x": {}}}):
        shop.redis.set(key, json.dumps(wrong))
        with pytest.raises(SettingsError, match="--rebuild"):
            shop.push()
    shop.redis.set(key, b"{")
    with pytest.raises(SettingsError, match="cannot be read"):
        shop.push()
    shop.interact("ada", "tea")
    later = an_event_as_published("ada").value.replace(b'"p1.', b'"p2.')
    shop.send_event(later)
    with pytest.raises(SettingsError, match="start it again"):
        shop.push(rebuild=True)


def test_two_writers_of_a_row_do_not_overwrite_each_other(shop: Shop, store: RealRedis) -> None:
    rows = FeatureRows(store.store_client(), shop.settings.features.project, "user")
    first = RowWrite("ada", Seen(), b"one", 0, LATER, [b"freshet:profile", b"1"])
    rows.write([first])
    with pytest.raises(StoreUnavailable, match="end the other process, or give this job another features"):
        rows.write([first._replace(state=b"two")])
    assert rows.seen(["ada", "bob"]) == {"ada": Seen(b"one", b"1"), "bob": Seen()}
    rows.write([RowWrite("ada", Seen(b"one", b"1"))])
    assert rows.seen(["ada"]) == {"ada": Seen()}


def test_of_two_pushes_the_later_goes_on_and_the_earlier_says_so_and_ends(shop: Shop) -> None:
    def quiet(line: str) -> None:
        pass

    with FeaturePush(shop.settings, False, quiet) as first:
        first.turn()
        first.turn()
        with FeaturePush(shop.settings, False, quiet) as second:
            with pytest.raises(SettingsError, match=r"another `freshet features push` .*features\.project"):
                first.turn()
            second.turn()
    shop.consent("ada")
    shop.interact("ada", "tea")
    assert shop.push()["rows"] == 1, "a process that ended claims nothing"


def test_push_reads_everything_again_if_redis_loses_it_while_it_runs(shop: Shop) -> None:
    shop.consent("ada")
    shop.interact("ada", "tea")
    with FeaturePush(shop.settings, False, lambda line: None) as pushing:
        while pushing.left():
            pushing.turn()
        shop.redis.flushdb()
        with pytest.raises(StoreUnavailable, match="read again"):
            pushing.turn()
    assert shop.push()["rows"] == 1


def test_missing_redis_is_an_error_that_says_so(shop: Shop) -> None:
    features = msgspec.structs.replace(shop.settings.features, url=f"redis://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnavailable):
        push(msgspec.structs.replace(shop.settings, features=features), True, False, lambda line: None)


def test_repository_is_not_overwritten_and_needs_an_export_with_features(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "freshet.toml").write_text(
        '[kafka]\nbootstrap_servers = "nowhere:1"\n[redis]\nurl = "redis://nowhere:1/3"\nusername = "me"\n'
        'password_variable = "REDIS_PASSWORD"\n'
    )
    words = ["features", "init", str(tmp_path / "feast"), "--settings", str(tmp_path / "freshet.toml")]
    assert run([*words, "--export", str(tmp_path)]) == 2
    assert "is not an export with features" in capsys.readouterr().err
    assert run(words) == 0
    text = (tmp_path / "feast" / "feature_store.yaml").read_text()
    assert 'connection_string: "nowhere:1,db=3,username=me,password=${REDIS_PASSWORD}"' in text
    assert run(words) == 2
    assert "already exists" in capsys.readouterr().err


@pytest.mark.parametrize("line", ['url = "redis://u:secret@h"', 'username = "me"', 'project = "A-b"'])
def test_settings_of_features_are_checked(tmp_path: Path, line: str, capsys: Any) -> None:
    (tmp_path / "freshet.toml").write_text(
        f'[kafka]\nbootstrap_servers = "nowhere:1"\n[redis]\nurl = "redis://nowhere:1"\n[features]\n{line}\n'
    )
    words = ["features", "init", str(tmp_path / "feast"), "--settings", str(tmp_path / "freshet.toml")]
    assert run(words) == 2
    told = capsys.readouterr().err
    assert "features." in told and "secret" not in told
