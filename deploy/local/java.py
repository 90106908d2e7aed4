"""Starts Java quickly, with a class-data archive of the classes that each part loads.

Loading and verifying some ten thousand classes takes most of the startup time of a broker or TaskManager. `make warm`
records them for each part (deploy/local/record_classes.py). Without an archive, or if Java finds that it does not
match, everything works the same but starts more slowly.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.paths import CACHE

ENVIRONMENT = {"LC_ALL": "C.UTF-8"}
"""For every process of the stack: Java decodes its arguments and file names with the encoding of the locale."""

# English rules for upper and lower case: in Turkish, `classic` in capitals is `CLASSİC`, which Kafka does not know.
_LOCALE = ("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8")


@dataclass(frozen=True)
class Java:
    """Builds Java command lines. `temporary` is the directory for temporary files instead of /tmp."""

    temporary: Path
    records_classes: bool = False

    def command(
        self,
        role: str,
        classpath: Sequence[Path],
        options: Sequence[str],
        words: Sequence[str],
        appended: Sequence[Path] = (),
    ) -> list[str]:
        """`java <options> -cp <classpath> <words>`; `role` (kafka, client and so on) selects the archive.

        Jars that are `appended` to the class path may differ from those with which the archive was recorded.
        """
        executable = shutil.which("java")
        if executable is None:
            raise StackError("java is not on PATH; install Java 17")
        archive = CACHE / f"classes-{role}-{_fingerprint(Path(executable), classpath)}.jsa"
        sharing: list[str] = []
        if self.records_classes:
            archive.parent.mkdir(parents=True, exist_ok=True)
            sharing = [f"-XX:ArchiveClassesAtExit={archive}.draft"]
        elif archive.exists():
            # -Xlog: the log of a part need not mention an archive that does not match.
            sharing = [f"-XX:SharedArchiveFile={archive}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"]
        path = ":".join(str(jar) for jar in (*classpath, *appended))
        return [executable, *sharing, *_LOCALE, f"-Djava.io.tmpdir={self.temporary}", *options, "-cp", path, *words]


def keep_recorded() -> int:
    """Move the archives written by ended processes into place; returns their number."""
    drafts = list(CACHE.glob("classes-*.jsa.draft"))
    for draft in drafts:
        draft.replace(draft.with_suffix(""))
    return len(drafts)


def _fingerprint(executable: Path, classpath: Sequence[Path]) -> str:
    files = [executable.resolve(), *classpath]
    facts = [[str(file), (stat := file.stat()).st_size, stat.st_mtime_ns] for file in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
