"""Writes the published schemas from the structs: ``python -m deploy.publish_schemas``.

They are checked in under ``schemas/wire/published``, for producers and readers in other languages and for schema
registries.
"""

import json
from hashlib import sha1
from pathlib import Path
from typing import Any, Final

import msgspec
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet

from schemas.consents import ConsentChange, LenientConsentChange
from schemas.events import EVENT_TYPES, ITEM_REQUIRED, Interaction, LenientInteraction
from schemas.lists import UserList
from schemas.rejects import DeadLetter
from schemas.store import Generation
from schemas.wire.avro_codec import avro_schema
from schemas.wire.protobuf_codec import MESSAGES, file_descriptor
from schemas.wire.shapes import fields_of, summary_of
from schemas.wire.vectors import pseudonym_vectors, standing_vectors

PUBLISHED: Final = Path(__file__).parents[1] / "schemas" / "wire" / "published"
READ_LIST: Final = PUBLISHED / "read_list.lua"
"""The only published file that is written by hand: :mod:`adapters.redis.scripts` runs it unchanged."""
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_PROTO_NAME: Final = {
    FieldDescriptorProto.TYPE_STRING: "string",
    FieldDescriptorProto.TYPE_INT32: "int32",
    FieldDescriptorProto.TYPE_INT64: "int64",
    FieldDescriptorProto.TYPE_DOUBLE: "double",
    FieldDescriptorProto.TYPE_BOOL: "bool",
}


ITEM_RULE: Final = {
    "if": {"properties": {"type": {"enum": sorted(set(EVENT_TYPES) - ITEM_REQUIRED)}}},
    "else": {"properties": {"item_id": {"type": "string"}}, "required": ["item_id"]},
}
"""The types of interaction that need no item; all others do."""


def published_files() -> dict[str, bytes]:
    """All published files generated from the code: name and bytes."""
    script = READ_LIST.read_bytes()
    return {
        "interaction.schema.json": _json_text(json_schema(LenientInteraction, Interaction) | ITEM_RULE),
        "consent.schema.json": _json_text(json_schema(LenientConsentChange, ConsentChange)),
        "list.schema.json": _json_text(json_schema(UserList, UserList)),
        "dead-letter.schema.json": _json_text(json_schema(DeadLetter, DeadLetter)),
        "generation.schema.json": _json_text(json_schema(Generation, Generation)),
        "read_list.lua.sha1": f"{sha1(script, usedforsecurity=False).hexdigest()}  {READ_LIST.name}\n".encode(),
        "pseudonyms.json": _json_text(pseudonym_vectors()),
        "standing.json": _json_text(standing_vectors()),
        "interaction.avsc": _json_text(avro_schema(Interaction)),
        "consent.avsc": _json_text(avro_schema(ConsentChange)),
        "freshet.proto": proto_text().encode(),
        "freshet.desc": FileDescriptorSet(file=[file_descriptor()]).SerializeToString(deterministic=True),
    }


def json_schema(taken: type[msgspec.Struct], named: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema of what is taken, under the name and the summary of `named`."""
    (schema,), definitions = msgspec.json.schema_components([taken])
    own: dict[str, Any] = definitions.pop(schema["$ref"].rpartition("/")[2]) | {
        "title": named.__name__,
        "description": summary_of(named),
    }
    head = {"$schema": _DIALECT, "$id": f"urn:freshet:schema:{named.__name__}"}
    return head | own | ({"$defs": definitions} if definitions else {})


def proto_text() -> str:
    """The published file as a Protobuf developer writes it."""
    file = file_descriptor()
    lines = [
        "// Written by `python -m deploy.publish_schemas`. Fields are only ever appended.",
        f'syntax = "{file.syntax}";',
        "",
        f"package {file.package};",
    ]
    for struct, message in zip(MESSAGES, file.message_type, strict=True):
        required = {field.name for field in fields_of(struct) if field.required}
        lines += ["", f"// {summary_of(struct)}", *_message_lines(message, required)]
    return "\n".join(lines) + "\n"


def _message_lines(message: DescriptorProto, required: set[str]) -> list[str]:
    entries = {entry.name for entry in message.nested_type if entry.options.map_entry}
    lines = [f"message {message.name} {{"]
    for nested in message.nested_type:
        if nested.name not in entries:
            lines += [f"  {line}" for line in _message_lines(nested, set())]
    for field in message.field:
        note = "  // required" if field.name in required else ""
        lines.append(f"  {_field_type(field, entries)} {field.name} = {field.number};{note}")
    return [*lines, "}"]


def _field_type(field: FieldDescriptorProto, entries: set[str]) -> str:
    nested = field.type_name.rpartition(".")[2]
    if nested in entries:
        return "map<string, string>"
    label = "optional" if field.proto3_optional else "repeated"
    return f"{label} {nested or _PROTO_NAME[field.type]}"


def _json_text(schema: object) -> bytes:
    return json.dumps(schema, indent=2).encode() + b"\n"


def main() -> None:
    """Write every published file."""
    PUBLISHED.mkdir(exist_ok=True)
    for name, content in published_files().items():
        (PUBLISHED / name).write_bytes(content)


if __name__ == "__main__":
    main()
