"""Compares an ONNX file with the contract, and tries it (`freshet model check`, and `adopt` before it writes).

Each finding says what fits, what adopting adapts, or the one change to make.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto

from models.adapt import BAG_OPSET_MIN, OPSET_MIN, Adapted, Input, Output, adapt, fed_inputs, opset_of
from models.contract import BAG, FED, INPUTS
from models.finding import ContractFinding, dtype_name, in_short
from models.manifest import (
    MODEL_FILE,
    RECENT_ITEMS_MAX,
    Manifest,
    Tensor,
    TrainingWindow,
    encode_items,
    feature_tensor,
    sha256_of,
    write,
)
from models.onnx_file import load_graph
from models.plan_inputs import FLOATS, Declared, PlannedInputs, declared, plan_inputs
from models.plan_outputs import PlannedOutputs, plan_outputs
from models.scorer import Scorer, run_once
from schemas.errors import ModelError, ModelTooSlow

TOP_K: Final = 50
PROBE_USERS: Final = 3
EXPORTED_OPSETS: Final = range(17, 24)
"""Those that are tested."""
_QUANTISED: Final = {"MatMulInteger", "DynamicQuantizeLinear", "QLinearMatMul", "DequantizeLinear"}
_NOTHING: Final[Mapping[str, str]] = {}


class Checked(NamedTuple):
    """The findings and, if nothing is wrong and the items are known, what to serve."""

    findings: list[ContractFinding]
    served: bytes = b""
    manifest: Manifest | None = None

    @property
    def wrong(self) -> list[ContractFinding]:
        """What must be changed in the file."""
        return [one for one in self.findings if one.verdict == "wrong"]


class Probe(NamedTuple):
    """What a graph returned for :data:`PROBE_USERS`, and whether it had to be asked for one user at a time."""

    returned: list[Declared]
    one_by_one: bool


def check(
    model: Path,
    items: Sequence[str] | None,
    inputs: Mapping[str, str] = _NOTHING,
    outputs: Mapping[str, str] = _NOTHING,
    name: str = "checked",
    top_k: int = TOP_K,
) -> Checked:
    """Check the file `model` for the vocabulary `items`; without one, its size is what the scores say.

    `inputs` and `outputs` say what an input or output of the graph is in the contract. `top_k` is how many rows to rank
    if the graph returns plain scores.
    """
    try:
        graph, content = load_graph(model)
    except ModelError as error:
        return Checked([ContractFinding("file", "wrong", str(error))])
    opset = opset_of(graph)
    findings = [_file(graph, content), ContractFinding("opset", "ok", str(opset))]
    taken = plan_inputs(graph.graph, inputs, None if items is None else len(items))
    findings += taken.findings
    if any(one.verdict == "wrong" for one in findings):
        return Checked(findings)
    try:
        probe = _probe(graph, taken, len(items or [""]))
    except ModelError as error:
        return Checked([*findings, ContractFinding("run", "wrong", in_short(error), _export_again(opset))])
    others = [value.name for value in graph.graph.output if not value.type.HasField("tensor_type")]
    given = plan_outputs(probe.returned, outputs, None if items is None else len(items), others)
    findings += given.findings
    if not given.outputs:
        return Checked(findings)
    if probe.one_by_one and not taken.one_by_one:
        findings.append(
            ContractFinding(
                "batch", "adapted", "the graph fails for several users", "one user at a time, which is slower"
            )
        )
    sized = [one._replace(width=given.width) for one in given.outputs]
    plan = Adapted(taken.inputs, sized, probe.one_by_one)
    if not _is_as_served(graph, plan):
        if problem := _opset_problem(opset, plan):
            return Checked([*findings, ContractFinding("opset", "wrong", str(opset), problem)])
        content = adapt(graph, plan, given.items or 1).SerializeToString(deterministic=True)
    ids = items or [str(row) for row in range(1, (given.items or 0) + 1)]
    if not ids:
        return Checked(
            [*findings, ContractFinding("trial", "skipped", "name the file of the items, --items, to try it")]
        )
    manifest = _manifest(name, content, plan, given, ids, graph, top_k)
    trial = _trial(content, manifest, ids)
    return Checked([*findings, trial], content, manifest if trial.verdict == "ok" else None)


def _file(graph: ModelProto, content: bytes) -> ContractFinding:
    made_by = " ".join(filter(None, (graph.producer_name, graph.producer_version))) or "unknown"
    return ContractFinding("file", "ok", f"{len(content):,} bytes with its weights, exported by {made_by}")


def _opset_problem(opset: int, plan: Adapted) -> str:
    least = BAG_OPSET_MIN if BAG in {one.role for one in plan.inputs} else OPSET_MIN
    return f"{_export_again(opset)}: below {least} it cannot be adapted" if 0 < opset < least else ""


def _export_again(opset: int) -> str:
    known = opset in EXPORTED_OPSETS or not opset
    return "" if known else f"export with opset {EXPORTED_OPSETS[0]} to {EXPORTED_OPSETS[-1]}"


def _probe(graph: ModelProto, taken: PlannedInputs, items: int) -> Probe:
    """Run the graph for some users; one by one if it is for one user, or fails for several."""
    values = [declared(value) for value in graph.graph.output if value.type.HasField("tensor_type")]
    if not values:
        return Probe([], taken.one_by_one)
    outputs = [
        Output(one.name, f"freshet/probe-{place}", TensorProto.FLOAT if one.dtype in FLOATS else None)
        for place, one in enumerate(values)
    ]
    fed = {name: _probed(name) for name in fed_inputs(taken.inputs)}
    failed, some = None, Probe([], False)
    for one_by_one in (True,) if taken.one_by_one else (False, True):
        try:
            adapted = adapt(graph, Adapted(taken.inputs, outputs, one_by_one), items)
            found = list(zip(values, run_once(adapted.SerializeToString(), fed), strict=True))
        except ModelTooSlow:
            raise
        except ModelError as error:
            failed = failed or error
            continue
        rows = [(one, array.shape) for one, array in found if array.shape[:1] == (PROBE_USERS,)]
        probe = Probe([Declared(one.name, one.dtype, (None, *shape[1:])) for one, shape in rows], one_by_one)
        if len(rows) == len(values):
            return probe
        some = some if some.returned else probe
        failed = failed or ModelError(_of_other_users(found))
    if some.returned:
        return some
    raise failed or ModelError("it returns nothing")


def _of_other_users(found: Sequence[tuple[Declared, npt.NDArray[np.generic]]]) -> str:
    shapes = ", ".join(f"{one.name} {list(array.shape)}" for one, array in found)
    return f"for {PROBE_USERS} users it returned {shapes}: the first dimension must be the users"


def _probed(name: str) -> npt.NDArray[np.generic]:
    feature = FED[name]
    return np.ones((PROBE_USERS, feature.width or RECENT_ITEMS_MAX), feature.dtype)


def _is_as_served(graph: ModelProto, plan: Adapted) -> bool:
    """Whether the graph meets the contract as it is."""
    values = [declared(value) for value in graph.graph.output]
    return (
        not plan.one_by_one
        and all(map(_is_canonical, plan.inputs))
        and [one.name for one in plan.outputs] == [one.role for one in plan.outputs]
        and {one.name for one in values} == {one.name for one in plan.outputs}
        and all(len(one.shape or ()) == 2 and (one.shape or (1,))[0] is None for one in values)
        and not any(one.dtype or one.last_position or one.pad_row_0 or one.columns_max for one in plan.outputs)
    )


def _is_canonical(one: Input) -> bool:
    feature = INPUTS[one.role]
    fits = one.width in (None, feature.width or RECENT_ITEMS_MAX) and one.rank == 2
    return one.name == one.role and one.role in FED and dtype_name(one.dtype) == feature.dtype and fits


def _manifest(
    name: str,
    content: bytes,
    plan: Adapted,
    given: PlannedOutputs,
    items: Sequence[str],
    graph: ModelProto,
    top_k: int,
) -> Manifest:
    ranked = len(plan.outputs) > 1
    ids = [one for one in plan.outputs if one.role == "ids"]
    types = {value.name: value.type.tensor_type.elem_type for value in graph.graph.output}
    is_quantised = any(node.op_type in _QUANTISED for node in graph.graph.node)
    return Manifest(
        name=name,
        sha256=sha256_of(content),
        size_bytes=len(content),
        opset=opset_of(graph) or 17,
        inputs={each: feature_tensor(each) for each in fed_inputs(plan.inputs)},
        outputs={
            "scores": Tensor("float32", ("users", given.width)),
            **{one.role: Tensor(dtype_name(one.dtype or types[one.name]), ("users", given.width)) for one in ids},
        },
        top_k=given.width if ranked else min(top_k, len(items)),
        items_sha256=sha256_of(encode_items(items)),
        items_count=len(items),
        quantisation="int8-dynamic" if is_quantised else "fp32",
        training_window=TrainingWindow(0, 0, 0, 0, len(items)),
        metrics={},
        popular=(),
        popular_min_users=1,
        kind_weights={},
    )


def _trial(content: bytes, manifest: Manifest, items: Sequence[str]) -> ContractFinding:
    """Open the model as the job does."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        (directory / MODEL_FILE).write_bytes(content)
        try:
            write(directory, manifest, items)
            Scorer.open(directory)
        except ModelError as error:
            said = str(error).replace(f"{directory / MODEL_FILE} ", "").replace(f"{directory}/", "")
            return ContractFinding("trial", "wrong", said)
    return ContractFinding("trial", "ok", "empty, short and full histories, alone and in batches of 64")
