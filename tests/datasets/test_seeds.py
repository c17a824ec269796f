"""Named random streams."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.seeds import generator, seed_of


def test_a_seed_is_the_same_on_every_machine():
    """Golden: first 63 bits of `b2sum -l 64` of the axes joined by the unit separator."""
    import hashlib

    digest = hashlib.blake2b(b"labels\x1fdigits\x1f3", digest_size=8).hexdigest()
    assert seed_of("labels", "digits", 3) == int(digest, 16) // 2 == 1864138506286082524


@given(st.lists(st.text(st.characters(exclude_characters="\x1f"), max_size=5), min_size=1, max_size=4))
def test_axes_are_kept_apart(axes):
    assert 0 <= seed_of(*axes) < 2**63
    assert seed_of(*axes) != seed_of(*axes, "")
    if len(axes) > 1:
        assert seed_of(*axes) != seed_of("".join(axes))


def test_a_separator_in_an_axis_is_refused():
    with pytest.raises(ValueError, match="unit separator"):
        seed_of("a\x1fb")


def test_twice_the_same_numbers_whatever_the_global_stream_did():
    first = generator("x", 1).random(5)
    np.random.seed(3)  # noqa: NPY002
    assert np.array_equal(generator("x", 1).random(5), first)
    assert not np.array_equal(generator("x", 2).random(5), first)


def test_the_same_numbers_in_another_process():
    code = "from datasets.seeds import seed_of; print(seed_of('a', 0.5, 7))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(told) == seed_of("a", 0.5, 7)
