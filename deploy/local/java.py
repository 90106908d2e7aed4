"""Start Java so that it starts soon: with an archive of the classes that a part loads.

Loading and checking some ten thousand classes is most of what a starting broker or TaskManager does. `make warm`
records them for each part (deploy/local/record_classes.py); where there is no archive, or Java finds that it does not
fit, everything works the same and takes longer to start.
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
"""For every process of the stack: Java reads its arguments and the names of files in the encoding of the locale."""

# Upper and lower case are those of English: in Turkish, `classic` in capitals is `CLASSİC`, which Kafka does not know.
_LOCALE = ("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8")


@dataclass(frozen=True)
class Java:
    """Java command lines. temporary is where the processes put what they would leave in /tmp."""

    temporary: Path
    records_classes: bool = False

    def command(self, role: str, classpath: Sequence[Path], options: Sequence[str], words: Sequence[str]) -> list[str]:
        """`java <options> -cp <classpath> <words>`; role (kafka, client and so on) names the archive."""
        executable = shutil.which("java")
        if executable is None:
            raise StackError("java is not on PATH; install Java 17")
        archive = CACHE / f"classes-{role}-{_fingerprint(Path(executable), classpath)}.jsa"
        sharing: list[str] = []
        if self.records_classes:
            archive.parent.mkdir(parents=True, exist_ok=True)
            sharing = [f"-XX:ArchiveClassesAtExit={archive}.draft"]
        elif archive.exists():
            # -Xlog: an archive that does not fit is no news for the log of a part.
            sharing = [f"-XX:SharedArchiveFile={archive}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"]
        path = ":".join(str(jar) for jar in classpath)
        return [executable, *sharing, *_LOCALE, f"-Djava.io.tmpdir={self.temporary}", *options, "-cp", path, *words]


def keep_recorded() -> int:
    """Put the archives that ended processes have written in place; says how many."""
    drafts = list(CACHE.glob("classes-*.jsa.draft"))
    for draft in drafts:
        draft.replace(draft.with_suffix(""))
    return len(drafts)


def _fingerprint(executable: Path, classpath: Sequence[Path]) -> str:
    files = [executable.resolve(), *classpath]
    facts = [[str(file), (stat := file.stat()).st_size, stat.st_mtime_ns] for file in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
