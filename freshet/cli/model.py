"""`freshet model`: train, evaluate and adopt models; their roll-out is in `freshet/cli/rollout.py`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from freshet.cli.file_options import TrainingFile, with_training_options
from freshet.cli.shape import (
    AsJson,
    ExitCode,
    SettingsFile,
    command,
    finite,
    group,
    in_existing_folder,
    print_json,
    say,
)

if TYPE_CHECKING:
    from models.interactions import Columns, Interactions

app = group("model", "Train, evaluate, adopt and roll out models.")
ONLINE_RETAIL = "--user customer_id --item stock_code --time invoice_ts --every purchase --quantity quantity"
File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="CSV, TSV, .dat, .inter, Parquet, JSON lines or the folder of an export; - reads JSON lines.",
    ),
]
Folder = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="DIR",
        callback=in_existing_folder,
        help="The folder of the model; an existing model is replaced.",
    ),
]
TopK = Annotated[int, typer.Option(min=1, help="Items in a list.")]


OnnxFile = Annotated[Path, typer.Argument(metavar="FILE", help="The ONNX file.")]
Takes = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="NAME=INPUT", help="Which input of the contract the graph's input NAME takes."),
]
Gives = Annotated[
    list[str] | None,
    typer.Option("--output", metavar="NAME=OUTPUT", help="Whether the graph's output NAME is the scores or the ids."),
]


@command(app, "train", f"freshet model train online-retail.parquet --out model {ONLINE_RETAIL}")
@with_training_options
def train(
    file: File,
    out: Folder,
    of_file: TrainingFile,
    top_k: TopK = 50,
    neighbours: Annotated[int, typer.Option(min=1, help="Neighbours kept per item.")] = 64,
) -> None:
    """Train the built-in model on a file, evaluate it on the last fifth of the time, quantise and write it.

    Prints the metrics of each ranking method. Name the folder in the job's settings (model.directory).
    """
    from evaluation.train import table, train_and_export
    from models.transitions import TrainingSettings

    interactions = _read(file, of_file)
    manifest = train_and_export(interactions, out, TrainingSettings(top_k=top_k, neighbours=neighbours), say)
    print("\n".join(table(manifest.metrics)))
    print(_summary(manifest.name, manifest.items_count, manifest.size_bytes, out))


@command(app, "online", "freshet model online --settings freshet.toml --item tea-07")
def online(
    settings: SettingsFile,
    item: Annotated[str | None, typer.Option(help="Also print what users meet with this item, best first.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what the model that learns in the stream knows at the moment.

    Reads what the job has published to Redis: the sequence that lists name, items, and the weight of each feature.
    """
    from jobs.online_status import online_status
    from jobs.settings import load_settings

    status = online_status(load_settings(settings), item)
    if as_json:
        print_json(status)
        return
    print(f"{status.name}: {status.items} items, {status.items_with_neighbours} of them with neighbours")
    for feature, weight in sorted(status.weights.items(), key=lambda one: -abs(one[1])):
        print(f"  {weight:+8.3f}  {feature}")
    if status.neighbours is not None:
        print(f"met with {item}: {', '.join(status.neighbours) or 'nothing yet'}")


@command(app, "relearn", "freshet model relearn --settings freshet.toml")
def relearn(settings: SettingsFile) -> None:
    """Learn the online model again from the events topic, and have the running job go on from there.

    After `freshet erase rewrite-events`, erased users have no share in the model any more. Only events whose users
    allow training are learned. What the job learns while this command runs is lost. Needs 0.5 KB of memory per event.
    """
    from jobs.registration import load_deployed
    from privacy.relearn import relearn as learn_again

    done = learn_again(load_deployed(settings), say)
    print(
        f"learned {done.events:,} events of {done.items:,} items; left out: {done.left_out:,}; the job goes on from it"
    )


@command(app, "evaluate", f"freshet model evaluate online-retail.parquet --report report.html {ONLINE_RETAIL}")
@with_training_options
def evaluate(
    file: File,
    of_file: TrainingFile,
    protocol: Annotated[
        Literal["prequential", "leave-one-out", "global-time"],
        typer.Option(help="Which steps are asked about: the second half, each user's last one, or the last fifth."),
    ] = "prequential",
    in_order: Annotated[
        bool, typer.Option("--in-order", help="Each line is a step; default: what a user did at one moment is one.")
    ] = False,
    by: Annotated[str | None, typer.Option(metavar="COLUMN", help="Also print measures by the values of this.")] = None,
    model: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The frozen model to compare with; default: one trained on what is before."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", callback=in_existing_folder, help="Write a page with tables and plots."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the intervals.")] = 18,
    as_json: AsJson = False,
) -> None:
    """Evaluate the online model on a file, beside a frozen model, a session-kNN and simple methods.

    Lists are made by the rules of the job, at each moment from what it would have published before it. Prints nDCG@10,
    HR@10, recall@20, MRR, coverage and novelty, for all items and for items that are new to the user.
    """
    from evaluation.report_page import page
    from evaluation.steps import Protocol
    from evaluation.study import StudyOptions, as_json_value, lines, study

    columns = replace(of_file.columns(), label=by)
    found = study(_read(file, of_file, columns), StudyOptions(Protocol(protocol), in_order, model, seed), say)
    if report is not None:
        report.write_text(page(found, file))
    if as_json:
        print_json(as_json_value(found))
    else:
        print("\n".join(lines(found)))


@command(app, "off-policy", "freshet model off-policy MEASURE --model model")
def off_policy(
    export: Annotated[Path, typer.Argument(metavar="EXPORT", help="The folder of an export for the purpose measure.")],
    model: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the model to estimate.")],
    seed: Annotated[int, typer.Option(help="Seed of the intervals.")] = 18,
    as_json: AsJson = False,
) -> None:
    """Estimate the click rate that a model would have in explored slots, from an export, without serving it.

    Needs exploration in the job ([explore] slots). Prints IPS, SNIPS and doubly robust estimates with 95 % intervals,
    and the effective sample size. Lists from before the end of the model's training data do not count. An export that
    says too little is refused.
    """
    from adapters.files.export_parts import part_events, read_manifest
    from evaluation.explored_log import as_json_value, lines
    from evaluation.explored_log import off_policy as estimate_from
    from models.scorer import Scorer
    from udfs.frozen_model import FrozenModel

    scorer = Scorer.open(model)
    events = [event for part in read_manifest(export).parts for event in part_events(export, part)]
    window = scorer.manifest.training_window
    if not window.interactions:
        say("the folder of the model does not say what it was trained on: if it was on these events, do not trust this")
    found = estimate_from(events, FrozenModel(scorer, scorer.manifest.name), window.to_ms, seed)
    if as_json:
        print_json(as_json_value(found))
    else:
        print("\n".join(lines(found)))


@command(app, "quantise", f"freshet model quantise model online-retail.parquet --form int8-weights {ONLINE_RETAIL}")
@with_training_options
def quantise(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the model.")],
    file: File,
    of_file: TrainingFile,
    form: Annotated[
        Literal["fp32", "fp16", "int8-weights", "int8-dynamic", "int8-static"] | None,
        typer.Option(help="The form to serve from now on; default: the one that is served."),
    ] = None,
    loss_max: Annotated[
        float, typer.Option(min=0, max=1, callback=finite, help="Share of the nDCG@10 of FP32 that it may lose.")
    ] = 0.01,
    seed: Annotated[int, typer.Option(help="Seed of the intervals.")] = 18,
    as_json: AsJson = False,
) -> None:
    """Measure a model in FP32, FP16 and INT8 on a file, and store the report in its manifest.

    Compares size, CPU time and nDCG@10 of new items in the last fifth of the time. A form that loses more than allowed
    is refused, and the folder stays as it is.
    """
    from evaluation.quantisation import lines
    from evaluation.quantisation import quantise as measure_forms

    manifest = measure_forms(directory, _read(file, of_file), form, loss_max, seed, say)
    if as_json:
        print_json({"served": manifest.quantisation, "name": manifest.name, "forms": manifest.quantisation_report})
    else:
        print("\n".join(lines(manifest.quantisation_report)))
        print(f"served: {manifest.quantisation}, as {manifest.name}")


@command(app, "adopt", "freshet model adopt mine.onnx --items items.txt --name mine-1 --out model")
@with_training_options
def adopt(
    model: OnnxFile,
    items: Annotated[Path, typer.Option(metavar="FILE", help="Item ids, one per line, in row order.")],
    name: Annotated[str, typer.Option(help="The name in lists: a-z, 0-9, '.', '_' and '-'.")],
    out: Folder,
    of_file: TrainingFile,
    top_k: Annotated[
        int, typer.Option(min=1, help="How many items to rank, for a graph that returns plain scores.")
    ] = 50,
    takes: Takes = None,
    gives: Gives = None,
    evaluate_on: Annotated[
        str | None,
        typer.Option(
            "--evaluate",
            metavar="FILE",
            help="Interactions: measure the lists on the last fifth of them, for the manifest.",
        ),
    ] = None,
) -> None:
    """Adopt your own ONNX model: check it, try it, and write it with its manifest.

    The graph takes rows of the user's recent items, and returns scores of all items, or the best ones ranked. Types,
    names, widths and batches of one are adapted to the contract. Line n of the items file is row n; row 0 is padding.
    External weights (MODEL.onnx.data) are included. Whatever the job would refuse is refused here, with the change to
    make; `model check` prints the contract beside the file.
    """
    from models.adopt import adopt as take
    from models.adopt import items_in

    measured = None
    if evaluate_on is not None:
        from evaluation.adopted import measuring_on

        measured = measuring_on(_read(evaluate_on, of_file))
    manifest = take(model, items_in(items), name, out, top_k, _choices(takes), _choices(gives), measured)
    if manifest.metrics:
        from evaluation.study import PRINTED
        from evaluation.train import table

        print("\n".join(table(manifest.metrics, PRINTED)))
    print(_summary(manifest.name, manifest.items_count, manifest.size_bytes, out))


@command(app, "check", "freshet model check mine.onnx --items items.txt")
def check(
    model: OnnxFile,
    items: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Item ids, one per line, in row order; default: not compared.")
    ] = None,
    takes: Takes = None,
    gives: Gives = None,
    as_json: AsJson = False,
) -> ExitCode:
    """Print the contract beside an ONNX file, and try it: what fits, what `model adopt` adapts, what to change.

    Exits with 1 if something must be changed.
    """
    from models.adopt import items_in
    from models.check import check as compare

    checked = compare(model, None if items is None else items_in(items), _choices(takes), _choices(gives))
    if as_json:
        print_json({"file": str(model), "fits": not checked.wrong, "findings": checked.findings})
    else:
        print("\n".join(finding.line() for finding in checked.findings))
    return ExitCode.FINDINGS if checked.wrong else ExitCode.DONE


@command(app, "cost", "freshet model cost --items 10000")
def cost(
    items: Annotated[int, typer.Option(min=1, max=1_000_000, help="Vocabulary of the random model.")] = 10_000,
    top_k: TopK = 50,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions; the fastest one counts.")] = 20,
) -> None:
    """Print the cost of scoring: CPU microseconds per user on one thread, for each batch size."""
    from models.cost import costs

    print(f"{items} items, top {top_k}: CPU microseconds per user, one thread")
    for row, (users, each) in enumerate(costs(items, top_k, repeats).items()):
        if row == 0:
            print("batch" + "".join(f"{name:>10}" for name in each))
        print(f"{users:5}" + "".join(f"{us:10.1f}" for us in each.values()))


def _read(file: str, of_file: TrainingFile, columns: "Columns | None" = None) -> "Interactions":
    from evaluation.train import interactions_in

    return interactions_in(file, columns or of_file.columns(), of_file.user, say)


def _choices(given: list[str] | None) -> dict[str, str]:
    """NAME=VALUE options as a table."""
    split = [one.rpartition("=") for one in given or ()]
    if wrong := [value for name, _, value in split if not name]:
        raise typer.BadParameter(f"{wrong[0]!r} is not NAME=VALUE")
    return {name: value for name, _, value in split}


def _summary(name: str, items: int, size_bytes: int, out: Path) -> str:
    return f"{name}: {items} items, {size_bytes / 1e6:.1f} MB, in {out}"
