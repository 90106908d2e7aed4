"""The baseline of the latency measurement: a plain consumer that records when it receives each probe event.

    python -m bench.listener --settings FILE

It prints `ready`, listens until standard input is closed, and prints {phase: [milliseconds, …]} as JSON.
"""

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bench.clients import light_consumer
from bench.probes import PROBE, sent_and_phase
from jobs.settings import load_settings


def listen(reading: Any, has_ended: threading.Event) -> dict[str, list[float]]:
    """Milliseconds from just before the producer's send() to receiving the record, by phase of the benchmark."""
    found: dict[str, list[float]] = {}
    while not has_ended.is_set():
        record = reading.poll(0.1)
        now_ns = time.monotonic_ns()
        if record is not None and not record.error() and record.key().startswith(PROBE):
            sent_ns, phase = sent_and_phase(record.value())
            found.setdefault(phase, []).append((now_ns - sent_ns) / 1e6)
    return found


def main() -> None:
    """Listen, starting at the end of the topic."""
    parser = argparse.ArgumentParser(prog="python -m bench.listener")
    parser.add_argument("--settings", type=Path, required=True)
    settings = load_settings(parser.parse_args().settings)
    reading = light_consumer(settings.kafka.bootstrap_servers, settings.topic_names().interactions)
    has_ended = threading.Event()

    def until_closed() -> None:
        sys.stdin.read()
        has_ended.set()

    threading.Thread(target=until_closed, daemon=True).start()
    print("ready", flush=True)
    print(json.dumps(listen(reading, has_ended)), flush=True)


if __name__ == "__main__":
    main()
