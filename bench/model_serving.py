"""What readers get: lists as they are served over lists made fresh, and the first personal list of an empty shop."""

from typing import Final, NamedTuple

from bench.model_quality import Say
from deploy.demo.shop import training_interactions
from evaluation.first_list import FirstList, first_list
from evaluation.job_twin import JobRules
from evaluation.served import ServedQuality, served_over_fresh
from evaluation.steps import Protocol, moving, plan, steps_in_order
from evaluation.study import TABLES
from models.interactions import Interactions

SHOPS: Final = 10
SHOPPERS: Final = 60
SAY_EVERY: Final = 2_000


class ReadersFigures(NamedTuple):
    """`served` by name of :data:`evaluation.study.TABLES`, empty without data; `first` by the seed of a shop."""

    served: dict[str, ServedQuality]
    first: dict[int, FirstList]


def measure(retail: Interactions | None, seed: int, say: Say) -> ReadersFigures:
    """Both."""
    first = {number: _empty_shop(number) for number in range(seed, seed + SHOPS)}
    possible = sum(each.in_time or each.possible for each in first.values())
    say(f"empty shops with a personal list in time: {sum(each.in_time for each in first.values())} of {possible}")
    served = {} if retail is None else {name: _served(retail, name, say) for name in TABLES}
    return ReadersFigures(served, first)


def _empty_shop(seed: int) -> FirstList:
    clicks = moving(training_interactions(seed, SHOPPERS))
    return first_list(steps_in_order(clicks), clicks.item_ids, JobRules())


def _served(retail: Interactions, name: str, say: Say) -> ServedQuality:
    steps = plan(moving(retail), Protocol.PREQUENTIAL)

    def report(done: int) -> None:
        if done % SAY_EVERY == 0:
            say(f"served lists, {name} items: {done:,} of {len(steps):,} steps")

    found = served_over_fresh(steps, retail.item_ids, JobRules(TABLES[name]), report)
    say(f"served over fresh, {name} items: {found.ratio():.4f}")
    return found
