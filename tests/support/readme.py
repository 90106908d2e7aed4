"""Commands as the README prints them, so that what is printed is what is tested."""

from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def shell_line(beginning: str) -> str:
    """The command that begins so, continued lines joined, the comment left out."""
    text = README.read_text().replace("\\\n", " ")
    [line] = [line for line in text.splitlines() if line.startswith(beginning)]
    return line.partition("#")[0]


def redis_rights(before: str) -> list[str]:
    """The commands that the README allows a user in Redis, behind the words `before`."""
    text = " ".join(README.read_text().split())
    return text.partition(f"{before} `~<prefix>* ")[2].partition("`")[0].split()


def job_rights() -> list[str]:
    """Those of the job's user."""
    return redis_rights("The job's user in Redis needs")
