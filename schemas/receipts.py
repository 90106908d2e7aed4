"""Receipts: what the job did, as JSON in the `receipts` topic, at least once. The tag `kind` distinguishes them."""

from typing import Literal

import msgspec

from schemas.control import Arm
from schemas.lists import UserReason
from schemas.model_versions import DEFAULT


class ListReceipt(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One list write: `outcome` is written, stale, no_consent or gone; `event_at` the append time that caused it.

    `model` is the name of the model that made the list, "" in receipts of releases that named it only per element.
    """

    pseudonym: str
    version: int
    reason: UserReason
    outcome: str
    event_at: int
    model: str = ""


class AccountTotals(msgspec.Struct, frozen=True):
    """Totals of a bucket since its state began; they count interactions unless the name says otherwise."""

    sent: int
    accepted: int
    duplicates: int
    denied: int
    rejected: dict[str, int]
    consents_applied: int
    consents_replayed: int
    others_rejected: int
    unknown_fields: int
    consents_refused: int = 0
    segments_left_out: int = 0
    ignored: int = 0
    extra: int = 0


class ElementReceipt(msgspec.Struct, tag="element", tag_field="kind", frozen=True, omit_defaults=True):
    """All effects of one element or one timer in `bucket`: its list writes, and the bucket's totals after it.

    `model` is the name of the model that the bucket serves; each list names the one that made it. During an experiment,
    `arms` are those of `lists`, "" for a user who is in none; otherwise it is empty.
    """

    bucket: int
    epoch: int
    at: int
    model: str
    lists: list[ListReceipt]
    account: AccountTotals
    arms: list[str] = []


class ConsentReceipt(msgspec.Struct, tag="consent", tag_field="kind", frozen=True):
    """The outcome of a consent change whose append time is `consent_at`.

    `outcome` is in_force (from now on state and Redis follow it), stale (Redis knows a later one, which the job is
    about to read) or refused (a grant given or appended no later than the last withdrawal). With `erased`, the user has
    been erased.
    """

    pseudonym: str
    level: str
    version: int
    consent_at: int
    partition: int
    offset: int
    outcome: str
    at: int
    erased: bool = False


class AccountReceipt(msgspec.Struct, tag="account", tag_field="kind", frozen=True):
    """The response of one bucket to the command `account`."""

    request: str
    bucket: int
    account: AccountTotals


class KidsReceipt(msgspec.Struct, tag="kids", tag_field="kind", frozen=True):
    """The number of users in `bucket` under each key id, in response to the command `kids`."""

    request: str
    bucket: int
    users: dict[str, int]


ErasureStatus = Literal["effective", "complete", "incomplete", "returned", "not_proved"]


class ErasureReceipt(msgspec.Struct, tag="erasure", tag_field="kind", frozen=True):
    """The result of verifying an erasure (`freshet erase verify`); only the first two results are written.

    effective: nothing is left in state, lists, consent view and clean events; complete: nor in any older snapshot, nor
    in raw interactions; incomplete: `missing` says what is left; returned: the user has consented again since, and
    nothing is left from before; not_proved: the search did not find what was `planted`. `found` counts by place,
    `ends_by` is when (ms) retention will have deleted what is counted there.
    """

    pseudonym: str
    status: ErasureStatus
    erased_at: int
    checked_at: int
    found: dict[str, int]
    ends_by: dict[str, int]
    missing: list[str]
    planted: bool


ModelOutcome = Literal["done", "loaded", "refused", "fell_back"]


class ModelReceipt(msgspec.Struct, tag="model", tag_field="kind", frozen=True, omit_defaults=True):
    """The answer of `bucket` to a step of a roll-out, and what it serves then.

    `fell_back` answers no request: `version` failed, could not be loaded after a restore, or is not in this release;
    `reason` says which. `active` makes the lists of all users who are in no arm; `previous` is what `rollback`
    returns to; of these, the arms and the loaded candidates, `warm` can make lists at once.
    """

    request: str
    bucket: int
    action: str
    version: str
    outcome: ModelOutcome
    at: int
    reason: str = ""
    active: str = DEFAULT
    previous: str = ""
    experiment: str = ""
    arms: tuple[Arm, ...] = ()
    warm: tuple[str, ...] = ()
    default: str = ""
    shadow: str = ""
    shadow_share: int = 0
    shadow_experiment: str = ""


TrialVerdict = Literal["undecided", "worse", "better"]


class TrialReceipt(msgspec.Struct, tag="trial", tag_field="kind", frozen=True):
    """What is known of `other`, which ranks in shadow or in a canary beside the active model `served`.

    `lists` were ranked by both. `served_gain` is the mean gain (nDCG@10) of the active model, `difference` how much
    higher that of the other is, between `low` and `high`. One that is `worse` is rolled back.
    """

    experiment: str
    served: str
    other: str
    lists: int
    served_gain: float
    difference: float
    low: float
    high: float
    verdict: TrialVerdict
    at: int


Drifted = Literal[
    "ctr", "precision_at_5", "precision_at_10", "recall_at_5", "recall_at_10", "kinds", "history", "unknown"
]


class DriftReceipt(msgspec.Struct, tag="drift", tag_field="kind", frozen=True):
    """Something has drifted.

    `what` is a rate of a model and arm, which has fallen from `before` to `now` (in the last minute): ctr, the
    click-through rate, or precision or recall at k. Or it is what shares of events have changed by: kinds, their type;
    history, the length of the user's history; unknown, whether `model` knows the item. `before` is then the limit,
    `now` the population stability index.
    """

    what: Drifted
    model: str
    arm: str
    before: float
    now: float
    at: int


Receipt = (
    ElementReceipt
    | ConsentReceipt
    | AccountReceipt
    | KidsReceipt
    | ErasureReceipt
    | ModelReceipt
    | TrialReceipt
    | DriftReceipt
)

_encoder = msgspec.json.Encoder()
_decoder: "msgspec.json.Decoder[Receipt]" = msgspec.json.Decoder(Receipt)


def encode_receipt(receipt: Receipt) -> bytes:
    """The JSON of `receipt`."""
    return _encoder.encode(receipt)


def decode_receipt(raw: bytes) -> Receipt:
    """The receipt in `raw`. Raises :class:`msgspec.DecodeError`."""
    return _decoder.decode(raw)
