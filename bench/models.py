"""`freshet bench models`: how good the lists of the online model are, beside simple methods and a peer, and its cost.

Figures go to `.local/bench-models.json` and `models/RESULTS.md`; a quick run, or one without data, writes neither.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench import model_quality, model_recall, model_serving, model_shadow, model_speed
from bench.figures import LimitCheck, machine
from bench.model_recall import Recall
from bench.model_serving import ReadersFigures
from bench.model_shadow import Kind, Runs
from bench.model_speed import Speed
from bench.results import limits, table, write_json
from deploy.local.files import write_atomically
from deploy.local.paths import LOCAL, ROOT
from evaluation.bootstrap import DRAWS
from evaluation.study import FROZEN, ONLINE, PEER, Comparison

JSON_PATH: Final = LOCAL / "bench-models.json"
MARKDOWN_PATH: Final = ROOT / "models" / "RESULTS.md"
DATA: Final = ROOT.parent / "shared" / "data" / "online-retail.parquet"
QUICK_EVENTS: Final = 60_000
NDCG_MIN: Final = {"all": 0.29, "new": 0.095}
OVER_FROZEN_MIN: Final = 1.08
LEARNING_MAX_US: Final = 20.0
SCORING_MAX_US: Final = 45.0
SCORING_MANY_MAX_US: Final = 250.0
SCORING_MILLION_MAX_US: Final = 500.0
RECALL_MIN: Final = 0.98
LEARNER_MAX_BYTES: Final = 6 * 1024
SERVED_MAX_BYTES: Final = 1024
FOUND_MIN: Final = 95
FALSE_ALARMS_MAX: Final = 1
SERVED_MIN: Final = 0.97


class ModelBench(NamedTuple):
    """What was measured; `quality` is empty where there is no data."""

    quality: dict[str, Comparison]
    recall: dict[str, Recall]
    speed: Speed
    shadow: list[Runs]
    serving: ReadersFigures


def run_shadow(data: Path, quick: bool, seed: int, command: str, say: Callable[[str], None]) -> tuple[str, bool]:
    """Measure the test of a shadow alone; a full run goes to bench-models.json, and not to RESULTS.md."""
    runs = model_shadow.measure(data, QUICK_EVENTS if quick else None, seed, say)
    if data.exists() and not quick:
        write_json(shadow_figures(runs), JSON_PATH)
    checks = shadow_verdicts(runs)
    return f"{limits(checks)}\n\n{_shadow(runs)}\n\n`{command}`, seed {seed}.", all(check.is_met for check in checks)


def run(data: Path, quick: bool, seed: int, command: str, say: Callable[[str], None]) -> tuple[str, bool]:
    """Measure; returns the tables, and whether all limits are met.

    Figures are written as soon as they are measured, because a shadow takes longer than all else.
    """
    quality: dict[str, Comparison] = {}
    recall: dict[str, Recall] = {}
    retail, events = None, QUICK_EVENTS if quick else None
    about = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine(), "command": command, "seed": seed}

    def keep(its_figures: dict[str, Any]) -> None:
        if quality and not quick:
            write_json({**its_figures, **about}, JSON_PATH)

    if data.exists():
        retail = model_quality.online_retail(data, events, say)
        quality = model_quality.measure(retail, seed, say)
        recall = model_recall.measure(retail, say)
    else:
        say(f"there is no Online Retail data at {data}: give the file with --data; only the cost is measured")
    keep({**quality_figures(quality), **recall_figures(recall)})
    speed = model_speed.measure(seed, say)
    keep(speed_figures(speed))
    serving = model_serving.measure(retail, seed, say)
    keep(serving_figures(serving))
    shadow = model_shadow.measure(data, events, seed, say)
    keep(shadow_figures(shadow))
    found = ModelBench(quality, recall, speed, shadow, serving)
    checks = verdicts(found)
    text = body(found, checks, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC on {machine()}; `{command}`, seed {seed}.")
    if quality and not quick:
        write_atomically(MARKDOWN_PATH, text)
    return text, bool(quality) and all(check.is_met for check in checks)


def quality_figures(measured: dict[str, Comparison]) -> dict[str, Any]:
    """How good lists are, for bench-models.json."""
    values: dict[str, Any] = {}
    for name, quality in measured.items():
        values |= {
            f"online_retail_{name}_ndcg10": round(quality.ndcg(ONLINE), 4),
            f"online_retail_{name}_best_simple": quality.best_simple,
            f"online_retail_{name}_best_simple_ndcg10": round(quality.ndcg(quality.best_simple), 4),
            f"online_retail_{name}_over_simple_low": round(quality.differences[quality.best_simple].low, 4),
            f"online_retail_{name}_frozen_ndcg10": round(quality.ndcg(FROZEN), 4),
            f"online_retail_{name}_peer_ndcg10": round(quality.ndcg(PEER), 4),
        }
    return values


def recall_figures(recall: dict[str, Recall]) -> dict[str, Any]:
    """What choosing candidates first loses, for bench-models.json."""
    return {
        f"candidates_{name}": {
            **{f"recall@{size}": round(share, 4) for size, share in each.shares.items()},
            "ndcg10": round(each.ndcg, 4),
            "ndcg10_of_all_items": round(each.ndcg_of_all, 4),
            "lists": each.lists,
        }
        for name, each in recall.items()
    }


def recall_verdicts(recall: dict[str, Recall]) -> list[LimitCheck]:
    """The same beside its limits. By nDCG because the score's weights are learned on candidates: of other items a high
    score does not mean as much (decision 0164)."""
    found = []
    for name, each in recall.items():
        share, kept = each.shares[100], each.ndcg / max(each.ndcg_of_all, 1e-9)
        found += [
            _check(
                f"nDCG@10 of lists from candidates over lists from all items, {name} items",
                f"{kept:.3f}",
                f">= {RECALL_MIN:g}",
                kept >= RECALL_MIN,
            ),
            _check(
                f"recall@100 of candidates beside all items, {name} items",
                f"{share:.3f}",
                f">= {RECALL_MIN:g}",
                share >= RECALL_MIN,
            ),
        ]
    return found


def speed_figures(speed: Speed) -> dict[str, Any]:
    """What learning and scoring cost, for bench-models.json."""
    return {
        "learning_cpu_us": round(speed.learning_us, 1),
        "learning_last_quarter_cpu_us": round(speed.learning_last_us, 1),
        "scoring_cpu_us": round(speed.scoring_us, 1),
        "scoring_100k_cpu_us": round(speed.scoring_many_us, 1),
        "scoring_1m_cpu_us": round(speed.scoring_million_us, 1),
        "refresh_1m_cpu_ms": round(speed.refresh_million_ms, 1),
        "learner_bytes_per_item": round(speed.learner_bytes),
        "served_bytes_per_item": round(speed.served_bytes),
    }


def serving_figures(serving: ReadersFigures) -> dict[str, Any]:
    """What readers get over fresh lists, and how soon an empty shop has a personal list."""
    ratios = {f"served_over_fresh_{name}": round(each.ratio(), 4) for name, each in serving.served.items()}
    shops = {f"seed {seed}": found._asdict() for seed, found in serving.first.items()}
    return {**ratios, "empty_shops": shops, "empty_shops_in_time": sum(each.in_time for each in serving.first.values())}


def serving_verdicts(serving: ReadersFigures) -> list[LimitCheck]:
    """The same beside its limits."""
    in_time = sum(each.in_time for each in serving.first.values())
    shops = sum(each.in_time or each.possible for each in serving.first.values())
    ratios = [
        _check(
            f"served over fresh, {name} items", f"{each.ratio():.3f}", f">= {SERVED_MIN:g}", each.ratio() >= SERVED_MIN
        )
        for name, each in serving.served.items()
    ]
    what = "empty shop: first personal list within the first session that resembles another, where one can be"
    return [*ratios, _check(what, f"{in_time} of {shops} shops", f">= {shops}", in_time == shops)]


def shadow_figures(shadow: list[Runs]) -> dict[str, Any]:
    """Of a shadow, the worst case of each limit, and all runs."""
    return {
        "shadow_worse_found_of_100": min(runs.worse for runs in shadow if runs.kind == Kind.WORSE),
        "shadow_false_alarms_of_100": max(runs.worse for runs in shadow if runs.kind == Kind.EQUAL),
        "shadow_runs": {
            runs.name: {"loss": round(runs.loss, 4), "found": runs.worse, "lists_half": runs.half()} for runs in shadow
        },
    }


def shadow_verdicts(shadow: list[Runs]) -> list[LimitCheck]:
    """What a shadow found, beside its limits."""
    return [
        _check(
            f"shadow, {runs.loss:.0%} worse ({runs.name}): found within {runs.lists:,} lists",
            f"{runs.worse} of {model_shadow.RUNS}",
            f">= {FOUND_MIN}",
            runs.worse >= FOUND_MIN,
        )
        if runs.kind == Kind.WORSE
        else _check(
            f"shadow, {runs.name}: false alarms within {runs.lists:,} lists",
            f"{runs.worse} of {model_shadow.RUNS}",
            f"<= {FALSE_ALARMS_MAX}",
            runs.worse <= FALSE_ALARMS_MAX,
        )
        for runs in shadow
        if runs.kind != Kind.UNKNOWN
    ]


def verdicts(found: ModelBench) -> list[LimitCheck]:
    """What was measured, beside its limits."""
    checks = []
    for name, quality in found.quality.items():
        ours, frozen = quality.ndcg(ONLINE), quality.ndcg(FROZEN)
        low, least, times = quality.differences[quality.best_simple].low, NDCG_MIN[name], ours / max(frozen, 1e-9)
        checks += [
            _check(f"nDCG@10, {name} items", f"{ours:.4f}", f">= {least:g}", ours >= least),
            _check(f"above the best simple method, {name} items, lower 95 % bound", f"{low:+.4f}", "> 0", low > 0),
            _check(f"over our frozen model, {name} items", f"{times:.2f}", ">= 1.08", times >= OVER_FROZEN_MIN),
        ]
    speed = found.speed
    return [
        *checks,
        *shadow_verdicts(found.shadow),
        *serving_verdicts(found.serving),
        _at_most("learning, CPU an event", speed.learning_us, LEARNING_MAX_US, "µs"),
        _at_most("scoring, CPU a list, 10,000 items, batch 32", speed.scoring_us, SCORING_MAX_US, "µs"),
        _at_most("scoring, CPU a list, 100,000 items, batch 32", speed.scoring_many_us, SCORING_MANY_MAX_US, "µs"),
        _at_most(
            "scoring, CPU a list, 1,000,000 items, batch 32", speed.scoring_million_us, SCORING_MILLION_MAX_US, "µs"
        ),
        *recall_verdicts(found.recall),
        _at_most("memory an item, learner", speed.learner_bytes / 1024, LEARNER_MAX_BYTES / 1024, "KB"),
        _at_most("memory an item, served", speed.served_bytes / 1024, SERVED_MAX_BYTES / 1024, "KB"),
    ]


def _check(what: str, figure: str, limit: str, is_met: bool) -> LimitCheck:
    return LimitCheck("models", what, figure, limit, is_met)


def _at_most(what: str, value: float, limit: float, unit: str) -> LimitCheck:
    return _check(what, f"{value:.1f} {unit}", f"<= {limit:g} {unit}", value <= limit)


def body(found: ModelBench, checks: list[LimitCheck], when: str) -> str:
    """RESULTS.md of the models."""
    parts = [HEAD.strip(), when, limits(checks), *(_quality(name, each) for name, each in found.quality.items())]
    parts += [_recall(found.recall), _shadow(found.shadow), _serving(found.serving)]
    parts.append(COST.format(refresh=found.speed.refresh_million_ms))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _quality(name: str, quality: Comparison) -> str:
    head = ["method", "nDCG@10", "HR@10", "recall@20", "MRR", "coverage", "novelty", "online − method (95 %)"]
    rows = []
    for method, measured in sorted(quality.measured.items(), key=lambda entry: -quality.ndcg(entry[0])):
        values, over = measured.table(), quality.differences.get(method)
        means = [f"{values[key]:.4f}" for key in ("ndcg@10", "hr@10", "recall@20", "mrr", "coverage@10")]
        interval = "" if over is None else f"{over.mean:+.4f} ({over.low:+.4f} to {over.high:+.4f})"
        rows.append([method, *means, f"{values['novelty@10']:.2f}", interval])
    asked = len(quality.times_ms)
    title = f"## Online Retail, {name} items"
    said = f"{asked:,} questions. The best simple method in hindsight is `{quality.best_simple}`."
    return f"{title}\n\n{said}\n\n{table(head, rows)}"


def _recall(recall: dict[str, Recall]) -> str:
    head = ["items", "lists", *(f"recall@{size}" for size in model_recall.SIZES), "nDCG@10", "nDCG@10 of all items"]
    rows = [
        [
            name,
            f"{each.lists:,}",
            *(f"{share:.3f}" for share in each.shares.values()),
            f"{each.ndcg:.4f}",
            f"{each.ndcg_of_all:.4f}",
        ]
        for name, each in recall.items()
    ]
    return f"{CANDIDATES.strip()}\n\n{table(head, rows)}"


def _shadow(shadow: list[Runs]) -> str:
    head = ["other model", "worse by", "lists", "found worse", "after (median)"]
    rows = [
        [runs.name, f"{runs.loss:.1%}", f"{runs.lists:,}", f"{runs.worse} of {model_shadow.RUNS}", f"{runs.half():,}"]
        for runs in shadow
    ]
    return f"{SHADOW.strip()}\n\n{table(head, rows)}"


def _serving(serving: ReadersFigures) -> str:
    head = ["items", "fresh nDCG@10", "served nDCG@10", "served / fresh", "questions", "of them popular lists"]
    rows = [
        [
            name,
            f"{each.fresh.mean():.4f}",
            f"{each.served.mean():.4f}",
            f"{each.ratio():.4f}",
            f"{len(each.users):,}",
            f"{each.popular:,}",
        ]
        for name, each in serving.served.items()
    ]
    return f"{SERVING.strip()}\n\n{table(head, rows)}"


HEAD: Final = f"""
# Results of the models

Written by `freshet bench models`; nothing is typed in by hand.

Lists are measured prequentially on Online Retail: each step (all that a user bought at one moment, as a set) is first a
question, then a lesson. Questions in the second half of the events count; lists rank all items, without sampling.
`all` counts every item of a step, `new` only items that the user has not had, and lists leave those out. All methods
see the same steps in the same order. Lists of the two models are made by the job's rules, and learning is published
one to two seconds after a step. Intervals draw users, each with all of their questions ({DRAWS:,} draws).
"""
CANDIDATES: Final = """
## Candidates

A list is ranked from 128 candidates. Beside it, on every 10th question of Online Retail, the best of all items by the
same score: how many of its best n are in the list of n, and how good both lists are. The score's weights are learned
from candidates, so that lists of all items may have more with high scores, and be worse.
"""
COST: Final = f"""
## Cost

Learning: {model_speed.EVENTS:,} events of {model_speed.ITEMS:,} items by Zipf's law, from empty tables, published every
{model_speed.EVENTS_PER_SECOND:,} events (one second); summing, merging, and the bytes of updates. Scoring: every row of
the tables full, histories of 20 items, 20 excluded items, batches of {model_speed.BATCH}; the least of
{model_speed.ROUNDS} rounds. Tables of {model_speed.MILLION:,} items are made without a learner; to follow their
popularity takes {{refresh:.0f}} ms of CPU a second. Memory: full rows of {model_speed.ITEMS:,} items, all that stays
allocated.
"""
SERVING: Final = f"""
## Served lists

What readers get at the moment of each question on Online Retail, over lists made fresh at that moment: lists are made
after an event and by the refresh schedule of the job, they end, learning is published one to two seconds late, and idle
profiles are deleted. An empty shop ({model_serving.SHOPS} simulated ones of {model_serving.SHOPPERS} shoppers) is in
time if it has a personal list by the end of the first session that shares a pair of items with another one. In some,
no list can be personal by then: whoever has an item that two users met has all of those.
"""
SHADOW: Final = f"""
## Shadow

How soon lists of two models show that one is worse (`models/paired_gains.py`): by more than
{model_shadow.TOLERANCE:.0%}, wrong in {model_shadow.ERROR:.0%} of all experiments at most. Both models rank the same
histories of Online Retail, and of a simulated shop, new items only; {model_shadow.RUNS} runs draw from the recorded
pairs. Of equal models, each pair is turned at random. The last row of each shop has two models whose true difference is
not known.
"""
