"""`python -m freshet`: the command, where it is not installed."""

if __name__ == "__main__":  # the gateway's workers import this, too
    from freshet.cli.main import main

    main()
