"""An export on disk: complete or absent, bounded parts, and what a rewrite removes."""

import doctest
import json
import stat
import tempfile
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import privacy.export_folder
import privacy.retention
from adapters.files.export_parts import part_events, read_manifest
from adapters.secrets.key_rings import new_key_ring, write_key_ring
from freshet.cli.main import run
from jobs.settings import PrivacySettings
from models.interactions import CLEAN_EVENTS, read
from privacy.export import honour, rewrite
from privacy.export_folder import locked, new_folder
from privacy.feature_export import deriving
from schemas.errors import ExportError, ModelError
from schemas.exports import ExportManifest, LeftOut
from schemas.pseudonyms import ExportHashes
from tests.support.examples import examples
from tests.support.exports import an_event_as_published, an_export, lines, settings, standings
from tests.support.vocabulary import BEGINNING, DAY, HOUR, KEY_RING, MINUTE, a_raw_consent
from udfs.ingest import RawRecord

NOW = BEGINNING + DAY
USERS = ("ada", "bob", "cleo")
EVENTS = [
    an_event_as_published(user, BEGINNING + n * MINUTE, id=f"e{user}{n}", session_id=f"s{n}", request_id=f"r{n}")
    for n in range(1, 9)
    for user in USERS
]
CONSENTS = [a_raw_consent(user, offset=offset) for offset, user in enumerate(USERS)]
BOB_LEAVES = a_raw_consent("bob", "none", BEGINNING + 2 * HOUR, offset=9)


def whole(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def honoured(folder: Path, consents: list[RawRecord], now_ms: int = NOW + HOUR) -> ExportManifest:
    manifest = read_manifest(folder)
    users = standings(consents, manifest.purpose, by_export_name=True)
    return honour(folder, manifest, users, now_ms, deriving(settings(), folder))


def test_export_holds_permitted_events_and_manifest_counts_the_rest(tmp_path: Path) -> None:
    manifest = an_export(tmp_path / "x", [*EVENTS, an_event_as_published("dan")], [*CONSENTS, BOB_LEAVES], NOW)
    assert (manifest.events, manifest.read) == (16, 25)
    assert manifest.left_out == {LeftOut.WITHDRAWN: 8, LeftOut.NO_CONSENT: 1}
    assert (manifest.first_ts, manifest.last_ts) == (BEGINNING + MINUTE, BEGINNING + 8 * MINUTE)
    assert manifest.delete_after == NOW + 90 * DAY
    assert read_manifest(tmp_path / "x") == manifest
    names = {ExportHashes(KEY_RING, "train").user(user) for user in ("ada", "cleo")}
    assert {line["pseudonym"] for line in lines(tmp_path / "x", manifest)} == names


@pytest.mark.promise("export-consent")
def test_export_uses_its_own_hashes_consistently(tmp_path: Path) -> None:
    manifest = an_export(tmp_path / "x", EVENTS, CONSENTS, NOW)
    found = lines(tmp_path / "x", manifest)
    text = json.dumps(found)
    for event in map(json.loads, (event.value for event in EVENTS)):
        assert not any(event[name] in text for name in ("pseudonym", "event", "session", "request"))
    assert len({line["session"] for line in found}) == len({line["request"] for line in found}) == 8
    other = lines(tmp_path / "m", an_export(tmp_path / "m", EVENTS, CONSENTS, NOW, "measure"))
    for name in ("pseudonym", "session", "request"):
        assert not {line[name] for line in found} & {line[name] for line in other}


def test_other_tools_read_a_part_with_typed_columns_and_nulls(tmp_path: Path) -> None:
    purchase = an_event_as_published(
        "ada", kind="purchase", value=12.5, currency="EUR", quantity=2, context={"country": "PT"}
    )
    [part] = an_export(tmp_path, [purchase, EVENTS[0]], CONSENTS, NOW).parts
    table = pq.read_table(tmp_path / part.name)
    assert {name: str(table.schema.field(name).type) for name in ("ts", "value", "quantity", "context")} == {
        "ts": "int64", "value": "double", "quantity": "int64", "context": "map<string, string ('context')>",
    }  # fmt: skip
    bought, clicked = table.to_pylist()
    assert (bought["value"], bought["quantity"], bought["context"]) == (12.5, 2, [("country", "PT")])
    assert (clicked["value"], clicked["context"], clicked["schema_v"]) == (None, None, 1)


def test_search_text_is_omitted(tmp_path: Path) -> None:
    search = an_event_as_published("ada", item=None, kind="search", query="shoes for jane roe")
    assert b"jane" in search.value
    manifest = an_export(tmp_path / "x", [search], CONSENTS, NOW)
    [line] = lines(tmp_path / "x", manifest)
    assert line["type"] == "search" and "jane" not in json.dumps(line)


@pytest.mark.parametrize("lines_bytes_max", [1, 400, 1_000, 1 << 20])
def test_parts_are_bounded_complete_and_ordered(tmp_path: Path, lines_bytes_max: int) -> None:
    manifest = an_export(tmp_path / "x", EVENTS, CONSENTS, NOW, part_bytes_max=lines_bytes_max)
    ts = [json.loads(event.value)["ts"] for event in EVENTS]
    found = lines(tmp_path / "x", manifest)
    assert [line["ts"] for line in found] == ts
    line_bytes = max(len(json.dumps(line)) for line in found)
    for part in manifest.parts:
        assert part.events == 1 or part.events * line_bytes <= lines_bytes_max + line_bytes
    assert len(manifest.parts) == {1: 24, 1 << 20: 1}.get(lines_bytes_max, len(manifest.parts))


def test_files_are_readable_by_owner_only(tmp_path: Path) -> None:
    with new_folder(tmp_path / "x") as folder:
        an_export(folder, EVENTS, CONSENTS, NOW)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "x").iterdir()} == {0o600}


@pytest.mark.parametrize("how", [KeyboardInterrupt(), OSError(28, "No space left on device"), SystemExit(143)])
def test_interrupted_export_leaves_nothing(tmp_path: Path, how: BaseException) -> None:
    def interrupted():
        yield from EVENTS[:10]
        assert len(list((tmp_path / ".x.partial").iterdir())) > 1, "there was something to leave"
        raise how

    with pytest.raises(type(how)), new_folder(tmp_path / "x") as folder:
        an_export(folder, interrupted(), CONSENTS, NOW, part_bytes_max=500)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_export_are_removed_and_running_one_kept(tmp_path: Path) -> None:
    partial = tmp_path / ".x.partial"
    partial.mkdir()
    (partial / "part-00000-r0.parquet").write_bytes(b"left by a killed export")
    with locked(partial), pytest.raises(ExportError, match="is being written by another process"):
        new_folder(tmp_path / "x").__enter__()
    assert [path.name for path in partial.iterdir()] == ["part-00000-r0.parquet"]
    with new_folder(tmp_path / "x") as folder:
        manifest = an_export(folder, EVENTS, CONSENTS, NOW)
    assert len(lines(tmp_path / "x", manifest)) == len(EVENTS)
    with pytest.raises(ExportError, match="already exists"):
        new_folder(tmp_path / "x").__enter__()


def test_rewrite_requires_an_export_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("file", "nowhere"):
        with pytest.raises(ExportError, match=f"{name} cannot be opened"):
            locked(tmp_path / name).__enter__()


@pytest.mark.promise("export-consent")
def test_rewrite_removes_only_departed_users_and_is_idempotent(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    before = an_export(folder, EVENTS, CONSENTS, NOW, part_bytes_max=700)
    stayed = [
        line for line in lines(folder, before) if line["pseudonym"] != ExportHashes(KEY_RING, "train").user("bob")
    ]
    after = honoured(folder, [*CONSENTS, BOB_LEAVES])
    assert lines(folder, after) == stayed
    assert after.removed == {LeftOut.WITHDRAWN: 8} and after.events == 16 and after.left_out == before.left_out
    assert {path.name for path in folder.iterdir()} == {"manifest.json", *(part.name for part in after.parts)}
    files = whole(folder)
    assert honoured(folder, [*CONSENTS, BOB_LEAVES]) == after
    assert whole(folder) == files


def test_rewrite_leaves_unaffected_parts_untouched(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    by_user = sorted(EVENTS, key=lambda event: json.loads(event.value)["pseudonym"])
    before = an_export(folder, by_user, CONSENTS, NOW, part_bytes_max=1)
    after = honoured(folder, [*CONSENTS, BOB_LEAVES])
    assert set(after.parts) < set(before.parts)
    assert honoured(folder, CONSENTS).revision == after.revision == 1


def test_rewrite_removes_users_without_consent_record(tmp_path: Path) -> None:
    an_export(tmp_path, EVENTS, CONSENTS, NOW)
    after = honoured(tmp_path, CONSENTS[:1])
    assert after.removed == {LeftOut.NO_CONSENT: 16}
    assert honoured(tmp_path, []).parts == []


consents_of_a_life = st.lists(
    st.tuples(st.sampled_from(USERS), st.sampled_from(["full", "full", "session", "none"]), st.booleans()), max_size=8
)


@hypothesis_settings(max_examples=examples(25), deadline=None)
@given(consents_of_a_life, consents_of_a_life)
def test_rewritten_export_equals_a_new_one(before: list, since: list) -> None:
    records = [
        a_raw_consent(
            user, level, BEGINNING + n * MINUTE + 1, offset=n, erase=level == "none" and flag,
            **({"denied": ["train"]} if flag and level != "none" else {}),
        )
        for n, (user, level, flag) in enumerate([*before, *since])
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        first = an_export(Path(place, "first"), EVENTS, records[: len(before)], NOW, part_bytes_max=600)
        exported = lines(Path(place, "first"), first)
        new = an_export(Path(place, "new"), EVENTS, records, NOW + 1)
        new_lines = lines(Path(place, "new"), new)
        after = honoured(Path(place, "first"), records, NOW + 1)
        assert lines(Path(place, "first"), after) == [line for line in exported if line in new_lines]
        assert after.events + sum(after.removed.values()) == first.events


def test_interrupted_rewrite_keeps_export_and_next_finishes(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    manifest = an_export(folder, EVENTS, CONSENTS, NOW, part_bytes_max=700)
    files, seen = whole(folder), 0

    def interrupted(line):
        nonlocal seen
        seen += 1
        if seen > len(EVENTS):
            raise KeyboardInterrupt
        return LeftOut.WITHDRAWN if seen % 2 else None

    with pytest.raises(KeyboardInterrupt):
        privacy.export_folder.remove_disallowed(folder, manifest, interrupted, NOW, deriving(settings(), folder))
    assert whole(folder) == files
    (folder / "part-00000-r1.parquet").write_bytes(b"left by a killed rewrite")
    assert honoured(folder, [*CONSENTS, BOB_LEAVES]).removed == {LeftOut.WITHDRAWN: 8}
    assert set(whole(folder)) == {"manifest.json", *(part.name for part in read_manifest(folder).parts)}


def test_damaged_part_and_path_traversal_are_refused(tmp_path: Path) -> None:
    manifest = an_export(tmp_path, EVENTS, CONSENTS, NOW)
    [part] = manifest.parts
    (tmp_path / part.name).write_bytes((tmp_path / part.name).read_bytes()[:-1])
    with pytest.raises(ExportError, match="is not what its manifest says"):
        honoured(tmp_path, CONSENTS)
    for name in ("../part-00000-r0.parquet", "notes.txt"):
        (tmp_path / "manifest.json").write_bytes(
            msgspec.json.encode(msgspec.structs.replace(manifest, parts=[msgspec.structs.replace(part, name=name)]))
        )
        with pytest.raises(ExportError, match="names a part that no export has"):
            list(part_events(tmp_path, read_manifest(tmp_path).parts[0]))
    (tmp_path / "manifest.json").write_bytes(b"{}")
    with pytest.raises(ExportError, match="is not the manifest of an export"):
        read_manifest(tmp_path)


def with_ring(directory: Path, ring=KEY_RING, **export):
    write_key_ring(ring, directory / "ring.json")
    return msgspec.structs.replace(settings(**export), privacy=PrivacySettings(str(directory / "ring.json")))


def test_expired_export_is_deleted_without_other_files(tmp_path: Path) -> None:
    said: list[str] = []
    an_export(tmp_path / "x", EVENTS, CONSENTS, BEGINNING - 90 * DAY)
    an_export(tmp_path / "y", EVENTS, CONSENTS, BEGINNING - 90 * DAY)
    (tmp_path / "y" / "notes.txt").write_text("mine")
    assert rewrite(settings(), tmp_path / "x", said.append) is rewrite(settings(), tmp_path / "y", said.append) is None
    assert "past its retention and has been deleted" in said[-1]
    assert not (tmp_path / "x").exists()
    assert [path.name for path in (tmp_path / "y").iterdir()] == ["notes.txt"]


def test_shortened_retention_applies_to_existing_exports() -> None:
    with tempfile.TemporaryDirectory() as place:
        manifest = an_export(Path(place), EVENTS, CONSENTS, NOW, retention_days=30)
    past = privacy.export_folder.is_past_retention
    assert not past(30, manifest, NOW + 30 * DAY - 1)
    assert past(30, manifest, NOW + 30 * DAY)
    assert past(7, manifest, NOW + 7 * DAY)
    assert past(365, manifest, NOW + 30 * DAY)


def test_rewrite_with_another_key_is_refused(tmp_path: Path) -> None:
    now_ms = 4_000_000_000_000
    an_export(tmp_path / "x", EVENTS, CONSENTS, now_ms)
    files = whole(tmp_path / "x")
    with pytest.raises(ExportError, match="was written with an export key"):
        rewrite(with_ring(tmp_path, new_key_ring()), tmp_path / "x")
    assert whole(tmp_path / "x") == files


def test_training_requires_unexpired_train_export(tmp_path: Path) -> None:
    now_ms = 4_000_000_000_000
    an_export(tmp_path / "train", EVENTS, CONSENTS, now_ms)
    an_export(tmp_path / "measure", EVENTS, CONSENTS, now_ms, "measure")
    an_export(tmp_path / "é x y", EVENTS, CONSENTS, BEGINNING)
    data = read(tmp_path / "train", CLEAN_EVENTS)
    assert len(data) == len(EVENTS) and len(set(data.users)) == len(USERS) and data.item_ids == ["tea"]
    with pytest.raises(ModelError, match="was exported to measure"):
        read(tmp_path / "measure", CLEAN_EVENTS)
    [part] = read_manifest(tmp_path / "measure").parts
    with pytest.raises(ModelError, match="is a part of an export: name the folder"):
        read(tmp_path / "measure" / part.name, CLEAN_EVENTS)
    with pytest.raises(ModelError, match=r"is past its retention.* rewrite '.*/é x y'`"):
        read(tmp_path / "é x y", CLEAN_EVENTS)
    with pytest.raises(ModelError, match="is not an export"):
        read(tmp_path, CLEAN_EVENTS)


def test_command_reports_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "write", "--settings", str(tmp_path / "none.toml"), "--out", str(tmp_path / "x")]) == 2
    assert "none.toml cannot be read" in capsys.readouterr().err
    assert run(["export", "rewrite", "x", "--settings", "s", "--purpose", "train"]) == 64
    assert "No such option: --purpose" in capsys.readouterr().err


def test_unavailable_kafka_is_reported_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_key_ring(KEY_RING, tmp_path / "ring.json")
    (tmp_path / "s.toml").write_text(
        f'kafka.bootstrap_servers = "127.0.0.1:1"\nredis.url = "redis://r"\nmodel.directory = "/m"\n'
        f'privacy.key_ring = "{tmp_path / "ring.json"}"\n'
    )
    assert run(["export", "write", "--settings", str(tmp_path / "s.toml"), "--out", str(tmp_path / "x")]) == 2
    assert "freshet: not done: Kafka at 127.0.0.1:1 refuses connections" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"ring.json", "s.toml"}


@pytest.mark.parametrize("module", [privacy.export_folder, privacy.retention])
def test_examples_are_true(module) -> None:
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
