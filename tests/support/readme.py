"""Commands as the README prints them, so that what is printed is what is tested."""

from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def shell_line(beginning: str) -> str:
    """The command that begins so, continued lines joined, the comment left out."""
    text = README.read_text().replace("\\\n", " ")
    [line] = [line for line in text.splitlines() if line.startswith(beginning)]
    return line.partition("#")[0]


def job_rights() -> list[str]:
    """The commands that the README allows the job's user in Redis."""
    [line] = [line for line in README.read_text().splitlines() if "`~<prefix>* " in line]
    return line.partition("`~<prefix>* ")[2].partition("`")[0].split()
