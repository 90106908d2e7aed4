"""All data about one person, as one JSON document: rights of access and portability (GDPR, articles 15 and 20).

The running job provides its state; Redis and the topics are read directly (`freshet access`).
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from adapters.redis.client import connect
from adapters.redis.feature_rows import FeatureRows
from adapters.schema_sources import codec_of
from adapters.secrets.key_rings import load_key_ring
from jobs.clock import clock_ms
from jobs.settings import Settings
from schemas.errors import SchemaError
from schemas.pseudonyms import Pseudonymiser
from schemas.stored_features import Seen
from serving.held_data import Collector, access_command
from udfs.features import ENTITY, FEATURES, values_of
from udfs.state import decode_state, readable


def collect_personal_data(settings: Settings, user_id: str, role: str, purpose: str) -> dict[str, Any]:
    """Everything held about `user_id`, by place; missing parts are null or empty."""
    names = Pseudonymiser(load_key_ring(settings.privacy.key_ring)).all(user_id)
    client = connect(settings.redis)
    try:
        client.standing()  # before the job and the topics are asked, which takes long
        features = features_of(settings, names)
        command = access_command(user_id, role, purpose)
        collector = Collector(settings.kafka, client, codec_of(settings.input), everywhere=True)
        held = collector.collect(names, command)
    finally:
        client.close()
    return held | {"features": features, "collected_at": clock_ms()}


def features_of(settings: Settings, names: Sequence[str]) -> dict[str, Any]:
    """What Feast's Redis holds of a user, by pseudonym: the row, and the consent that it is kept under."""
    client = connect(settings.features.address(settings.redis))
    try:
        seen = FeatureRows(client, settings.features.project, ENTITY).seen(names)
    finally:
        client.close()
    return {name: _readable(one, settings) for name, one in seen.items() if one.state or one.profile}


def _readable(seen: Seen, settings: Settings) -> dict[str, Any]:
    try:
        consent = readable(decode_state(seen.state)) if seen.state else None
        profile = decode_state(seen.profile).profile if seen.profile else None
    except (msgspec.MsgspecError, SchemaError):
        return {"unreadable_bytes": len(seen.state) + len(seen.profile)}
    if profile is None:
        return {"consent": consent, "row": None}
    values = zip(FEATURES, values_of(profile, settings.profile), strict=True)
    return {"consent": consent, "row": {feature.name: value for feature, value in values}}
