"""Measures a model that is being adopted, for its manifest (`freshet model adopt --evaluate`).

Its lists are made by the job's rules, with all inputs that it takes. By a global-time split: what is in the last fifth
of the events is asked, so a model that was trained on an export of before is measured on what it has not seen.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from evaluation.job_twin import JobRules
from evaluation.measures import Measured
from evaluation.methods import FrozenMethod
from evaluation.side_by_side import Method, replay
from evaluation.simple_methods import SimpleMethods
from evaluation.steps import Protocol, moving, plan
from evaluation.study import PRINTED, TABLES
from models.interactions import Interactions
from models.scorer import Scorer
from schemas.errors import ModelError

MODEL: Final = "model"
SUFFIX: Final = {"all": "", "new": ", new items"}
Metrics = dict[str, dict[str, float]]


def measuring_on(interactions: Interactions) -> Callable[[Path], Metrics]:
    """What measures the model in a folder on `interactions`: see :func:`adopted_metrics`."""
    return lambda directory: adopted_metrics(interactions, directory)


def adopted_metrics(interactions: Interactions, directory: Path) -> Metrics:
    """Measures of the model and of the best simple method in hindsight, for all items and for those new to the user.

    Raises :class:`ModelError` if there is nothing to ask, or the model knows no item of the file.
    """
    scorer, counted = Scorer.open(directory), moving(interactions)
    if scorer.index.keys().isdisjoint(interactions.item_ids):
        raise ModelError(
            f"the model knows none of the file's {len(interactions.item_ids):,} items, such as "
            f"{min(interactions.item_ids, default='')!r}: name the column of the items, --item"
        )
    steps = plan(counted, Protocol.GLOBAL_TIME)
    item_ids = list(dict.fromkeys([*interactions.item_ids, *scorer.items[1:]]))
    found: Metrics = {}
    for name, lists in TABLES.items():
        rules = JobRules(lists)
        simple = SimpleMethods(len(item_ids), rules.lists.exclude_had).methods()
        methods: dict[str, Method] = {MODEL: FrozenMethod(scorer, item_ids, rules), **simple}
        measured = replay(steps, methods, item_ids, rules).measured
        best = max(simple, key=lambda one: _ndcg(measured[one]))
        for method in (MODEL, best):
            table = measured[method].table()
            found[method + SUFFIX[name]] = {measure: round(table[measure], 5) for measure in PRINTED}
    return found


def _ndcg(measured: Measured) -> float:
    return measured.table()["ndcg@10"]
