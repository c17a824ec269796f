"""MulT: grouped transformers against ones built singly from PyTorch's own layers; sizes, masks, positions, dropout."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from methods.encoders.mult import GroupedTransformer, MulT, Rates, causal_mask, position_table, positions
from methods.noise import row_keys, split

NONE = Rates(0.0, 0.0, 0.0, 0.0)
USUAL = Rates(0.25, 0.25, 0.1, 0.1)  # GMC code


# ---- a plain reference: every transformer by itself, all steps of every layer ---------------------------------------


class PlainTransformer(nn.Module):
    """One transformer encoder as MulT's code has it, (T, B, E) layout."""

    def __init__(self, width: int, depth: int, heads: int, rates: Rates, attention_rate: float) -> None:
        super().__init__()
        self.width, self.embed_rate, self.layer_rate = width, rates.embed, rates.layer
        self.attention = nn.ModuleList(nn.MultiheadAttention(width, heads, attention_rate) for _ in range(depth))
        self.norm1 = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.norm2 = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.fc1 = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(depth))
        self.fc2 = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def drop(self, x: Tensor, p: float) -> Tensor:
        return nn.functional.dropout(x, p, self.training)

    def embed(self, x: Tensor) -> Tensor:
        steps, samples, width = x.shape
        half = width // 2
        table = torch.zeros(steps, samples, width)
        for t in range(steps):
            for b in range(samples):
                if x[t, b, 0] != 0:
                    angles = (t + 1) * torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half))
                    table[t, b] = torch.cat([angles.sin(), angles.cos()])
        return self.drop(math.sqrt(width) * x + table, self.embed_rate)

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        targets, sources = len(x), len(x if source is None else source)
        mask = torch.tensor([[k > q + abs(sources - targets) for k in range(sources)] for q in range(targets)])
        x = self.embed(x)
        keys, values = (None, None) if source is None else (self.embed(source), self.embed(source))
        layers = zip(self.attention, self.norm1, self.norm2, self.fc1, self.fc2, strict=True)
        for attention, norm1, norm2, fc1, fc2 in layers:
            q = norm1(x)
            k, v = (q, q) if keys is None else (norm1(keys), norm1(values))
            x = x + self.drop(attention(q, k, v, attn_mask=mask, need_weights=False)[0], self.layer_rate)
            x = x + self.drop(fc2(self.drop(torch.relu(fc1(norm2(x))), self.layer_rate)), self.layer_rate)
        return self.norm(x)

    def take(self, group: GroupedTransformer, index: int) -> None:
        """The weights of one group of ours."""
        self.norm.load_state_dict({"weight": group.norm.weight[index], "bias": group.norm.bias[index]})
        for n, layer in enumerate(group.layers):
            packed, out = layer.attention.packed, layer.attention.out
            self.attention[n].load_state_dict(
                {
                    "in_proj_weight": packed.weight[index],
                    "in_proj_bias": packed.bias[index],
                    "out_proj.weight": out.weight[index],
                    "out_proj.bias": out.bias[index],
                }
            )
            pairs = [
                (self.norm1[n], layer.norm_attention),
                (self.norm2[n], layer.norm_feed),
                (self.fc1[n], layer.widen),
                (self.fc2[n], layer.narrow),
            ]
            for theirs, ours in pairs:
                theirs.load_state_dict({"weight": ours.weight[index], "bias": ours.bias[index]})


class PlainMulT(nn.Module):
    """M (M - 1) + M transformers, one after the other."""

    def __init__(self, ours: MulT, width: int, depth: int, heads: int, rates: Rates) -> None:
        super().__init__()
        self.project, self.mix, self.text, self.rate = ours.project, ours.mix, ours.text, rates.inputs
        m = self.m = len(ours.project)
        self.cross = nn.ModuleDict()
        for group, pairs in zip(ours.cross, ours.pairs, strict=True):
            for index, (target, source) in enumerate(pairs):
                rate = rates.attention if source == ours.text else 0.0
                plain = PlainTransformer(width, depth, heads, rates, rate)
                plain.take(group, index)
                self.cross[f"{target}{source}"] = plain
        self.memory = nn.ModuleDict()
        for group, targets in zip(ours.memory, ours.targets, strict=True):
            for index, target in enumerate(targets):
                plain = PlainTransformer((m - 1) * width, depth, heads, rates, rates.attention)
                plain.take(group, index)
                self.memory[str(target)] = plain

    def forward(self, xs: Sequence[Tensor], noise: Tensor | None = None) -> Tensor:
        xs = list(xs)
        xs[self.text] = nn.functional.dropout(xs[self.text], self.rate, self.training)
        h = [project(x).transpose(0, 1) for project, x in zip(self.project, xs, strict=True)]
        last = []
        for target in range(self.m):
            parts = [self.cross[f"{target}{s}"](h[target], h[s]) for s in range(self.m) if s != target]
            last.append(self.memory[str(target)](torch.cat(parts, dim=2))[-1])
        return self.mix(torch.cat(last, dim=1))


def mult(shapes: Sequence[tuple[int, int]], *, rates: Rates = NONE, text: int = 0, depth: int = 2) -> MulT:
    """A small MulT whose norms and biases are not at their initial values."""
    model = MulT(shapes, 5, width=6, depth=depth, heads=3, text=text, rates=rates)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    return model


def draw(shapes: Sequence[tuple[int, int]], size: int = 3) -> list[Tensor]:
    return [torch.randn(size, *shape) for shape in shapes]


# ---- the whole network ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("audio", "vision", "count"), [(5, 20, 1_081_890), (74, 35, 1_084_410)])
def test_parameters_on_mosi_and_mosei(audio: int, vision: int, count: int) -> None:
    """The numbers of the GMC code's joint processor on CMU-MOSI and CMU-MOSEI."""
    model = MulT([(50, 300), (50, audio), (50, vision)], 60, width=30, depth=5, heads=5, text=0, rates=USUAL)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize(
    "shapes",
    [
        [(4, 5), (4, 3)],
        [(4, 5), (4, 3), (4, 2)],
        [(1, 5), (1, 3)],
        [(4, 5), (2, 3), (4, 2)],
        [(3, 2), (5, 2), (4, 2), (3, 3)],
    ],
    ids=str,
)
def test_grouped_equals_one_by_one(shapes: list[tuple[int, int]]) -> None:
    """Forward and input gradients, with frames that only pad at the start; lengths may differ."""
    ours = mult(shapes).eval()
    plain = PlainMulT(ours, 6, 2, 3, NONE).eval()
    xs = draw(shapes)
    xs[0][1, :1] = 0
    for x in xs:
        x.requires_grad_()
    torch.testing.assert_close(ours(xs), plain(xs), atol=1e-5, rtol=1e-5)
    probe = torch.randn(3, 5)
    gradients = torch.autograd.grad((ours(xs) * probe).sum(), xs)
    for mine, theirs in zip(gradients, torch.autograd.grad((plain(xs) * probe).sum(), xs), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_a_long_evaluation_goes_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    model, xs = mult([(4, 5), (4, 3)]).eval(), draw([(4, 5), (4, 3)], size=7)
    whole = model(xs)
    monkeypatch.setattr("methods.encoders.mult.CPU_ROWS", 3)
    torch.testing.assert_close(model(xs), whole)


def test_the_last_step_alone_equals_the_last_of_all() -> None:
    kwargs = {"rates": NONE, "dropped": 2, "site": 0}
    short = GroupedTransformer(2, 5, 6, 3, 3, last_only=True, **kwargs)
    full = GroupedTransformer(2, 5, 6, 3, 3, last_only=False, **kwargs)
    full.load_state_dict(short.state_dict())
    x = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(short(x, None, None), full(x, None, None)[:, :, -1:], atol=1e-6, rtol=1e-5)


def test_every_weight_is_drawn_as_in_the_code() -> None:
    """Xavier-uniform for every network of a group, with the fans of one network; zero biases; norms at 1 and 0."""
    model = MulT([(5, 4)] * 3, 5, width=30, depth=1, heads=5, text=0, rates=USUAL)
    attention = model.cross[0].layers[0].attention.packed.weight
    assert attention.shape == (6, 90, 30)
    bound = math.sqrt(6 / (30 + 90))
    assert [float(w.abs().max()) for w in attention.detach()] == [pytest.approx(bound, rel=0.02) for _ in range(6)]
    assert not torch.equal(attention[0], attention[1])
    for name, p in model.cross.named_parameters():
        if name.endswith("bias"):
            assert not p.any()
        elif "norm" in name:
            assert (p == 1).all()


# ---- masks and positions --------------------------------------------------------------------------------------------


def test_causal_mask() -> None:
    seen = causal_mask(3, 3, torch.device("cpu")) == 0
    assert seen.tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert (causal_mask(3, 5, torch.device("cpu"))[0] == 0).sum() == 3  # MulT code: |5 - 3| more than usual
    assert not causal_mask(5, 3, torch.device("cpu")).any()


def test_position_rows_of_width_4() -> None:
    """Halves, not interleaved: MulT's code gives these rows, worked by hand."""
    expected = torch.tensor([[0.841471, 1e-4, 0.540302, 1.0], [0.909297, 2e-4, -0.416147, 1.0]])
    torch.testing.assert_close(position_table(2, 4), expected, atol=1e-6, rtol=0)
    assert position_table(3, 5)[:, 4].tolist() == [0, 0, 0]


def test_a_frame_whose_first_feature_is_zero_has_no_position() -> None:
    x = torch.tensor([0.0, 0.0, 0.3, -0.2])[:, None].repeat(1, 4)
    table = position_table(6, 4)
    torch.testing.assert_close(positions(x, table), torch.stack([torch.zeros(4), torch.zeros(4), table[2], table[3]]))


def test_the_past_does_not_read_the_future() -> None:
    encoder = GroupedTransformer(1, 5, 6, 2, 3, rates=NONE, dropped=0, last_only=False, site=0)
    x, source = torch.randn(1, 2, 5, 6), torch.randn(1, 2, 5, 6)
    before = encoder(x, source, None)
    source[:, :, 3:] *= -1.0
    after = encoder(x, source, None)
    torch.testing.assert_close(before[:, :, :3], after[:, :, :3])
    assert not torch.allclose(before[:, :, 3:], after[:, :, 3:])


# ---- dropout --------------------------------------------------------------------------------------------------------

SHAPES = [(4, 5), (4, 3), (4, 2)]


def test_training_needs_noise_and_evaluation_draws_none() -> None:
    model, xs = mult(SHAPES, rates=USUAL), draw(SHAPES)
    with pytest.raises(ValueError, match="needs the batch's noise keys"):
        model(xs)
    first, second = (model(xs, row_keys(0, step, 3)) for step in (0, 1))
    assert not torch.allclose(first, second)
    assert torch.equal(first, model(xs, row_keys(0, 0, 3)))
    model.eval()
    assert torch.equal(model(xs, row_keys(0, 0, 3)), model(xs))


@pytest.mark.parametrize("text", [0, 2])
def test_only_the_inputs_of_the_text_are_dropped(text: int) -> None:
    model, xs, noise = mult(SHAPES, rates=NONE._replace(inputs=0.5), text=text), draw(SHAPES), row_keys(0, 0, 3)
    silent = [torch.zeros_like(x) if i == text else x for i, x in enumerate(xs)]
    torch.testing.assert_close(model(silent, noise), model.eval()(silent))
    assert not torch.allclose(model.train()(xs, noise), model.eval()(xs))


@pytest.mark.parametrize("text", [0, 1])
def test_cross_modal_attention_is_dropped_where_the_source_is_the_text(text: int) -> None:
    model = mult(SHAPES, rates=NONE._replace(attention=0.5), text=text)
    (encode,), (pairs,) = model.cross, model.pairs
    x, source = torch.randn(6, 3, 4, 6), torch.randn(6, 3, 4, 6)
    calm, noisy = encode(x, source, None), encode(x, source, row_keys(0, 0, 3))
    changed = {pair for pair, a, b in zip(pairs, calm, noisy, strict=True) if not torch.equal(a, b)}
    assert changed == {(target, text) for target in range(3) if target != text}


def test_self_attention_is_dropped_everywhere() -> None:
    model = mult(SHAPES, rates=NONE._replace(attention=0.5))
    x = torch.randn(3, 3, 4, 12)
    calm, noisy = (model.memory[0](x, None, keys) for keys in (None, row_keys(0, 0, 3)))
    assert all(not torch.equal(a, b) for a, b in zip(calm, noisy, strict=True))


@pytest.mark.parametrize("rates", [NONE._replace(embed=0.3), NONE._replace(layer=0.3)])
def test_groups_and_samples_lose_different_elements(rates: Rates) -> None:
    encoder = GroupedTransformer(2, 4, 6, 1, 3, rates=rates, dropped=0, last_only=False, site=0)
    for p in encoder.parameters():
        p.data = p.data[:1].expand_as(p).clone()
    x = torch.randn(1, 1, 4, 6).expand(2, 3, 4, 6)  # the same everywhere, so only noise tells places apart
    out = encoder(x, x, row_keys(0, 0, 3)).flatten(0, 1)
    assert len({tuple(row.flatten().tolist()) for row in out}) == 6


def test_keys_and_values_lose_different_elements() -> None:
    encoder = GroupedTransformer(1, 4, 6, 1, 3, rates=NONE._replace(embed=0.3), dropped=0, last_only=False, site=0)
    key, value = encoder._embedded_source(torch.randn(1, 3, 4, 6), row_keys(0, 0, 3))
    assert not torch.equal(key, value)
    key, value = encoder._embedded_source(torch.randn(1, 3, 4, 6), None)
    assert torch.equal(key, value)


def test_split_keys_are_all_different_and_depend_on_the_site() -> None:
    keys = torch.cat([split(row_keys(0, 0, 50), site, 6).flatten() for site in (3, 4)])
    assert len(keys.unique()) == 600


def test_a_stack_with_dropout_equals_the_replicas_alone() -> None:
    replicas = [mult(SHAPES, rates=USUAL) for _ in range(2)]
    inputs = [torch.stack(xs) for xs in zip(*(draw(SHAPES) for _ in replicas), strict=True)]
    noise = torch.stack([row_keys(seed, 3, 3) for seed in (1, 2)])
    parameters, buffers = stack_module_state(replicas)
    probe = torch.randn(3, 5)

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], xs: list[Tensor], keys: Tensor) -> Tensor:
        return (functional_call(replicas[0], (parameters, buffers), (xs, keys)) * probe).sum()

    together = vmap(grad(loss))(parameters, buffers, inputs, noise)
    for k, replica in enumerate(replicas):
        (replica([x[k] for x in inputs], noise[k]) * probe).sum().backward()
        for name, p in replica.named_parameters():
            torch.testing.assert_close(together[name][k], p.grad, atol=1e-5, rtol=1e-4)
