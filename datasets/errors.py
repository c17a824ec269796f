"""The one kind of exception whose text is written for the person at the keyboard."""


class UserError(Exception):
    """Something a person can mend. The message is one clear sentence naming what is wrong and the remedy.

    The command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = 2


class DataError(UserError):
    """A data file or store that is absent, damaged or not what it claims to be."""

    exit_code = 1
