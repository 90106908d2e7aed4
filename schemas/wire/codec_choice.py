"""Chooses the codec of the raw topics: the configured format, with JSON always accepted as well."""

from collections.abc import Callable
from typing import Final, Literal

import msgspec

from schemas.errors import SettingsError
from schemas.wire.codecs import Codec, json_codec
from schemas.wire.confluent import SchemaSource
from schemas.wire.map_settings import InputMap
from schemas.wire.mapping import reader_of
from schemas.wire.mixed_codec import codec_by_content

Format = Literal["json", "avro", "protobuf"]
Framing = Literal["plain", "confluent"]
_PACKAGES: Final = {"avro": "fastavro", "protobuf": "protobuf"}


class MappedInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How interactions of others are read."""

    map: InputMap | None = None
    """Where records of `interactions` that are not in our format hold what an interaction has. Only with JSON, or
    Snowplow's tab-separated values. Records in our format are read beside them.
    """


class InputSettings(MappedInput, frozen=True, forbid_unknown_fields=True):
    """The format of the raw topics.

    The job always reads JSON beside the configured format, and plain records beside framed ones.
    """

    format: Format = "json"
    """How records are encoded."""
    framing: Framing = "plain"
    """`confluent` if records start with a schema id, as Confluent's serializers write them."""
    schema_source: str | None = None
    """A folder of schema files, or the URL of a schema registry. Required with `confluent` framing."""


def codec_for(settings: InputSettings, open_source: Callable[[str], SchemaSource]) -> Codec:
    """The codec for the format of the settings, which also reads JSON (:mod:`schemas.wire.mixed_codec`).

    `open_source` opens the `schema_source` of the settings, which has the schemas of framed records. The libraries for
    Avro and Protobuf are imported only here: reading JSON needs neither. Raises :class:`SettingsError` if the settings
    are inconsistent.
    """
    place = settings.schema_source
    if (settings.framing == "confluent") != (place is not None):
        raise SettingsError("schema_source is required with confluent framing, and not allowed without it")
    if settings.format == "json" and settings.framing != "plain":
        raise SettingsError("JSON has no framing: choose avro or protobuf, or framing plain")
    if settings.format == "json":
        codec = codec_by_content(json_codec())
        return codec if settings.map is None else codec._replace(mapped=reader_of(settings.map, codec.interaction))
    if settings.map is not None:
        raise SettingsError('input.map reads JSON: leave out input.format, or set it to "json"')
    source = open_source(place) if place is not None else None
    return codec_by_content(_codec(settings.format, None), _codec(settings.format, source) if source else None)


def _codec(format: Format, source: SchemaSource | None) -> Codec:
    try:
        match format:
            case "avro":
                from schemas.wire.avro_codec import avro_codec

                return avro_codec(source)
            case "protobuf":
                from schemas.wire.protobuf_codec import protobuf_codec

                return protobuf_codec(source)
    except ModuleNotFoundError:
        raise SettingsError(
            f'format "{format}" needs the package {_PACKAGES[format]}, which is not installed'
        ) from None
    raise SettingsError("a format is json, avro or protobuf")
