"""The jar of the operators that run in Java (`jobs/java`): it travels with the job, as the sources in Python do.

`make setup` builds it. It says from which sources, so that a job is never submitted with the jar of another release.
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
"""Its place in the package `jobs`, in a checkout and in what is submitted."""
SOURCES: Final = "Freshet-Sources"
"""The line of the manifest that has :func:`sources_digest`."""
_extracted: Final = ExitStack()
atexit.register(_extracted.close)


def sources_digest() -> str:
    """The digest of the sources of the jar, as they lie there now."""
    return digest(("jobs",), (".java",))


@cache
def operators_jar() -> Path:
    """The jar, a file until this process ends. Raises :class:`SettingsError` where it is not of this release."""
    jar = files("jobs").joinpath(*NAME.split("/"))
    if not jar.is_file():
        raise SettingsError(
            f"the operators in Java are not built: `make setup` builds jobs/{NAME}, and `freshet submit` packs it"
        )
    path = _extracted.enter_context(as_file(jar))
    check_sources(path)
    return path


def check_sources(jar: Path) -> None:
    """Raise :class:`SettingsError` where `jar` was not built from the sources that lie here."""
    built_from, own = _digest_in(jar), sources_digest()
    if built_from != own:
        raise SettingsError(
            f"jobs/{NAME} was built from other sources ({built_from}) than those of this release ({own}): "
            "remove it and run `make setup`"
        )


def _digest_in(jar: Path) -> str:
    """The digest of the sources that `jar` was built from; `unknown` where it does not say."""
    try:
        with zipfile.ZipFile(jar) as archive:
            manifest = BytesParser().parsebytes(archive.read("META-INF/MANIFEST.MF"))
    except (KeyError, zipfile.BadZipFile):
        return "unknown"
    return str(manifest.get(SOURCES, "unknown"))
