"""The model for a replay: trained on the file itself, so that it knows the file's items.

It is cached for later replays.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from deploy.demo.table import Mapping, check
from evaluation.train import train_and_export
from models.interactions import Columns, read
from models.manifest import MANIFEST_FILE

_FOLDER: Final = "model-"


def ready_file_model(
    parent: Path, path: Path, mapping: Mapping, say: Callable[[str], None] = lambda line: None
) -> Path:
    """A model of the file below `parent`, trained if it does not exist yet; models of other files are removed."""
    check(path, mapping)
    directory = parent / f"{_FOLDER}{_identity(path, mapping)}"
    if not (directory / MANIFEST_FILE).exists():
        for other in parent.glob(f"{_FOLDER}*"):
            shutil.rmtree(other)
        say(f"training a model on {path.name}")
        interactions = read(path, _columns(mapping))
        for line in interactions.report_lines():
            say(line)
        train_and_export(interactions, directory, say=say)
    return directory


def _columns(mapping: Mapping) -> Columns:
    kind, every = mapping.type or Columns().kind, None if mapping.type else mapping.type_constant
    return Columns(
        mapping.user,
        mapping.item,
        mapping.time,
        kind,
        every,
        mapping.quantity,
        mapping.time_format,
        mapping.layout(),
        mapping.rules(),
    )


def _identity(path: Path, mapping: Mapping) -> str:
    """What the model depends on: the current version of the file, and how it is parsed."""
    status = path.stat()
    text = f"{path.resolve()} {status.st_size} {status.st_mtime_ns} {msgspec.json.encode(mapping).decode()}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
