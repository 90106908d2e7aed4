"""Open-loop load in a process of its own: a fixed number of events per second, regardless of how they are processed.

    python -m bench.load --settings FILE --rate EVENTS_PER_S --seconds S --seed N

It prints `ready` once all events are generated, waits for a line, sends, and prints the maximum delay of a tick.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any, Final

from bench.clients import light_producer
from bench.workload import RATE_PER_S, Record, event_records, make_workload
from jobs.settings import load_settings

TICK_S: Final = 0.004
LINGER_MS: Final = 20
"""As frontends do. One request per event would be a benchmark of the broker."""


def send_paced(sending: Any, topic: str, records: list[Record], rate: int) -> float:
    """Send `records` at `rate` per second; returns the maximum delay behind schedule, in seconds."""
    begun, sent, worst_s = time.monotonic(), 0, 0.0
    while sent < len(records):
        due = min(int((time.monotonic() - begun) * rate) + 1, len(records))
        worst_s = max(worst_s, (due - sent - 1) / rate)
        for key, value in records[sent:due]:
            sending.produce(topic, value, key)
        sending.poll(0)
        sent = due
        time.sleep(TICK_S)
    sending.flush()
    return worst_s


def main() -> None:
    """Generate events, wait, send."""
    parser = argparse.ArgumentParser(prog="python -m bench.load")
    parser.add_argument("--settings", type=Path, required=True)
    for name in ("--rate", "--seconds", "--seed"):
        parser.add_argument(name, type=int, required=True)
    options = parser.parse_args()
    settings = load_settings(options.settings)
    events = options.rate * options.seconds
    begin_ms = time.time_ns() // 1_000_000 - events * 1000 // RATE_PER_S
    records = list(event_records(make_workload(events, begin_ms, options.seed)))
    sending = light_producer(settings.kafka.bootstrap_servers, LINGER_MS)
    print("ready", flush=True)
    sys.stdin.readline()
    worst_s = send_paced(sending, settings.topic_names().interactions, records, options.rate)
    print(f"{worst_s:.3f}", flush=True)


if __name__ == "__main__":
    main()
