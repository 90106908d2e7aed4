"""Freshet: real-time, consent-first recommendations. Importing this imports nothing else."""

from typing import Final

__version__: Final = "0.1.0"
