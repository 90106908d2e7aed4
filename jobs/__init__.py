"""The jobs, and how they are put together from rules, adapters and Flink."""

import udfs  # noqa: F401 - must come first in a worker: see there
