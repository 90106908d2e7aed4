"""All documentation pages that are generated from code, and their paths."""

from pathlib import Path
from typing import Final

from deploy.documentation.commands_page import commands_page
from deploy.documentation.decisions import decisions_page
from deploy.documentation.guarantees import guarantees_page, promise_tests, read_promises
from deploy.documentation.http_page import http_page
from deploy.documentation.metrics_page import metrics_page
from deploy.documentation.settings_pages import GATEWAY, JOB, TENANT, settings_page

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
_GENERATED: Final = "<!-- Written by `python -m deploy.documentation`: change its source, not this file. -->\n\n"


def generated_pages() -> dict[str, str]:
    """The path below `docs/` of each page, and its text."""
    guarantees = guarantees_page(read_promises(DOCS / "promises.toml"), promise_tests(ROOT / "tests"))
    pages = {
        "start/commands.md": commands_page(),
        "data-engineers/settings.md": settings_page(JOB),
        "data-engineers/tenant-settings.md": settings_page(TENANT),
        "data-engineers/gateway-settings.md": settings_page(GATEWAY),
        "data-engineers/metrics.md": metrics_page(),
        "frontend/http-api.md": http_page(),
        "privacy/guarantees.md": guarantees,
        "internals/decisions/index.md": decisions_page(DOCS / "internals" / "decisions"),
    }
    return {name: _GENERATED + text for name, text in pages.items()}
