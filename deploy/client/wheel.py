"""Builds the client library as the wheel `freshet-client`.

Builds are reproducible: the same sources give the same bytes. The versions pinned in `serving/requirements*.txt` are
the minimum versions; the next major version of each library is excluded.
"""

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Final

from deploy.client.sources import ROOT, client_modules, client_sources, third_party
from deploy.client.wheel_errors import WheelError
from deploy.package import write_archive
from freshet import PUBLIC, __version__

NAME: Final = "freshet-client"
DEFAULT_FOLDER: Final = ROOT / ".local" / "dist"
README: Final = ROOT / "serving" / "README.md"
EXTRAS: Final = {
    "": "serving/requirements.txt",
    "kafka": "serving/requirements-kafka.txt",
    "formats": "serving/requirements-formats.txt",
}
"""Extra → its requirements file. The requirements of "" are always installed."""
_PIN: Final = re.compile(r"^([A-Za-z0-9_.-]+)==((\d+)\S*)$")
_WHEEL: Final = "Wheel-Version: 1.0\nGenerator: freshet\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def build_wheel(folder: Path = DEFAULT_FOLDER, root: Path = ROOT) -> Path:
    """Write the wheel into `folder` and return its path. Raises :class:`WheelError`."""
    check_declared(root)
    distribution = f"{NAME.replace('-', '_')}-{__version__}"
    information = f"{distribution}.dist-info"
    files = {name: text.encode() for name, text in client_sources(root, PUBLIC).items()}
    files |= {
        "freshet/py.typed": b"",
        f"{information}/METADATA": metadata(root).encode(),
        f"{information}/WHEEL": _WHEEL.encode(),
        f"{information}/licenses/LICENSE": (root / "LICENSE").read_bytes(),
    }
    record = f"{information}/RECORD"
    files[record] = "".join(_recorded(files, record)).encode()
    return write_archive(folder / f"{distribution}-py3-none-any.whl", files)


def check_declared(root: Path) -> None:
    """Raise :class:`WheelError` if a module imports a package that no requirements file of :data:`EXTRAS` lists."""
    declared = {canonical(name) for extra in EXTRAS for name, _ in pins(root, extra)}
    origin = packages_distributions()
    for name in sorted(third_party(root, client_modules(root, PUBLIC).values())):
        if declared.isdisjoint(canonical(one) for one in origin.get(name, ())):
            raise WheelError(f"the client library imports {name}, which none of {', '.join(EXTRAS.values())} names")


def canonical(name: str) -> str:
    """The normalised name of a distribution, for comparisons."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(root: Path, extra: str) -> Iterator[tuple[str, str]]:
    """The requirements of `extra` itself: names and version ranges.

    Raises :class:`WheelError` for a line that is not a pin.
    """
    for line in (root / EXTRAS[extra]).read_text().splitlines():
        if line.startswith(("#", "-r ")) or not line:
            continue
        pinned = _PIN.match(line)
        if pinned is None:
            raise WheelError(f"{EXTRAS[extra]}: `{line}` is not a pin (name==version)")
        yield pinned[1], f">={pinned[2]},<{int(pinned[3]) + 1}"


def metadata(root: Path) -> str:
    """The METADATA of the wheel (core metadata 2.4)."""
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {NAME}",
        f"Version: {__version__}",
        "Summary: Client of Freshet: read recommendations, send interactions, record consents.",
        "License-Expression: Apache-2.0",
        "License-File: LICENSE",
        "Requires-Python: >=3.11",
        "Classifier: Typing :: Typed",
    ]
    for extra in EXTRAS:
        marker = f' ; extra == "{extra}"' if extra else ""
        lines += [f"Provides-Extra: {extra}"] if extra else []
        lines += [f"Requires-Dist: {name}{versions}{marker}" for name, versions in pins(root, extra)]
    lines += ["Description-Content-Type: text/markdown", "", README.read_text()]
    return "\n".join(lines)


def _recorded(files: dict[str, bytes], record: str) -> Iterator[str]:
    for name, content in sorted(files.items()):
        digest = urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        yield f"{name},sha256={digest},{len(content)}\n"
    yield f"{record},,\n"
