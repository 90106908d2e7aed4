"""`python -m freshet`: the command, if it is not installed."""

if __name__ == "__main__":  # the gateway's workers also import this module
    from freshet.cli.main import main

    main()
