"""The manifest of a model directory: describes the model, and pins the other files by their hashes.

A model directory holds four files::

    manifest.json      this module's :class:`Manifest`
    model.onnx         the served graph (INT8 by default)
    model.fp32.onnx    the graph that it was quantised from (optional, never served)
    items.txt          the vocabulary: one item id per line; line n is row n of the model, row 0 is padding

:func:`load` checks everything that can be checked without running the graph; :mod:`models.scorer` checks the rest.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from models.contract import FED, ITEMS
from schemas.edited_text import in_utf8
from schemas.errors import ModelError
from schemas.events import ID_LENGTH_MAX
from schemas.ids import is_id

FORMAT_VERSION: Final = 1
RECENT_ITEMS_MAX: Final = 20
"""How many recent items of a user a model gets, newest last."""
TOP_K_MAX: Final = 1_000
VOCABULARY_MAX: Final = 2_000_000
POPULAR_MAX: Final = 200

MANIFEST_FILE: Final = "manifest.json"
MODEL_FILE: Final = "model.onnx"
FP32_FILE: Final = "model.fp32.onnx"
ITEMS_FILE: Final = "items.txt"
AGAIN: Final = "make the folder again with `freshet model train` or `freshet model adopt`"
QUANTISATIONS: Final = ("int8-weights", "int8-dynamic", "int8-static", "fp16", "fp32")

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Tensor(msgspec.Struct, frozen=True):
    """An input or output: an ONNX element type by its numpy name, and its shape; a string is a free dimension."""

    dtype: str
    shape: tuple[int | str, ...]


class TrainingWindow(msgspec.Struct, frozen=True):
    """The training data: times are ms since the epoch, both ends included; the rest are counts."""

    from_ms: int
    to_ms: int
    interactions: int
    users: int
    items: int


class FormReport(msgspec.Struct, frozen=True):
    """One form of a model beside its FP32 form: `loss` is the share of nDCG@10 that it loses on new items, with a 95 %
    interval over the users of `questions`; `us_per_list` is CPU time in a batch of 32."""

    size_bytes: int
    us_per_list: float
    ndcg10: float
    loss: float
    loss_low: float
    loss_high: float
    questions: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The contents of ``manifest.json``.

    ``popular`` are the most popular item ids at training time, best first, each used by at least ``popular_min_users``
    distinct users. ``metrics`` is a table: ranking method → metric → value. ``licence`` is that of the model, "" if
    nobody said. ``quantisation_report``: by form, what `freshet model quantise` measured; empty if it was not run.
    """

    name: str
    sha256: str
    size_bytes: int
    opset: int
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    top_k: int
    items_sha256: str
    items_count: int
    quantisation: str
    training_window: TrainingWindow
    metrics: dict[str, dict[str, float]]
    popular: tuple[str, ...]
    popular_min_users: int
    kind_weights: dict[str, float]
    recent_items_max: int = RECENT_ITEMS_MAX
    format_version: int = FORMAT_VERSION
    licence: str = ""
    quantisation_report: dict[str, FormReport] = {}


def fault_of_name(name: str) -> str | None:
    """Why ``name`` cannot be that of a model, or None.

    >>> fault_of_name("../x"), fault_of_name("blend-2.1")
    ("'../x' must be 1 to 128 of a-z, 0-9, '.', '_' and '-', and begin with a letter or digit", None)
    """
    if _NAME.fullmatch(name):
        return None
    return f"{name[:128]!r} must be 1 to 128 of a-z, 0-9, '.', '_' and '-', and begin with a letter or digit"


def load(directory: Path) -> Manifest:
    """Read and check the manifest of ``directory``; raises :class:`ModelError`, which says what to fix."""
    return load_with_items(directory)[0]


def load_with_items(directory: Path) -> tuple[Manifest, list[str]]:
    """As :func:`load`, plus the vocabulary in row order: ``items[0]`` is row 1 of the model (row 0 is padding)."""
    manifest = _decode(directory / MANIFEST_FILE)
    check_fields(manifest, str(directory / MANIFEST_FILE))
    check_model_file(directory / MODEL_FILE, manifest)
    items = _read_items(directory / ITEMS_FILE, manifest)
    unknown = set(manifest.popular).difference(items)
    if unknown:
        raise ModelError(
            f"{directory / MANIFEST_FILE}: 'popular' names {len(unknown)} item(s) that are not in {ITEMS_FILE}, "
            f"such as {min(unknown)!r}: {AGAIN}"
        )
    return manifest, items


def write(directory: Path, manifest: Manifest, items: Sequence[str]) -> None:
    """Write ``manifest.json`` and ``items.txt``; ``model.onnx`` must exist already, or loading will fail."""
    check_fields(manifest, MANIFEST_FILE)
    (directory / ITEMS_FILE).write_bytes(encode_items(items))
    (directory / MANIFEST_FILE).write_bytes(encoded(manifest))


def encoded(manifest: Manifest) -> bytes:
    """The bytes of ``manifest.json``."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def encode_items(items: Sequence[str]) -> bytes:
    """The bytes of ``items.txt``; raises :class:`ModelError` if the vocabulary is invalid (see `check_items`)."""
    check_items(items, ITEMS_FILE)
    return "".join(f"{item}\n" for item in items).encode()


def decode_items(content: bytes, where: str) -> list[str]:
    """The vocabulary in the bytes of an ``items.txt``, checked as :func:`encode_items` does."""
    try:
        items = content.decode().removesuffix("\n").split("\n") if content else []
    except UnicodeDecodeError as error:
        raise ModelError(f"{where} is not UTF-8: {error}") from error
    check_items(items, where)
    return items


def sha256_of(content: bytes) -> str:
    """SHA-256 in lower-case hex."""
    return hashlib.sha256(content).hexdigest()


def check_items(items: Sequence[str], where: str) -> None:
    """A vocabulary is 1 to `VOCABULARY_MAX` distinct ids of 1 to `ID_LENGTH_MAX` characters on one line each."""
    if not items:
        raise ModelError(f"{where}: the vocabulary is empty, so the model can recommend nothing: train on more data")
    if len(items) > VOCABULARY_MAX:
        raise ModelError(f"{where}: {len(items)} items, at most {VOCABULARY_MAX} are allowed: train on fewer")
    for row, item in enumerate(items, start=1):
        if not 0 < len(item) <= ID_LENGTH_MAX:
            raise ModelError(f"{where}: line {row} is not an item id of 1 to {ID_LENGTH_MAX} characters")
        if not is_id(item):
            raise ModelError(
                f"{where}: line {row} has a control character, a byte order mark or another that no item id may have: "
                "no event could name this item"
            )
    if len(set(items)) != len(items):
        seen: set[str] = set()
        twice = next(item for item in items if item in seen or seen.add(item))  # type: ignore[func-returns-value]
        raise ModelError(f"{where}: item id {twice!r} occurs twice: every row needs a unique id")


def check_fields(manifest: Manifest, where: str) -> None:
    """Check every field against its bounds, without reading other files."""
    for problem in _problems(manifest):
        raise ModelError(f"{where}: {problem}: {AGAIN}")


def check_model_file(path: Path, manifest: Manifest) -> None:
    """Check that ``model.onnx`` is, byte for byte, the file that the manifest was written for."""
    content = _read(path)
    if len(content) != manifest.size_bytes:
        raise ModelError(
            f"{path} has {len(content)} bytes, the manifest says {manifest.size_bytes}: "
            f"the copy is incomplete, or belongs to another model; {AGAIN}"
        )
    found = sha256_of(content)
    if found != manifest.sha256:
        raise ModelError(f"{path} has sha256 {found}, the manifest says {manifest.sha256}: {AGAIN}")


def _problems(manifest: Manifest) -> list[str]:
    return [
        *_identity_problems(manifest),
        *_bound("size_bytes", manifest.size_bytes, 1, 2**31),
        *_bound("opset", manifest.opset, 7, 100),
        *_width_problems(manifest),
        *_bound("items_count", manifest.items_count, 1, VOCABULARY_MAX),
        *_bound("top_k", manifest.top_k, 1, min(TOP_K_MAX, max(1, manifest.items_count))),
        *_bound("popular_min_users", manifest.popular_min_users, 1, 10**9),
        *_bound("the length of 'popular'", len(manifest.popular), 0, POPULAR_MAX),
        *_window_problems(manifest.training_window),
        *_tensor_problems(manifest),
    ]


def _identity_problems(manifest: Manifest) -> list[str]:
    problems = []
    if manifest.format_version != FORMAT_VERSION:
        problems.append(f"format_version is {manifest.format_version}, this release reads {FORMAT_VERSION}")
    if fault := fault_of_name(manifest.name):
        problems.append(f"name {fault}")
    for field, digest in (("sha256", manifest.sha256), ("items_sha256", manifest.items_sha256)):
        if not _SHA256.fullmatch(digest):
            problems.append(f"{field} must be 64 hex digits")
    if manifest.quantisation not in QUANTISATIONS:
        problems.append(f"quantisation is {manifest.quantisation!r}, it must be one of {', '.join(QUANTISATIONS)}")
    if len(set(manifest.popular)) != len(manifest.popular):
        problems.append("'popular' names an item twice")
    if any(not 0 <= weight < float("inf") for weight in manifest.kind_weights.values()):
        problems.append("kind_weights must be finite and not negative")
    return problems


def _bound(field: str, value: int, low: int, high: int) -> list[str]:
    return [] if low <= value <= high else [f"{field} is {value}, it must be from {low} to {high}"]


def _width_problems(manifest: Manifest) -> list[str]:
    """The job passes histories of one width: a model of another width would fail at the first click."""
    if manifest.recent_items_max == RECENT_ITEMS_MAX:
        return []
    return [f"recent_items_max is {manifest.recent_items_max}, histories have {RECENT_ITEMS_MAX} items"]


def _window_problems(window: TrainingWindow) -> list[str]:
    if window.from_ms > window.to_ms:
        return [f"training_window ends ({window.to_ms}) before it begins ({window.from_ms})"]
    if min(window.interactions, window.users, window.items) < 0:
        return ["training_window holds a negative count"]
    return []


def _tensor_problems(manifest: Manifest) -> list[str]:
    problems = []
    for name in sorted({*manifest.inputs, ITEMS}):
        wanted, found = feature_tensor(name) if name in FED else None, manifest.inputs.get(name)
        if wanted is None:
            problems.append(f"input {name!r} is not one that the scorer can feed ({', '.join(FED)})")
        elif found != wanted:
            problems.append(f"input {name!r} must be {describe(wanted)}, not {describe(found)}")
    ranked = "ids" in manifest.outputs
    scores = Tensor("float32", ("users", manifest.top_k if ranked else manifest.items_count + 1))
    if manifest.outputs.get("scores") != scores:
        problems.append(f"output 'scores' must be {describe(scores)}, not {describe(manifest.outputs.get('scores'))}")
    if ranked and manifest.outputs["ids"] not in (Tensor("int32", scores.shape), Tensor("int64", scores.shape)):
        problems.append(f"output 'ids' must be int32 or int64 and of the shape of 'scores' {list(scores.shape)}")
    return problems


def feature_tensor(name: str) -> Tensor:
    """An input of the contract, as the job feeds it."""
    feature = FED[name]
    return Tensor(feature.dtype, ("users", feature.width or RECENT_ITEMS_MAX))


def describe(tensor: Tensor | None) -> str:
    """A tensor in readable form: ``int32[users, 20]``."""
    return "absent" if tensor is None else f"{tensor.dtype}[{', '.join(map(str, tensor.shape))}]"


def _decode(path: Path) -> Manifest:
    try:
        return msgspec.json.decode(in_utf8(_read(path)), type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{path}: {error}: {AGAIN}") from error


def _read_items(path: Path, manifest: Manifest) -> list[str]:
    content = _read(path)
    found = sha256_of(content)
    if found != manifest.items_sha256:
        raise ModelError(f"{path} has sha256 {found}, the manifest says {manifest.items_sha256}: {AGAIN}")
    items = decode_items(content, str(path))
    if len(items) != manifest.items_count:
        raise ModelError(f"{path} has {len(items)} items, the manifest says {manifest.items_count}")
    return items


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}): make one with `freshet model train` or `freshet model adopt`"
        ) from error
