"""`freshet gateway`: lists over HTTP."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, cast

import typer

from freshet.cli.shape import command, group, print_json

app = group("gateway", "Serve lists over HTTP.")


class RoleName(StrEnum):
    """The roles of :mod:`serving.gateway.roles`, which help does not import; a test compares the two."""

    FRONTEND = "frontend"
    PRODUCER = "producer"
    PRIVACY = "privacy"
    OPERATOR = "operator"
    ADMIN = "admin"


@command(app, "run", "freshet gateway run --settings gateway.toml")
def run(
    settings: Annotated[Path, typer.Option(metavar="FILE", help="The TOML file of the gateway.")],
) -> int:
    """Serve until told to end (SIGTERM, Ctrl-C).

    `deploy/gateway.toml` is an example of the settings.
    """
    from serving.gateway.server import run as serve

    return serve(settings)


@command(
    app, "new-api-key", "freshet gateway new-api-key --file api-keys.json --id shop --role frontend --role producer"
)
def new_api_key(
    file: Annotated[Path, typer.Option(metavar="FILE", help="The file of API keys; made where it is not there.")],
    id: Annotated[str, typer.Option(help="How limits and logs call the key.")],
    role: Annotated[list[RoleName], typer.Option(help="What the key may do. Several may be given.")],
    tenant: Annotated[str, typer.Option(help="Whose lists it reads.")] = "default",
    days: Annotated[float | None, typer.Option(help="Until it expires; left out: it does not.")] = None,
) -> None:
    """Make an API key, print it once, and keep its hash in the file.

    A running gateway reads the file again by itself.
    """
    from serving.gateway.api_keys import add_api_key
    from serving.gateway.roles import Role

    print(add_api_key(file, id, cast("tuple[Role, ...]", tuple(one.value for one in role)), tenant, days))


@command(app, "openapi", "freshet gateway openapi")
def openapi() -> None:
    """Print the OpenAPI document."""
    from serving.gateway.app import documented_api

    print_json(documented_api().openapi())
