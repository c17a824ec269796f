"""Features of another width: what PCA and t-SNE keep, what they see, and that the cache changes nothing."""

import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import alignment
from datasets.alignment import Recipe, align, kept, principal_components, scatter
from datasets.errors import DataError


def skewed(n=400, d=4, seed=0):
    """Independent quantities of falling variance, each skewed, (N, d)."""
    return (np.random.default_rng(seed).exponential(size=(n, d)) * 2.0 ** -np.arange(d)).astype(np.float32)


def orthonormal(rows, columns, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(rows, columns)))[0]


def sequences(n, steps=6, d=5, seed=0):
    """(N, T, D) with 1 to T steps a sample, zeros in front."""
    rng = np.random.default_rng(seed)
    x = rng.exponential(size=(n, steps, d)) * 2.0 ** -np.arange(d)
    x[np.arange(steps) < steps - rng.integers(1, steps + 1, (n, 1))] = 0
    return x.astype(np.float32)


def splits_of(make, *sizes, **options):
    return {
        split: make(n, seed=i, **options)
        for i, (split, n) in enumerate(zip(("train", "valid", "test"), sizes, strict=True))
    }


# ---- principal components ---------------------------------------------------------------------------------------


def test_components_are_those_of_scikit_learn_whitened():
    from sklearn.decomposition import PCA

    x = skewed(d=6) @ orthonormal(6, 6, 1).astype(np.float32)
    fitted = PCA(3).fit(x.astype(np.float64))
    expected = fitted.transform(x) / np.sqrt(fitted.explained_variance_ * (len(x) - 1) / len(x))
    ours = principal_components(x, 3).project(x)
    assert np.abs(ours) == pytest.approx(np.abs(expected), abs=1e-4)
    assert ours.mean(0) == pytest.approx(0, abs=1e-5)
    assert ours.std(0) == pytest.approx(1, abs=1e-5)


@given(st.integers(0, 1000), st.integers(4, 12))
@settings(max_examples=20, deadline=None)
def test_two_linear_views_of_the_same_skewed_quantities_get_the_same_components(seed, d):
    latent = skewed(seed=seed)
    views = [(latent @ orthonormal(width, 4, seed + i).T).astype(np.float32) for i, width in enumerate((4, d))]
    first, second = (principal_components(x, 3).project(x) for x in views)
    assert first == pytest.approx(second, abs=5e-3)


def test_padding_takes_no_part_and_stays_zero():
    x = sequences(50)
    filled = x.any(axis=-1)
    components = principal_components(x, 3)
    projected = components.project(x)
    assert projected.shape == (50, 6, 3)
    assert not projected[~filled].any()
    assert projected[filled].any(axis=-1).all()
    alone = principal_components(x[filled], 3)
    assert components.mean == pytest.approx(alone.mean)
    assert components.directions == pytest.approx(alone.directions)
    assert projected[filled].std(0) == pytest.approx(1, abs=1e-5)


def test_many_chunks_give_what_one_gives(monkeypatch):
    x = sequences(80)
    whole = principal_components(x, 3)
    monkeypatch.setattr("datasets.statistics.CHUNK_VALUES", 70)
    assert principal_components(x, 3).directions == pytest.approx(whole.directions)
    assert principal_components(x, 3).project(x) == pytest.approx(whole.project(x), abs=1e-5)


def test_dimensions_the_rows_do_not_have_become_zero_and_not_noise():
    flat = skewed(d=2) @ orthonormal(8, 2, 1).T.astype(np.float32)
    projected = principal_components(flat, 4).project(flat)
    assert projected.std(0) == pytest.approx([1, 1, 0, 0], abs=1e-5)
    nothing = np.zeros((4, 3), np.float32)
    assert not principal_components(nothing, 2).project(nothing).any()


def test_pca_is_fitted_to_the_training_split_alone():
    splits = splits_of(skewed, 200, 40, 40)
    other = splits | {split: 9 * splits[split][:, ::-1] + 1 for split in ("valid", "test")}
    recipe = Recipe("pca", 2)
    first, second = align(splits, recipe, "m"), align(other, recipe, "m")
    assert first["train"].tobytes() == second["train"].tobytes()
    assert not np.allclose(first["test"], second["test"])


# ---- t-SNE ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [2, 4])
def test_up_to_as_many_rows_as_landmarks_it_is_plain_tsne_of_all_splits_together(width):
    from sklearn.manifold import TSNE

    splits = splits_of(skewed, 40, 10, 10, d=5)
    found = scatter(splits, width, landmarks=60, seed=3)
    assert {split: x.shape for split, x in found.items()} == {"train": (40, width), "valid": (10, width),
                                                              "test": (10, width)}  # fmt: skip
    expected = TSNE(
        width, perplexity=59 / 3, method="barnes_hut" if width < 4 else "exact",
        random_state=alignment.seed_of("alignment", "tsne", 3) % 2**32,
    ).fit_transform(np.concatenate(list(splits.values())))  # fmt: skip
    assert np.concatenate(list(found.values())).tobytes() == expected.astype(np.float32).tobytes()


def test_rows_beyond_the_landmarks_lie_among_their_neighbours_and_padding_stays_zero():
    splits = splits_of(sequences, 40, 5, 5)
    centres = 20 * np.eye(5, dtype=np.float32)[:2]
    for x in splits.values():
        x[x.any(axis=-1)] += centres[np.arange(int(x.any(axis=-1).sum())) % 2]
    found = scatter(splits, 2, landmarks=60, seed=0)
    rows = np.concatenate([x.reshape(-1, 5) for x in splits.values()])
    placed = np.concatenate([x.reshape(-1, 2) for x in found.values()])
    filled = rows.any(axis=1)
    assert filled.sum() > 100  # more than landmarks
    assert not placed[~filled].any()
    group = rows[filled][:, 0] > rows[filled][:, 1]
    middles = [placed[filled][group == side].mean(0) for side in (False, True)]
    nearer = np.linalg.norm(placed[filled] - middles[1], axis=1) < np.linalg.norm(placed[filled] - middles[0], axis=1)
    assert (nearer == group).mean() > 0.98


def test_the_same_seed_gives_the_same_bytes_whatever_the_global_stream_did_and_another_seed_others():
    splits = splits_of(sequences, 15, 4, 4)
    first = scatter(splits, 2, landmarks=30, seed=0)
    np.random.seed(5)  # noqa: NPY002
    assert scatter(splits, 2, landmarks=30, seed=0)["test"].tobytes() == first["test"].tobytes()
    assert scatter(splits, 2, landmarks=30, seed=1)["test"].tobytes() != first["test"].tobytes()


def test_what_cannot_be_aligned_is_told_in_one_sentence():
    few = splits_of(skewed, 1, 1, 1)
    with pytest.raises(
        DataError, match=r"^audio of 'a': t-SNE to 3 features needs more than 3 different rows, here are 3"
    ):
        align(few, Recipe("tsne", 3, 100), "audio of 'a'")
    few["valid"][0, 1] = np.nan
    for way in ("pca", "tsne"):
        with pytest.raises(DataError, match="audio of 'a' holds values that are NaN or infinite"):
            align(few, Recipe(way, 2, 100), "audio of 'a'")


# ---- the cache --------------------------------------------------------------------------------------------------

SHAPES = {"train": (7, 2), "valid": (2, 2), "test": (3, 2)}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    return tmp_path


class Maker:
    """Makes the arrays of `SHAPES` and counts how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {split: np.full(shape, i + 0.1, np.float32) for i, (split, shape) in enumerate(SHAPES.items())}


def same(first, second):
    return all(first[split].tobytes() == second[split].tobytes() for split in SHAPES)


def test_what_is_kept_is_what_was_made_and_is_made_once(home):
    make = Maker()
    first, again = kept("k", SHAPES, make), kept("k", SHAPES, make)
    assert make.calls == 1
    assert same(first, again)
    assert kept("other", SHAPES, make).keys() == SHAPES.keys()
    assert make.calls == 2
    assert sorted(path.name for path in (home / ".cache").iterdir()) == [
        "aligned-k.safetensors", "aligned-other.safetensors", "lock",
    ]  # fmt: skip


@pytest.mark.parametrize("damage", ["truncate", "garbage", "shape", "empty", "names"])
def test_a_damaged_file_is_made_again(home, damage):
    from safetensors.numpy import save_file

    make = Maker()
    first = {split: x.copy() for split, x in kept("k", SHAPES, make).items()}
    path = home / ".cache" / "aligned-k.safetensors"
    content = path.read_bytes()
    path.unlink()
    match damage:
        case "truncate":
            path.write_bytes(content[:-5])
        case "garbage":
            path.write_bytes(b"\xff" * 100)
        case "empty":
            path.write_bytes(b"")
        case "shape":
            save_file({split: np.zeros((1, 2), np.float32) for split in SHAPES}, path)
        case "names":
            save_file({"train": np.zeros((7, 2), np.float32)}, path)
    assert same(kept("k", SHAPES, make), first)
    assert make.calls == 2
    assert same(kept("k", SHAPES, make), first)
    assert make.calls == 2


def test_without_a_place_to_keep_them_the_arrays_are_made_each_time(home):
    (home / ".cache").write_text("in the way")
    make = Maker()
    assert same(kept("k", SHAPES, make), kept("k", SHAPES, make))
    assert make.calls == 2


def test_those_that_come_at_once_wait_for_one(home):
    make, found, gate = Maker(), [], threading.Event()

    def slow():
        gate.wait(5)
        return make()

    threads = [threading.Thread(target=lambda: found.append(kept("k", SHAPES, slow))) for _ in range(3)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert make.calls == 1
    assert len(found) == 3


def test_a_failure_leaves_no_file_and_no_lock(home):
    def fail():
        raise DataError("broken")

    with pytest.raises(DataError, match="broken"):
        kept("k", SHAPES, fail)
    assert os.listdir(home / ".cache") == ["lock"]  # noqa: PTH208
    make = Maker()
    kept("k", SHAPES, make)
    assert make.calls == 1
