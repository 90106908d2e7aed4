"""An environment as `python -m venv` makes it: empty, except for what a test installs.

Requirements come from the environment of the tests, without a network: for each distribution, exactly the requirements
in its own metadata are linked.
"""

import subprocess
import sys
import venv
from importlib.metadata import PathDistribution, distribution, requires
from pathlib import Path

from packaging.requirements import Requirement


class Environment:
    """An empty environment below `folder`."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=True, with_pip=False)
        self.python = folder / "bin" / "python"
        [self.site] = folder.glob("lib/python*/site-packages")
        self._linked: set[tuple[str, str]] = set()

    def install(self, wheel: Path, *extras: str) -> None:
        """Install `wheel` with pip, and what its metadata requires."""
        self.pip("install", "--no-index", "--no-deps", "--no-compile", str(wheel))
        [information] = self.site.glob(f"{wheel.name.partition('-')[0]}-*.dist-info")
        for line in PathDistribution(information).requires or ():
            self._link(Requirement(line), extras)

    def provide(self, *requirements: str) -> None:
        """Link distributions that the tests need into it."""
        for line in requirements:
            self._link(Requirement(line), ())

    def pip(self, *arguments: str) -> str:
        """Call pip for this environment."""
        return _checked(sys.executable, "-m", "pip", "--python", str(self.python), *arguments)

    def run(self, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
        """Run its Python in the folder `cwd`, with nothing of ours on its path."""
        return subprocess.run(
            [self.python, *arguments],
            cwd=cwd,
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )

    def _link(self, requirement: Requirement, extras: tuple[str, ...]) -> None:
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            return
        found = distribution(requirement.name)
        assert requirement.specifier.contains(found.version, prereleases=True), requirement
        if (wanted := (requirement.name, ",".join(sorted(requirement.extras)))) in self._linked:
            return
        self._linked.add(wanted)
        for entry in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (self.site / entry).exists():
                (self.site / entry).symlink_to(Path(str(found.locate_file(entry))))
        for line in requires(requirement.name) or ():
            self._link(Requirement(line), tuple(requirement.extras))


def _checked(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
