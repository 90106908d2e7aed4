"""File locations as Flink writes and reads them.

Flink's `Path` escapes what it is given, so `file:///my%20shop` names the folder `my%20shop`: a path goes in as it is,
and comes out as it is. `Path.as_uri` escapes, and is for those who read URIs, such as Log4j.
"""

from pathlib import Path
from typing import Final

_SCHEME: Final = "file:"


def location_of(path: Path) -> str:
    """What Flink must be given to use `path`, which is absolute and has no backslash (Flink takes it for a slash).

    >>> location_of(Path("/srv/my shop (50%)/checkpoints"))
    'file:///srv/my shop (50%)/checkpoints'
    """
    return f"{_SCHEME}//{path}"


def path_of(location: str) -> Path:
    """The path behind a location that Flink tells, with as many slashes as it likes.

    >>> path_of("file:/srv/my shop (50%)/savepoint-1").as_posix()
    '/srv/my shop (50%)/savepoint-1'
    """
    rest = location.removeprefix(_SCHEME)
    return Path("/" + rest.lstrip("/")) if rest.startswith("/") else Path(rest)
