"""The ``headrace`` command: one file per command group, each imported only when it is used."""

from headrace.cli.app import main

__all__ = ["main"]
