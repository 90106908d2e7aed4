"""Finds out which of the contract's inputs each input of a graph takes, and whether it can be given that."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from onnx import GraphProto, TensorProto

from models.adapt import Input
from models.contract import BAG, BAG_ITEMS_MAX, FED, INPUTS, ITEMS
from models.finding import ContractFinding, dtype_name
from models.manifest import RECENT_ITEMS_MAX

FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})
INTEGERS: Final = {
    TensorProto.INT8: 2**7 - 1,
    TensorProto.UINT8: 2**8 - 1,
    TensorProto.INT16: 2**15 - 1,
    TensorProto.UINT16: 2**16 - 1,
    TensorProto.INT32: 2**31 - 1,
    TensorProto.UINT32: 2**32 - 1,
    TensorProto.INT64: 2**63 - 1,
    TensorProto.UINT64: 2**64 - 1,
}
"""Integer types, and the largest row that each can hold."""
_ROWS_MAX: Final = {
    **INTEGERS,
    TensorProto.FLOAT: 2**24,
    TensorProto.DOUBLE: 2**53,
    TensorProto.FLOAT16: 2**11,
    TensorProto.BFLOAT16: 2**8,
}
_OF_ROWS: Final = frozenset({ITEMS, "items_padded_right"})
_OF_HISTORY: Final = frozenset({*_OF_ROWS, BAG})
_TENSORFLOW: Final = re.compile(r"^(?:serving_default_)?(.*?)(?::\d+)?$")


class Declared(NamedTuple):
    """An input or output as the graph declares it. A free dimension is None; no `shape` at all is None."""

    name: str
    dtype: int
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{dtype_name(self.dtype)}[…]"
        sizes = ["users" if not place and size is None else str(size or "?") for place, size in enumerate(self.shape)]
        return f"{dtype_name(self.dtype)}[{', '.join(sizes)}]"


class PlannedInputs(NamedTuple):
    """The inputs, whether the graph scores one user at a time, and a finding for each."""

    inputs: list[Input]
    one_by_one: bool
    findings: list[ContractFinding]


def declared(value: Any) -> Declared:
    """`value` of a graph, as declared."""
    tensor = value.type.tensor_type
    known = tensor.HasField("shape")
    return Declared(
        value.name, tensor.elem_type, tuple(size.dim_value or None for size in tensor.shape.dim) if known else None
    )


def plain_name(name: str) -> str:
    """A name without what TensorFlow's exporters add.

    >>> plain_name("serving_default_Items:0"), plain_name("weights")
    ('items', 'weights')
    """
    found = _TENSORFLOW.match(name)
    return (found.group(1) if found else name).lower()


def plan_inputs(graph: GraphProto, given: Mapping[str, str], items: int | None) -> PlannedInputs:
    """Plan the inputs of `graph`; `given` says which of the contract's inputs takes which, by name."""
    constants = {constant.name for constant in graph.initializer}
    own = [declared(value) for value in graph.input if value.name not in constants]
    findings = _wrong_choices(given, [one.name for one in own])
    roles = _roles(own, given, items)
    one_by_one = any(_is_of_one(one, roles.get(one.name)) for one in own)
    inputs = []
    for one in own:
        role = roles.get(one.name)
        problem = _problem(one, role, items)
        if role is None or problem:
            findings.append(ContractFinding(f"input {one.name}", "wrong", str(one), problem))
            continue
        planned = Input(one.name, role, one.dtype, _rank(one), _width(one))
        inputs.append(planned)
        findings.append(_described(one, planned, one_by_one))
    if not findings or (not _OF_HISTORY & {one.role for one in inputs} and len(inputs) == len(own)):
        findings.append(
            ContractFinding("inputs", "wrong", "none of them takes the user's items", "take items, int32[users, 20]")
        )
    return PlannedInputs(inputs, one_by_one, findings)


def _wrong_choices(given: Mapping[str, str], names: Sequence[str]) -> list[ContractFinding]:
    wrong = [name for name in given if name not in names]
    return [
        *(
            ContractFinding(f"input {name}", "wrong", "is not in the graph", f"its inputs are {', '.join(names)}")
            for name in wrong
        ),
    ]


def _roles(own: Sequence[Declared], given: Mapping[str, str], items: int | None) -> dict[str, str]:
    """Name → input of the contract: as given, else by name, else the only one left, by its type."""
    roles = {one.name: given[one.name] for one in own if one.name in given}
    for one in own:
        if one.name not in roles and plain_name(one.name) in INPUTS:
            roles[one.name] = plain_name(one.name)
    left = [one for one in own if one.name not in roles]
    if len(left) == 1 and not _OF_HISTORY & set(roles.values()):
        [one] = left
        if one.dtype in INTEGERS:
            roles[one.name] = ITEMS
        elif one.dtype in FLOATS and items is not None and _width(one) in {items, items + 1} - {RECENT_ITEMS_MAX}:
            roles[one.name] = BAG
    return roles


def _problem(one: Declared, role: str | None, items: int | None) -> str:
    """What must be changed so that the input can be given what it takes; empty if nothing."""
    if role not in INPUTS:
        return f"say what it takes, --input {one.name}=items for instance (one of {', '.join(INPUTS)}), or leave it out"
    if one.dtype not in _ROWS_MAX and one.dtype != TensorProto.BOOL:
        return "take numbers: rows of the vocabulary, not ids or texts"
    if role in _OF_ROWS and items is not None and items > _ROWS_MAX.get(one.dtype, 1):
        return f"{dtype_name(one.dtype)} cannot hold the rows of {items} items: take int64"
    if _rank(one) not in (1, 2):
        width = INPUTS[role].width or RECENT_ITEMS_MAX
        return f"remove all dimensions but [users, {width}]: reshape within the graph"
    if (one.shape or (None,))[0] not in (None, 1) and _rank(one) == 2:
        return "export with a free first dimension (users), or one of 1"
    return _width_problem(one, role, items)


def _width_problem(one: Declared, role: str, items: int | None) -> str:
    wanted, width = INPUTS[role].width, _width(one)
    if role == BAG:
        if items is None:
            return "name the file of the items, --items, to try it"
        if items > BAG_ITEMS_MAX:
            return f"bag is for up to {BAG_ITEMS_MAX} items: take items"
        return "" if width in (None, items, items + 1) else f"take {items} or {items + 1} columns"
    if wanted is not None and width not in (None, wanted):
        return f"{role} has {wanted} column{'s' if wanted > 1 else ''}"
    return ""


def _described(one: Declared, planned: Input, one_by_one: bool) -> ContractFinding:
    feature, what = INPUTS[planned.role], f"input {one.name}"
    canonical = FED.get(planned.role)
    notes = [] if one.name == planned.role else [f"takes {planned.role}"]
    if canonical is None:
        notes.append("computed from items" + (" and weights" if planned.role == BAG else ""))
    if dtype_name(one.dtype) != feature.dtype:
        notes.append(f"cast to {dtype_name(one.dtype)}")
    if feature.width is None and planned.width not in (None, RECENT_ITEMS_MAX):
        wide = int(planned.width or 0) > RECENT_ITEMS_MAX
        notes.append(f"{'padded on the left to' if wide else 'the newest'} {planned.width}")
    if one_by_one:
        notes.append("one user at a time; a free first dimension would be faster")
    return ContractFinding(what, "adapted" if notes else "ok", str(one), ", ".join(notes))


def _rank(one: Declared) -> int:
    return 2 if one.shape is None else len(one.shape)


def _width(one: Declared) -> int | None:
    return one.shape[-1] if one.shape else None


def _is_of_one(one: Declared, role: str | None) -> bool:
    """Whether the input is for one user."""
    if role not in INPUTS or not one.shape:
        return False
    is_wide = INPUTS[role].width != 1
    return one.shape[0] == 1 if len(one.shape) > 1 else is_wide or one.shape[0] == 1
