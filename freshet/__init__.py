"""Freshet: real-time, consent-first recommendations.

    from freshet import Reader, load_key_ring

    reader = Reader("redis://localhost:6379/0", load_key_ring("key-ring.json"))
    print(reader.recommend("ada", n=5).items)

Importing this package imports nothing else: each name loads its module, with its libraries, at first use.
The client library (``pip install freshet-client``) and a checkout offer the same names.
"""

import contextlib
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from adapters.files.tenant_file import load_tenant as load_tenant
    from adapters.redis.address import RedisAddress as RedisAddress
    from adapters.secrets.key_rings import load_key_ring as load_key_ring
    from schemas.catalogue import CatalogueItem as CatalogueItem
    from schemas.consents import ConsentChange as ConsentChange
    from schemas.consents import gpc_of as gpc_of
    from schemas.errors import ConsentRefused as ConsentRefused
    from schemas.errors import FreshetError as FreshetError
    from schemas.errors import InvalidConsent as InvalidConsent
    from schemas.errors import InvalidEvent as InvalidEvent
    from schemas.errors import NotAcknowledged as NotAcknowledged
    from schemas.errors import SettingsError as SettingsError
    from schemas.events import Interaction as Interaction
    from schemas.lists import ListedItem as ListedItem
    from schemas.pseudonyms import KeyRing as KeyRing
    from schemas.wire.tenant_settings import TenantSettings as TenantSettings
    from schemas.wire.writers import WriteSettings as WriteSettings
    from serving.accesses import AccessLog as AccessLog
    from serving.answers import Recommendation as Recommendation
    from serving.async_reader import AsyncReader as AsyncReader
    from serving.catalogue import Catalogue as Catalogue
    from serving.consents import Consents as Consents
    from serving.consents import RecordedConsent as RecordedConsent
    from serving.displayed import DisplayedList as DisplayedList
    from serving.events import EventProducer as EventProducer
    from serving.events import RecordedEvent as RecordedEvent
    from serving.reader import Reader as Reader

    Events = EventProducer

__version__: Final = "0.1.0"

PUBLIC: Final = {
    "adapters.files.tenant_file": ("load_tenant",),
    "adapters.redis.address": ("RedisAddress",),
    "adapters.secrets.key_rings": ("load_key_ring",),
    "schemas.catalogue": ("CatalogueItem",),
    "schemas.consents": ("ConsentChange", "gpc_of"),
    "schemas.errors": (
        "ConsentRefused",
        "FreshetError",
        "InvalidConsent",
        "InvalidEvent",
        "NotAcknowledged",
        "SettingsError",
    ),
    "schemas.events": ("Interaction",),
    "schemas.lists": ("ListedItem",),
    "schemas.pseudonyms": ("KeyRing",),
    "schemas.wire.tenant_settings": ("TenantSettings",),
    "schemas.wire.writers": ("WriteSettings",),
    "serving.accesses": ("AccessLog",),
    "serving.answers": ("Recommendation",),
    "serving.async_reader": ("AsyncReader",),
    "serving.catalogue": ("Catalogue",),
    "serving.consents": ("RecordedConsent", "Consents"),
    "serving.displayed": ("DisplayedList",),
    "serving.events": ("EventProducer", "Events", "RecordedEvent"),
    "serving.reader": ("Reader",),
}
"""Module → the names that it exports here, as imported above for type checkers."""
_ALIASES: Final = {"Events": "EventProducer"}
_HOME: Final = {name: module for module, names in PUBLIC.items() for name in names}


def _load_name(name: str) -> Any:
    try:
        return getattr(import_module(_HOME[name]), _ALIASES.get(name, name))
    except ModuleNotFoundError as error:
        if error.name != "kafka":
            raise
        hint = f"freshet.{name} needs kafka-python: pip install 'freshet-client[kafka]'"
        raise ModuleNotFoundError(hint, name=error.name) from None


def _loadable() -> list[str]:
    """The names for `from freshet import *`: without kafka-python, those that do not need it."""
    found = []
    for name in _HOME:
        with contextlib.suppress(ModuleNotFoundError):
            _load_name(name)
            found.append(name)
    return found


if not TYPE_CHECKING:  # with `__getattr__`, type checkers would accept any name

    def __getattr__(name: str) -> Any:
        if name == "__all__":
            return _loadable()
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = _load_name(name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOME})
