"""Who was erased, and since when they have returned, from two passes over `consents`.

Raw ids do not leave this module.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from jobs.settings import Settings, load_policy
from privacy.consent_topic import recorded_changes
from privacy.rules.erasure import Erased, NamedChange, last_erasures, with_returns
from schemas.consents import Level
from udfs.ingest import consent_record

CANARY: Final = "freshet-canary-"
"""The prefix of canaries' user ids, see :mod:`privacy.canary`."""
WITNESSES_MAX: Final = 100


def erased_users(
    settings: Settings, names_of: Callable[[str], Sequence[str]], only: str | None = None
) -> dict[str, Erased]:
    """Current pseudonym → erasure, of all users except canaries, or of the user `only`.

    Compaction may have removed an erasure if the user consented again more than `min.compaction.lag.ms` ago.
    """
    erased = last_erasures(_changes(settings, names_of, only))
    return with_returns(erased, _changes(settings, names_of, only)) if erased else {}


def witnesses(settings: Settings, names_of: Callable[[str], Sequence[str]], before_ms: int) -> list[str]:
    """Pseudonyms of users whose consent was recorded before `before_ms` and has not ended: state must contain them."""
    found: dict[str, Sequence[str]] = {}
    for names, change in _changes(settings, names_of, None):
        if change.level == Level.NONE:
            found.pop(names[0], None)
        elif change.append_ts < before_ms and len(found) < WITNESSES_MAX:
            found[names[0]] = names
    return [name for names in found.values() for name in names]


def _changes(settings: Settings, names_of: Callable[[str], Sequence[str]], only: str | None) -> Iterator[NamedChange]:
    policy = load_policy(settings.privacy.policy)
    for change, place, absent, _ in recorded_changes(settings):
        wanted = change.user_id == only if only is not None else not change.user_id.startswith(CANARY)
        if wanted and not absent:
            names = names_of(change.user_id)
            yield NamedChange(names, consent_record(change, names[0], place, policy))
