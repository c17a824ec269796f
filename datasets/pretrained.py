"""Pretrained networks and their word pieces through transformers: from this machine first, else from the hub."""

from pathlib import Path
from typing import Any

from datasets.errors import DataError, UserError


def load(kind: str, name: str, what: str, **more: Any) -> Any:
    """`transformers.<kind>.from_pretrained(name)`, looked for on this machine before the hub is asked.

    Args:
        kind: a class of transformers.
        name: a folder, or the id of a repository on the hub.
        what: what it is, for messages.
        more: further arguments of `from_pretrained`.

    Raises:
        UserError: transformers is not installed.
        DataError: there is nothing of this name, or it is something else.
    """
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            "pretrained networks need transformers, which is not installed: pip install 'robult-bench[vilt]'."
        ) from error
    logging: Any = transformers.utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    cls = getattr(transformers, kind)
    try:
        return cls.from_pretrained(name, local_files_only=True, **more)
    except Exception as local_error:  # transformers raises nearly anything for a folder it cannot read
        if _is_folder(name):
            raise _refused(name, what, local_error) from local_error
    try:
        return cls.from_pretrained(name, **more)
    except Exception as error:
        raise _refused(name, what, error) from error


def _is_folder(name: str) -> bool:
    return Path(name).exists() or name.startswith((".", "/", "~"))


def _refused(name: str, what: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200].rstrip(".")
    return DataError(f"the {what} of '{name}' cannot be loaded ({reason}). Name a folder that has them with --weights.")
