"""`freshet keys`: new keys, each in a file that only its owner may read."""

from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.shape import command, group, in_a_folder

app = group("keys", "Make the keys of a deployment. A file that is there is never overwritten.")
NewFile = Annotated[
    Path, typer.Argument(metavar="FILE", callback=in_a_folder, help="The file to write; not there yet.")
]


@command(app, "new-key-ring", "freshet keys new-key-ring key-ring.json")
def new_key_ring(file: NewFile) -> None:
    """Create the key ring behind pseudonyms.

    Name it in the tenant file (key_ring), which job and gateways read. To change the key later, see
    `freshet rotate --help`.
    """
    from adapters.secrets.key_rings import new_key_ring as new
    from adapters.secrets.key_rings import write_key_ring

    write_key_ring(new(), file)
    print(f"wrote {file}; bring it to every worker, frontend and gateway, and nowhere else")


@command(app, "new-signing-key", "freshet keys new-signing-key signing-key")
def new_signing_key(file: NewFile) -> None:
    """Create the key that signs the audit trail.

    Name it in the settings of the job (audit.signing_key).
    """
    from adapters.secrets.signing_keys import write_signing_key

    write_signing_key(file)
    print(f"wrote {file}; bring it to every worker and nowhere else")
