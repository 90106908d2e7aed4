"""`freshet model`: train, evaluate and adopt models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from freshet.cli.file_options import TrainingFile, with_training_options
from freshet.cli.shape import AsJson, SettingsFile, command, group, in_existing_folder, print_json, say

if TYPE_CHECKING:
    from models.interactions import Interactions

app = group("model", "Train, evaluate and adopt models.")
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
    from models.train import table, train_and_export
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


@command(app, "evaluate", "freshet model evaluate may-export --json")
@with_training_options
def evaluate(
    file: File,
    of_file: TrainingFile,
    model: Annotated[
        Literal["online", "frozen"], typer.Option(help="The model that learns in the job, or the one of `model train`.")
    ] = "online",
    top_k: Annotated[int, typer.Option(min=1, help="Items in a list of the frozen model.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Evaluate a model on a file by time, beside popularity; writes nothing.

    The online model is asked before each step of a user, and then learns it; the second half of the file counts. The
    frozen model is trained on the file without the last fifth of the time, which counts.
    """
    from models.evaluate import MEASURES
    from models.evaluate import evaluate as measure
    from models.evaluate_online import ONLINE_MEASURES, evaluate_online
    from models.train import table
    from models.transitions import TrainingSettings

    interactions, is_online = _read(file, of_file), model == "online"
    metrics = evaluate_online(interactions, say) if is_online else measure(interactions, TrainingSettings(top_k=top_k))
    if as_json:
        print_json(metrics)
    else:
        print("\n".join(table(metrics, ONLINE_MEASURES if is_online else MEASURES)))


@command(app, "adopt", "freshet model adopt mine.onnx --items items.txt --name mine-1 --out model")
def adopt(
    model: Annotated[Path, typer.Argument(metavar="FILE", help="The ONNX file.")],
    items: Annotated[Path, typer.Option(metavar="FILE", help="Item ids, one per line, in row order.")],
    name: Annotated[str, typer.Option(help="The name in lists: a-z, 0-9, '.', '_' and '-'.")],
    out: Folder,
    top_k: Annotated[
        int, typer.Option(min=1, help="How many items to rank, for a graph that returns plain scores.")
    ] = 50,
) -> None:
    """Adopt your own ONNX model: check it, try it, and write it with its manifest.

    The graph takes `items` int32[users, 20] (rows of the user's recent items, newest last, 0 is padding) and,
    optionally, `weights` float32[users, 20]. It returns either `scores` float32[users, items + 1], one per row, or the
    best items ranked: `scores` float32[users, k] and `ids` int32 or int64[users, k]. Line n of the items file is row n;
    row 0 is padding. External weights (MODEL.onnx.data) are included. Whatever the job would refuse is refused here.
    """
    from models.adopt import adopt as take
    from models.adopt import items_in

    manifest = take(model, items_in(items), name, out, top_k)
    print(_summary(manifest.name, manifest.items_count, manifest.size_bytes, out))


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


def _read(file: str, of_file: TrainingFile) -> "Interactions":
    from models.train import interactions_in

    return interactions_in(file, of_file.columns(), of_file.user, say)


def _summary(name: str, items: int, size_bytes: int, out: Path) -> str:
    return f"{name}: {items} items, {size_bytes / 1e6:.1f} MB, in {out}"
