"""Versions of models: published to a folder or URI, named, fetched and checked, kept by workers, and from MLflow."""

import multiprocessing
import os
from pathlib import Path

import msgspec
import pytest

from adapters.files.model_cache import DEATHS_MAX, ModelCache
from adapters.files.model_registry import ModelRegistry
from jobs.model_versions import listed, open_filed, opener, push, resolved, summary, version_of
from jobs.settings import ModelSettings, Settings
from models.manifest import ITEMS_FILE, MANIFEST_FILE, MODEL_FILE, load
from models.random_model import random_model
from schemas.errors import ModelError
from schemas.model_versions import Version
from tests.support.models import edit_manifest
from udfs.profile import ProfileBounds


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, str(tmp_path / "versions"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    random_model(tmp_path / "model", items=20, top_k=5)
    return tmp_path / "model"


def settings_of(folder: Path, versions: str | None) -> Settings:
    model = ModelSettings(versions=versions, cache=str(folder / "cache"))
    return msgspec.structs.replace(
        msgspec.convert({"kafka": {"bootstrap_servers": "b:1"}, "redis": {"url": "redis://r"}}, Settings), model=model
    )


def in_registry(settings: Settings, version: Version, file: str) -> Path:
    assert settings.model.versions is not None
    return Path(settings.model.versions) / str(version) / file


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_published_model_is_listed_and_opened(tmp_path: Path, model: Path, scheme: str) -> None:
    settings = settings_of(tmp_path, f"{scheme}{tmp_path / 'versions'}")
    version, added = push(settings, str(model), "CC-BY-4.0")
    assert (version, added) == (version_of(load(model)), True)
    assert push(settings, str(model), "CC-BY-4.0") == (version, False), "twice is no error"
    [found] = listed(settings)
    assert found.manifest is not None and found.manifest.licence == "CC-BY-4.0"
    assert str(version) in summary(found) and "CC-BY-4.0" in summary(found) and "int8-weights" in summary(found)
    opened = opener(settings)(str(version))
    assert (opened.name, opened.failing) == (version.short, False)
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("opening-*"))


def test_version_never_changes(settings: Settings, model: Path) -> None:
    push(settings, str(model))
    with pytest.raises(ModelError, match="versions do not change"):
        push(settings, str(model), "MIT")


def test_versions_are_found_by_name_and_by_the_first_digits(settings: Settings, model: Path, tmp_path: Path) -> None:
    version, _ = push(settings, str(model))
    for text in (version.name, version.short, str(version), f"{version.name}/{version.sha256[:2]}"):
        assert resolved(settings, text) == str(version)
    assert [resolved(settings, text) for text in ("online", "default")] == ["online", "default"]
    random_model(tmp_path / "other", items=20, top_k=5, seed=1)
    edit_manifest(tmp_path / "other", name=version.name)
    push(settings, str(tmp_path / "other"))
    with pytest.raises(ModelError, match="give more digits"):
        resolved(settings, version.name)
    with pytest.raises(ModelError, match=r"none-such is not in .*versions, which has random-"):
        resolved(settings, "none-such")


def test_worker_without_registry_says_which_setting(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"set model.versions"):
        opener(settings_of(tmp_path, None))("shop/" + "a" * 64)
    with pytest.raises(ModelError, match=r'needs model.kind = "online"'):
        opener(settings_of(tmp_path, None))("online")


@pytest.mark.parametrize("versions", ["s4://nowhere/models", "file:/\x00"])
def test_registry_that_cannot_be_is_refused_in_one_line(tmp_path: Path, versions: str) -> None:
    with pytest.raises(ModelError, match=r"\(model.versions\) cannot be reached: ") as caught:
        listed(settings_of(tmp_path, versions))
    assert "\n" not in str(caught.value)


def test_damaged_graph_is_refused(settings: Settings, model: Path) -> None:
    version, _ = push(settings, str(model))
    graph = in_registry(settings, version, MODEL_FILE)
    graph.write_bytes(graph.read_bytes()[:-1] + b"\x00")
    with pytest.raises(ModelError, match="it is damaged, push it again"):
        opener(settings)(str(version))
    assert not list(Path(str(settings.model.cache)).rglob(MODEL_FILE)), "nothing of it is kept"


@pytest.mark.parametrize("file", [ITEMS_FILE, MANIFEST_FILE])
def test_other_damaged_files_are_refused(settings: Settings, model: Path, file: str) -> None:
    version, _ = push(settings, str(model))
    path = in_registry(settings, version, file)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ModelError, match=file.replace(".", r"\.")):
        opener(settings)(str(version))
    assert listed(settings)[0].manifest is None or file == ITEMS_FILE


def test_model_in_the_folder_of_another_is_refused(settings: Settings, model: Path) -> None:
    version, _ = push(settings, str(model))
    edit_manifest(in_registry(settings, version, ""), name="another")
    with pytest.raises(ModelError, match="its manifest is that of another/"):
        opener(settings)(str(version))


def test_damaged_copy_is_fetched_again_and_a_good_one_needs_no_registry(settings: Settings, model: Path) -> None:
    version, _ = push(settings, str(model))
    opener(settings)(str(version))
    [copy] = Path(str(settings.model.cache)).rglob(MODEL_FILE)
    copy.write_bytes(b"broken")
    opener(settings)(str(version))
    for file in (MODEL_FILE, ITEMS_FILE, MANIFEST_FILE):
        in_registry(settings, version, file).unlink()
    assert opener(settings)(str(version)).name == version.short


def test_cache_is_bounded_by_size_and_drops_what_was_not_used_for_longest(tmp_path: Path, settings: Settings) -> None:
    assert settings.model.versions is not None
    registry, versions = ModelRegistry(settings.model.versions), []
    for seed in range(3):
        random_model(tmp_path / "model", items=20, top_k=5, seed=seed)
        versions.append(push(settings, str(tmp_path / "model"))[0])
    size = sum(
        in_registry(settings, versions[0], file).stat().st_size for file in (MODEL_FILE, ITEMS_FILE, MANIFEST_FILE)
    )
    cache = ModelCache(tmp_path / "cache", bytes_max=size * 5 // 2)
    for hours_ago, version in zip((3, 4, 0), versions, strict=True):
        copy = cache.copy_of(version, registry)
        used_s = copy.stat().st_mtime - hours_ago * 3_600
        os.utime(copy, (used_s, used_s))
    left = {path.parent.parent.name for path in (tmp_path / "cache").rglob(MODEL_FILE)}
    assert left == {versions[0].sha256, versions[2].sha256}


def _die_while_opening(folder: Path, version: Version) -> None:
    with ModelCache(folder, 1).opening(version):
        os._exit(1)


def test_version_that_ended_its_processes_is_refused(tmp_path: Path) -> None:
    version = Version("shop", "a" * 64)
    (tmp_path / version.sha256).mkdir()
    cache = ModelCache(tmp_path, 1)
    for _ in range(DEATHS_MAX):
        with cache.opening(version):
            pass
        dying = multiprocessing.get_context("fork").Process(target=_die_while_opening, args=(tmp_path, version))
        dying.start()
        dying.join()
    with pytest.raises(ModelError, match="processes of this worker ended"), cache.opening(version):
        pass
    for marker in tmp_path.rglob("opening-*"):
        os.utime(marker, (1, 1))
    with cache.opening(version):
        pass


def test_folder_of_another_user_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(ModelError, match=r"belongs to another user: set model.cache"):
        open_filed(version_of(load(model)), ModelRegistry(str(tmp_path)), ModelCache(tmp_path, 1), ProfileBounds())


def test_model_in_mlflow_is_published_by_its_alias(
    settings: Settings, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs pip install mlflow-skinny")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file://{tmp_path / 'mlruns'}")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(model), "model")
    client = mlflow.MlflowClient()
    client.create_registered_model("shop")
    made = client.create_model_version("shop", f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias("shop", "champion", made.version)
    assert resolved(settings, "models:/shop@champion") == str(version_of(load(model)))
    assert [one.version for one in listed(settings)] == [version_of(load(model))]
    with pytest.raises(ModelError, match="models:/shop@nobody cannot be downloaded from MLflow"):
        resolved(settings, "models:/shop@nobody")


def test_without_mlflow_its_uris_are_refused_in_one_line(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow.artifacts", None)
    with pytest.raises(ModelError, match="pip install mlflow-skinny"):
        resolved(settings, "models:/shop@champion")


def test_missing_folder_of_versions_is_not_an_empty_one(settings: Settings) -> None:
    """A folder that is not mounted looked like one without versions, and `freshet model list` ended with success."""
    version = str(Version("shop", "a" * 64))
    for ask in (lambda: listed(settings), lambda: resolved(settings, "shop"), lambda: opener(settings)(version)):
        with pytest.raises(ModelError, match=r"there is no folder .*versions \(model\.versions\): mount it"):
            ask()
    Path(settings.model.versions or "").mkdir()
    assert listed(settings) == []
