"""The published schemas are those of the structs."""

import json

import pytest

from schemas.consents import ConsentChange
from schemas.events import Interaction
from schemas.wire.publish import PUBLISHED, published_files
from schemas.wire.shapes import fields_of


def test_every_published_file_is_up_to_date() -> None:
    standing = {path.name: path.read_bytes() for path in PUBLISHED.iterdir()}
    assert standing == published_files(), "run python -m schemas.wire.publish"


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


def test_the_json_schema_takes_what_the_codec_takes_fields_that_we_do_not_know_too() -> None:
    schema = json.loads(published_files()["interaction.schema.json"])
    assert schema.get("additionalProperties", True) is True
