"""ActionMAE against numbers its reference code gives, and against tokens really gathered, one sample at a time."""

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from datasets.batch import Batch, make_batch
from datasets.tasks import Binary, MultiClass, Regression
from methods.actionmae import (
    ActionMAE,
    ActionMAEConfig,
    fitting_heads,
    mask_loss,
    normalised,
    packed_front,
    random_keep,
    restoration_errors,
)
from methods.fusion import shown
from methods.noise import row_keys

SHAPES = {"text": (5,), "audio": (3,), "vision": (4,)}


def model(task: MultiClass | Regression | None = None, **values: object) -> ActionMAE:
    config = ActionMAEConfig.model_validate({"latent": 8, "heads": 2} | values)
    return ActionMAE(SHAPES, task or Regression(), config)


def batch(size: int = 6, available: Tensor | None = None, step: int = 0, **masks: Tensor) -> Batch:
    random = torch.Generator().manual_seed(3)
    inputs = {name: torch.randn(size, *shape, generator=random) for name, shape in SHAPES.items()}
    target = torch.randn(size, generator=random)
    return make_batch(inputs, target, available=available, noise=row_keys(0, step, size), **masks)


# ---- losses ---------------------------------------------------------------------------------------------------------

TOKENS = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 1.0, 1.0]], [[2.0, 0.0, 0.0, 2.0], [4.0, 3.0, 2.0, 1.0]]])
RESTORED = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0]], [[1.0, -1.0, -1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]])
DROPPED = torch.tensor([[False, True], [True, False]])


def test_worked_example_of_the_mask_loss() -> None:
    """The reference code's forward_mask_loss gives 0.633973 on this example."""
    assert mask_loss(RESTORED, TOKENS, DROPPED).item() == pytest.approx(0.633974, abs=1e-5)
    errors = restoration_errors(RESTORED, TOKENS)
    expected = torch.tensor([[0.750000, 1.249998], [0.017949, 0.750000]])
    torch.testing.assert_close(errors, expected, atol=1e-5, rtol=0)
    assert mask_loss(RESTORED, TOKENS, DROPPED, normalise=False).item() == pytest.approx(0.75, abs=1e-6)


def test_nothing_dropped_costs_nothing_where_the_reference_divides_by_zero() -> None:
    assert mask_loss(RESTORED, TOKENS, torch.zeros(2, 2, dtype=torch.bool)).item() == 0


def test_normalised_tokens_have_mean_0_and_unbiased_variance_1() -> None:
    tokens = normalised(5 + 3 * torch.randn(4, 3, 8))
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(4, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens.var(-1), torch.ones(4, 3), atol=1e-4, rtol=0)
    assert not normalised(torch.full((2, 8), 7.0)).any()


@pytest.mark.parametrize("smoothing", [0.1, 0.0])
def test_classification_is_trained_with_smoothed_labels(smoothing: float) -> None:
    method = model(MultiClass(n_classes=3), label_smoothing=smoothing).eval()
    labelled = torch.tensor([True, False, True, True, False, True])
    of_classes = batch(labelled=labelled)._replace(target=torch.tensor([0, 0, 1, 2, 0, 1]))
    output = method.classify(method.complete(method.tokens(shown(of_classes)), of_classes.available, training=True))
    wanted = F.cross_entropy(output[labelled], of_classes.target[labelled], label_smoothing=smoothing)
    torch.testing.assert_close(method.loss(of_classes)["sup"], wanted)


# ---- masking --------------------------------------------------------------------------------------------------------


def everything(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def test_a_batch_keeps_one_number_of_tokens_and_every_sample_its_own_subset() -> None:
    counts, subsets = torch.zeros(4), torch.zeros(3)
    for step in range(600):
        keep = random_keep(row_keys(1, step, 32), everything(32, 3), everything(32))
        assert keep.sum(1).unique().numel() == 1
        count = int(keep[0].sum())
        counts[count] += 1
        if count == 1:
            subsets += keep.sum(0)
    assert counts[0] == 0
    assert (counts[1:] / 600 - 1 / 3).abs().max() < 4 * (2 / 9 / 600) ** 0.5
    n = float(subsets.sum())
    assert (subsets / n - 1 / 3).abs().max() < 4 * (2 / 9 / n) ** 0.5


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 2**40))
def test_only_available_tokens_are_kept_and_at_least_one(modalities: int, size: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    available = torch.rand(size, modalities, generator=random) < 0.6
    available[torch.arange(size), torch.randint(0, modalities, (size,), generator=random)] = True
    keep = random_keep(row_keys(seed, 1, size), available, everything(size))
    assert not (keep & ~available).any()
    assert keep.any(1).all()
    count = keep.sum(1).max()
    assert torch.equal(keep.sum(1), available.sum(1).clamp(max=count))


def test_filling_rows_do_not_decide_how_many_are_kept() -> None:
    for step in range(20):
        keys = row_keys(2, step, 6)
        alone = random_keep(keys[2:5], everything(3, 4), everything(3))
        valid = torch.tensor([False, False, True, True, True, False])
        assert torch.equal(random_keep(keys, everything(6, 4), valid)[2:5], alone)


def test_masks_are_the_same_in_a_stack() -> None:
    keys = torch.stack([row_keys(seed, 0, 5) for seed in range(4)])
    together = torch.func.vmap(lambda key: random_keep(key, everything(5, 3), everything(5)))(keys)
    assert torch.equal(together, torch.stack([random_keep(key, everything(5, 3), everything(5)) for key in keys]))


def test_noise_moves_the_loss_in_training_only() -> None:
    method = model()
    trained = {method.train().loss(batch(step=step))["sup"].item() for step in range(8)}
    evaluated = {method.eval().loss(batch(step=step))["sup"].item() for step in range(8)}
    assert len(trained) > 3
    assert len(evaluated) == 1
    assert method.loss(batch())["mae"].item() == 0


# ---- the masked autoencoder -----------------------------------------------------------------------------------------


def gathered(method: ActionMAE, tokens: Tensor, kept: list[int], *, front: bool) -> Tensor:
    """Slots (M, E) of one sample with the kept tokens gathered and put back, as the reference code does it."""
    fixed, memories, count = method.config.mae_fixes, len(method.memory), len(tokens)
    chosen = tokens[kept] + method.place_in[kept] if fixed else tokens[kept]
    encoded = method.encoder(torch.cat([method.memory, chosen])[None])[0]
    if len(kept) == count:
        return encoded[memories:] if fixed else encoded[:count]  # the reference forgets the memory tokens here
    slots = [method.mask_token] * count
    for position, i in enumerate(kept):
        slots[position if front else i] = encoded[memories + position]
    stacked = torch.stack(slots) + method.place_out if fixed else torch.stack(slots)
    return method.restore(method.decoder(torch.cat([encoded[:memories], stacked])[None])[0, memories:])


SUBSETS = [list(kept) for n in (1, 2, 3) for kept in combinations(range(3), n)]


@pytest.mark.parametrize("memory", [1, 2, 4])
@pytest.mark.parametrize("fixed", [True, False])
def test_masks_equal_gathered_tokens(fixed: bool, memory: int) -> None:
    method = model(mae_fixes=fixed, memory_tokens=memory)
    tokens = torch.randn(len(SUBSETS), 3, 8)
    keep = torch.tensor([[i in kept for i in range(3)] for kept in SUBSETS])
    for training in (True, False):
        slots = method.complete(tokens, keep, training=training)
        front = not training and not fixed
        expected = torch.stack(
            [gathered(method, x, kept, front=front) for x, kept in zip(tokens, SUBSETS, strict=True)]
        )
        torch.testing.assert_close(slots, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_without_positions_two_dropped_modalities_get_one_reconstruction(kept: int) -> None:
    keep = (torch.arange(3) == kept).expand(4, 3)
    tokens, (first, second) = torch.randn(4, 3, 8), [i for i in range(3) if i != kept]
    reference = model(mae_fixes=False).complete(tokens, keep, training=True)
    torch.testing.assert_close(reference[:, first], reference[:, second], atol=1e-6, rtol=0)
    corrected = model().complete(tokens, keep, training=True)
    assert (corrected[:, first] - corrected[:, second]).abs().max() > 1e-3


def test_the_reference_evaluates_other_slots_than_it_trains() -> None:
    tokens, keep = torch.randn(4, 3, 8), torch.tensor([False, True, False]).expand(4, 3)
    for fixed in (True, False):
        method = model(mae_fixes=fixed)
        evaluated, trained = (method.complete(tokens, keep, training=training) for training in (False, True))
        assert torch.equal(evaluated, trained) == fixed
        if not fixed:  # the kept token sits in slot 0; without positions the rest is the same
            torch.testing.assert_close(evaluated[:, 0], trained[:, 1], atol=1e-5, rtol=1e-5)


def test_packing_keeps_the_order() -> None:
    tokens = torch.arange(8.0).reshape(2, 4, 1)
    packed, keep = packed_front(tokens, torch.tensor([[0, 1, 0, 1], [1, 1, 1, 0]]).bool())
    assert packed[..., 0].tolist() == [[1, 3, 0, 2], [4, 5, 6, 7]]
    assert keep.tolist() == [[True, True, False, False], [True, True, True, False]]


def test_decoding_always_changes_only_samples_that_keep_everything() -> None:
    method, tokens = model(), torch.randn(2, 3, 8)
    always = model(decode_whole=True)
    always.load_state_dict(method.state_dict())
    keep = torch.tensor([[True, True, True], [True, False, True]])
    ours, theirs = (m.complete(tokens, keep, training=True) for m in (method, always))
    assert torch.equal(ours[1], theirs[1])
    assert not torch.allclose(ours[0], theirs[0])
    torch.testing.assert_close(theirs[0], method.decode(*method.encode(tokens, keep), keep)[0])


def test_prediction_is_the_sum_over_all_slots() -> None:
    method, shown_to = model(), torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [0, 1, 0]]).bool()
    some = batch(available=shown_to)
    slots = method.complete(method.tokens(shown(some)), shown_to, training=False)
    by_hand = sum(slots[:, i] @ fuse.weight.T + fuse.bias for i, fuse in enumerate(method.fuse))
    torch.testing.assert_close(method.predict(some), by_hand)
    assert method.embed(some)["s"].shape == (6, 24)
    torch.testing.assert_close(method.embed(some)["s"][3], method.embed(some)["z/vision"][3])  # it has vision alone


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("detach", [False, True])
def test_the_target_of_a_reconstruction_trains_the_projectors_as_in_the_reference(detach: bool) -> None:
    method = model(mae_detach_target=detach)
    step = next(s for s in range(50) if int(random_keep(row_keys(0, s, 1), everything(1, 3), everything(1)).sum()) == 1)
    one = batch(1, step=step)
    dropped = ~random_keep(one.noise, one.available, one.valid)[0]
    method.train().loss(one)["mae"].backward()
    for i, f in enumerate(method.f):
        moves = any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in f.parameters())
        assert moves == (not detach or not dropped[i])


def test_unlabelled_samples_teach_restoring_only() -> None:
    method, unlabelled = model().train(), batch(labelled=torch.zeros(6, dtype=torch.bool))
    terms = next(t for step in range(20) if (t := method.loss(batch(step=step)))["mae"] > 0)
    assert terms["sup"] > 0
    assert method.loss(unlabelled)["sup"].item() == 0
    assert not method.needs_labels
    assert model(lambda_mae=0.0).needs_labels
    assert ActionMAE({"text": (5,)}, Regression(), ActionMAEConfig(latent=8)).needs_labels


def test_a_missing_modality_is_neither_kept_nor_a_target() -> None:
    available = torch.tensor([True, True, False]).expand(6, 3)
    method = model().train()
    for step in range(6):
        method.zero_grad()
        sum(method.loss(batch(available=available, step=step)).values()).backward()
        assert all(p.grad is None or not p.grad.any() for p in method.f[2].parameters())


def test_diagnosis_tells_a_decoder_that_restores_from_one_that_does_not() -> None:
    """Three views of one hidden vector can be restored from each other; three independent vectors cannot."""
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(64, 2, generator=random)
    views = {name: hidden @ torch.randn(2, *shape, generator=random) for name, shape in SHAPES.items()}
    apart = {name: torch.randn(64, *shape, generator=random) for name, shape in SHAPES.items()}
    errors = {}
    for kind, inputs in (("views", views), ("apart", apart)):
        torch.manual_seed(0)
        method = model(fc="plain", mae_detach_target=True).train()
        optimiser = torch.optim.Adam(method.parameters(), lr=3e-3)
        for step in range(150):
            optimiser.zero_grad()
            method.loss(make_batch(inputs, torch.zeros(64), noise=row_keys(0, step, 64)))["mae"].backward()
            optimiser.step()
        told = method.eval().diagnose(make_batch(inputs, torch.zeros(64)))
        errors[kind] = max(float(told[f"mae/{name}"]) for name in SHAPES)
        assert all(float(told[f"token_variance/{name}"]) > 0.05 for name in SHAPES)
    assert errors["views"] < 0.5 * errors["apart"]


# ---- size -----------------------------------------------------------------------------------------------------------


def test_parameters_on_hateful_memes_shapes() -> None:
    """1.04 M in Robult's Table 5; the correction adds one embedding a modality to encoder and decoder inputs."""
    counts = [
        sum(p.numel() for p in ActionMAE({"text": (768,), "image": (768,)}, Binary(), config).parameters())
        for config in (ActionMAEConfig(mae_fixes=False), ActionMAEConfig())
    ]
    assert counts == [1_040_772, 1_040_772 + 2 * 2 * 128]


def test_heads_divide_the_width() -> None:
    assert [fitting_heads(width, 8) for width in (128, 60, 512, 7, 2)] == [8, 6, 8, 7, 2]
    assert model(mae_width=10).tokens(shown(batch())).shape == (6, 3, 10)
