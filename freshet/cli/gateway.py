"""`freshet gateway`: recommendations over HTTP."""

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, cast

import typer

from freshet.cli.shape import command, group, in_existing_folder, print_json

app = group("gateway", "Serve recommendations over HTTP.")


class RoleName(StrEnum):
    """The roles of :mod:`serving.gateway.roles`, which is not imported for help; a test compares the two."""

    FRONTEND = "frontend"
    PRODUCER = "producer"
    PRIVACY = "privacy"
    OPERATOR = "operator"
    ADMIN = "admin"


def _key_id(text: str) -> str:
    from schemas.audit import is_name
    from serving.gateway.security import KEY_ID_LENGTH_MAX

    if len(text) > KEY_ID_LENGTH_MAX or not is_name(text):
        raise typer.BadParameter(
            f"must have a visible character, at most {KEY_ID_LENGTH_MAX} characters, and no control characters",
            param_hint="--id",
        )
    return text


def _tenant(text: str) -> str:
    from serving.gateway.security import CLIENT_NAME_RULE, is_client_name

    if not is_client_name(text):
        raise typer.BadParameter(CLIENT_NAME_RULE, param_hint="--tenant")
    return text


def _days(text: str) -> float:
    from serving.gateway.api_keys import DAY_S

    try:
        days = float(text)
    except ValueError:
        days = 0
    if not 0 < days * DAY_S < math.inf:
        raise typer.BadParameter("must be a number of days above 0", param_hint="--days")
    return days


@command(app, "run", "freshet gateway run --settings gateway.toml")
def run(
    settings: Annotated[Path, typer.Option(metavar="FILE", help="The TOML file of the gateway.")],
) -> int:
    """Run the gateway until SIGTERM or Ctrl-C.

    `deploy/gateway.toml` is an example of the settings.
    """
    from serving.gateway.server import run as serve

    return serve(settings)


@command(
    app, "new-api-key", "freshet gateway new-api-key --file api-keys.json --id shop --role frontend --role producer"
)
def new_api_key(
    file: Annotated[
        Path,
        typer.Option(metavar="FILE", callback=in_existing_folder, help="The file of API keys; created if missing."),
    ],
    id: Annotated[str, typer.Option(parser=_key_id, metavar="<str>", help="Name of the key in limits and logs.")],
    role: Annotated[list[RoleName], typer.Option(help="A role of the key. Several may be given.")],
    tenant: Annotated[
        str, typer.Option(parser=_tenant, metavar="<str>", help="The tenant whose lists it reads.")
    ] = "default",
    days: Annotated[
        float | None, typer.Option(parser=_days, metavar="<float>", help="Days until the key expires; default: never.")
    ] = None,
) -> None:
    """Create an API key, print it once, and store its hash in the file.

    A running gateway reloads the file by itself.
    """
    from serving.gateway.api_keys import add_api_key
    from serving.gateway.roles import Role

    print(add_api_key(file, id, cast("tuple[Role, ...]", tuple(one.value for one in role)), tenant, days))


@command(app, "openapi", "freshet gateway openapi")
def openapi() -> None:
    """Print the OpenAPI document."""
    from serving.gateway.app import documented_api

    print_json(documented_api().openapi())
