"""`python -m freshet`: the command, if it is not installed."""

import signal

if __name__ == "__main__":  # the gateway's workers also import this module
    # Ctrl-C during imports ends the process without a traceback; `main` handles it from then on.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from freshet.cli.main import main

    main()
