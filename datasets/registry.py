"""Finding a method or a data set by name: the built-in table, an entry point, or `package.module:Class`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from datasets.errors import UserError, did_you_mean

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One built-in name: where its class lives and a line about it, so that listing imports nothing."""

    path: str
    summary: str


class Registry(Generic[T]):
    """Names -> classes of one kind; nothing is imported before it is asked for."""

    def __init__(self, noun: str, base: type[T], group: str, builtin: Mapping[str, Entry]) -> None:
        self.noun = noun
        self.base = base
        self.group = group
        self.builtin = builtin

    @cached_property
    def plugins(self) -> dict[str, EntryPoint]:
        """Names that installed packages declare in the entry point group; built-in names cannot be taken."""
        return {point.name: point for point in entry_points(group=self.group) if point.name not in self.builtin}

    def names(self) -> list[str]:
        return [*self.builtin, *sorted(self.plugins)]

    def summaries(self) -> dict[str, str]:
        """Every name with a line about it."""
        told = {name: entry.summary for name, entry in self.builtin.items()}
        return told | {name: f"plugin: {point.value}" for name, point in sorted(self.plugins.items())}

    def get(self, name: str) -> type[T]:
        """The class called `name`.

        Raises:
            UserError: no such name, or what it names cannot be imported or is of the wrong kind.
        """
        if name in self.builtin:
            path = self.builtin[name].path
        elif name in self.plugins:
            path = self.plugins[name].value
        elif ":" in name:
            path = name
        else:
            raise UserError(
                f"unknown {self.noun} '{name}'.{did_you_mean(name, self.names())} "
                f"List them with: bench ls {self.noun.replace(' ', '')}s"
            )
        return self._import(path)

    def _import(self, path: str) -> type[T]:
        module_name, _, class_name = path.partition(":")
        try:
            found = getattr(import_module(module_name), class_name)
        except Exception as error:  # foreign code may raise anything while it is imported
            reason = (
                str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
            )
            raise UserError(f"{self.noun} '{path}' cannot be imported: {reason}.") from error
        if not (isinstance(found, type) and issubclass(found, self.base)):
            raise UserError(
                f"{self.noun} '{path}' is not a {self.base.__name__}: it must subclass {self.base.__qualname__}."
            )
        if missing := sorted(getattr(found, "__abstractmethods__", ())):
            raise UserError(f"{self.noun} '{path}' is not finished: it does not define {', '.join(missing)}.")
        return found
