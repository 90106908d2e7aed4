"""Changes a graph to meet the contract: casts, other widths, batches of one, derived inputs, plain or extra outputs.

The nodes of the graph stay as they are. New nodes in front of them make its inputs from those of the contract, and new
nodes behind them make the contract's outputs from its own. A graph for one user becomes the body of a Scan over users.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from models.contract import BAG, FED, INPUTS, ITEMS, WEIGHTS
from models.manifest import RECENT_ITEMS_MAX

OPSET_MIN: Final = 13
"""Below it, operators of the new nodes take other inputs."""
BAG_OPSET_MIN: Final = 16
_OPSET: Final = 17
"""The opset of the new nodes, for a graph without operators of the domain ai.onnx."""
_RESERVED: Final = frozenset({*INPUTS, "scores", "ids"})
"""Names of the contract. The graph's own tensors of these names get others."""
_OF_NUMPY: Final = {"int32": TensorProto.INT32, "float32": TensorProto.FLOAT}


class Input(NamedTuple):
    """An input of the graph: its name, the contract's `role` for it, its element type, rank, and width if fixed."""

    name: str
    role: str
    dtype: int
    rank: int
    width: int | None


class Output(NamedTuple):
    """How an output becomes one of the contract's: what to do with float[users, …], in the order of the fields."""

    name: str
    role: str
    dtype: int | None = None
    """Cast to this type."""
    last_position: bool = False
    """Of [users, positions, rows], keep the last position."""
    pad_row_0: bool = False
    """Put a column for row 0 in front."""
    columns_max: int | None = None
    """Keep this many columns."""
    width: int | None = None
    """How many columns there are in the end; None if that is unknown."""


class Adapted(NamedTuple):
    """What to change: each input, and each output, and whether the graph scores one user at a time."""

    inputs: Sequence[Input]
    outputs: Sequence[Output]
    one_by_one: bool


def opset_of(model: ModelProto) -> int:
    """The opset of the domain ai.onnx; 0 if the model does not import it."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def fed_inputs(inputs: Sequence[Input]) -> list[str]:
    """The contract's inputs that these are made from."""
    roles = {one.role for one in inputs}
    needed = (roles & set(FED)) | ({ITEMS} if roles - set(FED) else set()) | ({WEIGHTS} if BAG in roles else set())
    return [name for name in FED if name in needed]


def adapt(model: ModelProto, plan: Adapted, items: int) -> ModelProto:
    """`model` with the contract's inputs and the outputs in `plan`, for a vocabulary of `items`."""
    adapted = copy.deepcopy(model)
    if not opset_of(adapted):
        adapted.opset_import.append(helper.make_opsetid("", _OPSET))
    graph = adapted.graph
    _rename(graph)
    build = _Builder()
    inputs = [one._replace(name=_own(one.name)) for one in plan.inputs]
    outputs = [one._replace(name=_own(one.name)) for one in plan.outputs]
    prepared = [_prepare(build, one, items, plan.one_by_one) for one in inputs]
    types = {value.name: value.type.tensor_type.elem_type for value in graph.output}
    if plan.one_by_one:
        found = _scan(build, graph.node, inputs, prepared, {one.name: types[one.name] for one in outputs})
    else:
        found = {one.name: one.name for one in outputs}
        build.nodes += [_same(made, one.name) for one, made in zip(inputs, prepared, strict=True)]
        build.nodes += graph.node
    for one in outputs:
        build.nodes.append(_same(_finish(build, one, found[one.name]), one.role))
    constants = {one.name for one in graph.initializer}
    kept = [value for value in graph.input if value.name in constants]
    _replace(graph.input, [*map(_fed_value, fed_inputs(plan.inputs)), *kept])
    _replace(graph.output, [_value(one.role, one.dtype or types[one.name], one.width) for one in outputs])
    _replace(graph.node, build.nodes)
    graph.initializer.extend(build.constants)
    del graph.value_info[:]
    return adapted


class _Builder:
    """Collects new nodes and constants, under names that no exporter uses."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._made = 0

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; returns the name of its output."""
        name = self._name(kind)
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: Any, dtype: npt.DTypeLike = np.int64) -> str:
        """Add a constant; returns its name."""
        name = self._name("constant")
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def _name(self, kind: str) -> str:
        self._made += 1
        return f"freshet/{kind}-{self._made}"


def _prepare(build: _Builder, one: Input, items: int, one_by_one: bool) -> str:
    """The tensor that the graph's input gets: of its type, width and rank."""
    feature, made = INPUTS[one.role], _derive(build, one, items)
    if feature.width is None and one.width not in (None, RECENT_ITEMS_MAX):
        made = _of_width(build, made, int(one.width or 0))
    if one.dtype != _OF_NUMPY[feature.dtype]:
        made = build.op("Cast", made, to=one.dtype)
    if one.rank == 1 and feature.width == 1 and not one_by_one:
        made = build.op("Squeeze", made, build.constant([1]))
    return made


def _derive(build: _Builder, one: Input, items: int) -> str:
    if one.role in FED:
        return one.role
    known = build.op("Greater", ITEMS, build.constant(0, np.int32))
    if one.role == "mask":
        return build.op("Cast", known, to=TensorProto.FLOAT)
    if one.role == BAG:
        return _bag(build, items, int(one.width or items + 1))
    length = build.op("ReduceSum", build.op("Cast", known, to=TensorProto.INT32), build.constant([1]), keepdims=1)
    if one.role == "history_length":
        return length
    padding = build.op("Sub", build.constant(RECENT_ITEMS_MAX, np.int32), length)
    shifted = build.op("Add", build.constant(np.arange(RECENT_ITEMS_MAX)[None], np.int32), padding)
    places = build.op("Mod", shifted, build.constant(RECENT_ITEMS_MAX, np.int32))
    return build.op("GatherElements", ITEMS, places, axis=1)


def _bag(build: _Builder, items: int, width: int) -> str:
    users = build.op("Slice", build.op("Shape", ITEMS), build.constant([0]), build.constant([1]))
    shape = build.op("Concat", users, build.constant([items + 1]), axis=0)
    empty = build.op("Expand", build.constant(0, np.float32), shape)
    rows = build.op("Cast", ITEMS, to=TensorProto.INT64)
    bag = build.op("ScatterElements", empty, rows, WEIGHTS, axis=1, reduction="add")
    if width == items + 1:
        return bag
    return build.op("Slice", bag, build.constant([1]), build.constant([items + 1]), build.constant([1]))


def _of_width(build: _Builder, made: str, width: int) -> str:
    """The newest `width` columns; a wider input is padded on the left."""
    if width < RECENT_ITEMS_MAX:
        low, high = build.constant([RECENT_ITEMS_MAX - width]), build.constant([RECENT_ITEMS_MAX])
        return build.op("Slice", made, low, high, build.constant([1]))
    return build.op("Pad", made, build.constant([0, width - RECENT_ITEMS_MAX, 0, 0]))


def _scan(
    build: _Builder,
    nodes: Sequence[NodeProto],
    inputs: Sequence[Input],
    prepared: Sequence[str],
    outputs: Mapping[str, int],
) -> dict[str, str]:
    """Run `nodes` once for each user. Returns, by output, the tensor of all users; `outputs` are name → element type.

    Nodes in the body of a Scan see the constants of the graph around it.
    """
    body, axis = GraphProto(name="one-user"), build.constant([0])
    bare = all(one.rank == 1 for one in inputs)
    for place, one in enumerate(inputs):
        row = f"freshet/row-{place}"
        body.input.append(_value(row, one.dtype))
        bare_row = _same(row, one.name)
        body.node.append(bare_row if one.rank == 1 else helper.make_node("Unsqueeze", [row, axis], [one.name]))
    body.node.extend(nodes)
    found = {}
    for place, (name, dtype) in enumerate(outputs.items()):
        end, found[name] = f"freshet/end-{place}", f"freshet/all-{place}"
        body.node.append(_same(name, end) if bare else helper.make_node("Squeeze", [name, axis], [end]))
        body.output.append(_value(end, dtype))
    build.nodes.append(
        helper.make_node("Scan", list(prepared), list(found.values()), num_scan_inputs=len(prepared), body=body)
    )
    return found


def _finish(build: _Builder, one: Output, made: str) -> str:
    if one.last_position:
        made = build.op("Gather", made, build.constant(-1), axis=1)
    if one.dtype is not None:
        made = build.op("Cast", made, to=one.dtype)
    if one.pad_row_0:
        made = build.op("Pad", made, build.constant([0, 1, 0, 0]), build.constant(-np.inf, np.float32))
    if one.columns_max is not None:
        made = build.op("Slice", made, build.constant([0]), build.constant([one.columns_max]), build.constant([1]))
    return made


def _rename(graph: GraphProto) -> None:
    """Give the graph's own tensors other names where the contract uses theirs, in its subgraphs as well."""
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = _own(name)
        for place, name in enumerate(node.output):
            node.output[place] = _own(name)
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs] if attribute.HasField("g") else attribute.graphs:
                _rename(inner)
    sparse = [part for one in graph.sparse_initializer for part in (one.values, one.indices)]
    for value in [*graph.input, *graph.output, *graph.initializer, *sparse]:
        value.name = _own(value.name)


def _own(name: str) -> str:
    return f"freshet/own/{name}" if name in _RESERVED else name


def _same(made: str, name: str) -> NodeProto:
    return helper.make_node("Identity", [made], [name])


def _value(name: str, dtype: int, width: int | None = None) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, None if width is None else ["users", width])


def _fed_value(name: str) -> ValueInfoProto:
    feature = FED[name]
    return _value(name, _OF_NUMPY[feature.dtype], feature.width or RECENT_ITEMS_MAX)


def _replace(field: Any, values: Sequence[Any]) -> None:
    kept = list(values)
    del field[:]
    field.extend(kept)
