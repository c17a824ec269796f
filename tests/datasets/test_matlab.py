"""The reader of MATLAB 5 matrices: equal to SciPy's on good files, one sentence on bad ones, never a crash."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from datasets.matlab import NUMBERS, MalformedFile, variables


def written(compressed=True, **values):
    import scipy.io

    file = io.BytesIO()
    scipy.io.savemat(file, values, do_compression=compressed)
    return file.getvalue()


def read(content):
    return {variable.name: variable.read() for variable in variables(content)}


DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: arrays(np.dtype(dtype), st.tuples(st.integers(1, 6), st.integers(1, 5)))
    ),
    st.booleans(),
)
def test_what_scipy_writes_is_read_as_scipy_reads_it(matrix, compressed):
    import scipy.io

    content = written(compressed, some_name=matrix, b=np.arange(3.0))
    ours, theirs = read(content), scipy.io.loadmat(io.BytesIO(content))
    assert list(ours) == ["some_name", "b"]
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype
        assert np.array_equal(array, theirs[name], equal_nan=True)
        assert array.flags.c_contiguous


def element(code, payload):
    return struct.pack("<II", code, len(payload)) + payload + bytes(-len(payload) % 8)


def matrix(name=b"x", shape=(2, 3), mx_class=6, stored=2, numbers=bytes(range(6)), flags=0):
    """A variable by hand, as MATLAB writes one: doubles stored as bytes."""
    body = element(6, struct.pack("<II", mx_class | flags, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, body + element(1, name) + element(stored, numbers))


def file_of(*elements):
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + b"".join(elements)


def compressed(content):
    packed = zlib.compress(content)
    return struct.pack("<II", 15, len(packed)) + packed


def test_a_matrix_written_by_hand_is_stored_column_by_column():
    assert read(file_of(matrix()))["x"].tolist() == [[0, 2, 4], [1, 3, 5]]
    assert read(file_of(compressed(matrix())))["x"].dtype == np.uint8


def test_a_big_endian_file_is_read():
    little = np.array([[1.5, -2], [3, 4e100]])
    body = struct.pack(">IIII", 6, 8, 6, 0) + struct.pack(">IIii", 5, 8, 2, 2)
    body += struct.pack(">HH4s", 1, 1, b"x\0\0\0") + struct.pack(">II", 9, 32) + little.T.astype(">f8").tobytes()
    content = b"MATLAB".ljust(124) + b"\x01\x00MI" + struct.pack(">II", 14, len(body)) + body
    # A small element packs its size and type in one word: size first on big-endian machines too.
    assert np.array_equal(read(content)["x"], little)


def test_what_is_not_numbers_is_named_and_refused_when_read():
    import scipy.sparse

    cell = np.empty((1, 2), dtype=object)
    cell[0] = [1, "text"]
    content = written(
        cell=cell, struct={"field": 1.0}, text="hello", sparse=scipy.sparse.csc_matrix(np.eye(3)), z=np.array([[1j]])
    )
    kinds = {variable.name: variable.kind for variable in variables(content)}
    assert kinds == {
        "cell": "a cell array", "struct": "a struct", "text": "text", "sparse": "a sparse matrix",
        "z": "complex numbers",
    }  # fmt: skip
    for variable in variables(content):
        with pytest.raises(MalformedFile, match=f"^has '{variable.name}' as {variable.kind}, expected numbers$"):
            variable.read()


@pytest.mark.parametrize("mx_class", [3, 16])
def test_objects_and_functions_are_not_numbers(mx_class):
    assert variables(file_of(matrix(mx_class=mx_class)))[0].kind in ("an object", "a function")


def test_telling_the_shape_reads_no_numbers():
    huge = matrix(shape=(2**31 - 1, 2**31 - 1))
    (variable,) = variables(file_of(huge))
    assert (variable.kind, variable.shape) == (NUMBERS, (2**31 - 1, 2**31 - 1))


def test_a_zip_bomb_is_stopped_at_the_size_its_shape_announces():
    """64 MiB of zeros in 64 KiB, said to be a 2 x 3 matrix: unpacking stops after some bytes."""
    bomb = compressed(matrix(numbers=bytes(64 << 20)))
    assert len(bomb) < 1 << 17
    (variable,) = variables(file_of(bomb))
    tracemalloc.start()
    with pytest.raises(MalformedFile, match="unpacks to more than its shape announces"):
        variable.read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is not a MATLAB 5 .mat file"),
        (b"PK\x03\x04" + bytes(500), "is not a MATLAB 5 .mat file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(500), r"is a MATLAB 7.3 \(HDF5\) file: save it again .* '-v7'"),
        (b"MATLAB 7.3".ljust(512) + b"\x89HDF\r\n", r"is a MATLAB 7.3 \(HDF5\) file"),
        (file_of(matrix())[:-20], "is truncated"),
        (file_of(matrix())[:131], "is truncated"),
        (file_of(element(9, bytes(8))), "is damaged: it holds an element of unknown type 9"),
        (file_of(matrix(name=b"a\x1b[31m")), "is damaged: a variable does not tell its name"),
        (file_of(matrix(shape=(-1, 3))), "is damaged: a variable does not tell its name"),
        (file_of(matrix(shape=(3,))), "is damaged: a variable does not tell its shape"),
        (file_of(matrix(stored=99)), "is damaged: 'x' is stored as unknown type 99"),
        (file_of(matrix(stored=0x7FFF)), "is damaged: 'x' is stored as unknown type 32767"),
        (file_of(matrix(numbers=bytes(5))), r"is damaged: 'x' has 5 bytes of numbers for shape \(2, 3\)"),
        (file_of(matrix(mx_class=77)), "has 'x' as something of unknown kind 77"),
        (file_of(compressed(b"")), "is damaged: an element is not a variable"),
        (file_of(element(15, b"not zlib")), "is damaged: a compressed variable cannot be unpacked"),
    ],
)
def test_a_bad_file_is_told_in_one_sentence(content, told):
    with pytest.raises(MalformedFile, match=f"^{told}") as caught:
        read(content)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_changed_byte_in_a_compressed_matrix_is_noticed():
    content = bytearray(file_of(compressed(matrix())))
    content[-1] ^= 1  # of the checksum
    with pytest.raises(MalformedFile, match="cannot be unpacked"):
        read(bytes(content))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_no_change_of_bytes_does_anything_but_raise_or_read(data):
    """SciPy's reader crashes the process (bus error) on some of these."""
    content = bytearray(written(data.draw(st.booleans()), x=np.arange(6.0).reshape(2, 3), gt=np.ones((4, 1), "u1")))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(124, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(100, len(content)))]
    told = ""
    try:
        read(bytes(content))
    except MalformedFile as error:
        told = str(error)
    assert told.isprintable()
