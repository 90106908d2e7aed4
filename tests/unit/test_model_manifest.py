from pathlib import Path

import pytest

from models.manifest import (
    ITEMS_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    POPULAR_MAX,
    check_items,
    load,
    load_with_items,
    sha256_of,
)
from models.random_model import random_model
from schemas.errors import ModelError
from tests.support.models import edit_manifest

HISTORY = ["users", 20]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    random_model(tmp_path / "model", items=30, neighbours=4, top_k=5)
    return tmp_path / "model"


def refusal(directory: Path) -> str:
    with pytest.raises(ModelError) as refused:
        load(directory)
    return str(refused.value)


def test_model_round_trips(tmp_path: Path) -> None:
    written = random_model(tmp_path / "model", items=30, neighbours=4, top_k=5)
    manifest, items = load_with_items(tmp_path / "model")
    assert manifest == written
    assert items == [f"item-{row:05d}" for row in range(1, 31)]


def test_modified_model_is_refused_with_digests_and_remedy(model: Path) -> None:
    content = bytearray((model / MODEL_FILE).read_bytes())
    content[-1] ^= 1
    (model / MODEL_FILE).write_bytes(content)
    said = refusal(model)
    assert sha256_of(bytes(content)) in said
    assert str(model / MODEL_FILE) in said
    assert "make the folder again with `freshet model train` or `freshet model adopt`" in said


def test_truncated_model_is_refused_by_size(model: Path) -> None:
    content = (model / MODEL_FILE).read_bytes()
    (model / MODEL_FILE).write_bytes(content[:-10])
    assert f"has {len(content) - 10} bytes, the manifest says {len(content)}" in refusal(model)


@pytest.mark.parametrize("name", [MODEL_FILE, ITEMS_FILE, MANIFEST_FILE])
def test_a_missing_file_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    assert str(model / name) in refusal(model)


def test_a_vocabulary_of_another_model_is_refused(model: Path) -> None:
    (model / ITEMS_FILE).write_text("boots\nhat\n")
    assert f"{model / ITEMS_FILE} has sha256" in refusal(model)


def test_an_empty_vocabulary_is_refused(model: Path) -> None:
    (model / ITEMS_FILE).write_bytes(b"")
    edit_manifest(model, items_sha256=sha256_of(b""))
    assert "the vocabulary is empty" in refusal(model)


def test_a_vocabulary_of_another_length_is_refused(model: Path) -> None:
    (model / ITEMS_FILE).write_bytes(b"boots\n")
    edit_manifest(model, items_sha256=sha256_of(b"boots\n"), popular=[])
    assert "has 1 items, the manifest says 30" in refusal(model)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "empty"),
        (["hat", "hat"], "'hat' occurs twice"),
        (["hat", ""], "line 2 is not an item id"),
        (["two\nlines"], "line 1 has a control character"),
        (["hat", "line\u2028separator"], "line 2 has a control character"),
        (["\ufeffhat", "bag"], "line 1 has a control character, a byte order mark"),
        (["x" * 65], "line 1 is not an item id"),
    ],
)
def test_invalid_vocabulary_is_refused(items: list[str], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        check_items(items, "items.txt")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format_version": 2}, "format_version is 2, this release reads 1"),
        ({"name": "Ada's model"}, "name"),
        ({"sha256": "abc"}, "sha256 must be 64 hex digits"),
        ({"quantisation": "int3"}, "quantisation is 'int3', it must be one of"),
        ({"top_k": 0}, "top_k is 0, it must be from 1 to 30"),
        ({"top_k": 31}, "top_k is 31, it must be from 1 to 30"),
        ({"recent_items_max": 0}, "recent_items_max is 0"),
        ({"opset": 3}, "opset is 3"),
        ({"popular": [f"item-{n:05d}" for n in range(POPULAR_MAX + 1)]}, "'popular' is 201, it must be from 0 to 200"),
        ({"popular": ["item-00001", "item-00001"]}, "names an item twice"),
        ({"popular": ["a ghost"]}, "such as 'a ghost'"),
        ({"popular_min_users": 0}, "popular_min_users is 0"),
        ({"kind_weights": {"view": -1.0}}, "kind_weights must be finite and not negative"),
        (
            {"training_window": {"from_ms": 2, "to_ms": 1, "interactions": 0, "users": 0, "items": 0}},
            "before it begins",
        ),
        ({"inputs": {}}, "input 'items' must be int32[users, 20], not absent"),
        ({"inputs": {"items": {"dtype": "int64", "shape": HISTORY}}}, "not int64[users, 20]"),
        (
            {"inputs": {"items": {"dtype": "int32", "shape": HISTORY}, "age": {"dtype": "int32", "shape": ["users"]}}},
            "input 'age' is not one that the scorer can feed",
        ),
        ({"outputs": {"ids": {"dtype": "int64", "shape": ["users", 5]}}}, "output 'scores' must be float32[users, 5]"),
        ({"outputs": {"scores": {"dtype": "float32", "shape": ["users", 30]}}}, "must be float32[users, 31]"),
        ({"size_bytes": "many"}, "Expected `int`"),
    ],
)
def test_a_field_out_of_bounds_is_refused_by_name(model: Path, changes: dict[str, object], said: str) -> None:
    edit_manifest(model, **changes)
    message = refusal(model)
    assert said in message
    assert str(model / MANIFEST_FILE) in message


def test_a_manifest_that_is_not_json_is_refused(model: Path) -> None:
    (model / MANIFEST_FILE).write_bytes(b"\xff{")
    assert str(model / MANIFEST_FILE) in refusal(model)
