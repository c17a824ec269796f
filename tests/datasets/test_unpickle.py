"""Pickles: what real files hold is read as Python reads it, and nothing a hostile one says is ever run."""

import builtins
import gzip
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets import unpickle
from datasets.errors import DataError
from datasets.unpickle import ALLOWED, read_pickle

PROTOCOLS = range(6)
CONTENT = {
    "float64": np.arange(6.0).reshape(2, 3),
    "float16": np.arange(4, dtype=np.float16),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "big endian": np.arange(3, dtype=">i4"),
    "bytes": np.array([b"abc", b"\xff"]),
    "text": np.array(["caf\u00e9", "x"]),
    "objects": np.array(["x", None, 3], dtype=object),
    "bool": np.array([True, False]),
    "no axes": np.array(2.5),
    "strided": np.arange(20)[::3],
    "numbers": [np.float32(2.5), np.int64(-3), 7, 2**70, 1.5, True, None],
    "words": ["a", "b\u20ac", b"\x00\xff", ("t", ()), ("a", "b", "c", "d")],
    1: {"nested": [[[[{}]]]]},
}


def message(content, tmp_path):
    """The one sentence with which a file of this content is refused."""
    path = tmp_path / "bad.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_pickle(path)
    text = str(caught.value)
    assert text.startswith(f"{path} ")
    assert text.isprintable()
    assert text.endswith(".")
    return text.removeprefix(f"{path} ")


# ---- what is read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_gives_the_values_python_gives(tmp_path, protocol):
    content = CONTENT | {"again": CONTENT["float64"]}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    found = read_pickle(tmp_path / "a.pkl")
    expected = pickle.loads(pickle.dumps(content, protocol))
    assert list(found) == list(expected)
    for key, value in expected.items():
        if isinstance(value, np.ndarray):
            assert found[key].dtype.newbyteorder("=") == value.dtype.newbyteorder("=")
            assert found[key].shape == value.shape
            assert np.array_equal(found[key], value)
        else:
            assert found[key] == value
            assert repr(found[key]).replace("np.", "") == repr(found[key])  # plain Python values
    assert found["again"] is found["float64"]


def test_files_of_numpy_1_are_read(tmp_path):
    content = pickle.dumps(CONTENT["float64"], 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in content
    (tmp_path / "old.pkl").write_bytes(content)
    assert np.array_equal(read_pickle(tmp_path / "old.pkl"), CONTENT["float64"])


def test_files_of_python_2_are_read(tmp_path):
    """Written by hand after the format: byte strings (`U`, `T`) where Python 3 has text or bytes."""
    numbers = np.array([1.5, -np.inf, 3e300])
    content = (
        b"\x80\x02}q\x00U\x05audioq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04"
        b"U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x03\x85q\x08cnumpy\ndtype\nq\tU\x02f8q\nK\x00K\x01\x87q\x0bRq\x0c(K\x03U"
        b"\x01<q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89T" + struct.pack("<I", 24) + numbers.tobytes()
        + b"q\x0ftq\x10bs."
    )  # fmt: skip
    (tmp_path / "py2.pkl").write_bytes(content)
    assert np.array_equal(read_pickle(tmp_path / "py2.pkl")["audio"], numbers)
    assert np.array_equal(pickle.loads(content, encoding="latin1")["audio"], numbers)


@pytest.mark.parametrize("protocol", [3, 4])
def test_an_array_is_a_view_of_the_mapped_file(tmp_path, protocol):
    written = np.arange(2_000_000.0)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(written, protocol))
    tracemalloc.start()
    array = read_pickle(tmp_path / "a.pkl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 17
    assert not array.flags.writeable
    assert np.array_equal(array, written)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_large_arrays_of_every_protocol_are_whole(tmp_path, protocol):
    content = {"a": np.arange(300_000.0), "b": bytes(2_000_000), "c": np.arange(200_000.0)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    found = read_pickle(tmp_path / "a.pkl")
    assert np.array_equal(found["a"], content["a"])
    assert np.array_equal(found["c"], content["c"])
    assert bytes(found["b"]) == content["b"]


def test_the_names_are_those_of_arrays_and_no_others():
    modules = {(module.replace("_core", "core"), name) for module, name in ALLOWED}
    assert modules == {
        ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"),
        ("numpy.core.multiarray", "_reconstruct"), ("numpy.core.multiarray", "scalar"),
        ("numpy.core.numeric", "_frombuffer"),
    }  # fmt: skip
    assert len(ALLOWED) == 9


# ---- what is refused --------------------------------------------------------------------------------------------


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "named"),
    [
        (os.system, f"{os.name}.system"),
        (builtins.eval, "builtin"),
        (subprocess.Popen, ".Popen"),
        (builtins.getattr, "builtin"),
        (np.load, "numpy.load"),
    ],
)
def test_a_call_is_named_and_not_made(tmp_path, protocol, function, named):
    target = tmp_path / "pwned"
    content = pickle.dumps({"train": {"audio": [Call(function, f"touch {target}")]}}, protocol)
    told = message(content, tmp_path)
    assert told.startswith("asks for '")
    assert named in told
    assert told.endswith("which could run code: nothing of it was run.")
    assert not target.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy", "core.multiarray.scalar"), ("numpy.core", "multiarray._reconstruct"), ("numpy.ndarray", "tofile"),
        ("numpy.core.multiarray", "fromfile"), ("_codecs", "decode"), ("builtins", "exec"), ("numpy ", "dtype"),
        ("numpy", "ndarray\u0000"), ("", ""), ("\x1b[31m" * 40, "x"),
    ],
)  # fmt: skip
def test_names_are_compared_exactly(tmp_path, module, name):
    stacked = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(w.encode())]) + w.encode() for w in (module, name)) + b"\x93."
    assert message(stacked, tmp_path).startswith("asks for '")


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n"
BEGIN = ARRAY + b"cnumpy\nndarray\n(I0\ntC\x01b\x87R"
F8 = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f8I0\nI1\ntR"
OBJECT = F8.replace(b"f8", b"O8")
HUGE = b"\x8a\x08" + struct.pack("<q", 2**40)
BAD = {
    "huge shape, few bytes": (BEGIN + b"(K\x01" + HUGE + b"\x85" + F8 + b"\x89C\x08" + bytes(8) + b"tb.", "comes with"),
    "huge shape from the start": (ARRAY + b"cnumpy\nndarray\n(" + HUGE + b"tC\x01b\x87R.", "does not begin as NumPy"),
    "ndarray called": (b"cnumpy\nndarray\n(" + HUGE + b"\x85tR.", "calls something that is not a function"),
    "ndarray made": (b"\x80\x02cnumpy\nndarray\n" + HUGE + b"\x85\x81.", "builds an object"),
    "short object list": (BEGIN + b"(K\x01" + HUGE + b"\x85" + OBJECT + b"\x89]tb.", "does not hold 1099511627776"),
    "negative shape": (BEGIN + b"(K\x01J\xff\xff\xff\xff\x85" + F8 + b"\x89C\x00tb.", "no proper shape"),
    "many axes": (BEGIN + b"(K\x01(" + b"K\x01" * 40 + b"t" + F8 + b"\x89C\x08" + bytes(8) + b"tb.", "no proper shape"),
    "wide text": (b"cnumpy\ndtype\n(X\x0b\x00\x00\x00S9999999999I0\nI1\ntR.", "neither numbers nor text"),
    "structured type": (b"cnumpy\ndtype\n(X\x03\x00\x00\x00i,fI0\nI1\ntR.", "neither numbers nor text"),
    "void type": (b"cnumpy\ndtype\n(X\x02\x00\x00\x00V8I0\nI1\ntR.", "neither numbers nor text"),
    "type with fields": (F8 + b"(K\x03X\x01\x00\x00\x00<N(X\x01\x00\x00\x00at}K\x08K\x08K\x00tb.", "structured type"),
    "number without bytes": (b"cnumpy.core.multiarray\nscalar\n(" + F8 + b"C\x02ab\x74R.", "comes with 2 bytes"),
    "other encoding": (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.", "another encoding"),
    "bytes announced": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62), "announces more bytes than it has"),
    "text announced": (b"\x80\x04\x8d" + struct.pack("<Q", 2**63), "is not a whole pickle"),
    "other file": (b"Pother\n.", "refers to something outside it"),
    "extension": (b"\x80\x02\x82\x01.", "uses an extension code"),
    "instance": (b"(ios\nsystem\n.", "builds an object"),
    "state of a list": (b"]}b.", "gives a state to something that has none"),
    "key that is a tuple": (b"}))s.", "a key that is neither text nor a number"),
    "value of nothing": (b"\x80\x04.", "a value is missing"),
    "no beginning": (b"tR.", "a collection has no beginning"),
    "unknown reference": (b"h\x07.", "refers to a value that it has not made"),
    "set": (b"\x80\x04\x8f.", "uses EMPTY_SET"),
    "junk": (b"not a pickle", "is not a whole pickle file"),
    "nothing": (b"", "is empty"),
    "a zip": (b"PK\x03\x04" + bytes(30), "is compressed or an archive: unpack it"),
    "a gzip": (gzip.compress(bytes(10_000_000)), "is compressed or an archive: unpack it"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_hostile_file_is_refused_in_one_sentence_and_little_memory(tmp_path, case):
    content, told = BAD[case]
    tracemalloc.start()
    assert told in message(content, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("opcode", [b"]", b"(", b"\x85", b"}", b"K\x01\x85"])
def test_deep_nesting_neither_crashes_nor_takes_long(tmp_path, opcode):
    """In a process of its own, because what it guards against ends the process."""
    depth = 200_000
    (tmp_path / "deep.pkl").write_bytes(b"K\x01" + opcode * depth + b".")
    code = (
        "import sys; from pathlib import Path; from datasets.unpickle import read_pickle, DataError\n"
        "try: value = read_pickle(Path(sys.argv[1])); del value\n"
        "except DataError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "deep.pkl")], timeout=60, capture_output=True)
    assert done.returncode == 0, done.stderr[-300:]


def test_a_deep_tuple_as_a_key_is_refused(tmp_path):
    """Python's own reader dies of this one: hashing a tuple runs down it without a limit."""
    assert "a key that is neither text" in message(b"}K\x01" + b"\x85" * 100_000 + b"K\x01s.", tmp_path)


def test_too_many_steps_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpickle, "MAX_OPCODES", 1000)
    assert "takes more than 1,000 steps" in message(b"]" * 2000 + b".", tmp_path)


def test_a_file_that_is_too_large_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(unpickle, "MAX_FILE_BYTES", 100)
    assert "is larger than" in message(bytes(101), tmp_path)


def test_an_absent_file_says_so(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_pickle(tmp_path / "absent.pkl")


SOUND = [pickle.dumps(CONTENT, protocol) for protocol in (2, 4)]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.8, 0.99, 0.9999])
@pytest.mark.parametrize("content", SOUND, ids=["protocol 2", "protocol 4"])
def test_a_truncated_file_is_refused(tmp_path, content, share):
    assert "is" in message(content[: int(share * len(content))], tmp_path)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_change_of_bytes_does_anything_but_raise_or_read(tmp_path, data):
    content = bytearray(data.draw(st.sampled_from(SOUND)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "odd.pkl").write_bytes(bytes(content))
    try:
        read_pickle(tmp_path / "odd.pkl")
    except DataError as error:
        told = str(error)
        assert told.isprintable()
