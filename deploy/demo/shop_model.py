"""The default model: trained in seconds on what other shoppers did in the simulated shop in the days before."""

from collections.abc import Callable
from pathlib import Path

from deploy.demo.shop import ITEM_IDS, training_interactions
from models.manifest import Manifest, load_with_items
from models.train import train_and_export
from models.transitions import TrainingSettings
from schemas.errors import ModelError

SHOP_SETTINGS = TrainingSettings(history_decay=0.8)
"""Steeper than the default: in a session the last clicks say most, and a change of taste shows after three."""


def train_shop_model(directory: Path, say: Callable[[str], None] = lambda line: None) -> Manifest:
    """Train on the simulated shop and write the model to `directory`, replacing one that is there."""
    return train_and_export(training_interactions(), directory, SHOP_SETTINGS, say)


def ready_shop_model(directory: Path, say: Callable[[str], None] = lambda line: None) -> Path:
    """`directory` with a model of today's catalogue in it: trained now unless it is there already."""
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
