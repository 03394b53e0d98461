"""`kvandal` and `python -m kvandal`."""

import signal
import sys


def main() -> None:
    """Run the verb that the command line names."""
    if "agent" in sys.argv:
        # To read settings again that were not read yet means nothing, but would end us. The imports take a second.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from kvandal.cli import main as run_verb

    run_verb()


if __name__ == "__main__":
    main()
