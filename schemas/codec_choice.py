"""Which codec a job reads its raw topics with, from its settings."""

from typing import Literal

from schemas.codecs import Codec, json_codec
from schemas.confluent import SchemaSource
from schemas.errors import SettingsError
from schemas.schema_sources import source_at

Format = Literal["json", "avro", "protobuf"]
Framing = Literal["plain", "confluent"]


def codec_for(format: Format, framing: Framing = "plain", schema_source: str | None = None) -> Codec:
    """The codec for `format`; `schema_source` is where the schemas of framed records are: an address or a directory.

    The libraries for Avro and Protobuf are imported here and not before: who reads JSON needs neither.
    Raises :class:`SettingsError` where the three do not go together.
    """
    if (framing == "confluent") != (schema_source is not None):
        raise SettingsError("a schema source goes with confluent framing, and confluent framing needs one")
    if format == "json" and framing != "plain":
        raise SettingsError("JSON has no framing: choose avro or protobuf, or framing plain")
    source = source_at(schema_source) if schema_source is not None else None
    return _codec(format, source)


def _codec(format: Format, source: SchemaSource | None) -> Codec:
    match format:
        case "json":
            return json_codec()
        case "avro":
            from schemas.avro_codec import avro_codec

            return avro_codec(source)
        case "protobuf":
            from schemas.protobuf_codec import protobuf_codec

            return protobuf_codec(source)
    raise SettingsError("a format is json, avro or protobuf")
