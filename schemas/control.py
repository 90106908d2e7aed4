"""Commands to the running job, JSON in `control`. Topics are the only way into state; answers leave on `receipts`.

The field `kind` tells them apart. Commands for all users are sent once for each bucket; those for one user name the raw
user id, which ingest pseudonymises like everything else.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from schemas.events import UserId

Bucket = Annotated[int, Meta(ge=0, lt=4096)]
Request = Annotated[str, Meta(min_length=1, max_length=64)]
"""Chosen by who asks; the answer carries it."""


class BucketCommand(msgspec.Struct, frozen=True, gc=False, tag_field="kind"):
    """What is asked of one bucket."""

    bucket: Bucket
    request: Request


class AccountCommand(BucketCommand, tag="account", frozen=True, gc=False):
    """Answer with the bucket's account."""


class StatesCommand(BucketCommand, tag="states", frozen=True, gc=False):
    """Answer with the state of each user of the bucket."""


class KidsCommand(BucketCommand, tag="kids", frozen=True, gc=False):
    """Answer how many users are known under each key id."""


class RelinkCommand(msgspec.Struct, tag="relink", tag_field="kind", frozen=True, gc=False):
    """Move what is kept of a user to their current pseudonym, if that has not happened yet. There is no answer."""

    user_id: UserId


Command = AccountCommand | StatesCommand | KidsCommand
UserCommand = RelinkCommand
