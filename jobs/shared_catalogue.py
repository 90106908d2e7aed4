"""The catalogue and the rules of the shop in a worker: followed once for all operators that use them."""

import logging
import threading
from pathlib import Path
from typing import Any, Final

from adapters.files.edited_files import read_edited
from adapters.kafka.catalogue_topic import CatalogueFollower
from adapters.kafka.settings import KafkaSettings, python_kafka_options
from schemas.decoding import described
from schemas.errors import SettingsError
from schemas.shop_rules import NO_RULES, ShopRules, parse_rules
from udfs.assortment import Assortment

READY_S: Final = 10.0
"""How long an operator waits at its start until the catalogue is read; without it, lists have unavailable items."""
EXAMPLE: Final = "deploy/shop-rules.toml"
logger = logging.getLogger(__name__)


def load_rules(path: str | None) -> ShopRules:
    """Load the rules in the TOML file `path`; without one, there are none."""
    if path is None:
        return NO_RULES
    try:
        return parse_rules(read_edited(Path(path)))
    except OSError as error:
        raise SettingsError(f"rules.file {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"rules.file {path}: {described(error, EXAMPLE)}") from None


class SharedCatalogue:
    """An assortment that follows the catalogue from the first :meth:`start` to the last :meth:`stop`."""

    def __init__(self, kafka: KafkaSettings, rules: ShopRules) -> None:
        self.assortment = Assortment(rules)
        self._kafka = kafka
        self._users = 0
        self._changing = threading.Lock()
        self._follower: CatalogueFollower | None = None
        self._unread = 0

    def start(self) -> None:
        """Follow the catalogue, and wait until it has been read, for :data:`READY_S` at most."""
        with self._changing:
            self._users += 1
            if self._follower is None:
                options: dict[str, Any] = python_kafka_options(self._kafka)
                self._follower = CatalogueFollower(options, self._kafka.topic_prefix, self.assortment.note)
            follower = self._follower
        if not follower.ready.wait(READY_S):
            logger.warning("the catalogue is not read yet: until it is, lists may have items that are not available")

    def take_unread(self) -> int:
        """How many records could not be used since the last call by any operator of the worker."""
        with self._changing:
            if self._follower is None:
                return 0
            taken = self._follower.unread - self._unread
            self._unread += taken
        return taken

    def stop(self) -> None:
        """One user less."""
        with self._changing:
            self._users -= 1
            follower = self._follower if self._users == 0 else None
            if follower is not None:
                self._follower, self._unread = None, 0
                _forget(self)
        if follower is not None:
            follower.close()


_shared: dict[tuple[str, ...], SharedCatalogue] = {}
_opening: Final = threading.Lock()


def shared_catalogue(kafka: KafkaSettings, rules: ShopRules) -> SharedCatalogue:
    """The catalogue for these settings; operators of one process get the same one."""
    place = kafka.bootstrap_servers, kafka.topic_prefix, repr(rules)
    with _opening:
        return _shared.setdefault(place, SharedCatalogue(kafka, rules))


def _forget(catalogue: SharedCatalogue) -> None:
    with _opening:
        for place in [place for place, one in _shared.items() if one is catalogue]:
            del _shared[place]
