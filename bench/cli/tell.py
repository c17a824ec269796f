"""Sentences for the person at the terminal; what is printed for programs goes to stdout instead."""

import sys


def tell(text: str) -> None:
    """Print a line to stderr at once."""
    print(text, file=sys.stderr, flush=True)
