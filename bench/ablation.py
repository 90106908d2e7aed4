"""The job without consent checks, to measure what privacy costs. For benchmarks only.

It is the product's own code with some parts replaced, so it remains the same job when the product changes. Left out:

* `allows`: whether an interaction may be used, and that nothing is kept of users without a consent
* the fence: the comparison with the consent in Redis, the tombstone check, the bytes that both need
* `recall`: moves of a rotation, and the query for tombstones
* consents in Redis, the purposes in clean events, and the audit trail

Consents are still read into state, and the same users have state: the comparison is about the work per event. As in the
product, Python calls `take` with a function (which always allows) and scripts in Redis read the version of the old
list.
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
"""The comparison of versions and a SET with PX, for one key: what writing a list requires without the fence."""


def with_others(function: F, **others: Any) -> F:
    """A copy of `function` in which the global names `others` are replaced; nothing else changes.

    The original is unchanged, because the next job in the same interpreter needs it. Raises :class:`LookupError` if the
    function does not use such a name: an ablation that leaves nothing out would measure nothing.

    >>> def price(): return abs(-3)
    >>> with_others(price, abs=lambda number: 0)(), price()
    (0, 3)
    """
    original = cast(FunctionType, function)
    if unknown := others.keys() - set(original.__code__.co_names):
        raise LookupError(f"{original.__qualname__} knows no {', '.join(sorted(unknown))}")
    # A separate code object, because the interpreter specialises it for the names that it has resolved.
    code, names = original.__code__.replace(), {**original.__globals__, **others}
    copied = FunctionType(code, names, original.__name__, original.__defaults__, original.__closure__)
    copied.__kwdefaults__ = original.__kwdefaults__
    return cast(F, copied)


def always(state: UserState, event: EventRecord) -> bool:
    """Replaces :func:`udfs.consent.allows`."""
    return True


def clean_event(event: EventRecord, state: UserState) -> bytes | None:
    """Replaces :func:`udfs.personalise.clean_event`: ignores the purposes."""
    return event.clean or None


class Everybody(personalise.Users):
    """Users of which each has a consent."""

    def get(self, pseudonym: str) -> UserState:
        """The user's state; a new user gets an empty one."""
        state = self._known.get(pseudonym)
        if state is None:
            raw = self._load(pseudonym)
            state = self._known[pseudonym] = UserState() if raw is None else decode_state(raw)
            if raw is not None:
                self._stored[pseudonym] = state.due_slot
        return state


class NoAudit:
    """Replaces :class:`udfs.operators.audit_keeper.AuditKeeper`."""

    def record(self, *told: object) -> None:
        """Nothing is recorded."""

    def expired(self, *told: object) -> Iterator[Any]:
        """Yields nothing."""
        return iter(())


def nobody(element: Element, users: personalise.Users) -> dict[str, str]:
    """Replaces :meth:`udfs.operators.user_keeper.UserKeeper.recall`: no user was moved."""
    return {}


class UncheckedOperator(PersonaliseOperator):
    """The personalise operator that keeps and ranks every user."""

    _rule = with_others(
        PersonaliseOperator._rule,
        apply=with_others(
            personalise.apply,
            _apply_event=with_others(personalise._apply_event, take=with_others(profile.take, allows=always)),
        ),
        Users=Everybody,
    )
    _result = with_others(
        PersonaliseOperator._result,
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
    """Replaces :func:`schemas.store.consent_value`."""
    return b""


class UncheckedRanker(Ranker):
    """A ranker whose lists do not refer to a consent."""

    _writes = with_others(Ranker._writes, consent_value=no_consent_value)


class UncheckedStore(RedisStore):
    """A store without consents: the last list written is always valid."""

    def write(
        self, consents: Sequence[ConsentDecision], lists: Sequence[ListWrite], want_popular: bool, token: str
    ) -> Written:
        """See :class:`RedisStore`; all consents are reported as in force."""
        written = super().write((), lists, want_popular, token)
        return written._replace(consents=[ConsentOutcome.IN_FORCE] * len(consents))

    def tombstones(self, pseudonyms: Sequence[str]) -> dict[str, Tombstone]:
        """Always empty."""
        return {}

    def relink(self, links: Mapping[str, str]) -> None:
        """Do nothing."""

    def _list_command(self, write: ListWrite, token: str) -> Keyed:
        key = f"{self._prefix}{{{write.pseudonym}}}:list"
        return key, WRITE_LIST((key,), self._epoch, write.version, write.ttl_ms, write.payload)


def open_store(settings: Settings, epoch: int) -> UncheckedStore:
    """Replaces :func:`jobs.workers.open_store`."""
    return UncheckedStore(connect(settings.redis), epoch, settings.tombstone_ms())


_open_parts = with_others(workers.open_personalise_parts, Ranker=UncheckedRanker, open_store=open_store)


def open_personalise_parts(settings: Settings, epoch: int, trail: str, is_silent: bool = False) -> PersonaliseParts:
    """Replaces :func:`jobs.workers.open_personalise_parts`."""
    return _open_parts(settings, epoch, trail, is_silent)
