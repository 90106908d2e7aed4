"""Encoders for producers: the format that the job reads, chosen by the same settings."""

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from schemas.consents import ConsentChange
from schemas.errors import SchemaError, SettingsError
from schemas.events import EVENT_TS_MIN, Interaction
from schemas.wire.codec_choice import InputSettings
from schemas.wire.codecs import BadRecord, Codec
from schemas.wire.confluent import SCHEMA_ID_MAX, frame

_MISFIT: Final = (
    "cannot be read with input.schema_source by the job: input.interactions_schema_id and input.consents_schema_id are "
    "the ids under which this release's schemas/wire/published stand there"
)


class WriteSettings(InputSettings, frozen=True, forbid_unknown_fields=True):
    """The format in which a producer writes; it must be one that the job reads."""

    interactions_schema_id: int | None = None
    """With `confluent` framing: the id of the published interaction schema in the registry."""
    consents_schema_id: int | None = None
    """With `confluent` framing: the id of the published consent schema. For Protobuf, both ids are the same."""


AS_JSON: Final = WriteSettings()
"""The format read by a job without `[input]`."""


class Writer(NamedTuple):
    """Encodes validated records as values of the raw topics."""

    interaction: Callable[[Interaction], bytes]
    consent: Callable[[ConsentChange], bytes]


def writer_for(settings: WriteSettings, codec: Codec) -> Writer:
    """The writer of a producer. A framed one is tested with the job's `codec`, which queries the schema source.

    Raises :class:`SettingsError` if the job could not read what would be written.
    """
    if settings.framing == "plain":
        if settings.interactions_schema_id is not None or settings.consents_schema_id is not None:
            raise SettingsError("schema ids require confluent framing")
        return _plain(settings.format)
    writer = _framed(settings)
    try:
        understood = codec.interaction(writer.interaction(_EVENT)) == (_EVENT, False) and codec.consent(
            writer.consent(_CHANGE)
        ) == (_CHANGE, False)
    except (BadRecord, SchemaError) as error:
        raise SettingsError(f"what would be written {_MISFIT} ({error})") from None
    if not understood:
        raise SettingsError(f"what would be written {_MISFIT}")
    return writer


def _plain(format: str) -> Writer:
    match format:
        case "avro":
            from schemas.wire import avro_codec

            return Writer(avro_codec.encode, avro_codec.encode)
        case "protobuf":
            from schemas.wire import protobuf_codec

            return Writer(protobuf_codec.encode, protobuf_codec.encode)
    return Writer(msgspec.json.encode, msgspec.json.encode)


def _framed(settings: WriteSettings) -> Writer:
    of_events, of_consents = _id(settings.interactions_schema_id), _id(settings.consents_schema_id)
    if settings.format == "avro":
        plain = _plain("avro")
        return Writer(
            lambda event: frame(of_events, plain.interaction(event)),
            lambda change: frame(of_consents, plain.consent(change)),
        )
    from schemas.wire.protobuf_codec import encode_framed

    return Writer(lambda event: encode_framed(event, of_events), lambda change: encode_framed(change, of_consents))


def _id(schema_id: int | None) -> int:
    if schema_id is None or not 0 < schema_id <= SCHEMA_ID_MAX:
        raise SettingsError(
            "writing with confluent framing needs input.interactions_schema_id and input.consents_schema_id: "
            "register the files of schemas/wire/published and name the ids that they get"
        )
    return schema_id


# All fields have different values, so a schema with two of them swapped fails.
_EVENT: Final = Interaction(
    event_id="event",
    type="purchase",
    ts=EVENT_TS_MIN,
    user_id="user",
    session_id="session",
    item_id="item",
    position=1,
    value=2.5,
    currency="EUR",
    quantity=3,
    surface="surface",
    request_id="request",
    query="query",
    scroll_pct=4.5,
    dwell_ms=5,
    context={"key": "value"},
    schema_v=6,
)
_CHANGE: Final = ConsentChange(
    user_id="user",
    level="session",
    ts=EVENT_TS_MIN,
    granted=["personalise", "train"],
    denied=["measure"],
    method="method",
    notice_version="notice",
    jurisdiction="place",
    expires_at=EVENT_TS_MIN + 1,
    erase=True,
    tcf="tcf",
    gpp="gpp",
    schema_v=7,
    gpc=False,
)
