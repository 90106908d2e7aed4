"""The journey of a click, on screen: a real Kafka, Redis and Flink, the job, and a shop full of simulated shoppers.

make demo
make demo ARGS="--replay shop.csv --user customer --item sku --time at --type-constant purchase"
"""

import argparse
import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from deploy.demo import shop
from deploy.demo.feed import Feed, FileFeed, ShopFeed
from deploy.demo.file_model import ready_file_model
from deploy.demo.live import JobProbe, Live
from deploy.demo.producer import Producer
from deploy.demo.receipts import ConsentWaiter, reading
from deploy.demo.replay import add_mapping_options, choice_from, mapping_from
from deploy.demo.screen import screen_for
from deploy.demo.shop_model import ready_shop_model
from deploy.demo.table import names_of, users_of_rows
from deploy.local import product
from deploy.local.errors import StackError
from deploy.local.gateway_product import curl_line, start_gateway
from deploy.local.paths import LOCAL, ROOT
from deploy.local.stack import LocalStack
from schemas.errors import FreshetError
from schemas.pseudonyms import KeyRing, Pseudonymiser, load_key_ring
from schemas.topics import DEAD_LETTERS, RECEIPTS
from serving.reader import Reader

DIRECTORY = LOCAL / "demo"
CONSENT_TIMEOUT_S = 60.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130


class Progress:
    """Lines with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, line: str) -> None:
        """Print one."""
        print(f"demo {time.monotonic() - self._began:5.1f} s  {line}", flush=True)


class Interrupts:
    """The first signal interrupts the setting up, or, once `deferred`, only sets `came`; later ones are ignored.

    The ending has bounds of its own, and a second Ctrl-C must not cut it short.
    """

    def __init__(self) -> None:
        self.came = False
        self.deferred = False
        for number in SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        self.came = True
        if not self.deferred:
            raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code: 0 also where Ctrl-C ended it while it was on screen."""
    options = _arguments(arguments)
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    logging.getLogger("kafka").propagate = False  # what matters is raised; lines in between would spoil the picture
    interrupts, say = Interrupts(), Progress()
    try:
        _run(options, interrupts, say)
    except (FreshetError, StackError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was left running", file=sys.stderr)
        return INTERRUPTED
    say("ended; nothing was left running")
    return 0


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m deploy.demo", description=summary, epilog=details, formatter_class=form)
    parser.add_argument("--shoppers", type=_positive, default=300, metavar="N", help="simulated shoppers (default 300)")
    parser.add_argument("--rate", type=_positive, default=200, metavar="N", help="interactions a second (default 200)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the simulated shop (default 1)")
    parser.add_argument("--seconds", type=_positive, metavar="N", help="end by itself after so long")
    parser.add_argument("--plain", action="store_true", help="a block of text every 5 s instead of a live picture")
    replay = parser.add_argument_group("a file of your own instead of simulated shoppers")
    replay.add_argument("--replay", type=Path, metavar="FILE", help="CSV, Parquet or JSON-lines")
    replay.add_argument("--speed", type=_positive, metavar="N", help="rows a second (default: as fast as Kafka takes)")
    replay.add_argument("--follow", metavar="USER", help="whose list to show (default: who has most rows)")
    add_mapping_options(parser)
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _run(options: argparse.Namespace, interrupts: Interrupts, say: Callable[[str], None]) -> None:
    if options.replay is None:
        model = ready_shop_model(LOCAL / "model", say)
    else:
        model = ready_file_model(DIRECTORY, options.replay, mapping_from(options), say)
    say(f"starting Kafka, Redis and Flink below {DIRECTORY.relative_to(ROOT)}")
    with LocalStack(DIRECTORY, report=say) as stack:
        running = start_gateway(stack, product.start(stack, model_directory=model, report=say))
        say("the job runs, and the gateway takes requests")
        _go_live(options, stack, running, interrupts, say)
        say("ending Kafka, Redis and Flink")


def _go_live(
    options: argparse.Namespace,
    stack: LocalStack,
    running: product.Product,
    interrupts: Interrupts,
    say: Callable[[str], None],
) -> None:
    ring = load_key_ring(running.settings.privacy.key_ring)
    kafka = running.settings.kafka
    bulk = options.replay is not None and options.speed is None
    probe = JobProbe(stack, running.job_id)
    with _sending(Producer(kafka, bulk=bulk)) as producer, reading(kafka, RECEIPTS, DEAD_LETTERS) as consumer:
        reader = Reader(running.endpoints["redis"], ring, running.settings.redis.prefix)
        prepare = _prepare_shop if options.replay is None else _prepare_file
        live, feed = prepare(options, running, producer, consumer, reader, ring, say)
        live.hint = curl_line(stack, live.user, str(ROOT))
        say(f"this list over HTTP: {live.hint}")
        deadline = time.monotonic() + (options.seconds or float("inf"))
        interrupts.deferred = True
        try:
            feed.start()
            probe.start()
            live.show(feed, probe, screen_for(options.plain), lambda: interrupts.came or time.monotonic() >= deadline)
        finally:
            feed.stop()
            probe.stop()
            reader.close()
            for remark in feed.remarks:
                say(remark)


@contextmanager
def _sending(producer: Producer) -> Iterator[Producer]:
    try:
        yield producer
    finally:
        producer.abandon()


def _prepare_shop(
    options: argparse.Namespace,
    running: product.Product,
    producer: Producer,
    consumer: object,
    reader: Reader,
    ring: KeyRing,
    say: Callable[[str], None],
) -> tuple[Live, Feed]:
    """Send the catalogue and everybody's consent, and wait until the consents are in force."""
    shoppers = shop.shoppers(options.seed, options.shoppers)
    pseudonymiser = Pseudonymiser(ring)
    names = {item.item_id: item.name for item in shop.CATALOGUE}
    live = Live(consumer, reader, pseudonymiser, shoppers[0].user_id, names)
    for item in shop.CATALOGUE:
        producer.send_item(item)
    for change in shop.consents(shoppers, time.time_ns() // 1_000_000):
        producer.send_consent(change)
    producer.flush()
    say(f"a catalogue of {len(names)} items, and the consents of {len(shoppers)} shoppers: sent")
    pseudonyms = {pseudonymiser.user(shopper.user_id) for shopper in shoppers}
    ConsentWaiter(live.receive).wait(pseudonyms, CONSENT_TIMEOUT_S)
    say("consents are in force; the shop opens")
    return live, ShopFeed(producer, shoppers, options.rate, options.seed)


def _prepare_file(
    options: argparse.Namespace,
    running: product.Product,
    producer: Producer,
    consumer: object,
    reader: Reader,
    ring: KeyRing,
    say: Callable[[str], None],
) -> tuple[Live, Feed]:
    """Choose whom to follow; the feed sends consents and rows while the picture shows it."""
    mapping, pseudonymiser = mapping_from(options), Pseudonymiser(ring)
    follow = options.follow or _busiest(options.replay, options)
    say(f"following {follow}")
    live = Live(consumer, reader, pseudonymiser, follow, names_of(options.replay, mapping))
    choice, kafka = choice_from(options), running.settings.kafka
    feed = FileFeed(producer, follow, options.replay, mapping, choice, options.speed, kafka, pseudonymiser)
    return live, feed


def _busiest(path: Path, options: argparse.Namespace) -> str:
    counted = Counter(user for user in users_of_rows(path, mapping_from(options)) if user is not None)
    if not counted:
        raise FreshetError(f"{path.name} has no row with a user")
    return counted.most_common(1)[0][0]


if __name__ == "__main__":
    sys.exit(main())
