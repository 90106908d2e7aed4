"""Exports small models from PyTorch: `python export_pytorch.py FOLDER`; needs torch 2.9 and onnxscript, on CPU.

Written with random weights and a fixed seed. The models are those of tests/unit/test_model_exporters.py.
"""

import sys
from pathlib import Path

import torch

ITEMS, WIDTH, SIZE = 30, 50, 4
FOLDER = Path(sys.argv[1])
USERS = torch.export.Dim("users")


class Mean(torch.nn.Module):
    """Scores by the mean of the embeddings of a history of `WIDTH`."""

    def __init__(self, rows: int = ITEMS + 1) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(ITEMS + 1, SIZE, padding_idx=0)
        self.rows = rows

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        known = (input_ids > 0).unsqueeze(-1).to(self.embedding.weight.dtype)
        mean = (self.embedding(input_ids) * known).sum(1) / known.sum(1).clamp(min=1)
        return mean @ self.embedding.weight[ITEMS + 1 - self.rows :].T


class Positions(torch.nn.Module):
    """As SASRec: logits for each position, of which the last counts; also returns its hidden states."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(ITEMS + 1, SIZE, padding_idx=0)
        self.attention = torch.nn.TransformerEncoderLayer(SIZE, 1, 8, dropout=0.0, batch_first=True)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.attention(self.embedding(input_ids) * attention_mask.unsqueeze(-1).float())
        return hidden @ self.embedding.weight.T, hidden


class Ranked(torch.nn.Module):
    """Returns the ten best rows, with weights of the items; row 0 is never among them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(ITEMS + 1, SIZE, padding_idx=0)

    def forward(self, items: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = (self.embedding(items) * weights.unsqueeze(-1)).sum(1)
        best = torch.topk((mean @ self.embedding.weight.T)[:, 1:], 10)
        return best.values, best.indices + 1


def export(
    model: torch.nn.Module,
    name: str,
    *examples: torch.Tensor,
    opset: int = 18,
    free: bool = True,
    **names: list[str],
) -> None:
    shapes = tuple({0: USERS} for _ in examples) if free else None
    program = torch.onnx.export(
        model.eval(), examples, dynamo=True, opset_version=opset, dynamic_shapes=shapes, optimize=True, **names
    )
    exported = program.model_proto
    for node in exported.graph.node:  # where in the sources it came from
        del node.metadata_props[:]
    for value in [*exported.graph.value_info, *exported.graph.input, *exported.graph.output]:
        del value.metadata_props[:]
    del exported.graph.metadata_props[:]
    (FOLDER / f"{name}.onnx").write_bytes(exported.SerializeToString())


def main() -> None:
    torch.manual_seed(7)
    ids = torch.ones(2, WIDTH, dtype=torch.int64)
    export(Mean(), "torch-int64-wide", ids, input_names=["input_ids"], output_names=["logits"])
    export(Mean().half(), "torch-fp16", ids, opset=20, input_names=["input_ids"], output_names=["logits"])
    export(Mean(ITEMS), "torch-no-padding-row", ids, opset=23, input_names=["input_ids"], output_names=["logits"])
    export(Mean(), "torch-batch-of-one", ids[:1], free=False, input_names=["input_ids"], output_names=["logits"])
    export(
        Positions(),
        "torch-positions",
        ids[:, :20],
        torch.ones(2, 20, dtype=torch.int64),
        input_names=["input_ids", "mask"],
        output_names=["logits", "hidden"],
    )
    export(
        Ranked(),
        "torch-ranked",
        ids[:, :20].int(),
        torch.ones(2, 20),
        opset=21,
        input_names=["items", "weights"],
        output_names=["values", "indices"],
    )


main()
