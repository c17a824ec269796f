"""Arrays and plain values from a pickle, when the file may be anything: the pickle is read, never run.

A pickle is a program that may call any function. Python's own reader can be told which functions it may call, but
NumPy's are then called with whatever the file says: a declared shape of terabytes, a list that is shorter than its
array. Here nothing is called. The opcodes are split by the standard library (`pickletools`), values are built on a
stack of our own, and the few names an array's pickle needs are recognised by their exact spelling and stand for
code in this file. Protocols 0 to 5, NumPy 1 and 2, files of Python 2.
"""

import pickletools  # nosec B403  # splits opcodes, runs none
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import IO, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DataError

MAX_FILE_BYTES = 64 << 30
MAX_OPCODES = 5_000_000
"""Some seconds, and at most about a gigabyte of empty collections; a file of arrays has thousands."""
MAX_AXES = 8
ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zX", b"7z\xbc\xaf", b"Rar!")
"""How zip (torch.save too), gzip, bzip2, xz, 7z and rar files begin; nothing is unpacked here."""
MANY_BYTES = 1 << 20
BYTES_OPCODES = b"B\x8e\x96"
"""BINBYTES, BINBYTES8, BYTEARRAY8: what follows their length is kept as it is."""

Value = Any
"""dict, list, tuple, str, bytes (a view of them where they are many), int, float, bool, None or a NumPy array."""


class MalformedPickle(Exception):
    """Why a file is not read, as the rest of a sentence that begins with its name."""


# ---- what the allowed names stand for ---------------------------------------------------------------------------


@dataclass
class _DType:
    """A number type under construction: `numpy.dtype('f8')`, whose byte order comes afterwards."""

    code: str
    order: str = "="

    KNOWN: ClassVar = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|[SU]\d{1,6}|O8?)")

    @classmethod
    def call(cls, args: Any) -> "_DType":
        code = args[0] if isinstance(args, tuple) and args else None
        if not isinstance(code, str) or not cls.KNOWN.fullmatch(code):
            told = f" of type {_shown(code)}" if isinstance(code, str) else ""
            raise MalformedPickle(f"holds an array{told} that is neither numbers nor text")
        return cls(code.lstrip("<>=|"), code[0] if code[0] in "<>" else "=")

    def build(self, state: Any) -> "_DType":
        plain = isinstance(state, tuple) and len(state) >= 8 and state[2] is None and not state[3] and not state[4]
        if not plain or state[1] not in ("<", ">", "|", "="):
            raise MalformedPickle("holds an array of a structured type, expected numbers or text")
        self.order = state[1]
        return self

    @property
    def is_object(self) -> bool:
        return self.code.startswith("O")

    def resolve(self) -> np.dtype[Any]:
        return np.dtype(self.code if self.order in "|=" else self.order + self.code)


@dataclass
class _Array:
    """An array under construction; `kept_at` are the places of the memo that hold it until it is whole."""

    kept_at: list[int] = field(default_factory=list)

    @classmethod
    def call(cls, args: Any) -> "_Array":
        if not isinstance(args, tuple) or len(args) != 3 or args[0] is not NDARRAY or args[1] not in ((0,), [0]):
            raise MalformedPickle("is damaged: an array does not begin as NumPy writes it")
        return cls()

    def build(self, state: Any) -> NDArray[Any]:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _DType):
            raise MalformedPickle("is damaged: an array does not tell its shape and type")
        _, shape, dtype, fortran, content = state
        return _array(content, dtype, shape, "F" if fortran else "C")


def _array(content: Any, dtype: _DType, shape: Any, order: str) -> NDArray[Any]:
    """The array over its own bytes, without a copy, once they are known to be as many as the shape announces."""
    if not isinstance(shape, tuple) or len(shape) > MAX_AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise MalformedPickle("is damaged: an array has no proper shape")
    count = prod(shape)
    if dtype.is_object:
        if not isinstance(content, list) or len(content) != count:
            raise MalformedPickle(f"is damaged: an array of shape {shape} does not hold {count} objects")
        objects = np.empty(count, dtype=object)
        for i, value in enumerate(content):  # at once, NumPy would look into nested lists
            objects[i] = value
        return objects.reshape(shape, order=order)  # type: ignore[call-overload,no-any-return]
    kind = dtype.resolve()
    if isinstance(content, str):  # Python 2 wrote bytes as text
        content = _latin1(content)
    if not isinstance(content, bytes | bytearray | memoryview) or len(content) != count * kind.itemsize:
        held = f"{len(content)} bytes" if isinstance(content, bytes | bytearray | memoryview) else "something else"
        raise MalformedPickle(f"is damaged: an array of shape {shape} and type {kind} comes with {held}")
    if not kind.itemsize:
        return np.empty(shape, kind)
    flat: NDArray[Any] = np.frombuffer(content, kind)
    return flat.reshape(shape, order=order)  # type: ignore[call-overload,no-any-return]


def _scalar(args: Any) -> Value:
    if not isinstance(args, tuple) or len(args) != 2 or not isinstance(args[0], _DType) or args[0].is_object:
        raise MalformedPickle("is damaged: a number does not tell its type")
    return _array(args[1], args[0], (), "C").item()


def _from_buffer(args: Any) -> NDArray[Any]:
    if not isinstance(args, tuple) or len(args) != 4 or not isinstance(args[1], _DType) or args[3] not in ("C", "F"):
        raise MalformedPickle("is damaged: an array does not tell its shape and type")
    return _array(args[0], args[1], args[2], args[3])


def _encode(args: Any) -> bytes:
    """Protocols 0 to 2 write bytes as text that is to be encoded in latin1."""
    if not isinstance(args, tuple) or len(args) != 2 or not isinstance(args[0], str) or args[1] != "latin1":
        raise MalformedPickle("asks for another encoding than latin1")
    return _latin1(args[0])


def _latin1(text: str) -> bytes:
    try:
        return text.encode("latin1")
    except UnicodeEncodeError:
        raise MalformedPickle("is damaged: bytes are written as text that is not latin1") from None


@dataclass(frozen=True)
class _Name:
    """An allowed name; `call` is ours, None for one that is only mentioned."""

    call: Callable[[Any], Value] | None


NDARRAY = _Name(None)
ALLOWED: dict[tuple[str, str], _Name] = {
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): _Name(_DType.call),
    ("_codecs", "encode"): _Name(_encode),
}
for _core in ("numpy.core", "numpy._core"):  # NumPy 1 and NumPy 2
    ALLOWED |= {
        (f"{_core}.multiarray", "_reconstruct"): _Name(_Array.call),
        (f"{_core}.multiarray", "scalar"): _Name(_scalar),
        (f"{_core}.numeric", "_frombuffer"): _Name(_from_buffer),
    }
"""Exact (module, name) pairs; no prefixes, no dotted names."""


# ---- the stack machine ------------------------------------------------------------------------------------------


class _Mark:
    """Where the items of a collection begin."""


MARK = _Mark()
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = (
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
)  # fmt: skip
OBJECT, ELSEWHERE, CODE = "builds an object", "refers to something outside it", "uses an extension code"
FORBIDDEN = {
    **dict.fromkeys(("INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"), OBJECT),
    **dict.fromkeys(("PERSID", "BINPERSID", "NEXT_BUFFER"), ELSEWHERE),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), CODE),
}


class _Reader:
    """Builds the value of a pickle, opcode by opcode.

    Collections may nest to any depth and contain themselves: nothing here walks them, and callers must not either.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.steps: dict[str, Callable[[Any], None]] = {
            "MARK": lambda _: self.stack.append(MARK),
            "POP": lambda _: self.drop(),
            "POP_MARK": lambda _: self.drop_to_mark(),
            "EMPTY_DICT": lambda _: self.stack.append({}),
            "EMPTY_LIST": lambda _: self.stack.append([]),
            "EMPTY_TUPLE": lambda _: self.stack.append(()),
            "TUPLE": lambda _: self.stack.append(tuple(self.to_mark())),
            "TUPLE1": lambda _: self.stack.append(tuple(self.take(1))),
            "TUPLE2": lambda _: self.stack.append(tuple(self.take(2))),
            "TUPLE3": lambda _: self.stack.append(tuple(self.take(3))),
            "LIST": lambda _: self.push_filled([], self.to_mark()),
            "DICT": lambda _: self.push_filled({}, self.to_mark()),
            "APPEND": lambda _: self.fill(self.take(1)),
            "APPENDS": lambda _: self.fill(self.to_mark()),
            "SETITEM": lambda _: self.fill(self.take(2)),
            "SETITEMS": lambda _: self.fill(self.to_mark()),
            "DUP": lambda _: self.stack.append(self.top()),
            "MEMOIZE": lambda _: self.put(len(self.memo)),
            **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), self.put),
            **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), self.get),
            "GLOBAL": lambda arg: self.name(*arg.split(" ", 1)),
            "STACK_GLOBAL": lambda _: self.name(*self.take(2)),
            "REDUCE": lambda _: self.call(),
            "BUILD": lambda _: self.build(),
            **dict.fromkeys(("PROTO", "FRAME", "READONLY_BUFFER"), lambda _: None),
        }

    def read(self, opcodes: Iterator[tuple[Any, Any, Any]]) -> Value:
        for count, (opcode, arg, _) in enumerate(opcodes):
            if count >= MAX_OPCODES:
                raise MalformedPickle(f"takes more than {MAX_OPCODES:,} steps to read: it is no file of arrays")
            name = opcode.name
            if name in LITERALS:
                self.stack.append(arg)
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name])
            elif name == "STOP":
                return self.top()
            elif step := self.steps.get(name):
                step(arg)
            else:
                raise MalformedPickle(f"{FORBIDDEN.get(name, f'uses {name}')}, which a file of arrays does not need")
        raise MalformedPickle("is truncated")

    # ---- the stack ------------------------------------------------------------------------------------------

    def top(self) -> Any:
        if not self.stack or self.stack[-1] is MARK:
            raise MalformedPickle("is damaged: a value is missing")
        return self.stack[-1]

    def drop(self) -> None:
        if not self.stack:
            raise MalformedPickle("is damaged: a value is missing")
        self.stack.pop()

    def take(self, n: int) -> list[Any]:
        taken = self.stack[len(self.stack) - n :] if len(self.stack) >= n else []
        if len(taken) < n or any(value is MARK for value in taken):
            raise MalformedPickle("is damaged: a value is missing")
        del self.stack[-n:]
        return taken

    def to_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while at >= 0 and self.stack[at] is not MARK:
            at -= 1
        if at < 0:
            raise MalformedPickle("is damaged: a collection has no beginning")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def drop_to_mark(self) -> None:
        self.to_mark()

    # ---- collections ----------------------------------------------------------------------------------------

    def push_filled(self, collection: Any, items: list[Any]) -> None:
        self.stack.append(collection)
        self.fill(items)

    def fill(self, items: list[Any]) -> None:
        collection = self.top()
        if isinstance(collection, list):
            collection.extend(items)
        elif isinstance(collection, dict) and len(items) % 2 == 0:
            keys, values = items[::2], items[1::2]
            if not all(isinstance(key, str | bytes | int) for key in keys):
                # Hashing runs down nested tuples without a limit, and would end the process.
                raise MalformedPickle("has a key that is neither text nor a number")
            collection.update(zip(keys, values, strict=True))
        else:
            raise MalformedPickle("is damaged: items have no collection")

    # ---- memo, names, calls ---------------------------------------------------------------------------------

    def put(self, key: int) -> None:
        value = self.top()
        self.memo[key] = value
        if isinstance(value, _Array):
            value.kept_at.append(key)

    def get(self, key: int) -> None:
        if key not in self.memo:
            raise MalformedPickle("is damaged: it refers to a value that it has not made")
        self.stack.append(self.memo[key])

    def name(self, module: Any = "", name: Any = "") -> None:
        found = ALLOWED.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if found is None:
            raise MalformedPickle(
                f"asks for {_shown(f'{module}.{name}')}, which a file of arrays does not need and which could run "
                f"code: nothing of it was run"
            )
        self.stack.append(found)

    def call(self) -> None:
        name, args = self.take(2)
        if not isinstance(name, _Name) or name.call is None:
            raise MalformedPickle("calls something that is not a function")
        self.stack.append(name.call(args))

    def build(self) -> None:
        thing, state = self.take(2)
        if not isinstance(thing, _Array | _DType):
            raise MalformedPickle("gives a state to something that has none")
        whole = thing.build(state)
        for key in getattr(thing, "kept_at", ()):
            self.memo[key] = whole
        self.stack.append(whole)


# ---- the file ---------------------------------------------------------------------------------------------------


class _Bounded:
    """The file as `pickletools` reads it: mapped, so that the bytes of an array are read when it is used, once.

    Never gives more bytes than are left. As with every mapped file, cutting it short meanwhile ends the process.
    """

    def __init__(self, content: mmap) -> None:
        self.content, self.size = content, len(content)
        self.opcode = b""

    def read(self, n: int) -> bytes | memoryview:
        at = self.content.tell()
        if not 0 <= n <= self.size - at:
            raise MalformedPickle("is truncated, or announces more bytes than it has")
        if n > MANY_BYTES and self.opcode in BYTES_OPCODES:
            self.content.seek(n, 1)
            return memoryview(self.content)[at : at + n]
        content = self.content.read(n)
        if n == 1:  # an opcode, or a length too small to matter
            self.opcode = content
        return content

    def readline(self) -> bytes:
        return self.content.readline()

    def tell(self) -> int:
        return self.content.tell()


def read_pickle(path: Path) -> Value:
    """The value of a pickle file: plain Python values and arrays, which are read-only views of the mapped file.

    Raises:
        DataError: it cannot be read, is damaged or too large, or asks for anything but arrays and plain values.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise DataError(f"{path} is larger than {MAX_FILE_BYTES >> 30} GiB and is not read.")
        with path.open("rb") as file:
            if file.peek(4).startswith(ARCHIVES):
                raise DataError(f"{path} is compressed or an archive: unpack it, and give the pickle file in it.")
            if not size:  # cannot be mapped
                raise MalformedPickle("is empty")
            content = _Bounded(mmap(file.fileno(), 0, access=ACCESS_READ))
            return _Reader().read(pickletools.genops(cast(IO[bytes], content)))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except MalformedPickle as error:
        raise DataError(f"{path} {error}.") from None
    except MemoryError:
        raise DataError(f"{path} does not fit into the memory of this machine.") from None
    except (ValueError, OverflowError, UnicodeError) as error:  # of pickletools: no opcode, a cut or odd argument
        raise DataError(f"{path} is not a whole pickle file: {_shown(str(error))}.") from None


def _shown(text: str) -> str:
    """What a file says, quoted, short and printable."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text[:61])
    return f"'{printable[:60]}{'...' if len(text) > 60 else ''}'"
