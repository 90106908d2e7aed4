"""What quantising a model costs in quality and saves in bytes and time (`freshet model quantise`).

Each form that can be made of the FP32 graph makes the lists of the same questions, by the rules of the job.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from evaluation.bootstrap import difference
from evaluation.frozen import sampled_split
from evaluation.job_twin import JobRules
from evaluation.methods import FrozenMethod
from evaluation.side_by_side import Method, replay
from evaluation.steps import Step, moving
from models.cost import microseconds_per_user
from models.interactions import Interactions
from models.manifest import (
    FP32_FILE,
    MODEL_FILE,
    RECENT_ITEMS_MAX,
    FormReport,
    Manifest,
    load_with_items,
    sha256_of,
    write,
)
from models.model_directory import replaced
from models.quantised_forms import FORMS, FP32, Feed, form_of
from models.scorer import Scorer
from schemas.errors import ModelError

LOSS_MAX: Final = 0.01
BATCH: Final = 32
ROUNDS: Final = 10
CALIBRATING_USERS: Final = 256

Say = Callable[[str], None]


class MeasuredForms(NamedTuple):
    """The graphs that could be made, and what was measured of each."""

    graphs: dict[str, bytes]
    report: dict[str, FormReport]


def quantise(
    directory: Path, interactions: Interactions, form: str | None, loss_max: float, seed: int, say: Say
) -> Manifest:
    """Measure all forms of the model in `directory`, and store the report in its manifest; with a `form`, serve that.

    Raises :class:`ModelError`, and changes nothing, if the form that is to be served loses more than `loss_max` of the
    nDCG@10 of FP32.
    """
    manifest, items = load_with_items(directory)
    graph = _fp32_graph(directory, manifest)
    found = measure(manifest, items, graph, interactions, seed, say)
    served = manifest.quantisation if form is None else form
    if served not in found.report:
        raise ModelError(f"there is no form {served} of this model: choose one of {', '.join(found.report)}")
    loss = found.report[served].loss
    if loss > loss_max:
        raise ModelError(
            f"{served} loses {loss:.2%} of the nDCG@10 of fp32, and at most {loss_max:.2%} is allowed: "
            "serve another form, or allow more with --loss-max"
        )
    content = (directory / MODEL_FILE).read_bytes() if form is None else found.graphs[served]
    changed = replace_served(manifest, served, content, found.report)
    with replaced(directory) as staging:
        (staging / MODEL_FILE).write_bytes(content)
        (staging / FP32_FILE).write_bytes(graph)
        write(staging, changed, items)
    return changed


def replace_served(manifest: Manifest, form: str, content: bytes, report: dict[str, FormReport]) -> Manifest:
    """The manifest of the same model in another form: its name, which lists have, ends with the new digest."""
    digest = sha256_of(content)
    if digest == manifest.sha256:
        return msgspec.structs.replace(manifest, quantisation_report=report)
    stem = manifest.name.removesuffix(f"-{manifest.sha256[:8]}")
    return msgspec.structs.replace(
        manifest,
        name=f"{stem[:119]}-{digest[:8]}",
        sha256=digest,
        size_bytes=len(content),
        quantisation=form,
        quantisation_report=report,
    )


def measure(
    manifest: Manifest, items: list[str], graph: bytes, interactions: Interactions, seed: int, say: Say
) -> MeasuredForms:
    """Make each form, and measure those that can be made."""
    graphs = {}
    for name in FORMS:
        try:
            graphs[name] = form_of(name, graph, _feed(manifest, len(items)))
        except ModelError as error:
            say(str(error))
    with _opened(manifest, items, graphs, say) as scorers:
        cost = microseconds_per_user(scorers, BATCH, ROUNDS)
        ids = list(dict.fromkeys([*interactions.item_ids, *items]))
        report = _compared(sampled_split(moving(interactions)), scorers, ids, seed)
    made = {name: replace_numbers(each, len(graphs[name]), cost[name]) for name, each in report.items()}
    return MeasuredForms({name: graphs[name] for name in made}, made)


def replace_numbers(report: FormReport, size_bytes: int, us: float) -> FormReport:
    """With its size and cost."""
    return msgspec.structs.replace(report, size_bytes=size_bytes, us_per_list=round(us, 2))


def _compared(steps: list[Step], scorers: dict[str, Scorer], ids: list[str], seed: int) -> dict[str, FormReport]:
    rules = JobRules()
    methods: dict[str, Method] = {name: FrozenMethod(scorer, ids, rules) for name, scorer in scorers.items()}
    measured = replay(steps, methods, ids, rules).measured
    users, exact = measured[FP32].users, measured[FP32].column("ndcg@10")
    if not len(users):
        raise ModelError("there is nothing to evaluate: nobody has a new item in the last fifth of the time")
    whole = float(exact.mean())
    if whole <= 0:
        raise ModelError(
            "the model lists nothing that users meet next in the last fifth of the time, so nothing can be lost: give "
            "more interactions, of users that the model was trained for"
        )
    found = {}
    for name, each in measured.items():
        lost = difference(users, exact, each.column("ndcg@10"), seed)
        loss, low, high = (round(value / whole, 5) + 0.0 for value in lost[:3])
        found[name] = FormReport(0, 0.0, round(float(each.column("ndcg@10").mean()), 5), loss, low, high, len(users))
    return found


@contextmanager
def _opened(manifest: Manifest, items: list[str], graphs: dict[str, bytes], say: Say) -> Iterator[dict[str, Scorer]]:
    """Scorers of the graphs that this machine can run."""
    scorers = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in graphs.items():
            folder = Path(scratch) / name
            folder.mkdir()
            (folder / MODEL_FILE).write_bytes(content)
            write(folder, replace_served(manifest, name, content, {}), items)
            try:
                scorers[name] = Scorer.open(folder)
            except ModelError as error:
                say(f"form {name} cannot be served: {error}")
        yield scorers


def _fp32_graph(directory: Path, manifest: Manifest) -> bytes:
    kept = directory / FP32_FILE
    if kept.exists():
        return kept.read_bytes()
    if manifest.quantisation != FP32:
        raise ModelError(f"{directory} has no {FP32_FILE}, and {MODEL_FILE} is quantised already: adopt the FP32 model")
    return (directory / MODEL_FILE).read_bytes()


def _feed(manifest: Manifest, items: int) -> Feed:
    """Histories for calibration: of all lengths, items evenly drawn."""
    random, shape = np.random.default_rng(0), (CALIBRATING_USERS, RECENT_ITEMS_MAX)
    rows = random.integers(1, items + 1, shape, dtype=np.int32)
    rows[np.arange(RECENT_ITEMS_MAX) < random.integers(0, RECENT_ITEMS_MAX, CALIBRATING_USERS)[:, None]] = 0
    feed: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32 | np.int32]]] = {"items": rows}
    if "weights" in manifest.inputs:
        feed["weights"] = np.where(rows > 0, random.random(shape), 0.0).astype(np.float32)
    return feed


def lines(report: dict[str, FormReport]) -> list[str]:
    """The report as text."""
    told = [f"{'form':14}{'bytes':>12}{'µs a list':>12}{'nDCG@10':>10}{'loss':>9}   95 % interval of the loss"]
    return told + [
        f"{name:14}{each.size_bytes:12,}{each.us_per_list:12.1f}{each.ndcg10:10.4f}{each.loss:9.2%}"
        f"   {each.loss_low:+.2%} to {each.loss_high:+.2%}"
        for name, each in report.items()
    ]
