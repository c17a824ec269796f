"""What every representation analysis checks first, and the key its results are cached by."""

import subprocess
import sys

import numpy as np
import pytest

from analysis.representations import (
    RepresentationError,
    checked,
    checked_classes,
    content_key,
    fused_and_single,
    modality_of,
    same_samples,
    unit_rows,
    varied,
)
from datasets.errors import UserError

X = np.arange(12.0).reshape(6, 2) + 1


def test_the_key_follows_content_type_shape_order_and_settings() -> None:
    key = content_key(X, seed=1, how="tsne")
    assert key == content_key(X.copy(), how="tsne", seed=1)
    assert key == content_key(np.asfortranarray(X), seed=1, how="tsne")
    others = [
        content_key(X, seed=2, how="tsne"),
        content_key(X.astype(np.float32), seed=1, how="tsne"),
        content_key(X.reshape(2, 6), seed=1, how="tsne"),
        content_key(X[::-1], seed=1, how="tsne"),
        content_key(X, X, seed=1, how="tsne"),
        content_key(X[:3], X[3:], seed=1, how="tsne"),
    ]
    assert len({key, *others}) == 7


def test_the_key_is_that_of_another_process() -> None:
    code = "from analysis.representations import *; print(content_key(np.ones((2, 3)), seed=0))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert found == content_key(np.ones((2, 3)), seed=0)


def test_rows_become_unit_and_input_stays_as_it_was() -> None:
    before = X.copy()
    np.testing.assert_allclose(np.linalg.norm(unit_rows("x", X), axis=1), 1)
    np.testing.assert_array_equal(X, before)
    assert checked("x", [1, 2, 3]).shape == (3, 1)


def test_names_of_representations() -> None:
    assert [modality_of(name) for name in ("s", "z/text", "u/audio")] == ["full", "text", "audio"]
    fused, single = fused_and_single("m", {"s": X, "z/text": X + 1, "u/text": X})
    assert fused is X
    assert list(single) == ["text"]
    assert same_samples(a=X, b=X[:, :1]) == 6


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: checked("gmc: s", X[:1]), "gmc: s has 1 samples; this analysis needs at least 2"),
        (lambda: checked("x", np.zeros((3, 0))), r"shape \(n, d\), got \(3, 0\)"),
        (lambda: checked("x", np.where(X > 11, np.nan, X)), "1 of 6 samples with NaN"),
        (lambda: unit_rows("x", np.where(X > 10, X, 0)), "5 of 6 samples that are zero"),
        (lambda: varied("x", np.full((4, 2), 3.0) + 1e-9 * np.arange(8).reshape(4, 2)), "collapsed"),
        (lambda: checked_classes([0, 0, 0], 3, least=2), "at least 2 classes, there is 1"),
        (lambda: checked_classes(["a", "b"], 2), "whole numbers"),
        (lambda: fused_and_single("unimodal", {"z/text": X}), "unimodal: needs the representations s and z/<modality>"),
        (lambda: same_samples(s=X, classes=X[:2]), "s 6, classes 2"),
    ],
)
def test_hostile_input_is_told_in_a_sentence(call: object, words: str) -> None:
    with pytest.raises(RepresentationError, match=words) as caught:
        call()  # type: ignore[operator]
    assert isinstance(caught.value, UserError)
    assert caught.value.exit_code == 1
