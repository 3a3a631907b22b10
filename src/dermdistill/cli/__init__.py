"""The command line: one thin module a group of commands. Heavy imports wait until a command needs them."""

from dermdistill.cli.main import main

__all__ = ["main"]
