"""`freshet logs`: finds what the logs say of a request."""

from typing import Annotated

import typer

from freshet.cli.shape import SettingsFile, command, group

app = group("logs", "Find a request in the logs.")


@command(app, "request-id", "freshet logs request-id --settings freshet.toml 7f3a9c2e-1b6d-4b0a-9a51-0c9e6d1f2a44")
def request_id(
    settings: SettingsFile,
    request: Annotated[str, typer.Argument(metavar="ID", help="The X-Request-Id, or the request_id of an event.")],
) -> None:
    """Print what the logs have in place of a request id.

    Logs contain no raw ids. The field `http.request.id` has the keyed hash of the header X-Request-Id, and
    `freshet.request_id` that of the `request_id` of an event, which exports from the topic `events` have, too.
    """
    from adapters.secrets.key_rings import load_key_ring
    from jobs.settings import load_settings
    from schemas.pseudonyms import Pseudonymiser

    ring = load_key_ring(load_settings(settings).privacy.key_ring)
    print(Pseudonymiser(ring).request(request).hex())
