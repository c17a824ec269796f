"""CRA: the cascade and its error by hand, and what is restored where."""

import pytest
import torch
from torch import Tensor, nn

from datasets.batch import Batch, make_batch
from datasets.tasks import Regression
from methods.cra import CRA, CRAConfig, half_squared_error
from methods.noise import row_keys
from methods.patterns import missing_patterns
from methods.residual_autoencoder import Cascade, ResidualAutoencoder
from methods.zero_inputs import restoration_error

SHAPES = {"text": (5,), "audio": (3,), "vision": (4,)}


def counting_weights(parameters: list[nn.Parameter], first: int = 0) -> None:
    """W[a, b] = 0.1 (a + 1) - 0.05 b + 0.01 i and b[j] = 0.01 (j + 1), i counting parameters in their order."""
    for i, parameter in enumerate(parameters, start=first):
        a = torch.arange(len(parameter))[:, None]
        values = 0.1 * (a + 1) - 0.05 * torch.arange(parameter.shape[-1]) + 0.01 * i
        parameter.data.copy_(values if parameter.dim() == 2 else 0.01 * (a[:, 0] + 1))


# ---- by hand --------------------------------------------------------------------------------------------------------

X = torch.tensor([[1.0, 0.0, -0.5], [0.2, 0.4, 0.6]])
KEPT = torch.tensor([[True, True, False], [False, False, True]])
"""The first modality is the first two features; one sample has each."""
X1 = torch.tensor([[1.0386, 0.0816, 0.1246], [0.0168, 0.0358, 0.6548]])
X2 = torch.tensor([[1.10868, 0.208675, 0.308669], [0.046958, 0.092385, 0.737813]])


def example() -> Cascade:
    """Two autoencoders of one hidden layer with ReLU."""
    cascade = Cascade(3, [2], 2)
    for block in cascade.blocks:
        block.encoder = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    counting_weights(
        [p for block in cascade.blocks for part in (block.encoder, block.decoder) for p in part.parameters()]
    )
    return cascade


@pytest.mark.parametrize(
    ("depth", "expected", "loss"), [(0, X * KEPT, 0.1125), (1, X1, 0.14187015), (2, X2, 0.21158585)]
)
def test_corrections_by_hand(depth: int, expected: Tensor, loss: float) -> None:
    x, codes = example()(X * KEPT, depth)
    torch.testing.assert_close(x, expected, atol=1e-6, rtol=0)
    assert codes.shape == (2, 2 * depth)
    one, everything = torch.ones(1, 2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    # Features stand for modalities of width 1.
    error = half_squared_error(x[None, :, :, None], X[:, :, None], torch.ones(3, dtype=torch.bool), one, everything)
    assert error.item() == pytest.approx(loss, abs=1e-6)


def test_error_of_what_was_hidden_by_hand() -> None:
    x, _ = example()(X * KEPT)
    weight = torch.ones(1, 2)
    assert restoration_error(x[None, :, :, None], X[:, :, None], ~KEPT, weight).item() == pytest.approx(
        0.25733149, abs=1e-6
    )


def test_without_decoders_nothing_is_restored() -> None:
    cascade = Cascade(6, [8, 4, 2], 3)
    for block in cascade.blocks:
        for parameter in block.decoder.parameters():
            nn.init.zeros_(parameter)
    x, kept = torch.randn(5, 3, 2), torch.rand(5, 3, 1) < 0.5
    out, _ = cascade((x * kept).flatten(1))
    assert torch.equal(out, (x * kept).flatten(1))
    one, five = torch.ones(1, 5, dtype=torch.bool), torch.ones(5, dtype=torch.bool)
    error = half_squared_error(out.reshape(1, 5, 3, 2), x, torch.ones(5, 3, dtype=torch.bool), one, five)
    torch.testing.assert_close(error, 0.5 * (x * ~kept).flatten(1).square().sum(1).mean())


def test_layers_of_an_autoencoder() -> None:
    block = ResidualAutoencoder(384, [256, 128, 64])
    assert [m.out_features for m in block.encoder if isinstance(m, nn.Linear)] == [256, 128, 64]
    assert [m.out_features for m in block.decoder if isinstance(m, nn.Linear)] == [128, 256, 384]
    assert [type(m) for m in block.encoder[1::2]] == [nn.LeakyReLU] * 2
    assert [type(m) for m in block.decoder[1::2]] == [nn.ReLU] * 2


# ---- against sums written out ---------------------------------------------------------------------------------------


def model(**values: object) -> CRA:
    torch.manual_seed(1)
    config = {"latent": 6, "head_width": 7, "code_width": 2, "lambda_rec": 0.7}
    return CRA(SHAPES, Regression(), CRAConfig.model_validate(config | values)).eval()


def batch(available: Tensor | None = None, size: int = 8) -> Batch:
    random = torch.Generator().manual_seed(3)
    inputs = {name: torch.randn(size, *shape, generator=random) for name, shape in SHAPES.items()}
    target, noise = torch.randn(size, generator=random), row_keys(0, 0, size)
    return make_batch(inputs, target, available=available, labelled=torch.arange(size) % 3 != 2, noise=noise)


INCOMPLETE = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 1], [1, 0, 1]] * 2).bool()


def written_out(method: CRA, of: Batch) -> dict[str, float]:
    """The losses of complete embeddings, sample by sample and pattern by pattern."""
    config, rec, sup, whole, weights = method.config, [], [], [], []
    for j in range(len(of.target)):
        h = [f(x[j]) for f, x in zip(method.f.each, of.inputs.values(), strict=True)]
        zero = [f(torch.zeros_like(x[j])) for f, x in zip(method.f.each, of.inputs.values(), strict=True)]
        blank = zero if config.missing_as == "zero_input" else [torch.zeros(6)] * 3

        def lost(parts: list[Tensor], j: int = j) -> float:
            return float((method.head(torch.cat(parts)[None], of.noise[:1])[0, 0] - of.target[j]).abs())

        has = [bool(there) for there in of.available[j]]
        if of.labelled[j] and all(has):
            whole.append(lost(h))
        patterns = [
            p for p in missing_patterns(3, 63).tolist() if not any(a and not b for a, b in zip(p, has, strict=True))
        ]
        losses = []
        for p in patterns:
            x = torch.cat([h[m] if p[m] else blank[m] for m in range(3)])
            for block in method.cascade.blocks:
                x = x + block.decoder(block.encoder(x))
            restored = x.split(6)
            losses.append(lost([h[m] if p[m] else restored[m] for m in range(3)]))
            entries = [m for m in range(3) if has[m] and (config.restored == "all" or not p[m])]
            rec += [float((restored[m] - h[m]).square().mean()) / len(patterns) for m in entries]
            weights += [1 / len(patterns)] * len(entries)
        if of.labelled[j]:
            sup.append(sum(losses) / len(losses))
    error = sum(rec) / sum(weights) if config.reduction == "mean" else 0.5 * 6 * sum(rec) / len(of.target)
    return {"whole": sum(whole) / len(whole), "sup": sum(sup) / len(sup), "rec": 0.7 * error}


@pytest.mark.parametrize("available", [None, INCOMPLETE])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"missing_as": "zero_input", "restored": "missing"},
        {"reduction": "half_sum"},
        {"restored": "missing", "depth": 1},
    ],
)
def test_losses_equal_sums_written_out(values: dict[str, object], available: Tensor | None) -> None:
    method, of = model(**values), batch(available)
    with torch.no_grad():
        terms = {name: float(value) for name, value in method.loss(of).items()}
        assert terms == pytest.approx(written_out(method, of), abs=1e-5)


def test_only_what_is_missing_is_replaced() -> None:
    method, of = model(), batch(INCOMPLETE)
    embedded = method.embed(of)
    completed = embedded["s"].reshape(8, 3, 6)
    for m, name in enumerate(SHAPES):
        there = INCOMPLETE[:, m]
        assert torch.equal(completed[there, m], embedded[f"z/{name}"][there])
        assert not torch.isclose(completed[~there, m], embedded[f"z/{name}"][~there]).all(1).any()
    torch.testing.assert_close(method.predict(of), method.head(embedded["s"], of.noise))


def test_the_target_is_no_way_to_a_smaller_error() -> None:
    """Where only text was, and nothing is added to it, the error lies in the targets of the others alone."""
    method = model(restored="missing", lambda_rec=1.0)
    for block in method.cascade.blocks:
        for parameter in block.decoder.parameters():
            nn.init.zeros_(parameter)
    method.patterns = torch.tensor([[True, False, False]])
    method.loss(batch())["rec"].backward()
    assert all(p.grad is None or not p.grad.any() for p in method.f.parameters())
    assert method.loss(batch())["rec"] > 0


def test_greedy_stages_train_one_autoencoder_after_the_other() -> None:
    method = model(schedule="greedy")
    stages = {stage.name: stage for stage in method.stages()}
    assert list(stages) == ["classifier", "block_1", "block_2", "block_3", "together"]
    assert sum(stage.share for stage in stages.values()) == pytest.approx(1)
    reached = {}
    for name, stage in stages.items():
        method.stage = name
        method.zero_grad()
        terms = method.loss(batch())
        sum(terms.values()).backward()
        moved = {n for n, p in method.named_parameters() if stage.covers(n) and p.grad is not None and p.grad.any()}
        reached[name] = (set(terms), {n.rpartition(".blocks.")[2][0] for n in moved if n.startswith("cascade")})
        assert method.needs_labels == (name == "classifier")
        predicted = method.predict(batch(INCOMPLETE))
        with torch.no_grad():  # those that come later are not read yet
            for block in list(method.cascade.blocks)[method.depth :]:
                block.decoder[-1].bias += 1
        assert torch.equal(method.predict(batch(INCOMPLETE)), predicted)
    assert reached == {
        "classifier": ({"whole"}, set()),
        "block_1": ({"rec"}, {"0"}),
        "block_2": ({"rec"}, {"1"}),
        "block_3": ({"rec"}, {"2"}),
        "together": ({"whole", "rec", "sup"}, {"0", "1", "2"}),
    }


def test_redundant_modalities_are_restored_from_each_other() -> None:
    random = torch.Generator().manual_seed(0)
    shared = torch.randn(64, 3, generator=random)
    inputs = {"a": shared @ torch.randn(3, 5, generator=random), "b": shared @ torch.randn(3, 4, generator=random)}
    of = make_batch(inputs, shared[:, 0], noise=row_keys(0, 0, 64))
    torch.manual_seed(0)
    method = CRA({"a": (5,), "b": (4,)}, Regression(), CRAConfig(latent=8, code_width=8, depth=1))
    assert max(float(x) for x in method.diagnose(of).values()) > 0.9  # nothing is known yet
    optimiser = torch.optim.Adam(method.parameters(), lr=1e-2, fused=True)
    for _ in range(120):
        optimiser.zero_grad()
        sum(method.loss(of).values()).backward()
        optimiser.step()
    assert max(float(x) for x in method.eval().diagnose(of).values()) < 0.7
