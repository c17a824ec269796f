"""YAML that remembers its lines: a small, bounded reader that builds plain values and nothing else.

Read as YAML 1.2's core schema, so `1e-3` is a number, `no` is text and `2024-01-01` is no date. Tags are refused,
duplicate keys are problems, and size and depth are counted with every alias expanded, so no file can blow up.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

Scalar = str | int | float | bool | None

MAX_VALUES = 250_000
"""Values of one file, aliases expanded; room for a grid that spells out 100,000 seeds."""
MAX_DEPTH = 20

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?[0-9]{1,40}|0x[0-9a-fA-F]{1,16}|0o[0-7]{1,20}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: Mapping[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


class YamlError(Exception):
    """Text that is not YAML, or not the YAML we read; `line` counts from 1."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


@dataclass(frozen=True, slots=True)
class Node:
    """One value of the file: a scalar, a tuple of nodes, or key -> node, with the line where it starts (from 1)."""

    line: int
    value: "Scalar | tuple[Node, ...] | Mapping[str, Node]"
    key_lines: Mapping[str, int] = field(default_factory=dict)
    size: int = 1
    depth: int = 1

    @property
    def is_list(self) -> bool:
        return isinstance(self.value, tuple)

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.value, Mapping)

    @property
    def items(self) -> "tuple[Node, ...]":
        """The nodes of a list; none for anything else."""
        return self.value if isinstance(self.value, tuple) else ()

    @property
    def keys(self) -> "Mapping[str, Node]":
        """The nodes of a mapping by key; none for anything else."""
        return self.value if isinstance(self.value, Mapping) else {}

    def plain(self) -> Any:
        """The value as Python lists, dictionaries and scalars."""
        if isinstance(self.value, tuple):
            return [node.plain() for node in self.value]
        if isinstance(self.value, Mapping):
            return {key: node.plain() for key, node in self.value.items()}
        return self.value


def resolve(text: str) -> Scalar:
    """What an unquoted scalar means in YAML 1.2's core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def read_yaml(text: str) -> tuple[Node, list[tuple[int, str]]]:
    """The document and its (line, problem) pairs that do not keep the rest from being read (repeated keys).

    Raises:
        YamlError: not YAML, more than one document, a tag, or more values or depth than a grid has use for.
    """
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.YAMLError as error:
        raise _syntax_error(error, text) from error
    except (ValueError, OverflowError) as error:  # an escape beyond Unicode, "\UFFFFFFFF", in the plain-Python reader
        raise YamlError(builder.line, "not valid YAML: an escape that is no character") from error
    return builder.root or Node(1, None), builder.problems


def _syntax_error(error: yaml.YAMLError, text: str) -> YamlError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        problem = (getattr(error, "problem", None) or getattr(error, "context", None) or "broken here").strip()
        return YamlError(mark.line + 1, f"not valid YAML at column {mark.column + 1}: {problem}")
    position = getattr(error, "position", 0)  # ReaderError: a control character
    line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 1
    reason = getattr(error, "reason", None) or "it cannot be read"
    return YamlError(line, f"not valid YAML: {reason}")


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    line: int
    anchor: str | None
    is_mapping: bool
    children: list[Node] = field(default_factory=list)
    size: int = 1


class _Builder:
    """Builds nodes from parser events without recursion, counting as it goes."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.problems: list[tuple[int, str]] = []
        self.line = 1
        self.stack: list[_Open] = []
        self.anchors: dict[str, Node | None] = {}

    def take(self, event: Any) -> None:
        self.line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            # A long text counts for more, or aliases to it could still add up to gigabytes.
            self.add(Node(self.line, self.scalar(event), size=1 + len(event.value) // 64), event.anchor)
        elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            self.open(event)
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            done = self.stack.pop()
            self.add(self.mapping(done) if done.is_mapping else self.sequence(done), done.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self.add(self.alias(str(event.anchor)), None)
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            raise YamlError(self.line, "a second document starts here; a grid file holds one")

    def open(self, event: Any) -> None:
        if event.tag is not None:
            raise YamlError(self.line, f"the tag '{event.tag}' is not used in grids; remove it")
        if len(self.stack) >= MAX_DEPTH:
            raise YamlError(self.line, f"nested more than {MAX_DEPTH} levels deep")
        if event.anchor is not None:
            self.anchors[event.anchor] = None  # known, not complete: an alias to it now would be a loop
        self.stack.append(_Open(self.line, event.anchor, isinstance(event, yaml.MappingStartEvent)))

    def add(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self.anchors[anchor] = node
        if node.depth + len(self.stack) > MAX_DEPTH + 1:
            raise YamlError(self.line, f"nested more than {MAX_DEPTH} levels deep")
        if not self.stack:
            self.root = node
            return
        parent = self.stack[-1]
        parent.children.append(node)
        parent.size += node.size
        if parent.size > MAX_VALUES:
            raise YamlError(self.line, f"more than {MAX_VALUES:,} values (every alias counts in full)")

    def alias(self, name: str) -> Node:
        if name not in self.anchors:
            raise YamlError(self.line, f"the alias '*{name}' has no anchor '&{name}' before it")
        node = self.anchors[name]
        if node is None:
            raise YamlError(self.line, f"the alias '*{name}' stands inside its own anchor")
        return node

    def scalar(self, event: Any) -> Scalar:
        if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
            raise YamlError(self.line, f"the tag '{event.tag}' is not used in grids; remove it")
        text: str = event.value
        return resolve(text) if event.tag is None and event.implicit[0] else text

    def sequence(self, done: _Open) -> Node:
        return Node(done.line, tuple(done.children), size=done.size, depth=_depth(done.children))

    def mapping(self, done: _Open) -> Node:
        own: dict[str, Node] = {}
        lines: dict[str, int] = {}
        merged: list[Node] = []
        for key, value in zip(done.children[::2], done.children[1::2], strict=True):
            if key.value == "<<" and (value.is_mapping or value.is_list):
                merged.extend(value.items or (value,))
            elif not isinstance(key.value, str):
                self.problems.append((key.line, f"a key must be text, got {_shown(key)}; put it in quotes"))
            elif key.value in own:
                self.problems.append(
                    (key.line, f"the key '{key.value}' is given twice (first on line {lines[key.value]})")
                )
            else:
                own[key.value], lines[key.value] = value, key.line
        for key_name, value, line in self.merged(merged):
            if key_name not in own:
                own[key_name], lines[key_name] = value, line
        return Node(done.line, own, lines, done.size, _depth(done.children))

    def merged(self, nodes: list[Node]) -> Iterator[tuple[str, Node, int]]:
        for node in nodes:
            if not node.is_mapping:
                self.problems.append((node.line, "'<<' takes mappings only"))
            for key, value in node.keys.items():
                yield key, value, node.key_lines[key]


def _depth(children: list[Node]) -> int:
    return 1 + max((child.depth for child in children), default=0)


def _shown(node: Node) -> str:
    return "a list" if node.is_list else "a mapping" if node.is_mapping else repr(node.value)


# ---- writing --------------------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Writes short lists on one line, and quotes text that our reader would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = isinstance(resolve(text), str) and text != "<<"
    # Line breaks of every kind survive between double quotes alone.
    style = '"' if not text.isprintable() else None if plain else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _list_node(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.SequenceNode:
    nested = any(isinstance(value, list | dict | str) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=not nested)


_Dumper.add_representer(str, _text_node)
_Dumper.add_representer(list, _list_node)


def write_yaml(value: Any) -> str:
    """Plain values as YAML that `read_yaml` reads back as they were."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)
    return str(text)
