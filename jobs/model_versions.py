"""The versions of models that a job can serve: where they are, what they are, and how a worker opens one."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from adapters.files.mlflow_models import downloaded, is_mlflow_uri
from adapters.files.model_cache import ModelCache
from adapters.files.model_registry import ModelRegistry
from jobs.settings import Settings
from models import manifest as manifests
from models.manifest import Manifest
from models.scorer import Scorer
from schemas.errors import ModelError
from schemas.model_versions import DEFAULT, ONLINE, Version, parse_version
from udfs.frozen_model import FrozenModel
from udfs.profile import ProfileBounds
from udfs.ranking import ListModel


class ListedVersion(NamedTuple):
    """A version in the registry; `manifest` is None, with the `complaint`, if it cannot be read."""

    version: Version
    manifest: Manifest | None
    complaint: str = ""


def registry_of(settings: Settings) -> ModelRegistry:
    """The registry of the job; raises :class:`ModelError` if it has none."""
    if settings.model.versions is None:
        raise ModelError("the job has no versions of models: set model.versions, a folder or URI, in its settings")
    return ModelRegistry(settings.model.versions)


def opener(settings: Settings) -> Callable[[str], ListModel]:
    """What opens a version in a worker: fetches, checks and warms it up."""
    cache = ModelCache(settings.model.cache_folder(), settings.model.cache_bytes_max)

    def open_version(text: str) -> ListModel:
        version = parse_version(text)
        if version is None:
            raise ModelError(f'this job does not learn: {text} needs model.kind = "online" in its settings')
        return open_filed(version, registry_of(settings), cache, settings.profile)

    return open_version


def open_filed(version: Version, registry: ModelRegistry, cache: ModelCache, bounds: ProfileBounds) -> FrozenModel:
    """A version with files. A damaged copy is fetched once again."""
    try:
        return _opened(version, cache.copy_of(version, registry), cache, bounds)
    except ModelError:
        if registry.manifest(version) is None:
            raise
        cache.drop(version)
    return _opened(version, cache.copy_of(version, registry), cache, bounds)


def _opened(version: Version, folder: Path, cache: ModelCache, bounds: ProfileBounds) -> FrozenModel:
    with cache.opening(version):
        scorer = Scorer.open(folder)
    _check_names(version, scorer.manifest)
    return FrozenModel(scorer, version.short, bounds)


def _check_names(version: Version, manifest: Manifest) -> None:
    if (manifest.name, manifest.sha256) != version:
        raise ModelError(f"{version}: its manifest is that of {version_of(manifest)}: push the model again")


def version_of(manifest: Manifest) -> Version:
    """The version that a model is."""
    return Version(manifest.name, manifest.sha256)


def push(settings: Settings, source: str, licence: str = "") -> tuple[Version, bool]:
    """Add a model to the registry, after opening it as a worker does; returns its version, and whether it was added.

    `source` is a folder, or a URI of MLflow. A `licence` replaces that of its manifest.
    """
    with downloaded(source) if is_mlflow_uri(source) else contextlib.nullcontext(Path(source)) as folder:
        manifest = Scorer.open(folder).manifest
        if licence:
            manifest = msgspec.structs.replace(manifest, licence=licence)
        version = version_of(manifest)
        return version, registry_of(settings).push(version, folder, manifests.encoded(manifest))


def listed(settings: Settings) -> list[ListedVersion]:
    """All versions in the registry, the newest training data first."""
    registry = registry_of(settings)
    found = [_described(registry, version) for version in registry.versions()]
    return sorted(found, key=lambda one: -one.manifest.training_window.to_ms if one.manifest else 0)


def _described(registry: ModelRegistry, version: Version) -> ListedVersion:
    raw = registry.manifest(version)
    try:
        manifest = msgspec.json.decode(raw or b"", type=Manifest)
        manifests.check_fields(manifest, str(version))
        _check_names(version, manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ModelError) as error:
        return ListedVersion(version, None, str(error))
    return ListedVersion(version, manifest)


def resolved(settings: Settings, text: str) -> str:
    """The full name of the version that `text` names: in full, with the first digits of its digest, or by name alone.

    What a URI of MLflow names is added to the registry first, so that workers need no MLflow. Raises
    :class:`ModelError` if there is no such version, or several.
    """
    if text in (DEFAULT, ONLINE) or parse_version(text) is not None:
        return text
    if is_mlflow_uri(text):
        return str(push(settings, text)[0])
    name, _, digits = text.partition("/")
    versions = registry_of(settings).versions()
    found = [one for one in versions if one.name == name and one.sha256.startswith(digits)]
    if len(found) == 1:
        return str(found[0])
    if found:
        raise ModelError(f"{text} may be {', '.join(one.short for one in found)}: give more digits")
    known = ", ".join(one.short for one in versions[:5]) or "none"
    raise ModelError(f"{text} is not in {settings.model.versions}, which has {known}")


def summary(one: ListedVersion) -> str:
    """A version on one line: its data, metrics, licence and size."""
    if one.manifest is None:
        return f"{one.version}  unreadable: {one.complaint}"
    manifest = one.manifest
    window = manifest.training_window
    days = "data unknown"
    if window.to_ms:
        begin, end = (datetime.fromtimestamp(ms / 1000, UTC).date() for ms in (window.from_ms, window.to_ms))
        days = f"data {begin} to {end}, {window.interactions} interactions"
    model = manifest.metrics.get("model") or next(iter(manifest.metrics.values()), {})
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in model.items()) or "no metrics"
    licence = manifest.licence or "no licence given"
    size = f"{manifest.size_bytes / 1e6:.1f} MB, {manifest.items_count} items, {manifest.quantisation}"
    return f"{one.version}  {days}; {metrics}; {licence}; {size}"
