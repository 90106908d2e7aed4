"""Decides which events an export or the training history may contain: consent now, and consent then.

An event may be used for a purpose if its user's consent grants the purpose now, granted it when the event was accepted,
and without a break in between: data covered by a withdrawn consent does not become usable again by a later one. If
compaction has removed earlier consents, a break cannot be ruled out: then only events after the remaining ones count,
which favours the user.
"""

from collections.abc import Collection, Sequence

from schemas.consents import PURPOSES, Level, Purpose
from schemas.events import CleanEvent
from schemas.exports import ExportedEvent, LeftOut
from schemas.pseudonyms import ExportHashes
from udfs.consent import ConsentVerdict, apply_consent
from udfs.elements import ConsentRecord
from udfs.state import UserState


class ConsentStanding(UserState, array_like=True, gc=False):
    """A user's last consent. It has granted the purpose without a break since `since` (append time, ms).

    It never has a profile. `export_name` is the user's name in exports, if requested.
    """

    since: int = 0
    erased: bool = False
    export_name: str = ""


class Standings:
    """The last consent of every user, for one purpose: the job's own rules applied to the `consents` topic.

    One entry per user, under every key by which the user may be looked up.
    """

    def __init__(self, purpose: Purpose) -> None:
        self.purpose: Purpose = purpose
        self._bit = 1 << PURPOSES.index(purpose)
        self._users: dict[str, ConsentStanding] = {}

    def __len__(self) -> int:
        return len(self._users)

    def note(self, keys: Sequence[str], change: ConsentRecord, export_name: str = "") -> None:
        """Apply a record of `consents`; records of a partition must come in order."""
        standing = self._users.get(keys[0])
        if standing is None:
            standing = ConsentStanding(export_name=export_name)
            self._users.update(dict.fromkeys(keys, standing))
        unbroken = self._refusal(standing, change.append_ts) is None
        if apply_consent(standing, change) is ConsentVerdict.APPLIED:
            standing.profile = None
            standing.erased = change.erase
            if not unbroken:
                standing.since = change.append_ts

    def get(self, key: str) -> ConsentStanding | None:
        """The standing of a user; None without a record."""
        return self._users.get(key)

    def why_left_out(self, standing: ConsentStanding | None, appended: int, now_ms: int) -> LeftOut | None:
        """Why an event appended at `appended` may not be used now; None if it may. Times in ms."""
        if standing is None:
            return LeftOut.NO_CONSENT
        if reason := self._refusal(standing, now_ms):
            return reason
        return LeftOut.BEFORE_CONSENT if appended < standing.since else None

    def may_export(
        self, standing: ConsentStanding | None, purposes_then: Collection[str], appended: int, now_ms: int
    ) -> LeftOut | None:
        """As :meth:`why_left_out`, for an event that was accepted under a consent to `purposes_then`."""
        reason = self.why_left_out(standing, appended, now_ms)
        if reason is None and self.purpose not in purposes_then:
            return LeftOut.NOT_GRANTED_THEN
        return reason

    def _refusal(self, standing: ConsentStanding, at_ms: int) -> LeftOut | None:
        if standing.erased:
            return LeftOut.ERASED
        if standing.level == Level.NONE and not standing.kept_for:
            return LeftOut.WITHDRAWN
        if 0 < standing.expires_at <= at_ms:
            return LeftOut.EXPIRED
        if standing.level == Level.SESSION:
            return LeftOut.SESSION_ONLY
        return None if standing.purposes & self._bit else LeftOut.NOT_GRANTED_NOW


def exported(event: CleanEvent, appended: int, name: str, hashes: ExportHashes) -> ExportedEvent:
    """`event` as a row of an export, under its user's export pseudonym `name`.

    How its item came into its list was recorded to measure, and is exported for nothing else.
    """
    drawn = event.exploration if hashes.purpose == "measure" else None
    return ExportedEvent(
        name,
        event.type,
        event.ts,
        appended,
        event.item_id,
        None if event.session is None else hashes.again("session", event.session),
        None if event.request is None else hashes.again("request", event.request),
        event.position,
        event.value,
        event.currency,
        event.quantity,
        event.surface,
        event.scroll_pct,
        event.dwell_ms,
        event.context,
        event.schema_v,
        *((None, None, None, None) if drawn is None else (drawn.slot, drawn.propensity, [*drawn.pool], drawn.at)),
    )
