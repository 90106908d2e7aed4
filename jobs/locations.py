"""File locations as Flink writes and reads them.

Flink's `Path` does the escaping, so `file:///my%20shop` names the folder `my%20shop`: pass and read paths unescaped.
`Path.as_uri` escapes, and is for readers of URIs such as Log4j.
"""

from pathlib import Path
from typing import Final

_SCHEME: Final = "file:"


def location_of(path: Path) -> str:
    """The location to give Flink for `path`, which is absolute and has no backslash (Flink reads it as a slash).

    >>> location_of(Path("/srv/my shop (50%)/checkpoints"))
    'file:///srv/my shop (50%)/checkpoints'
    """
    return f"{_SCHEME}//{path}"


def path_of(location: str) -> Path:
    """The path of a location reported by Flink, however many slashes it starts with.

    >>> path_of("file:/srv/my shop (50%)/savepoint-1").as_posix()
    '/srv/my shop (50%)/savepoint-1'
    """
    rest = location.removeprefix(_SCHEME)
    return Path("/" + rest.lstrip("/")) if rest.startswith("/") else Path(rest)
