"""The published schemas match the structs."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode

import jsonschema_rs
import pytest

from adapters.redis.greeting import WHOLESALE, life_of, parse_inspection, record_of, standing_of
from adapters.secrets.key_rings import KEY_RING_VARIABLE, load_key_ring
from deploy.publish_schemas import PUBLISHED, READ_LIST, published_files
from schemas.consents import ConsentChange
from schemas.errors import StoreUnavailable
from schemas.events import Interaction
from schemas.lists import encode_list, item_fragment
from schemas.store import proof_of
from schemas.wire.shapes import fields_of


def test_every_published_file_is_up_to_date() -> None:
    standing = {path.name: path.read_bytes() for path in PUBLISHED.iterdir() if path != READ_LIST}
    assert standing == published_files(), "run python -m deploy.publish_schemas"


@pytest.mark.parametrize(("name", "struct"), [("interaction", Interaction), ("consent", ConsentChange)])
def test_every_language_names_the_same_fields_and_requires_the_same(
    name: str, struct: type[Interaction] | type[ConsentChange]
) -> None:
    files = published_files()
    required = [field.name for field in fields_of(struct) if field.required]
    as_json = json.loads(files[f"{name}.schema.json"])
    as_avro = json.loads(files[f"{name}.avsc"])
    assert list(as_json["properties"]) == list(struct.__struct_fields__)
    assert as_json["required"] == required
    assert [field["name"] for field in as_avro["fields"]] == list(struct.__struct_fields__)
    assert [field["name"] for field in as_avro["fields"] if "default" not in field] == required
    _, _, message = files["freshet.proto"].decode().partition(f"message {struct.__name__} {{")
    for number, field in enumerate(struct.__struct_fields__, start=1):
        assert f" {field} = {number};" in message


def test_json_schema_accepts_what_the_codec_accepts() -> None:
    schema = json.loads(published_files()["interaction.schema.json"])
    assert schema.get("additionalProperties", True) is True


def test_stored_list_is_of_the_published_schema() -> None:
    schema = json.loads(published_files()["list.schema.json"])
    stored = json.loads(encode_list(3, 7, b'"m"', 9, "session", [item_fragment("tea")], [0.5]))
    jsonschema_rs.validate(schema, stored)
    for broken in (stored | {"reason": "guessed"}, stored | {"items": [{"id": "tea"}]}, {"v": 3}):
        with pytest.raises(jsonschema_rs.ValidationError):
            jsonschema_rs.validate(schema, broken)


def test_pseudonym_vectors_follow_the_documented_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    told = json.loads(published_files()["pseudonyms.json"])
    ring = told["key_ring"]
    monkeypatch.setenv(KEY_RING_VARIABLE, json.dumps(ring))
    assert load_key_ring(None).previous == ring["previous"]
    assert len(told["vectors"]) >= 8
    for one in told["vectors"]:
        raw = bytes.fromhex(one["utf8"])
        assert raw == one["user_id"].encode()
        for which in ("current", "previous"):
            digest = hmac.digest(bytes.fromhex(ring["keys"]["user"][str(ring[which])]), raw, "sha256")
            shown = urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
            assert one[which] == f"p{ring[which]}.{shown}"
    assert any(one["user_id"].isascii() for one in told["vectors"])
    assert sum(not one["user_id"].isascii() for one in told["vectors"]) >= 4


def test_standing_vectors_match_our_readers() -> None:
    vectors = json.loads(published_files()["standing.json"])["vectors"]
    for one in vectors:
        assert one["proof"] == proof_decided(one), one["name"]
    assert all(any(f"cmdstat_{name}:" in one["commandstats"] for one in vectors) for name in WHOLESALE)
    assert {one["proof"] is None for one in vectors} == {True, False}


def proof_decided(vector: dict[str, str | None]) -> str | None:
    server, replication, stats, raw = (
        None if vector[name] is None else str(vector[name]).encode()
        for name in ("server", "replication", "commandstats", "generation")
    )
    try:
        seen = parse_inspection(replication, stats, raw)
    except StoreUnavailable:
        return None
    standing = standing_of(life_of(server, seen), seen, record_of(seen))
    return None if standing.token is None else proof_of(standing.token).decode()


def test_published_script_has_the_published_sha1() -> None:
    sha1, _, name = published_files()["read_list.lua.sha1"].decode().partition("  ")
    assert sha1 == hashlib.sha1((PUBLISHED / name.strip()).read_bytes()).hexdigest()
