"""The command line. Thin: each command imports late, calls one function of the wiring, and shows what it answers.

Nothing here or above may import a heavy library when the module is loaded: `drill --help` must answer at once.
"""

from harness.cli.app import main

__all__ = ["main"]
