"""The default model: trained in seconds on what other shoppers did in the simulated shop in the days before."""

from collections.abc import Callable
from pathlib import Path

from deploy.demo.shop import training_interactions
from models.manifest import Manifest
from models.train import train_and_export
from models.transitions import Settings

SHOP_SETTINGS = Settings(history_decay=0.8)
"""Steeper than the default: in a session the last clicks say most, and a change of taste shows after three."""


def train_shop_model(directory: Path, say: Callable[[str], None] = lambda line: None) -> Manifest:
    """Train on the simulated shop and write the model to `directory`, replacing one that is there."""
    return train_and_export(training_interactions(), directory, SHOP_SETTINGS, say)
