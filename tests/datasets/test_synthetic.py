"""The synthetic data: its truth against exact enumeration and published values, its arrays against that truth."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from datasets.base import all_subsets
from datasets.seeds import generator
from datasets.store import content_problems
from datasets.synthetic import (
    MAX_BITS,
    Synthetic,
    SyntheticConfig,
    View,
    _all_symbols,
    _layouts,
    draw_symbols,
    target_of,
    truth,
    weights,
)
from datasets.tasks import Binary, MultiClass, MultiLabel, Regression

# ---- an independent account of the design: every outcome, counted ------------------------------------------------


def flips_of(bits, rate):
    """Every way in which the bits may be misread, with its probability."""
    for wrong in itertools.product((0, 1), repeat=len(bits)):
        yield math.prod(rate if w else 1 - rate for w in wrong), tuple(b ^ w for b, w in zip(bits, wrong, strict=True))


def bit_outcomes(kind, config, owner=None):
    """(probability, bit, what each modality sees of it) for one label bit of a kind; None: not shown, "?": erased."""
    m, p = config.n_modalities, config.imbalance
    erasure, flip = getattr(config, f"{kind}_erasure"), getattr(config, f"{kind}_flip")
    for bit in (0, 1):
        if kind == "synergy":
            masks = [(*a, bit ^ (sum(a) % 2)) for a in itertools.product((0, 1), repeat=m - 1)]
        else:
            masks = [tuple(bit if owner in (None, i) else None for i in range(m))]
        for mask in masks:
            base = (p if bit else 1 - p) / len(masks)
            shown = [i for i in range(m) if mask[i] is not None]
            for chance, read in flips_of([mask[i] for i in shown], flip):
                seen = dict(zip(shown, read, strict=True))
                yield base * chance * (1 - erasure), bit, tuple(seen.get(i) for i in range(m))
            yield base * erasure, bit, tuple("?" if i in shown else None for i in range(m))


def joint(config):
    """{(label, (seen by m1, seen by m2, ...)): probability} over every outcome of the whole design."""
    per_bit = [list(bit_outcomes("redundancy", config))] * config.redundancy
    for i, n in enumerate(config.unique_bits):
        per_bit += [list(bit_outcomes("uniqueness", config, i))] * n
    per_bit += [list(bit_outcomes("synergy", config))] * config.synergy
    table = defaultdict(float)
    for outcome in itertools.product(*per_bit):
        probability = math.prod(chance for chance, _, _ in outcome)
        if probability > 0:
            bits = np.array([[bit for _, bit, _ in outcome]])
            label = target_of(config.task, bits)[0]
            label = tuple(label) if config.task == "multilabel" else label.item()
            table[label, tuple(zip(*(seen for _, _, seen in outcome), strict=True))] += probability
    return table


def limits(table, modalities):
    """Information in bits, best accuracy, best squared and absolute error, from what some modalities see."""
    by_seen, label, seen = defaultdict(dict), defaultdict(float), defaultdict(float)
    for (y, x), probability in table.items():
        x_a = tuple(x[i] for i in modalities)
        by_seen[x_a][y] = by_seen[x_a].get(y, 0) + probability
        label[y] += probability
        seen[x_a] += probability
    information = sum(
        p * math.log2(p / (label[y] * seen[x])) for x, row in by_seen.items() for y, p in row.items() if p > 0
    )
    accuracy = sum(max(row.values()) for row in by_seen.values())
    squared = absolute = 0.0
    if not isinstance(next(iter(label)), tuple):
        for row in by_seen.values():
            values, chances = np.array(list(row)), np.array(list(row.values()))
            squared += chances @ (values - chances @ values / chances.sum()) ** 2
            absolute += min(chances @ np.abs(values - centre) for centre in values)
    entropy = -sum(p * math.log2(p) for p in label.values() if p > 0)
    return {
        "entropy": entropy,
        "information": information,
        "bayes_accuracy": accuracy,
        "bayes_mse": squared,
        "bayes_mae": absolute,
    }


@st.composite
def configs(draw, n_modalities=(2, 3), tasks=("multiclass", "binary", "multilabel", "regression")):
    """Designs of at most three bits, small enough to enumerate."""
    m = draw(st.sampled_from(n_modalities))
    kinds = draw(st.lists(st.sampled_from(["r", "s", *range(m)]), min_size=1, max_size=3 if m == 2 else 2))
    task = draw(st.sampled_from(tasks))
    rates = {f"{kind}_erasure": draw(st.sampled_from([0.0, 0.3])) for kind in ("redundancy", "uniqueness", "synergy")}
    if task != "binary" or len(kinds) == 1:
        flip = st.sampled_from([0.0, 0.1])
        rates |= {f"{kind}_flip": draw(flip) for kind in ("redundancy", "uniqueness", "synergy")}
    return SyntheticConfig(
        n_modalities=m,
        redundancy=kinds.count("r"),
        uniqueness=tuple(kinds.count(i) for i in range(m)),
        synergy=kinds.count("s"),
        task=task,
        imbalance=draw(st.sampled_from([0.5, 0.3])),
        **rates,
    )


@settings(deadline=None, max_examples=60)
@given(configs())
def test_the_truth_is_what_counting_every_outcome_gives(config):
    known, table = truth(config), joint(config)
    assert sum(table.values()) == pytest.approx(1)
    assert known["entropy"] == pytest.approx(limits(table, ())["entropy"], abs=1e-9)
    for subset in all_subsets(config.modalities):
        counted = limits(table, [config.modalities.index(name) for name in subset.split("+")])
        told = {key.split("/")[0]: value for key, value in known.items() if key.endswith(f"/{subset}")}
        told.pop("unique", None)
        assert "information" in told
        for key, value in told.items():
            # Regression targets are stored as float32.
            assert value == pytest.approx(counted[key], abs=1e-6), (subset, key)


@settings(deadline=None, max_examples=100)
@given(configs(tasks=("multiclass", "multilabel", "regression")))
def test_the_three_amounts_add_up_to_all_information_and_none_is_negative(config):
    known = truth(config)
    amounts = [known["redundancy"], known["synergy"], *(known[f"unique/{name}"] for name in config.modalities)]
    assert sum(amounts) == pytest.approx(known["information/" + "+".join(config.modalities)], abs=1e-9)
    assert min(amounts) > -1e-12
    for name in config.modalities:
        alone = known["redundancy"] + known[f"unique/{name}"]
        assert known[f"information/{name}"] == pytest.approx(alone, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(configs(n_modalities=(2,), tasks=("multiclass",)))
def test_redundancy_less_synergy_is_what_two_modalities_tell_twice(config):
    known = truth(config)
    twice = known["information/m1"] + known["information/m2"] - known["information/m1+m2"]
    assert known["redundancy"] - known["synergy"] == pytest.approx(twice, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(configs())
def test_more_modalities_never_tell_less(config):
    known = truth(config)
    for small, large in itertools.permutations(all_subsets(config.modalities), 2):
        if set(small.split("+")) < set(large.split("+")):
            assert known[f"information/{small}"] <= known[f"information/{large}"] + 1e-9
            for score, better in (("bayes_accuracy", 1), ("bayes_mse", -1), ("bayes_mae", -1)):
                if f"{score}/{small}" in known:
                    assert better * known[f"{score}/{small}"] <= better * known[f"{score}/{large}"] + 1e-9


# ---- golden numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "information"),
    [
        ((1, 0, 0, 0), (1, 1, 1)),
        ((0, 1, 1, 0), (1, 1, 2)),
        ((0, 0, 0, 1), (0, 0, 1)),
        ((1, 1, 0, 1), (2, 1, 3)),
        ((1, 1, 1, 1), (2, 2, 4)),
    ],
)
def test_whole_bits_of_two_modalities(bits, information):
    """Verified by exact enumeration with the BROJA decomposition of the `dit` package."""
    r, u1, u2, s = bits
    known = truth(SyntheticConfig(n_modalities=2, redundancy=r, uniqueness=(u1, u2), synergy=s))
    assert tuple(known[f"information/{a}"] for a in ("m1", "m2", "m1+m2")) == information
    assert (known["redundancy"], known["unique/m1"], known["unique/m2"], known["synergy"]) == bits


def test_three_modalities():
    known = truth(SyntheticConfig(redundancy=1, uniqueness=(1, 0, 1), synergy=1))
    told = {a: (known[f"information/{a}"], known[f"bayes_accuracy/{a}"]) for a in all_subsets(("m1", "m2", "m3"))}
    assert told == {
        "m1": (2, 0.25), "m2": (1, 0.125), "m3": (2, 0.25),
        "m1+m2": (2, 0.25), "m1+m3": (3, 0.5), "m2+m3": (2, 0.25), "m1+m2+m3": (4, 1),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flip", "redundancy", "synergy"), [(0.05, 0.71360, 0.16655), (0.1, 0.53100, 0.21108), (0.2, 0.27807, 0.18245)]
)
def test_a_redundant_bit_through_two_noisy_channels(flip, redundancy, synergy):
    config = SyntheticConfig(n_modalities=2, redundancy=1, uniqueness=0, synergy=0, redundancy_flip=flip)
    known = truth(config)
    assert (known["redundancy"], known["synergy"]) == pytest.approx((redundancy, synergy), abs=5e-6)
    assert known["unique/m1"] == known["unique/m2"] == 0
    assert broja_synergy(config) == pytest.approx(synergy, abs=1e-4)


@pytest.mark.parametrize(("flip", "synergy"), [(0.05, 0.54706), (0.1, 0.31992), (0.2, 0.09562)])
def test_a_synergy_bit_with_noisy_masks(flip, synergy):
    config = SyntheticConfig(n_modalities=2, redundancy=0, uniqueness=0, synergy=1, synergy_flip=flip)
    assert truth(config)["synergy"] == pytest.approx(synergy, abs=5e-6)
    assert broja_synergy(config) == pytest.approx(synergy, abs=1e-4)


def broja_synergy(config):
    """Synergy after Bertschinger et al.: I(Y; X1 X2) less its minimum over all joints with the same (Xi, Y).

    For one bit seen as two binary symbols such joints have one free number a class: the chance t_y of (1, 1).
    """
    from scipy.optimize import minimize

    p = np.zeros((2, 2, 2))  # y, x1, x2
    for (y, ((x1,), (x2,))), chance in joint(config).items():
        p[y, x1, x2] += chance

    def information(q):
        marginal = q.sum((1, 2), keepdims=True) * q.sum(0, keepdims=True)
        safe = np.where(q > 1e-15, q, 1)
        return float((q * np.log2(safe / np.where(q > 1e-15, marginal, 1))).sum())

    one, two = p.sum(2)[:, 1], p.sum(1)[:, 1]  # chance of x1 = 1 and of x2 = 1, per class
    total = p.sum((1, 2))

    def with_both(t):
        return np.stack([np.stack([total - one - two + t, two - t], 1), np.stack([one - t, t], 1)], 1)

    low, high = np.maximum(0, one + two - total), np.minimum(one, two)
    best = minimize(
        lambda t: information(with_both(np.clip(t, low, high))), (low + high) / 2, method="Nelder-Mead",
        options={"xatol": 1e-7, "fatol": 1e-10},
    )  # fmt: skip
    return information(p) - best.fun


def test_a_unique_bit_through_a_noisy_channel_and_erasure():
    noisy = truth(SyntheticConfig(n_modalities=2, redundancy=0, uniqueness=(1, 0), synergy=0, uniqueness_flip=0.1))
    assert noisy["unique/m1"] == pytest.approx(0.53100, abs=5e-6)
    erased = truth(SyntheticConfig(redundancy=2, uniqueness=0, synergy=1, redundancy_erasure=0.25, synergy_erasure=0.4))
    assert (erased["redundancy"], erased["synergy"], erased["entropy"]) == pytest.approx((1.5, 0.6, 3))


def test_biased_bits_carry_the_entropy_of_their_bias():
    known = truth(SyntheticConfig(imbalance=0.1))
    assert known["redundancy"] == known["synergy"] == known["unique/m1"] == pytest.approx(0.4689956)


def test_hidden_bits_add_their_squared_weight_to_the_error():
    known, w = truth(SyntheticConfig(task="regression")), weights(4)
    assert known["bayes_mse/m1+m3"] == pytest.approx(w[3] ** 2)
    assert known["bayes_mse/m1"] == pytest.approx(w[2] ** 2 + w[3] ** 2)
    assert known["bayes_mae/m1+m3"] == pytest.approx(w[3])
    assert known["bayes_mse/m1+m2+m3"] == known["bayes_mae/m1+m2+m3"] == 0


def test_what_is_not_known_exactly_is_not_told():
    assert set(truth(SyntheticConfig(sigma=0.3))) == {"entropy"}
    several = truth(SyntheticConfig(task="binary"))
    assert "redundancy" not in several
    assert several["bayes_accuracy/m1+m2+m3"] == 1
    assert not any(key.startswith("bayes_mae") for key in truth(SyntheticConfig(task="regression", synergy_flip=0.1)))


# ---- targets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 9))
def test_the_regression_value_is_one_to_one_with_the_bits(n):
    bits = np.array(list(itertools.product((0, 1), repeat=n)))
    values = target_of("regression", bits)
    assert len(np.unique(values)) == 2**n
    assert np.abs(values).min() > 1e-3
    assert (values.min(), values.max()) == (-3, 3)
    assert weights(n).max() / weights(n).min() <= 1.5
    assert np.array_equal(target_of("binary", bits), values > 0)


def test_targets_of_the_other_tasks():
    bits = np.array([[1, 0, 1], [0, 1, 1]])
    assert target_of("multiclass", bits).tolist() == [5, 3]
    assert target_of("multilabel", bits).tolist() == bits.tolist()


@pytest.mark.parametrize(
    ("options", "task"),
    [
        ({}, MultiClass(16)),
        ({"task": "multilabel"}, MultiLabel(4)),
        ({"task": "regression"}, Regression()),
        ({"task": "binary"}, Binary()),
        ({"task": "binary", "uniqueness": 0, "synergy": 0}, Binary()),
        ({"task": "multilabel", "redundancy": 10, "dim": 16}, MultiLabel(13)),
    ],
)
def test_every_task_has_targets_of_its_form(options, task):
    data = Synthetic(SyntheticConfig(n_train=300, n_valid=50, n_test=50, **options)).load()
    assert data.spec.task == task
    assert content_problems(data.spec, data.parts) == []


# ---- what the generated arrays really hold ----------------------------------------------------------------------


def plug_in_information(x, y):
    """Mutual information of two sets of columns with values -1, 0 and 1, estimated by their frequencies."""
    x, y = (np.unique((z + 1) @ 3.0 ** np.arange(z.shape[1]), return_inverse=True)[1] for z in (x, y))
    p = np.zeros((x.max() + 1, y.max() + 1))
    np.add.at(p, (x, y), 1 / len(x))
    outer = p.sum(1, keepdims=True) * p.sum(0)
    return float((p[p > 0] * np.log2(p[p > 0] / outer[p > 0])).sum())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"redundancy_erasure": 0.3, "uniqueness_erasure": 0.2, "synergy_erasure": 0.1, "uniqueness": (1, 0, 0)},
        {"redundancy_flip": 0.1, "synergy_flip": 0.05, "uniqueness": 0},
        {"imbalance": 0.2, "uniqueness_flip": 0.2},
        {"n_modalities": 2, "uniqueness": (2, 1), "synergy": 2},
    ],
)
def test_drawn_symbols_carry_the_information_they_should(options):
    config = SyntheticConfig(**options)
    bits, shown = draw_symbols(config, 200_000, generator("test"))
    known = truth(config)
    for subset in all_subsets(config.modalities):
        seen = np.concatenate([shown[config.modalities.index(name)] for name in subset.split("+")], axis=1)
        assert plug_in_information(seen, bits) == pytest.approx(known[f"information/{subset}"], abs=4e-3)


def decode(config, inputs):
    """Coefficients read back from the inputs of each modality: projection, or the nearest symbol's centre."""
    read = []
    for layout, (name, x) in zip(_layouts(config), inputs.items(), strict=True):
        view = View(config, layout, name)
        projected = (x.sum(1) if x.ndim == 3 else x) @ view.signal
        if config.nonlinear:
            symbols = _all_symbols(layout)
            centres = view.network(symbols)
            distance = ((projected[:, None] - centres) ** 2).sum(-1)
            projected = symbols[distance.argmin(1)]
        read.append(projected[:, : layout.n_bits] > 0)
    return read


def oracle_accuracy(config, part, subset):
    """Accuracy of reading the bits from some modalities and guessing 0 for the others."""
    read, r, s = decode(config, part.inputs), config.redundancy, config.synergy
    seen = [config.modalities.index(name) for name in subset.split("+")]
    votes = np.mean([read[i][:, :r] for i in seen], axis=0) > 0.5
    own = [read[i][:, r : r + n] if i in seen else np.zeros((len(part), n)) for i, n in enumerate(config.unique_bits)]
    masks = [read[i][:, read[i].shape[1] - s :] for i in range(len(read))]
    parity = np.bitwise_xor.reduce(masks) if len(seen) == config.n_modalities else np.zeros((len(part), s))
    bits = np.concatenate([votes, *own, parity], axis=1).astype(int)
    return (target_of(config.task, bits) == part.target).mean()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_nuisance": 8, "dim": 32},
        {"inputs": "sequence"},
        {"inputs": "sequence", "shuffle": True, "time_steps": 30},
        {"nonlinear": True},
        {"redundancy_erasure": 0.2, "synergy_erasure": 0.3},
        {"redundancy_erasure": 0.2, "nonlinear": True},
        {"redundancy_flip": 0.1, "synergy_flip": 0.05},
        {"n_modalities": 2, "uniqueness": (2, 0), "data_seed": 4},
    ],
)
def test_reading_each_bit_reaches_the_bayes_limit_at_sigma_025(options):
    config = SyntheticConfig(n_train=1, n_valid=1, n_test=4000, **options)
    data = Synthetic(config).load()
    for subset in all_subsets(config.modalities):
        limit = data.truth[f"bayes_accuracy/{subset}"]
        reached = oracle_accuracy(config, data.parts["test"], subset)
        # 4 standard deviations of 4000 samples, and one misread bit in 30000 (Q(1 / sigma)) for each that is read
        assert abs(reached - limit) < 4 * math.sqrt(limit * (1 - limit) / 4000) + 2e-3


@pytest.mark.parametrize(("sigma", "error"), [(0.5, 0.02275), (1.0, 0.15866)])
@pytest.mark.parametrize("inputs", ["vector", "sequence"])
def test_noise_misreads_a_bit_as_often_as_the_normal_tail_says(sigma, error, inputs):
    """Q(1 / sigma), for vectors; a sequence has fewer noisy steps than T, so never more errors."""
    config = SyntheticConfig(
        redundancy=1, uniqueness=0, synergy=0, sigma=sigma, n_train=1, n_valid=1, n_test=20_000, dim=12, inputs=inputs
    )
    test = Synthetic(config).load().parts["test"]
    wrong = np.mean([(read[:, 0] != test.target).mean() for read in decode(config, test.inputs)])
    if inputs == "vector":
        assert wrong == pytest.approx(error, rel=0.08)
    else:
        assert 0 < wrong < error


def test_nuisance_carries_no_information_and_has_unit_variance():
    config = SyntheticConfig(n_train=20_000, n_valid=1, n_test=1)
    train = Synthetic(config).load().parts["train"]
    for layout, (name, x) in zip(_layouts(config), train.inputs.items(), strict=True):
        nuisance = x @ View(config, layout, name).nuisance
        assert nuisance.var(0) == pytest.approx(np.full(2, 1 + 0.25**2), rel=0.05)
        by_class = np.array([nuisance[train.target == c].mean(0) for c in range(16)])
        assert np.abs(by_class).max() < 5 / math.sqrt(20_000 / 16)


@pytest.mark.parametrize("options", [{}, {"nonlinear": True}, {"redundancy_erasure": 0.1}])
def test_directions_are_orthonormal_and_differ_between_modalities(options):
    config = SyntheticConfig(**options)
    views = [View(config, layout, name) for layout, name in zip(_layouts(config), config.modalities, strict=True)]
    for view in views:
        basis = np.concatenate([view.signal, view.nuisance], axis=1)
        assert np.allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-12)
    assert not np.allclose(views[0].signal[:, 0], views[1].signal[:, 0])


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 200), st.integers(0, 2), st.sampled_from([0.0, 0.2]))
def test_the_network_keeps_all_symbols_two_apart(seed, unique, erasure):
    config = SyntheticConfig(
        nonlinear=True, uniqueness=unique, data_seed=seed, synergy_erasure=erasure, task="multilabel", redundancy=2
    )
    for layout, name in zip(_layouts(config), config.modalities, strict=True):
        view, symbols = View(config, layout, name), _all_symbols(layout)
        assert len(symbols) == 2 ** (layout.n_bits - len(layout.erasable)) * 3 ** len(layout.erasable)
        centres = view.network(symbols) @ view.signal.T
        distance = np.linalg.norm(centres[:, None] - centres, axis=-1)[~np.eye(len(symbols), dtype=bool)]
        assert distance.min() == pytest.approx(2, abs=1e-6)


def test_the_network_is_not_linear():
    config = SyntheticConfig(nonlinear=True)
    (layout, *_), symbols = _layouts(config), _all_symbols(_layouts(config)[0])
    centres = View(config, layout, "m1").network(symbols)
    design = np.concatenate([symbols, np.ones((len(symbols), 1))], axis=1)
    residual = centres - design @ np.linalg.lstsq(design, centres, rcond=None)[0]
    assert (residual**2).sum() > 0.08 * ((centres - centres.mean(0)) ** 2).sum()


def test_sequences_have_zeros_in_front_and_every_bit_once():
    config = SyntheticConfig(inputs="sequence", time_steps=12, sigma=0, n_nuisance=0, n_train=500, n_valid=1, n_test=1)
    data = Synthetic(config).load()
    assert data.spec.modalities == {"m1": (12, 12), "m2": (12, 12), "m3": (12, 12)}
    for layout, (name, x) in zip(_layouts(config), data.parts["train"].inputs.items(), strict=True):
        shown = np.abs(x @ View(config, layout, name).signal).round(5)  # (N, T, columns)
        assert np.array_equal(np.sort(shown, axis=1)[:, -1], np.ones((500, layout.n_bits)))
        assert shown.sum() == 500 * layout.n_bits
        steps = shown.argmax(1)
        assert (np.diff(steps, axis=1) > 0).all()  # in order, as `shuffle` is off
        assert set(steps[:, -1]) > {6, 11}
    noisy = Synthetic(config.model_copy(update={"sigma": 0.1})).load().parts["train"].inputs["m1"]
    empty = (noisy == 0).all(-1)  # (N, T)
    assert (np.diff(empty.astype(int), axis=1) <= 0).all()
    assert set(empty.sum(1)) == set(range(7))


def test_shuffled_sequences_show_their_bits_in_any_order():
    config = SyntheticConfig(
        inputs="sequence", shuffle=True, sigma=0, n_nuisance=0, n_train=500, n_valid=1, n_test=1, uniqueness=(1, 0, 0)
    )
    x = Synthetic(config).load().parts["train"].inputs["m1"]
    steps = np.abs(x @ View(config, _layouts(config)[0], "m1").signal).argmax(1)
    orders = {tuple(np.argsort(row)) for row in steps}
    assert orders == set(itertools.permutations(range(3)))


def test_a_modality_without_any_bit_is_noise():
    config = SyntheticConfig(redundancy=0, uniqueness=(1, 0, 1), synergy=0, n_train=100)
    data = Synthetic(config).load()
    assert data.truth["information/m2"] == 0
    assert np.isfinite(data.parts["train"].inputs["m2"]).all()
    sequence = Synthetic(config.model_copy(update={"inputs": "sequence"})).load()
    assert sequence.parts["train"].inputs["m2"].any()


# ---- streams, fingerprints, golden arrays -----------------------------------------------------------------------


def test_other_noise_or_other_splits_leave_labels_and_training_alone():
    base = Synthetic(SyntheticConfig()).load().parts["train"]
    louder = Synthetic(SyntheticConfig(sigma=1.0)).load().parts["train"]
    longer = Synthetic(SyntheticConfig(n_test=900)).load().parts["train"]
    assert np.array_equal(base.target, louder.target)
    assert not np.array_equal(base.inputs["m1"], louder.inputs["m1"])
    assert np.array_equal(base.inputs["m1"], longer.inputs["m1"])
    other = Synthetic(SyntheticConfig(data_seed=1)).load().parts["train"]
    assert not np.array_equal(base.target, other.target)


OTHER_VALUES = {
    "n_modalities": 4, "redundancy": 2, "uniqueness": 1, "synergy": 0, "task": "regression", "imbalance": 0.4,
    "redundancy_erasure": 0.1, "uniqueness_erasure": 0.1, "synergy_erasure": 0.1, "redundancy_flip": 0.1,
    "uniqueness_flip": 0.1, "synergy_flip": 0.1, "inputs": "sequence", "dim": 40, "n_nuisance": 4, "sigma": 0.1,
    "nonlinear": True, "time_steps": 20, "shuffle": True, "n_train": 10, "n_valid": 10, "n_test": 10, "data_seed": 1,
    "fold": 2, "folds": 4,
}  # fmt: skip


def test_every_option_changes_the_fingerprint():
    prints = {Synthetic().spec().fingerprint}
    assert set(OTHER_VALUES) == set(SyntheticConfig.model_fields)
    for name, value in OTHER_VALUES.items():
        options = {name: value} | ({"uniqueness": 0} if name == "n_modalities" else {})
        options |= {"fold": 1} if name == "folds" else {}
        prints.add(Synthetic(SyntheticConfig(**options)).spec().fingerprint)
    assert len(prints) == 1 + len(OTHER_VALUES)


def test_a_number_for_all_modalities_is_the_list_of_it():
    assert Synthetic(SyntheticConfig(uniqueness=1)).spec() == Synthetic(SyntheticConfig(uniqueness=[1, 1, 1])).spec()


def summary(data):
    """Sums that change with any array, rounded so that no processor's last digit matters."""
    total = {"target": sum(float(part.target.sum()) for part in data.parts.values())}
    for name in data.spec.modalities:
        x = np.concatenate([part.inputs[name].reshape(-1) for part in data.parts.values()]).astype(np.float64)
        total[name] = float(x @ np.cos(np.arange(len(x))))
    return {key: round(value, 3) for key, value in total.items()}


GOLDEN = [
    ({}, "016d467ddfc6d75802baf4bf06c50bd6", {"target": 20275.0, "m1": 49.685, "m2": -50.974, "m3": -95.778}),
    (
        {"task": "regression", "redundancy_erasure": 0.2, "synergy_flip": 0.1},
        "68c982ffe39900cf8397b2a065d47b01",
        {"target": -72.228, "m1": -212.951, "m2": 4.455, "m3": -56.394},
    ),
    (
        {"inputs": "sequence", "shuffle": True, "n_train": 200},
        "b3ad5fce28ee8e70bb50216cb263ef66",
        {"target": 10352.0, "m1": 28.63, "m2": 78.173, "m3": -54.48},
    ),
    (
        {"nonlinear": True, "imbalance": 0.3, "data_seed": 3},
        "3ff22158443a41cde6f65c14805cea1d",
        {"target": 11809.0, "m1": 149.218, "m2": -83.703, "m3": 106.949},
    ),
]


@pytest.mark.parametrize(("options", "fingerprint", "sums"), GOLDEN)
def test_a_fingerprint_stands_for_the_same_arrays_for_ever(options, fingerprint, sums):
    """Golden: made by generator version 1. If this fails, raise `GENERATOR_VERSION` or undo the change."""
    data = Synthetic(SyntheticConfig(**options)).load()
    assert summary(data) == pytest.approx(sums, abs=2e-3)
    assert data.spec.fingerprint == fingerprint


# ---- options ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"uniqueness": [1, 0]},
            "uniqueness lists 2 numbers for 3 modalities: give one number for each, or a single number for all.",
        ),
        (
            {"redundancy": 4},
            "the bits redundancy + uniqueness + synergy add up to 7, a multiclass task takes 1 to 6.",
        ),
        (
            {"redundancy": 0, "uniqueness": 0, "synergy": 0},
            "the bits redundancy + uniqueness + synergy add up to 0, a multiclass task takes 1 to 6.",
        ),
        (
            {"task": "binary", "synergy_flip": 0.1},
            "a binary label made of 4 bits takes no flips: what is known of it would not be exact. "
            "Use one bit, or erasure.",
        ),
        ({"dim": 4}, "dim is 4, the bits and nuisance directions of a modality need 5."),
        (
            {"inputs": "sequence", "time_steps": 5},
            "time_steps is 5, a sequence needs 6 to show its bits in any half of it.",
        ),
        (
            {"inputs": "sequence", "nonlinear": True},
            "nonlinear inputs are vectors: set nonlinear to false or inputs to vector.",
        ),
        (
            {"nonlinear": True, "task": "multilabel", "redundancy": 5},
            "a nonlinear modality shows at most 6 bits, here it would be 7.",
        ),
    ],
)
def test_options_that_do_not_fit_together_are_refused_in_plain_words(options, told):
    with pytest.raises(ValidationError) as caught:
        SyntheticConfig(**options)
    assert [error["msg"] for error in caught.value.errors()] == [f"Value error, {told}"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("redundancy", -1), ("sigma", -0.1), ("imbalance", 0), ("redundancy_flip", 0.5), ("synergy_erasure", 1),
     ("n_modalities", 1), ("n_train", 0), ("task", "ranking"), ("redundancy", 1.5)],
)  # fmt: skip
def test_options_outside_their_range_are_refused(name, value):
    with pytest.raises(ValidationError) as caught:
        SyntheticConfig(**{name: value})
    assert caught.value.errors()[0]["loc"] == (name,)


@settings(deadline=None, max_examples=40)
@given(configs(), st.booleans(), st.sampled_from(["vector", "sequence"]))
def test_every_valid_design_can_be_made(config, nonlinear, inputs):
    assume(not (nonlinear and inputs == "sequence"))
    options = config.model_dump() | {"nonlinear": nonlinear, "inputs": inputs, "n_train": 20, "n_valid": 3, "n_test": 3}
    data = Synthetic(SyntheticConfig(**options)).load()
    assert content_problems(data.spec, data.parts) == []


def test_the_largest_designs_of_each_task_are_made():
    for task, bits in MAX_BITS.items():
        config = SyntheticConfig(task=task, redundancy=bits - 3, uniqueness=(1, 0, 1), dim=20, n_train=50, n_test=5)
        assert config.n_bits == bits
        data = Synthetic(config).load()
        assert data.truth["information/m1+m2+m3"] == pytest.approx(data.truth["entropy"])
