"""Adopts your own model (`freshet model adopt`).

The contract is in `docs/ml/contract.md`. A graph that differs from it in types, widths, names or the batch is adapted
(:mod:`models.adapt`); anything else is refused, with the change to make (:mod:`models.check`).

External weights (``MODEL.onnx.data``) are included. The items file is UTF-8 or UTF-16, with any line ends. The model is
run before anything is written: whatever the job would refuse is refused here.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from models.check import TOP_K, Checked, check
from models.manifest import MODEL_FILE, Manifest, check_items, fault_of_name, write
from models.model_directory import replaced
from models.text_files import lines_of
from schemas.errors import ModelError

Metrics = dict[str, dict[str, float]]


def adopt(
    model: Path,
    items: Sequence[str],
    name: str,
    directory: Path,
    top_k: int = TOP_K,
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    evaluated: Callable[[Path], Metrics] | None = None,
) -> Manifest:
    """Write a model directory for the graph in ``model``, replacing an existing model.

    ``top_k`` is how many rows to rank if the graph returns plain scores; a graph that ranks has its own k. ``inputs``
    and ``outputs`` are as in :func:`models.check.check`. ``evaluated`` measures the model in a directory, for the
    manifest. Raises :class:`ModelError`, which says what to fix, for anything that the job could not run.
    """
    if fault := fault_of_name(name):
        raise ModelError(f"--name {fault}")
    checked = check(model, items, inputs or {}, outputs or {}, name, top_k)
    manifest = checked.manifest
    if manifest is None:
        raise ModelError(refusal(model, checked))
    with replaced(directory) as staging:
        (staging / MODEL_FILE).write_bytes(checked.served)
        write(staging, manifest, items)
        if evaluated is not None:
            manifest = replace(manifest, metrics=evaluated(staging))
            write(staging, manifest, items)
    return manifest


def refusal(model: Path, checked: Checked) -> str:
    """Everything that is wrong, in one text."""
    wrong = [one for one in checked.wrong if one.found.startswith(str(model))]
    if wrong:
        return wrong[0].found
    reasons = [": ".join(filter(None, (f"{one.what} {one.found}", one.note))) for one in checked.wrong]
    return f"{model} does not fit the contract (`freshet model check` prints it): {'; '.join(reasons)}"


def items_in(file: Path) -> list[str]:
    """The item ids in ``file``, in row order. Raises :class:`ModelError` or :class:`FileError`."""
    items = lines_of(file)
    check_items(items, str(file))
    return items
