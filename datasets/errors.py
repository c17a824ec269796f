"""What is written for the person at the keyboard: the one kind of exception they see, and hints at what they meant."""

import re
from difflib import get_close_matches

_LOGIN = re.compile(r"(?<=://)[^\s/]*@")
_SECRET = re.compile(r"(?i)([?&][^=&\s]*(?:password|passwd|pwd|secret|token|key)[^=&\s]*=)[^&\s'\"]+")


def without_secrets(text: str) -> str:
    """Text without the logins that addresses in it hold: `http://me:secret@server/x` becomes `http://server/x`."""
    return _SECRET.sub(r"\1***", _LOGIN.sub("", text))


def printable(text: str) -> str:
    """Text whose characters a terminal would act on are shown as escapes; lines stay lines."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class UserError(Exception):
    """Something a person can mend. The message is one clear sentence naming what is wrong and the remedy.

    The command line prints it without a traceback and exits with `exit_code`. It never shows the login of an address,
    nor sends a terminal what a file holds.
    """

    exit_code = 2

    def __str__(self) -> str:
        return printable(without_secrets(super().__str__()))


class DataError(UserError):
    """A data file or store that is absent, damaged or not what it claims to be."""

    exit_code = 1


def did_you_mean(name: str, known: list[str] | tuple[str, ...]) -> str:
    """` Did you mean 'x'?` with a leading space, or nothing when no known name is close."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
