"""Commands to the running job, as JSON in `control`. State is changed only through topics.

Responses are written to `receipts`; a person's data are written to `answers`, which keeps them for an hour.

The field `kind` distinguishes the commands. Commands for all users are sent once per bucket; those for one user contain
the raw user id, which ingest pseudonymises like all others.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from schemas.audit import KeyChange, VisibleName
from schemas.events import UserId

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


Command = AccountCommand | KidsCommand | KeyCommand
UserCommand = RelinkCommand | AccessCommand | ReadsCommand
