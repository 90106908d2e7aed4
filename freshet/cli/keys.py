"""`freshet keys`: creates keys, each in a file that only its owner may read."""

from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.shape import command, group, in_existing_folder

app = group("keys", "Create the keys of a deployment. Existing files are never overwritten.")


def _named_file(path: Path) -> Path:
    """Validate the file of a key: neither a folder, as an empty name would be, nor standard output."""
    if str(path) == "-" or path.is_dir():
        raise typer.BadParameter("name a file: a key is never printed, and cannot replace a folder")
    in_existing_folder(path)
    return path


NewFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", callback=_named_file, help="The file to write; must not exist yet."),
]


@command(app, "new-key-ring", "freshet keys new-key-ring key-ring.json")
def new_key_ring(file: NewFile) -> None:
    """Create the key ring behind pseudonyms.

    Name it in the tenant file (key_ring), which job and gateways read. To change the key later, see `freshet rotate
    --help`.
    """
    from adapters.secrets.key_rings import new_key_ring as new
    from adapters.secrets.key_rings import write_key_ring

    write_key_ring(new(), file)
    print(f"wrote {file}; copy it to every worker, frontend and gateway, and nowhere else")


@command(app, "new-signing-key", "freshet keys new-signing-key signing-key")
def new_signing_key(file: NewFile) -> None:
    """Create the key that signs the audit trail.

    Name it in the job's settings (audit.signing_key).
    """
    from adapters.secrets.signing_keys import write_signing_key

    write_signing_key(file)
    print(f"wrote {file}; copy it to every worker and nowhere else")
