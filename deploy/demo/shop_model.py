"""The default model: trained within seconds on earlier interactions of other shoppers in the simulated shop."""

from collections.abc import Callable
from pathlib import Path

from deploy.demo.shop import ITEM_IDS, training_interactions
from evaluation.train import train_and_export
from models.manifest import Manifest, load_with_items
from models.transitions import TrainingSettings
from schemas.errors import ModelError

SHOP_SETTINGS = TrainingSettings(history_decay=0.8)
"""Steeper than the default: the last clicks of a session count most, so three clicks show a change of taste."""


def train_shop_model(directory: Path, say: Callable[[str], None] = lambda line: None) -> Manifest:
    """Train on the simulated shop and write the model to `directory`, replacing any existing one."""
    return train_and_export(training_interactions(), directory, SHOP_SETTINGS, say)


def ready_shop_model(directory: Path, say: Callable[[str], None] = lambda line: None) -> Path:
    """`directory` with a model of the current catalogue: trained now unless it exists already."""
    if not _is_of_this_shop(directory):
        say("training the model of the simulated shop")
        train_shop_model(directory, say)
    return directory


def _is_of_this_shop(directory: Path) -> bool:
    try:
        _, items = load_with_items(directory)
    except ModelError:
        return False
    return set(items) == set(ITEM_IDS)
