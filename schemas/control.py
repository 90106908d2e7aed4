"""Commands to the running job, as JSON in `control`. State is changed only through topics.

Responses are written to `receipts`; a person's data are written to `answers`, which keeps them for an hour.

The field `kind` distinguishes the commands. Commands for all users are sent once per bucket; those for one user contain
the raw user id, which ingest pseudonymises like all others.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from schemas.audit import KeyChange, VisibleName
from schemas.decoding import SLUG_PATTERN
from schemas.events import UserId
from schemas.model_versions import VERSION_PATTERN

UNNAMED: Final = "unnamed"
Bucket = Annotated[int, Meta(ge=0, lt=4096)]
Count = Annotated[int, Meta(ge=0, lt=2**53)]
"""Limited to what MessagePack, JSON and Lua can represent: a value that cannot be packed would fail the job
repeatedly."""
Request = Annotated[str, Meta(min_length=1, max_length=64)]
"""Chosen by the sender; the response contains it."""


class BucketCommand(msgspec.Struct, frozen=True, gc=False, tag_field="kind"):
    """A command to one bucket."""

    bucket: Bucket
    request: Request


class AccountCommand(BucketCommand, tag="account", frozen=True, gc=False):
    """Report the totals of the bucket."""


class KidsCommand(BucketCommand, tag="kids", frozen=True, gc=False):
    """Report the number of users under each key id."""


class RelinkCommand(msgspec.Struct, tag="relink", tag_field="kind", frozen=True, gc=False):
    """Move a user's data to their current pseudonym, unless already done. There is no response."""

    user_id: UserId


class AccessCommand(msgspec.Struct, tag="access", tag_field="kind", frozen=True, gc=False):
    """Report all data kept of a user, for their right of access. It is recorded in the audit trail."""

    user_id: UserId
    request: Request
    role: VisibleName = UNNAMED
    purpose: VisibleName = UNNAMED


class ReadsCommand(msgspec.Struct, tag="reads", tag_field="kind", frozen=True, gc=False):
    """Record in the audit trail that data were read `reads` times: those of `user_id`, or else those of many users."""

    role: VisibleName
    purpose: VisibleName
    what: VisibleName
    reads: Annotated[int, Meta(ge=1, lt=2**53)] = 1
    user_id: UserId | None = None


class KeyCommand(BucketCommand, tag="key", frozen=True, gc=False):
    """Record an event of the key ring in the audit trail. There is no response."""

    change: KeyChange
    kid: Count
    users: Count


WHOLE: Final = 10_000
"""All users, in the unit of shares: hundredths of a percent."""
Share = Annotated[int, Meta(ge=0, le=WHOLE)]
ModelVersion = Annotated[str, Meta(pattern=VERSION_PATTERN)]
Slug = Annotated[str, Meta(pattern=SLUG_PATTERN)]
ARMS_MAX: Final = 4
ModelAction = Literal["load", "activate", "canary", "arms", "shadow", "end", "rollback", "status"]


class Arm(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A share of the users, who get their lists from `version`; lists contain the arm's `name`."""

    name: Slug
    version: ModelVersion
    share: Share


class ModelCommand(BucketCommand, tag="model", frozen=True, gc=False):
    """A step of a roll-out (:mod:`udfs.rollout`), answered by :class:`schemas.receipts.ModelReceipt`.

    `version` is for `load` and `activate`, `arms` and `experiment` for `canary` and `arms`: no arms end an experiment.
    The experiment's name decides which users are in which arm. `shadow` has `version` rank beside the active one, for
    `share` of the users, in `experiment`; without a share it ends. `end` ends the shadow or the arms of `experiment`,
    and nothing else. `offset` is the command's in `control`: ingest sets it,
    whatever the sender wrote.
    """

    action: ModelAction
    version: ModelVersion = "default"
    arms: Annotated[tuple[Arm, ...], Meta(max_length=ARMS_MAX)] = ()
    experiment: Slug | None = None
    offset: int = -1
    share: Share = 0


class RelearnCommand(BucketCommand, tag="relearn", frozen=True, gc=False):
    """Replace what the online model has learned by the state in Redis under `request`; see `schemas.store`."""


Command = AccountCommand | KidsCommand | KeyCommand | ModelCommand | RelearnCommand
UserCommand = RelinkCommand | AccessCommand | ReadsCommand
