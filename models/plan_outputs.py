"""Finds out which outputs of a graph are the scores and the ids, from what it returns for a trial."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from onnx import TensorProto

from models.adapt import Output
from models.finding import ContractFinding
from models.manifest import TOP_K_MAX
from models.plan_inputs import FLOATS, INTEGERS, Declared, plain_name

_ROLES: Final = ("scores", "ids")
_FINE: Final = (TensorProto.INT32, TensorProto.INT64)


class PlannedOutputs(NamedTuple):
    """The outputs to serve, the size of the vocabulary (None if a ranking graph leaves it open), and a finding each.

    ``width`` is how many columns `scores` has.
    """

    outputs: list[Output]
    items: int | None
    width: int
    findings: list[ContractFinding]


def plan_outputs(
    returned: list[Declared], given: Mapping[str, str], items: int | None, others: Sequence[str] = ()
) -> PlannedOutputs:
    """Plan the outputs from what the graph `returned`; the first dimension is the users, whose number is None.

    `others` are outputs that are no tensors.
    """
    wrong = [name for name in given if name not in {one.name for one in returned}]
    if wrong:
        names = ", ".join(one.name for one in returned)
        return _refused(f"output {wrong[0]}", "is not in the graph", f"its outputs are {names}")
    scores, ids = _chosen(returned, given, items)
    if scores is None:
        listed = [*(f"{one.name} {one}" for one in returned), *(f"{name}, which is no tensor" for name in others)]
        return _refused("outputs", ", ".join(listed), _no_scores(returned, others))
    found = f"output {scores.name}"
    if len(scores.shape or ()) not in (2, 3) or _columns(scores) == 1:
        return _refused(found, str(scores), "return one score for each item: float32[users, items + 1]")
    width = _columns(scores)
    if ids is not None:
        return _ranked(scores, ids, width, items)
    if items is not None and width not in (items, items + 1):
        wanted = f"{items + 1} columns, one for each of the {items} items and row 0, or {items} without row 0"
        return _refused(found, str(scores), f"return {wanted}; or name the items file of this model")
    count = width - 1 if items is None else items
    output = Output(scores.name, "scores", _cast(scores), len(scores.shape or ()) == 3, width == count)
    return PlannedOutputs([output], count, count + 1, [_described(scores, output)])


def _ranked(scores: Declared, ids: Declared, width: int, items: int | None) -> PlannedOutputs:
    if ids.shape != scores.shape or len(ids.shape or ()) != 2:
        return _refused(f"output {ids.name}", str(ids), f"return ids of the shape of {scores.name}, {scores}")
    limit = min(TOP_K_MAX, TOP_K_MAX if items is None else items)
    cut = limit if width > limit else None
    first = Output(scores.name, "scores", _cast(scores), columns_max=cut)
    second = Output(ids.name, "ids", None if ids.dtype in _FINE else TensorProto.INT64, columns_max=cut)
    findings = [_described(scores, first), _described(ids, second)]
    return PlannedOutputs([first, second], items, cut or width, findings)


def _chosen(
    returned: list[Declared], given: Mapping[str, str], items: int | None
) -> tuple[Declared | None, Declared | None]:
    """The outputs that are scores and ids: as given, else by name, else the only ones of their type and shape."""
    named = {plain_name(one.name): one for one in reversed(returned)} | {
        given[one.name]: one for one in returned if one.name in given
    }
    taken = set(given)
    scores = named.get("scores") or _only(
        [one for one in returned if one.dtype in FLOATS and _is_list(one) and one.name not in taken], items
    )
    if scores is None:
        return None, None
    like = [one for one in returned if one.dtype in INTEGERS and one.shape == scores.shape and one.name not in taken]
    is_plain = items is not None and _columns(scores) in (items, items + 1)
    return scores, named.get("ids") or (like[0] if len(like) == 1 and not is_plain else None)


def _columns(one: Declared) -> int:
    return (one.shape or (0,))[-1] or 0


def _is_list(one: Declared) -> bool:
    return len(one.shape or ()) in (2, 3)


def _only(found: list[Declared], items: int | None) -> Declared | None:
    """The only one of them, or the only one with a column for each item."""
    if len(found) > 1 and items is not None:
        found = [one for one in found if _columns(one) in (items, items + 1)]
    return found[0] if len(found) == 1 else None


def _no_scores(returned: list[Declared], others: Sequence[str]) -> str:
    if others:
        return "return scores as a tensor; skl2onnx does with options={'zipmap': False}"
    floats = [one for one in returned if one.dtype in FLOATS]
    if not floats:
        return "return scores of a floating point type: float32[users, items + 1]"
    return f"say which are the scores: --output {floats[0].name}=scores"


def _cast(scores: Declared) -> int | None:
    return None if scores.dtype == TensorProto.FLOAT else TensorProto.FLOAT


def _described(one: Declared, output: Output) -> ContractFinding:
    notes = [] if one.name == output.role else [f"gives {output.role}"]
    if output.dtype is not None:
        notes.append("cast to float32" if output.role == "scores" else "cast to int64")
    if output.last_position:
        notes.append("the scores of the last position count")
    if output.pad_row_0:
        notes.append("a column for row 0 (padding) is added")
    if output.columns_max is not None:
        notes.append(f"the best {output.columns_max} are kept")
    return ContractFinding(f"output {one.name}", "adapted" if notes else "ok", str(one), ", ".join(notes))


def _refused(what: str, found: str, note: str) -> PlannedOutputs:
    return PlannedOutputs([], None, 0, [ContractFinding(what, "wrong", found, note)])
