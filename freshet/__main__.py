"""`python -m freshet`: the command, where it is not installed."""

from freshet.cli.main import main

main()
