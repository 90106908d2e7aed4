"""Writes a model directory atomically."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from onnx import ModelProto

from models import graph
from models.manifest import (
    FP32_FILE,
    ITEMS_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    RECENT_ITEMS_MAX,
    Manifest,
    Tensor,
    TrainingWindow,
    check_items,
    encode_items,
    sha256_of,
    write,
)
from models.quantise import int8_of
from schemas.errors import ModelError

MODEL_FILES: Final = frozenset({MANIFEST_FILE, MODEL_FILE, FP32_FILE, ITEMS_FILE})


@dataclass(frozen=True)
class Card:
    """Facts about a model besides its numbers; the fields are those of :class:`models.manifest.Manifest`."""

    kind: str
    training_window: TrainingWindow
    popular: Sequence[str] = ()
    popular_min_users: int = 1
    kind_weights: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)


def export(
    directory: Path, numbers: graph.Transitions, items: Sequence[str], top_k: int, card: Card, *, int8: bool = True
) -> Manifest:
    """Write the model, in INT8 or FP32, with its manifest to ``directory``, replacing an existing model.

    The files are written to a temporary directory and moved into place at the end. ``top_k`` is limited to the number
    of items. The date in the model's name is the end of its training window, so equal input gives equal bytes.
    """
    check_items(items, "the vocabulary")
    if numbers.items != len(items):
        raise ModelError(f"the numbers are for {numbers.items} items, the vocabulary has {len(items)}")
    top_k = min(top_k, numbers.items)
    fp32 = graph.fp32_model(numbers, top_k)
    served = _bytes(int8_of(fp32) if int8 else fp32)
    manifest = _manifest(served, items, top_k, card, "int8-weights" if int8 else "fp32")
    with replaced(directory) as staging:
        (staging / MODEL_FILE).write_bytes(served)
        (staging / FP32_FILE).write_bytes(_bytes(fp32))
        write(staging, manifest, items)
    return manifest


@contextmanager
def replaced(directory: Path) -> Iterator[Path]:
    """A temporary directory that replaces ``directory`` on success and is removed on failure.

    Of a symbolic link, what it points to is replaced. Raises :class:`ModelError` if anything but a model would be lost.
    """
    directory = directory.resolve()
    _expect_only_a_model(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        yield staging
        staging.chmod(0o755)
        old = staging.with_name(f"{staging.name}-old")
        if directory.exists():
            directory.rename(old)
        staging.rename(directory)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _expect_only_a_model(directory: Path) -> None:
    """Others have a `manifest.json`, too: web applications, and our own exports."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise ModelError(f"{directory} is a file: choose a separate directory")
    found = {entry.name for entry in directory.iterdir()}
    others = sorted(found - MODEL_FILES)
    if others:
        raise ModelError(
            f"{directory} contains files other than a model, such as {others[0]}: choose a separate directory"
        )
    if found and not {MANIFEST_FILE, MODEL_FILE} <= found:
        raise ModelError(f"{directory} contains files, and no whole model: delete it, or choose a separate directory")


def _bytes(model: ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def _manifest(served: bytes, items: Sequence[str], top_k: int, card: Card, quantisation: str) -> Manifest:
    digest = sha256_of(served)
    day = datetime.fromtimestamp(card.training_window.to_ms / 1000, UTC).date()
    history, ranked = ("users", RECENT_ITEMS_MAX), ("users", top_k)
    return Manifest(
        name=f"{card.kind}-{day.isoformat()}-{digest[:8]}",
        sha256=digest,
        size_bytes=len(served),
        opset=graph.OPSET,
        inputs={"items": Tensor("int32", history), "weights": Tensor("float32", history)},
        outputs={"scores": Tensor("float32", ranked), "ids": Tensor("int64", ranked)},
        top_k=top_k,
        items_sha256=sha256_of(encode_items(items)),
        items_count=len(items),
        quantisation=quantisation,
        training_window=card.training_window,
        metrics=card.metrics,
        popular=tuple(card.popular),
        popular_min_users=card.popular_min_users,
        kind_weights=card.kind_weights,
    )
