"""Small damage to bytes and to lines of text, as values that hypothesis draws, prints and shrinks."""

import struct
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from hypothesis import strategies as st

INTEGERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, -1)
"""What breaks arithmetic on lengths and counts."""

Kind = Literal["flip", "set", "integer", "cut", "remove", "repeat", "insert"]


class Edit(NamedTuple):
    """One piece of damage to bytes."""

    kind: Kind
    at: int
    """Where, from the beginning or, if negative, from the end; beyond the content it wraps around."""
    value: int

    def apply(self, content: bytes) -> bytes:
        if not content:
            return content
        at = self.at % len(content)
        head, tail = content[:at], content[at:]
        if self.kind == "flip":
            return head + bytes([tail[0] ^ 1 << self.value % 8]) + tail[1:]
        if self.kind == "set":
            return head + bytes([self.value % 256]) + tail[1:]
        if self.kind == "integer":
            number = INTEGERS[self.value % len(INTEGERS)] & 0xFFFFFFFFFFFFFFFF
            width = 4 if self.value % 2 else 8
            packed = struct.pack("<Q" if self.value % 4 < 2 else ">Q", number)
            return head + (packed[:width] if self.value % 4 < 2 else packed[-width:]) + tail[width:]
        if self.kind == "cut":
            return head
        length = 1 + self.value % 64
        if self.kind == "remove":
            return head + tail[length:]
        if self.kind == "repeat":
            return head + tail[:length] * 3 + tail[length:]
        return head + bytes((self.value * (i + 1)) % 256 for i in range(length)) + tail


def damaged(content: Callable[[], bytes]) -> st.SearchStrategy[bytes]:
    """The content with one to six pieces of damage, most of them near its beginning or end, where sizes are told."""
    near = st.integers(-400, 400)
    places = st.one_of(near, near, st.integers(0, 1 << 20))
    kinds = st.sampled_from(["flip", "set", "integer", "cut", "remove", "repeat", "insert"])
    edits = st.lists(st.builds(Edit, kinds, places, st.integers(0, 1 << 16)), min_size=1, max_size=6)
    return st.builds(_apply, st.builds(content), edits)


def _apply(content: bytes, edits: Sequence[Edit]) -> bytes:
    for edit in edits:
        content = edit.apply(content)
    return content


class LineEdit(NamedTuple):
    """One slip in a text of lines."""

    kind: Literal["drop", "twice", "swap", "indent", "dedent", "word", "append", "join"]
    line: int
    word: int
    new: str

    def apply(self, text: str) -> str:
        lines = text.split("\n")
        at = self.line % len(lines)
        line = lines[at]
        if self.kind == "drop":
            del lines[at]
        elif self.kind == "twice":
            lines.insert(at, line)
        elif self.kind == "swap":
            other = self.word % len(lines)
            lines[at], lines[other] = lines[other], line
        elif self.kind == "indent":
            lines[at] = "  " + line
        elif self.kind == "dedent":
            lines[at] = line.removeprefix("  ")
        elif self.kind == "word":
            words = line.split(" ")
            words[self.word % len(words)] = self.new
            lines[at] = " ".join(words)
        elif self.kind == "append":
            lines[at] = line + self.new
        else:
            lines[at : at + 2] = ["".join(lines[at : at + 2])]
        return "\n".join(lines)


def mistyped(text: st.SearchStrategy[str], new: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """The text with one to five slips."""
    kinds = st.sampled_from(["drop", "twice", "swap", "indent", "dedent", "word", "word", "word", "append", "join"])
    slips = st.lists(st.builds(LineEdit, kinds, st.integers(0, 500), st.integers(0, 500), new), min_size=1, max_size=5)
    return st.builds(_retype, text, slips)


def _retype(text: str, slips: Sequence[LineEdit]) -> str:
    for slip in slips:
        text = slip.apply(text)
    return text
