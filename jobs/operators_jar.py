"""The jar of the Java operators (`jobs/java`), which travels with the job like the Python sources.

`make setup` builds it. It records the digest of its sources, so that a job is never submitted with another release's
jar.
"""

import atexit
import zipfile
from contextlib import ExitStack
from email.parser import BytesParser
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from jobs.release import digest
from schemas.errors import SettingsError

NAME: Final = "java/target/freshet-operators.jar"
"""Its path in the package `jobs`, in a checkout and in the submitted archive."""
SOURCES: Final = "Freshet-Sources"
"""The manifest attribute that holds :func:`sources_digest`."""
_extracted: Final = ExitStack()
atexit.register(_extracted.close)


def sources_digest() -> str:
    """The digest of the jar's sources as they are on disk now."""
    return digest(("jobs",), (".java",))


@cache
def operators_jar() -> Path:
    """The jar, as a file until this process ends. Raises :class:`SettingsError` if another release built it."""
    jar = files("jobs").joinpath(*NAME.split("/"))
    if not jar.is_file():
        raise SettingsError(
            f"the operators in Java are not built: `make setup` builds jobs/{NAME}, and `freshet submit` packs it"
        )
    path = _extracted.enter_context(as_file(jar))
    check_sources(path)
    return path


def check_sources(jar: Path) -> None:
    """Raise :class:`SettingsError` unless `jar` was built from the sources on disk."""
    built_from, own = _digest_in(jar), sources_digest()
    if built_from != own:
        raise SettingsError(
            f"jobs/{NAME} was built from other sources ({built_from}) than those of this release ({own}): "
            "remove it and run `make setup`"
        )


def _digest_in(jar: Path) -> str:
    """The digest of the sources that `jar` was built from; `unknown` if it records none."""
    try:
        with zipfile.ZipFile(jar) as archive:
            manifest = BytesParser().parsebytes(archive.read("META-INF/MANIFEST.MF"))
    except (KeyError, zipfile.BadZipFile):
        return "unknown"
    return str(manifest.get(SOURCES, "unknown"))
