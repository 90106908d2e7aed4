"""Commands to the running job. Topics are the only way into state; answers leave on `receipts`."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Command(msgspec.Struct, frozen=True, gc=False):
    """A command for one bucket; commands for all are sent once for each bucket.

    `account` answers with the bucket's account; `states` answers with the state of each of its users.
    """

    kind: Literal["account", "states"]
    bucket: Annotated[int, Meta(ge=0, lt=4096)]
    request: Annotated[str, Meta(min_length=1, max_length=64)]
