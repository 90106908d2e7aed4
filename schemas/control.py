"""Commands to the running job, JSON in `control`. Topics are the only way into state.

Answers leave on `receipts`; a person's data leaves on `answers`, which keeps it for an hour.

The field `kind` tells them apart. Commands for all users are sent once for each bucket; those for one user name the raw
user id, which ingest pseudonymises like everything else.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from schemas.audit import KeyChange, VisibleName
from schemas.events import UserId

UNNAMED: Final = "unnamed"
Bucket = Annotated[int, Meta(ge=0, lt=4096)]
Count = Annotated[int, Meta(ge=0, lt=2**53)]
"""No more than MessagePack, JSON and Lua can carry: what cannot be packed would end the job again and again."""
Request = Annotated[str, Meta(min_length=1, max_length=64)]
"""Chosen by who asks; the answer carries it."""


class BucketCommand(msgspec.Struct, frozen=True, gc=False, tag_field="kind"):
    """What is asked of one bucket."""

    bucket: Bucket
    request: Request


class AccountCommand(BucketCommand, tag="account", frozen=True, gc=False):
    """Answer with the bucket's account."""


class KidsCommand(BucketCommand, tag="kids", frozen=True, gc=False):
    """Answer how many users are known under each key id."""


class RelinkCommand(msgspec.Struct, tag="relink", tag_field="kind", frozen=True, gc=False):
    """Move what is kept of a user to their current pseudonym, if that has not happened yet. There is no answer."""

    user_id: UserId


class AccessCommand(msgspec.Struct, tag="access", tag_field="kind", frozen=True, gc=False):
    """Answer with all that is kept of a user, for their right of access. It goes into the audit trail."""

    user_id: UserId
    request: Request
    role: VisibleName = UNNAMED
    purpose: VisibleName = UNNAMED


class ReadsCommand(msgspec.Struct, tag="reads", tag_field="kind", frozen=True, gc=False):
    """Put into the audit trail that data was read `reads` times: that of `user_id`, or else that of many."""

    role: VisibleName
    purpose: VisibleName
    what: VisibleName
    reads: Annotated[int, Meta(ge=1, lt=2**53)] = 1
    user_id: UserId | None = None


class KeyCommand(BucketCommand, tag="key", frozen=True, gc=False):
    """Put into the audit trail what happened to the key ring. There is no answer."""

    change: KeyChange
    kid: Count
    users: Count


Command = AccountCommand | KidsCommand | KeyCommand
UserCommand = RelinkCommand | AccessCommand | ReadsCommand
