"""Numeric matrices from MATLAB 5 files (as `save -v6` and `-v7` write them), when the file may be anything.

SciPy's reader trusts the type codes and sizes in a file: one wrong byte can make it read outside its tables and crash
the process. This one reads matrices of numbers only, checks every size before it is used, and runs nothing.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

MI_INT8, MI_INT32, MI_UINT32, MI_MATRIX, MI_COMPRESSED = 1, 5, 6, 14, 15
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Type code of stored numbers -> NumPy type; a matrix of doubles is stored as small integers where that is exact."""

NAME = re.compile(rb"([A-Za-z_][A-Za-z0-9_]{0,62})?")
"""What MATLAB allows; nothing else from a file's names reaches a message. Its hidden workspace has no name."""

NUMBERS = "numbers"
KINDS = {1: "a cell array", 2: "a struct", 3: "an object", 4: "text", 5: "a sparse matrix", 16: "a function"}
KINDS |= {17: "an object"} | dict.fromkeys(range(6, 16), NUMBERS)
COMPLEX_FLAG = 0x0800

MAX_HEAD_BYTES = 1024
"""Unpacked bytes within which a variable's kind, shape and name must be told."""


class MalformedFile(Exception):
    """Why a file cannot be read, as the rest of a sentence that begins with its name."""


@dataclass(frozen=True)
class Variable:
    """What a file says of one variable; its numbers are read by `read`."""

    name: str
    kind: str
    """`NUMBERS`, or what it is instead, with its article."""
    shape: tuple[int, ...]
    order: str
    body: memoryview
    compressed: bool
    numbers_at: int

    def read(self) -> NDArray[Any]:
        """The matrix in the type it is stored in. Never takes more memory than `shape` announces.

        Raises:
            MalformedFile: it is not a matrix of real numbers, or its content is not what its head announces.
        """
        if self.kind != NUMBERS:
            raise MalformedFile(f"has '{self.name}' as {self.kind}, expected numbers")
        count = prod(self.shape)
        limit = self.numbers_at + 16 + 8 * count
        content = _unpack(self.body, limit) if self.compressed else self.body
        code, numbers, _ = _element(content, self.numbers_at, self.order)
        if code not in STORED:
            raise MalformedFile(f"is damaged: '{self.name}' is stored as unknown type {code}")
        dtype = np.dtype(self.order + STORED[code])
        if len(numbers) != count * dtype.itemsize:
            raise MalformedFile(f"is damaged: '{self.name}' has {len(numbers)} bytes of numbers for shape {self.shape}")
        matrix: NDArray[Any] = np.frombuffer(numbers, dtype).reshape(self.shape, order="F")
        return matrix.astype(dtype.newbyteorder("="), order="C")


def variables(content: bytes) -> list[Variable]:
    """The variables of a file in its order, without their numbers.

    Raises:
        MalformedFile: it is not a whole MATLAB 5 file.
    """
    if content.startswith(b"\x89HDF") or content[512:516] == b"\x89HDF":
        raise MalformedFile("is a MATLAB 7.3 (HDF5) file: save it again in MATLAB with save(..., '-v7')")
    order = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}.get(content[124:128])
    if order is None:
        raise MalformedFile("is not a MATLAB 5 .mat file")
    return [_head(body, compressed, order) for compressed, body in _elements(content, order)]


def _elements(content: bytes, order: str) -> Iterator[tuple[bool, memoryview]]:
    """Every top-level element behind the file's header: whether it is compressed, and its bytes."""
    start, view = 128, memoryview(content)
    while start < len(content):
        if start + 8 > len(content):
            raise MalformedFile("is truncated")
        code, size = struct.unpack_from(order + "II", content, start)
        if code not in (MI_MATRIX, MI_COMPRESSED):
            raise MalformedFile(f"is damaged: it holds an element of unknown type {code}")
        end = start + 8 + size
        if end > len(content):
            raise MalformedFile("is truncated")
        # A compressed element holds a matrix with its tag; give the plain one its tag too.
        yield (True, view[start + 8 : end]) if code == MI_COMPRESSED else (False, view[start:end])
        start = end


def _head(body: memoryview, compressed: bool, order: str) -> Variable:
    """Kind, shape and name of a variable."""
    head = _unpack_some(body, MAX_HEAD_BYTES) if compressed else body
    if len(head) < 8 or struct.unpack_from(order + "I", head)[0] != MI_MATRIX:
        raise MalformedFile("is damaged: an element is not a variable")
    code, flags, at = _element(head, 8, order)
    if code != MI_UINT32 or len(flags) != 8:
        raise MalformedFile("is damaged: a variable does not tell its kind")
    flag = struct.unpack(order + "I", flags[:4])[0]
    kind = KINDS.get(flag & 0xFF, f"something of unknown kind {flag & 0xFF}")
    shape: tuple[int, ...] = ()
    if flag & 0xFF != 17:  # such an object has no shape
        code, sizes, at = _element(head, at, order)
        if code != MI_INT32 or not 8 <= len(sizes) <= 128 or len(sizes) % 4:
            raise MalformedFile("is damaged: a variable does not tell its shape")
        shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    code, name, at = _element(head, at, order)
    if code != MI_INT8 or min(shape, default=0) < 0 or not NAME.fullmatch(name):
        raise MalformedFile("is damaged: a variable does not tell its name")
    kind = "complex numbers" if kind == NUMBERS and flag & COMPLEX_FLAG else kind
    return Variable(bytes(name).decode("ascii"), kind, shape, order, body, compressed, at)


def _element(content: memoryview, at: int, order: str) -> tuple[int, memoryview, int]:
    """Type code and bytes of the element at a position, and where the next one begins."""
    if at + 8 > len(content):
        raise MalformedFile("is damaged: a variable ends too early")
    code, size = struct.unpack_from(order + "II", content, at)
    if code >> 16:  # a small element: size and type in one word, up to four bytes in the other
        code, size, start, after = code & 0xFFFF, code >> 16, at + 4, at + 8
        if size > 4:
            raise MalformedFile("is damaged: a small element is too long")
    else:
        start = at + 8
        after = start + (size + 7) // 8 * 8
    if start + size > len(content):
        raise MalformedFile("is damaged: a variable ends too early")
    return code, content[start : start + size], after


def _unpack(body: memoryview, limit: int) -> memoryview:
    """A whole compressed element of at most `limit` bytes."""
    unpacker = zlib.decompressobj()
    content = _decompress(unpacker, body, limit + 1)
    if len(content) > limit:
        raise MalformedFile("is damaged: a variable unpacks to more than its shape announces")
    if not unpacker.eof:
        raise MalformedFile("is damaged: a compressed variable ends too early")
    return content


def _unpack_some(body: memoryview, limit: int) -> memoryview:
    """The beginning of a compressed element, at most `limit` bytes."""
    return _decompress(zlib.decompressobj(), body, limit)


def _decompress(unpacker: Any, body: memoryview, limit: int) -> memoryview:
    try:
        return memoryview(unpacker.decompress(body, limit))
    except zlib.error as error:
        raise MalformedFile("is damaged: a compressed variable cannot be unpacked") from error
