"""The names of model versions: `name/sha256`, with the digest of `model.onnx`, and two that need no files.

`default` is the model that the job's settings name. `online` is the model that learns in the stream.
"""

import re
from typing import Final, NamedTuple

DEFAULT: Final = "default"
ONLINE: Final = "online"
SHORT_DIGITS: Final = 12
"""How many digits of the digest lists contain."""
VERSION_PATTERN: Final = r"^(default|online|[a-z0-9][a-z0-9._-]{0,127}/[0-9a-f]{64})$(?!\n)"
_FILED: Final = re.compile("([a-z0-9][a-z0-9._-]{0,127})/([0-9a-f]{64})")


class Version(NamedTuple):
    """A version with files: the name of the model, and the SHA-256 of its graph in lower-case hex.

    >>> str(Version("shop", "ab" * 32)) == "shop/" + "ab" * 32
    True
    >>> Version("shop", "ab" * 32).short
    'shop/abababababab'
    """

    name: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}/{self.sha256}"

    @property
    def short(self) -> str:
        """As lists contain it."""
        return f"{self.name}/{self.sha256[:SHORT_DIGITS]}"


def parse_version(text: str) -> Version | None:
    """The version that `text` names in full; None if it does not.

    >>> parse_version("shop/" + "ab" * 32) == Version("shop", "ab" * 32), parse_version("shop/abab")
    (True, None)
    """
    found = _FILED.fullmatch(text)
    return None if found is None else Version(*found.groups())


def shortened(version: str) -> str:
    """A version as people read it.

    >>> shortened("shop/" + "ab" * 32), shortened("online")
    ('shop/abababababab', 'online')
    """
    parsed = parse_version(version)
    return version if parsed is None else parsed.short
