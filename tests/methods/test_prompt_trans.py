"""Prompt-Trans (embedding-level): prompts by hand, against loops and torch's layers; what learns under which switch."""

import math
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from datasets.base import DataSpec
from datasets.batch import Batch, make_batch
from datasets.tasks import Binary, MultiClass, Regression
from methods.noise import row_keys
from methods.prompt_trans import PromptTrans, PromptTransConfig, Tokeniser
from methods.prompts import (
    PromptedTransformer,
    initial_prompts,
    pattern_code,
    prefix_attention,
    select_prompts,
    simulate_missing,
)
from methods.transformer import SelfAttention

SHAPES: dict[str, tuple[int, ...]] = {"text": (5,), "image": (3,)}
ALL_PATTERNS = torch.tensor([[1, 1], [0, 1], [1, 0]]).bool()  # complete, without text, without image
SMALL = {"latent": 8, "depth": 2, "heads": 2}


def config(**values: Any) -> PromptTransConfig:
    return PromptTransConfig(**(SMALL | values))


def batch_of(size: int, available: Tensor | None = None, shapes: dict[str, tuple[int, ...]] = SHAPES) -> Batch:
    random = torch.Generator().manual_seed(4)
    inputs = {name: torch.randn(size, *shape, generator=random) for name, shape in shapes.items()}
    return make_batch(inputs, torch.linspace(-2, 2, size), available=available, noise=row_keys(3, 0, size))


# ---- attention-level prompts ----------------------------------------------------------------------------------------


def test_prefix_attention_by_hand() -> None:
    """One head of width 2, q = (1, 0), key prefix (0, 1), token key (1, 0), values alike: softmax(0, 1/sqrt(2))."""
    attention = SelfAttention(2, heads=1)
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.eye(2).repeat(3, 1))  # q = k = v = the token
        attention.out.weight.copy_(torch.eye(2))
        attention.qkv.bias.zero_()
        attention.out.bias.zero_()
    token, prompt = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    share = 1 / (1 + math.exp(1 / math.sqrt(2)))
    assert share == pytest.approx(0.330238, abs=1e-6)
    expected = torch.tensor([[[0.669762, 0.330238]]])
    torch.testing.assert_close(prefix_attention(attention, token, prompt), expected, atol=1e-5, rtol=0)


def test_prefix_attention_equals_loops_over_heads_and_tokens() -> None:
    """softmax(q [P_k; K]^T / sqrt(d_h)) [P_v; V] with slices for heads and one query at a time, in double precision."""
    heads, width, size, tokens, length = 3, 12, 2, 4, 6
    attention = SelfAttention(width, heads).double()
    x, prompt = torch.randn(size, tokens, width).double(), torch.randn(size, length, width).double()
    ours = prefix_attention(attention, x, prompt)
    q, k, v = F.linear(x, attention.qkv.weight, attention.qkv.bias).detach().chunk(3, dim=-1)
    mixed = torch.zeros_like(x)
    for b, n, h in product(range(size), range(tokens), range(heads)):
        part = slice(h * width // heads, (h + 1) * width // heads)
        keys = [*prompt[b, : length // 2, part], *k[b, :, part]]
        values = [*prompt[b, length // 2 :, part], *v[b, :, part]]
        scores = [math.exp(float(q[b, n, part] @ key) / math.sqrt(width / heads)) for key in keys]
        mixed[b, n, part] = sum(s / sum(scores) * value for s, value in zip(scores, values, strict=True))
    expected = F.linear(mixed, attention.out.weight, attention.out.bias)
    torch.testing.assert_close(ours, expected, atol=1e-10, rtol=1e-10)


# ---- input-level prompts --------------------------------------------------------------------------------------------


def torch_layer(block: nn.Module, width: int, heads: int) -> nn.TransformerEncoderLayer:
    """Torch's own pre-norm layer with the weights of `block`."""
    layer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    own = dict(block.state_dict())
    names = {"self_attn.in_proj_": "attention.qkv.", "self_attn.out_proj.": "attention.out.", "linear1.": "mlp.0."}
    names |= {"linear2.": "mlp.2.", "norm1.": "norm_attention.", "norm2.": "norm_mlp."}
    layer.load_state_dict({t + kind: own[o + kind] for t, o in names.items() for kind in ("weight", "bias")})
    return layer


def test_input_prompts_are_prepended_layer_by_layer_and_stay() -> None:
    """As the reference code counts: after L layers of P prompts [CLS] stands at index L P."""
    width, heads, depth, layers, length = 8, 2, 4, 2, 3
    trunk = PromptedTransformer(width, depth, heads, "input").eval()
    tokens, prompts = torch.randn(5, 3, width), torch.randn(5, layers, length, width)
    x, lengths = tokens, []
    for layer, block in enumerate(trunk.transformer.blocks):
        if layer < layers:
            x = torch.cat([prompts[:, layer], x], dim=1)
        x = torch_layer(block, width, heads).train()(x)  # training mode: the plain path, without dropout
        lengths.append(x.shape[1])
    assert lengths == [6, 9, 9, 9]
    expected = trunk.transformer.norm(x[:, layers * length])
    torch.testing.assert_close(trunk(tokens, prompts), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("depth", "prompted"), [(1, 1), (2, 1), (4, 2), (12, 6)])
def test_the_first_half_of_the_layers_is_prompted(depth: int, prompted: int) -> None:
    assert config(depth=depth).prompted_layers == prompted
    assert PromptTrans(SHAPES, Regression(), config(depth=depth)).prompts.shape == (3, prompted, 4, 8)


@pytest.mark.parametrize("prompt_type", ["input", "attention"])
def test_each_prompted_layer_reads_its_own_prompts(prompt_type: Any) -> None:
    trunk = PromptedTransformer(8, 4, 2, prompt_type)
    tokens, prompts = torch.randn(2, 3, 8), torch.randn(2, 2, 4, 8)
    before = trunk(tokens, prompts)
    for layer in range(2):
        other = prompts.clone()
        other[1, layer] += 1.0 + torch.arange(8)  # LayerNorm would forget a shift that is the same in every column
        after = trunk(tokens, other)
        torch.testing.assert_close(after[0], before[0])
        assert not torch.allclose(after[1], before[1], atol=1e-4)


# ---- selection by pattern -------------------------------------------------------------------------------------------


def test_every_sample_gets_the_prompts_of_its_pattern() -> None:
    table = torch.randn(3, 2, 4, 8)
    assert pattern_code(ALL_PATTERNS).tolist() == [0, 1, 2]
    code = torch.tensor([2, 0, 1, 0, 2])
    assert torch.equal(select_prompts(table, code), table.index_select(0, code))
    assert not select_prompts(table, pattern_code(torch.zeros(1, 2, dtype=torch.bool))).any()


def test_selection_stacks() -> None:
    tables, codes = torch.randn(3, 3, 2, 4, 8), torch.tensor([[0, 1], [2, 2], [1, 0]])
    together = vmap(select_prompts)(tables, codes)
    for k in range(3):
        assert torch.equal(together[k], tables[k].index_select(0, codes[k]))


@pytest.mark.parametrize("prompt_type", ["input", "attention"])
def test_a_prompt_answers_for_its_own_pattern_alone(prompt_type: Any) -> None:
    """Changing the prompts of one pattern moves the outputs of the samples that have it, and no others."""
    model = PromptTrans(SHAPES, MultiClass(3), config(prompt_type=prompt_type)).eval()
    batch = batch_of(6, ALL_PATTERNS.repeat(2, 1))
    before = model.predict(batch)
    for pattern in range(3):
        values = model.prompts.detach().clone()
        values[pattern] += torch.arange(8.0)
        after = functional_call(model, {"prompts": nn.Parameter(values)}, ("predict", batch))
        moved = ((after - before).abs().amax(1) > 1e-5).tolist()
        assert moved == [code == pattern for code in pattern_code(batch.available).tolist()]


def test_a_missing_modality_is_its_dummy_everywhere() -> None:
    for shape, tokens in (((5,), 1), ((7, 5), 7)):
        tokeniser = Tokeniser(shape, 8, max_tokens=64)
        made = tokeniser(torch.randn(2, *shape), torch.tensor([True, False]))
        assert made.shape == (2, tokens, 8)
        dummy = (tokeniser.dummy + tokeniser.modality).expand(tokens, 8)
        if tokeniser.position is not None:
            dummy = dummy + tokeniser.position
        torch.testing.assert_close(made[1], dummy)
        assert not torch.allclose(made[0], dummy)


def test_long_sequences_are_averaged_over_windows() -> None:
    """11 steps in at most 4 tokens: windows of 3, 3, 3 and the 2 that are left."""
    tokeniser = Tokeniser((11, 5), 8, max_tokens=4)
    x, seen = torch.randn(2, 11, 5), torch.ones(2, dtype=torch.bool)
    means = torch.stack([x[:, start : start + 3].mean(1) for start in (0, 3, 6, 9)], dim=1)
    assert tokeniser.position is not None
    expected = tokeniser.project(means) + tokeniser.modality + tokeniser.position
    torch.testing.assert_close(tokeniser(x, seen), expected, atol=1e-6, rtol=1e-5)


def test_long_sequences_stack() -> None:
    shapes: dict[str, tuple[int, ...]] = {"text": (9, 5), "image": (3,)}
    models = [PromptTrans(shapes, Regression(), config(max_tokens=4)).eval() for _ in range(2)]
    batch = batch_of(6, ALL_PATTERNS.repeat(2, 1), shapes)
    together = vmap(lambda p, b: functional_call(models[0], (p, b), ("predict", batch)))(*stack_module_state(models))
    for model, output in zip(models, together, strict=True):
        torch.testing.assert_close(output, model.predict(batch), atol=1e-5, rtol=1e-5)


# ---- simulated missing modalities -----------------------------------------------------------------------------------


def test_each_pattern_is_drawn_a_third_of_the_time() -> None:
    whole = torch.ones(30_000, 2, dtype=torch.bool)
    code = pattern_code(simulate_missing(whole, row_keys(5, 0, len(whole))))
    counts = code.bincount(minlength=4)
    assert counts[3] == 0
    assert (counts[:3] - 10_000).abs().max() < 350  # 4 standard deviations of a binomial are 327


def test_incomplete_samples_lose_nothing_more() -> None:
    available = ALL_PATTERNS[1:].repeat(50, 1)
    assert torch.equal(simulate_missing(available, row_keys(5, 0, 100)), available)


def test_evaluation_simulates_nothing() -> None:
    model, batch = PromptTrans(SHAPES, Regression(), config()), batch_of(30)
    plain = PromptTrans(SHAPES, Regression(), config(simulate_missing=False))
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model.eval().loss(batch)["sup"], plain.train().loss(batch)["sup"])
    assert not torch.equal(model.train().loss(batch)["sup"], plain.train().loss(batch)["sup"])


def test_the_loss_is_that_of_the_samples_as_they_were_drawn() -> None:
    model, batch = PromptTrans(SHAPES, Regression(), config()).train(), batch_of(30)
    drawn = simulate_missing(batch.available, batch.noise)
    assert len(set(pattern_code(drawn).tolist())) == 3
    output = model.predict(make_batch(batch.inputs, batch.target, available=drawn))
    torch.testing.assert_close(model.loss(batch)["sup"], (output[:, 0] - batch.target).abs().mean())


# ---- what learns ----------------------------------------------------------------------------------------------------


def moved(model: PromptTrans, batch: Batch) -> tuple[set[str], list[bool]]:
    """Names of the parameters with a gradient, and whether the prompts of each pattern have one."""
    model.train().loss(batch)["sup"].backward()  # type: ignore[no-untyped-call]
    names = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    gradient = model.prompts.grad
    return names, [False] * 3 if gradient is None else [bool(part.any()) for part in gradient]


DUMMIES = {"tokenisers.0.dummy", "tokenisers.1.dummy"}


@pytest.mark.parametrize("prompt_type", ["input", "attention"])
def test_complete_data_train_the_missing_prompts_only_when_missing_is_simulated(prompt_type: Any) -> None:
    names = {name for name, _ in PromptTrans(SHAPES, Regression(), config()).named_parameters()}
    on = PromptTrans(SHAPES, Regression(), config(prompt_type=prompt_type))
    assert moved(on, batch_of(33)) == (names, [True, True, True])
    off = PromptTrans(SHAPES, Regression(), config(prompt_type=prompt_type, simulate_missing=False))
    assert moved(off, batch_of(33)) == (names - DUMMIES, [True, False, False])
    assert set(off.untrained()) == DUMMIES


def test_incomplete_data_train_the_missing_prompts_without_simulation() -> None:
    model = PromptTrans(SHAPES, Regression(), config(simulate_missing=False))
    names, patterns = moved(model, batch_of(33, ALL_PATTERNS[:2].repeat(17, 1)[:33]))
    assert patterns == [True, True, False]
    assert names & DUMMIES == {"tokenisers.0.dummy"}


@pytest.mark.parametrize("prompt_type", ["input", "attention"])
def test_a_frozen_trunk_leaves_prompts_pooler_and_classifier(prompt_type: Any) -> None:
    """Lee et al., 3.3: what learns beside a pretrained transformer."""
    model = PromptTrans(SHAPES, Regression(), config(freeze_trunk=True, prompt_type=prompt_type))
    names, patterns = moved(model, batch_of(33))
    assert {name.split(".")[0] for name in names} == {"prompts", "pooler", "classifier"}
    assert patterns == [True, True, True]
    free = PromptTrans(SHAPES, Regression(), config(prompt_type=prompt_type))
    free.load_state_dict(model.state_dict())
    assert torch.equal(model.loss(batch_of(9))["sup"], free.loss(batch_of(9))["sup"])


def test_unlabelled_samples_teach_nothing() -> None:
    model, batch = PromptTrans(SHAPES, Regression(), config()), batch_of(6)
    hidden = batch._replace(labelled=torch.tensor([True, False] * 3))
    kept = Batch({name: x[::2] for name, x in batch.inputs.items()}, *(column[::2] for column in batch[1:]))
    torch.testing.assert_close(model.loss(hidden)["sup"], model.loss(kept)["sup"])
    none = batch._replace(labelled=torch.zeros(6, dtype=torch.bool))
    assert moved(model, none) == (set(), [False] * 3)


# ---- start, embeddings, what is refused -----------------------------------------------------------------------------


def test_rows_start_as_in_the_reference_code() -> None:
    """16 tokens: row 0 of the complete prompt, row 2 of the one without text, row 1 of the one without image."""
    table = initial_prompts((1, 16, 8), "input", "rows")
    ones = [(p, r) for p, r in product(range(3), range(16)) if table[p, :, r].eq(1).all()]
    assert ones == [(0, 0), (1, 2), (2, 1)]
    assert table.sum() == 3 * 1 * 8
    prefix = initial_prompts((1, 16, 8), "attention", "rows")
    ones = [(p, r) for p, r in product(range(3), range(16)) if prefix[p, :, r].eq(1).all()]
    assert ones == [(0, 0), (0, 8), (1, 2), (1, 10), (2, 1), (2, 9)]


@pytest.mark.parametrize("prompt_type", ["input", "attention"])
def test_equal_rows_stay_equal(prompt_type: Any) -> None:
    """Why the start of the reference code, whose dropout tells its rows apart, is not our default."""
    for prompt_init, distinct in (("rows", 2), ("normal", 8)):
        model = PromptTrans(
            SHAPES, Regression(), config(prompt_init=prompt_init, prompt_type=prompt_type, prompt_length=16)
        ).double()
        batch = batch_of(33)
        batch = batch._replace(
            inputs={name: x.double() for name, x in batch.inputs.items()}, target=batch.target.double()
        )
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(3):
            optimiser.zero_grad()
            model.loss(batch)["sup"].backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        keys = model.prompts[0, 0, :8]
        apart = torch.cdist(keys, keys) > 1e-9
        assert len({tuple(row) for row in apart.tolist()}) == distinct


def test_embeddings_of_one_modality_are_those_of_it_alone() -> None:
    model, batch = PromptTrans(SHAPES, Regression(), config()).eval(), batch_of(5)
    named = model.embed(batch)
    assert list(named) == ["s", "z/text", "z/image"]
    for i, name in enumerate(SHAPES):
        alone = (torch.arange(2) == i).expand(5, 2)
        hidden = make_batch(batch.inputs, batch.target, available=alone)
        torch.testing.assert_close(named[f"z/{name}"], model.embed(hidden)["s"])
        torch.testing.assert_close(model.predict(hidden), model.classifier(named[f"z/{name}"]))


def test_parameters() -> None:
    """Counted from the description: tokens, four blocks, 3 x 2 x 4 prompts, pooler, classifier."""
    d, width = 128, 2
    tokens = 2 * (768 * d + d + d + d) + d
    block = 4 * d + (3 * d * d + 3 * d) + (d * d + d) + (4 * d * d + 4 * d) + (4 * d * d + d)
    top = d * d + d + (2 * d * d + 2 * d) + 4 * d + 2 * d * width + width
    model = PromptTrans({"text": (768,), "image": (768,)}, Binary(), PromptTransConfig())
    assert sum(p.numel() for p in model.parameters()) == tokens + 4 * block + 2 * d + 3 * 2 * 4 * d + top


def test_prompts_that_never_learn_show_in_the_diagnostics() -> None:
    model, batch = PromptTrans(SHAPES, Regression(), config(simulate_missing=False)), batch_of(33)
    before = model.diagnose(batch)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    model.loss(batch)["sup"].backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    after = model.diagnose(batch)
    assert [name for name in before if before[name] != after[name]] == ["prompt/complete"]
    assert list(before) == ["prompt/complete", "prompt/without_text", "prompt/without_image"]


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"a": (3,)}, "takes exactly two modalities; this data set has 1"),
        ({"a": (3,), "b": (3,), "c": (3,)}, "takes exactly two modalities; this data set has 3"),
        (
            {"text": (3,), "image": (3, 8, 8)},
            "takes vectors and sequences of vectors; modality 'image' has the shape (3, 8, 8)",
        ),
        ({"a": (3,), "b": (6, 3)}, None),
    ],
)
def test_what_it_cannot_take(shapes: dict[str, tuple[int, ...]], reason: str | None) -> None:
    spec = DataSpec("d", shapes, Regression(), {"train": 8, "valid": 8, "test": 8}, "d")
    assert PromptTrans.refuses(spec, PromptTransConfig()) == reason


def test_heads_that_do_not_divide_the_width_are_told() -> None:
    with pytest.raises(ValueError, match="heads must divide latent, got 8 heads for a latent of 100"):
        PromptTransConfig(latent=100)
