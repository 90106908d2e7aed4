"""What the job would be if nobody's consent were looked at: the other side of what privacy costs. For benchmarks only.

It is the product's own code with other parts in it, so that it stays the same job when the product changes. Left out:

* `allows`: whether an interaction may be used, and that who is not on record is nobody to keep anything of
* the fence: the comparison of the consent in Redis, the look at the tombstone, the bytes that both need
* `recall`: moves of a rotation, and the question after tombstones
* consents in Redis, the purposes in clean events, and the audit trail

Consents are still read into state, and the users in it are the same: what is compared is the work for an event. Python
calls `take` with a function that says yes and scripts in Redis read the version of the old list, here as there.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any, Final, TypeVar, cast

from adapters.redis.client import Keyed, connect
from adapters.redis.scripts import WRITE_POPULAR
from adapters.redis.store import RedisStore
from jobs import workers
from jobs.settings import Settings
from schemas.store import ConsentDecision, ConsentOutcome, ListWrite, Tombstone, Written
from udfs import personalise, profile
from udfs.elements import Element, EventRecord
from udfs.operators import outputs
from udfs.operators.personalise_operator import PersonaliseOperator, PersonaliseParts
from udfs.ranking import Ranker
from udfs.state import UserState, decode_state

F = TypeVar("F")
WRITE_LIST: Final = WRITE_POPULAR
"""The comparison of versions and a SET with PX, for one key: that is what a list takes where there is no fence."""


def with_others(function: F, **others: Any) -> F:
    """A copy of `function` that finds `others` where the original finds its module's names; nothing else changes.

    The original is untouched, as the next job in the same interpreter needs it. Raises :class:`LookupError` if the
    function does not know such a name: an ablation that leaves nothing out would measure nothing.

    >>> def price(): return abs(-3)
    >>> with_others(price, abs=lambda number: 0)(), price()
    (0, 3)
    """
    original = cast(FunctionType, function)
    if unknown := others.keys() - set(original.__code__.co_names):
        raise LookupError(f"{original.__qualname__} knows no {', '.join(sorted(unknown))}")
    # A code object of its own: the interpreter adapts it to the names that it has met.
    code, names = original.__code__.replace(), {**original.__globals__, **others}
    copied = FunctionType(code, names, original.__name__, original.__defaults__, original.__closure__)
    copied.__kwdefaults__ = original.__kwdefaults__
    return cast(F, copied)


def always(state: UserState, event: EventRecord) -> bool:
    """In the place of :func:`udfs.consent.allows`."""
    return True


def clean_event(event: EventRecord, state: UserState) -> bytes | None:
    """In the place of :func:`udfs.personalise.clean_event`: for whatever purpose."""
    return event.clean or None


class Everybody(personalise.Users):
    """Users of whom everybody is on record."""

    def get(self, pseudonym: str) -> UserState:
        """The user's state; an empty one is put on record where there is none."""
        state = self._known.get(pseudonym)
        if state is None:
            raw = self._load(pseudonym)
            state = self._known[pseudonym] = UserState() if raw is None else decode_state(raw)
            if raw is not None:
                self._stored[pseudonym] = state.due_slot
        return state


class NoAudit:
    """In the place of :class:`udfs.operators.audit_keeper.AuditKeeper`."""

    def record(self, *told: object) -> Iterator[Any]:
        """Nothing."""
        return iter(())

    def expired(self, *told: object) -> Iterator[Any]:
        """Nothing."""
        return iter(())


def nobody(element: Element, users: personalise.Users) -> dict[str, str]:
    """In the place of :meth:`udfs.operators.user_keeper.UserKeeper.recall`: nobody was moved."""
    return {}


class UncheckedOperator(PersonaliseOperator):
    """The personalise operator that keeps and ranks everybody."""

    _apply = with_others(
        PersonaliseOperator._apply,
        apply=with_others(personalise.apply, take=with_others(profile.take, allows=always)),
        Users=Everybody,
        side_outputs=with_others(
            outputs.side_outputs, clean_lines=with_others(outputs.clean_lines, clean_event=clean_event)
        ),
    )

    def open(self, runtime_context: Any) -> None:
        """See :class:`PersonaliseOperator`."""
        super().open(runtime_context)
        self._audit = NoAudit()  # type: ignore[assignment]
        self._users.recall = nobody  # type: ignore[method-assign]


def no_consent_value(*place: object) -> bytes:
    """In the place of :func:`schemas.store.consent_value`."""
    return b""


class UncheckedRanker(Ranker):
    """A ranker whose lists do not name the consent that they were made under."""

    _write = with_others(Ranker._write, consent_value=no_consent_value)


class UncheckedStore(RedisStore):
    """A store without consents: the last list stands, whoever's it is."""

    def write(
        self, consents: Sequence[ConsentDecision], lists: Sequence[ListWrite], want_popular: bool, token: str
    ) -> Written:
        """See :class:`RedisStore`; all consents are said to be in force."""
        written = super().write((), lists, want_popular, token)
        return written._replace(consents=[ConsentOutcome.IN_FORCE] * len(consents))

    def tombstones(self, pseudonyms: Sequence[str]) -> dict[str, Tombstone]:
        """Nobody's."""
        return {}

    def relink(self, links: Mapping[str, str]) -> None:
        """Nobody moves."""

    def _list_command(self, write: ListWrite, token: str) -> Keyed:
        key = f"{self._prefix}{{{write.pseudonym}}}:list"
        return key, WRITE_LIST((key,), self._epoch, write.version, write.ttl_ms, write.payload)


def open_store(settings: Settings, epoch: int) -> UncheckedStore:
    """In the place of :func:`jobs.workers.open_store`."""
    return UncheckedStore(connect(settings.redis), epoch, settings.tombstone_ms())


_open_parts = with_others(workers.open_personalise_parts, Ranker=UncheckedRanker, open_store=open_store)


def open_personalise_parts(settings: Settings, epoch: int, trail: str) -> PersonaliseParts:
    """In the place of :func:`jobs.workers.open_personalise_parts`."""
    return _open_parts(settings, epoch, trail)
