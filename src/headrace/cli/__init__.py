"""The ``headrace`` command: one file per command group, each imported only when it is used."""

import sys


def main() -> None:
    """Entry point; see :func:`headrace.cli.app.main`."""
    try:
        from headrace.cli.app import main as run
    except KeyboardInterrupt:  # Ctrl-C while the libraries load
        sys.exit(130)
    run()


__all__ = ["main"]
