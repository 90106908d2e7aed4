"""Writes a Feast repository for the features of users, from their one definition (`freshet features init`).

The generated definitions compare Feast's storage format with :mod:`schemas.wire.feast_layout` when they are applied:
with a release of Feast that stores rows differently, every feature would silently be missing.
"""

from pathlib import Path
from typing import Final

from adapters.files.feature_parts import CREATED, EVENT_TIMESTAMP, USER, write_feature_rows
from adapters.redis.address import RedisSettings, parse
from jobs.settings import Settings
from schemas.errors import SettingsError
from schemas.exports import FEATURES as FEATURES_FOLDER
from schemas.exports import MANIFEST
from schemas.wire.feast_layout import FEAST_VERSION, field_of, row_key
from udfs.features import ENTITY, FEATURES, VIEW

NO_ROWS: Final = "no_rows.parquet"
_TYPES: Final = {
    "int": "Int64",
    "float": "Float64",
    "texts": "Array(String)",
    "ints": "Array(Int64)",
    "floats": "Array(Float64)",
}
_STORE: Final = """# Written by `freshet features init`.
project: {project}
provider: local
registry: registry.db
online_store:
  type: redis
  redis_type: {redis_type}
{sentinel}  connection_string: "{connection}"
offline_store:
  type: file
entity_key_serialization_version: 3
telemetry: false
"""
_DEFINITIONS: Final = '''"""The features of users, from Freshet. Written by `freshet features init`: do not edit."""

from datetime import timedelta

import feast
from feast import Entity, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Array, Float64, Int64, String

EXPECTED = "{key}", "{field}"


def stored_like_this() -> tuple[str, str]:
    """Where this release of Feast stores a row and a feature."""
    from feast.infra.online_stores.helpers import _mmh3, _redis_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    key = EntityKey(join_keys=["{entity}"], entity_values=[Value(string_val="p1.example")])
    return _redis_key("{project}", key, entity_key_serialization_version=3).hex(), _mmh3("{view}:{first}").hex()


try:
    FOUND = stored_like_this()
except ImportError:
    FOUND = None
if FOUND != EXPECTED:
    raise SystemExit(
        f"Feast {{feast.__version__}} does not store rows where Freshet writes them: install feast[redis]=={version}, "
        "or a Freshet that supports this release"
    )

{entity} = Entity(
    name="{entity}",
    join_keys=["{entity}"],
    value_type=ValueType.STRING,
    description="A user: online the pseudonym of the job, offline the name in exports",
)
{view}_batch = FileSource(
    name="{view}_batch",
    path={path!r},
    timestamp_field="{event_timestamp}",
    created_timestamp_column="{created}",
    description="Features after every event until event_timestamp, by append time; from `freshet features export`",
)
{view}_push = PushSource(
    name="{view}_push",
    batch_source={view}_batch,
    description="Written by `freshet features push`, only while consent allows it",
)
{view} = FeatureView(
    name="{view}",
    entities=[{entity}],
    ttl=timedelta(milliseconds={ttl_ms}),
    schema=[
{fields}
    ],
    source={view}_push,
    online=True,
    description="The profile that Freshet keeps of a user",
)
'''


def write_repository(settings: Settings, folder: Path, export: Path | None) -> None:
    """Write the repository to `folder`, which must not exist yet; its offline rows are those of `export`, if given.

    Raises :class:`SettingsError` for an `export` without features.
    """
    if export is not None and not ((export / MANIFEST).is_file() and (export / FEATURES_FOLDER).is_dir()):
        raise SettingsError(f"{export} is not an export with features: run `freshet features export {export}` first")
    store = _store_of(settings)
    folder.mkdir()
    offline = folder.absolute() / NO_ROWS if export is None else export.absolute() / FEATURES_FOLDER
    if export is None:
        with (folder / NO_ROWS).open("xb") as file:
            write_feature_rows(file, [(feature.name, feature.kind) for feature in FEATURES], 0, [])
    (folder / "feature_store.yaml").write_text(store)
    (folder / "features.py").write_text(_definitions(settings, offline))
    (folder / "requirements.txt").write_text(f"feast[redis]=={FEAST_VERSION}\n")


def _definitions(settings: Settings, offline: Path) -> str:
    project = settings.features.project
    assert USER == ENTITY
    return _DEFINITIONS.format(
        key=row_key(project, ENTITY, "p1.example").hex(),
        field=field_of(VIEW, FEATURES[0].name).hex(),
        first=FEATURES[0].name,
        project=project,
        entity=ENTITY,
        view=VIEW,
        version=FEAST_VERSION,
        path=str(offline),
        event_timestamp=EVENT_TIMESTAMP,
        created=CREATED,
        ttl_ms=settings.features.ttl_ms,
        fields="\n".join(
            f"        Field(name={one.name!r}, dtype={_TYPES[one.kind]}, description={one.meaning!r}),"
            for one in FEATURES
        ),
    )


def _store_of(settings: Settings) -> str:
    address = settings.features.address(settings.redis)
    kind = {"server": "redis", "sentinel": "redis_sentinel", "cluster": "redis_cluster"}[address.kind]
    sentinel = f"  sentinel_master: {address.service}\n" if address.service else ""
    return _STORE.format(
        project=settings.features.project, redis_type=kind, sentinel=sentinel, connection=_connection(address)
    )


def _connection(address: RedisSettings) -> str:
    """Feast's form of the address. It names the variable of the password, which Feast's processes must have."""
    places = [parse(url) for url in address.urls]
    parts = [f"{place.host}:{place.port}" for place in places]
    if places[0].database:
        parts.append(f"db={places[0].database}")
    if places[0].tls:
        parts += ["ssl=true", *([f"ssl_ca_certs={address.ca_file}"] if address.ca_file else [])]
        if address.cert_file:
            parts += [f"ssl_certfile={address.cert_file}", f"ssl_keyfile={address.key_file}"]
    if user := address.username or places[0].username:
        parts.append(f"username={user}")
    if address.password_variable:
        parts.append(f"password=${{{address.password_variable}}}")
    return ",".join(parts)
