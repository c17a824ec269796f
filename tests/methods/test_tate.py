"""TATE: tags, divergences and pooling by hand, the transformer against PyTorch's, and the two stages."""

import copy
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from datasets.batch import Batch, make_batch
from datasets.tasks import Regression
from methods.noise import row_keys
from methods.patterns import missing_patterns
from methods.tate import (
    TATE,
    Pooling,
    PostNormBlock,
    TATEConfig,
    constant_tags,
    divergence,
    tag_distance,
    tags,
    token_divergence,
)

SHAPES = {"text": (5,), "audio": (3,), "vision": (4,)}
INCOMPLETE = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 1], [1, 0, 1]] * 2).bool()


# ---- by hand --------------------------------------------------------------------------------------------------------

E = torch.tensor([[[0.1, 0.5, -0.2], [1.0, 0.0, -1.0]], [[0.3, 0.3, 0.3], [2.0, -1.0, 0.5]]])
P = torch.tensor([[[0.0, 0.4, 0.1], [0.5, 0.2, -0.7]], [[0.1, 0.2, 0.6], [1.0, 0.0, 0.0]]])


def test_divergences_by_hand() -> None:
    """Keras' function gives the same digits."""
    there, back = divergence(E.softmax(-1), P.softmax(-1)), divergence(P.softmax(-1), E.softmax(-1))
    expected = torch.tensor([[0.01513171, 0.06299546], [0.02418093, 0.14426307]])
    torch.testing.assert_close(there, expected, atol=1e-6, rtol=0)
    expected = torch.tensor([[0.01610043, 0.06562094], [0.02486131, 0.21972048]])
    torch.testing.assert_close(back, expected, atol=1e-6, rtol=0)
    assert token_divergence(E, P).sum().item() == pytest.approx(0.28643717, abs=1e-6)
    assert token_divergence(E, P).mean().item() == pytest.approx(0.14321858, abs=1e-6)


def test_probabilities_are_clipped_as_in_keras() -> None:
    p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert divergence(p, q).item() == pytest.approx(16.1181, abs=1e-3)  # ln 1e7, up to 1e-7 of it


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_divergence_vanishes_for_equal_tokens_alone(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 4, 3, 5, generator=random)
    torch.testing.assert_close(token_divergence(a, a), torch.zeros(4))
    assert (token_divergence(a, b) > 0).all()
    torch.testing.assert_close(token_divergence(a, b), token_divergence(b, a))
    p, q = a.softmax(-1), b.softmax(-1)
    torch.testing.assert_close(divergence(p, q), (p * p.log() - p * q.log()).sum(-1), atol=1e-5, rtol=1e-4)


def test_tag_distance_by_hand() -> None:
    pooled = torch.tensor([[9.0, -2.0, 1.0, 0.0, -1.0], [-9.0, 3.0, -1.0, -1.0, 0.5]])
    tag = torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert tag_distance(pooled, tag).mean().item() == pytest.approx(0.29560673, abs=1e-6)


def test_pooling_by_hand() -> None:
    pool = Pooling(3)
    with torch.no_grad():
        pool.u.weight.copy_(0.5 * torch.eye(3))
        pool.m.weight.fill_(0.2)
        pool.r.weight.copy_(torch.tensor([[1.0, -1.0, 0.5]]))
    pooled, weight = pool(torch.tensor([[1.0, 0.0, 2.0], [0.5, -1.0, 0.0]]))
    torch.testing.assert_close(weight, torch.tensor([0.57184696, 0.42815304]), atol=1e-6, rtol=0)
    torch.testing.assert_close(pooled, torch.tensor([0.78592348, -0.42815304, 1.14369392]), atol=1e-6, rtol=0)


def test_tags_are_those_of_the_table() -> None:
    """Of visual, audio and text: the table of the TATE code."""
    table = {(1, 1, 1): "1000", (0, 1, 1): "0100", (1, 0, 1): "0010", (1, 1, 0): "0001", (1, 0, 0): "0011"}
    table |= {(0, 1, 0): "0101", (0, 0, 1): "0110"}
    for pattern, expected in table.items():
        assert "".join(str(int(x)) for x in tags(torch.tensor(pattern).bool())) == expected


@pytest.mark.parametrize("modalities", [1, 2, 3, 5])
def test_every_pattern_has_a_tag_of_its_own_but_for_the_released_code(modalities: int) -> None:
    patterns = missing_patterns(modalities, 63)
    assert len(tags(patterns).unique(dim=0)) == len(patterns)
    constant = constant_tags(patterns)
    assert constant.shape == tags(patterns).shape
    assert len(constant.unique(dim=0)) == 1


def test_block_equals_the_transformer_layer_of_pytorch() -> None:
    block = PostNormBlock(8, 4, 0.2, 0).eval()
    theirs = nn.TransformerEncoderLayer(8, 4, dim_feedforward=32, dropout=0.0, batch_first=True)
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": block.qkv.weight,
            "self_attn.in_proj_bias": block.qkv.bias,
            **{f"self_attn.out_proj.{k}": v for k, v in block.out.state_dict().items()},
            **{f"linear1.{k}": v for k, v in block.mlp[0].state_dict().items()},
            **{f"linear2.{k}": v for k, v in block.mlp[2].state_dict().items()},
            **{f"norm1.{k}": v for k, v in block.norm_attention.state_dict().items()},
            **{f"norm2.{k}": v for k, v in block.norm_mlp.state_dict().items()},
        }
    )
    x = torch.randn(5, 3, 8)
    torch.testing.assert_close(block(x, None), theirs(x), atol=1e-5, rtol=1e-4)


# ---- the network ----------------------------------------------------------------------------------------------------


def model(stage: str = "student", **values: object) -> TATE:
    torch.manual_seed(1)
    method = TATE(SHAPES, Regression(), TATEConfig.model_validate({"latent": 6, "heads": 2} | values)).eval()
    method.stage = stage
    return method


def batch(available: Tensor | None = None, size: int = 8, step: int = 0) -> Batch:
    random = torch.Generator().manual_seed(3)
    inputs = {name: torch.randn(size, *shape, generator=random) for name, shape in SHAPES.items()}
    target, noise = torch.randn(size, generator=random), row_keys(0, step, size)
    return make_batch(inputs, target, available=available, labelled=torch.arange(size) % 3 != 2, noise=noise)


@pytest.mark.parametrize(("modalities", "width"), [(1, 132), (2, 132), (3, 132), (4, 132), (5, 136), (6, 132)])
def test_tokens_are_common_features_filling_and_tag(modalities: int, width: int) -> None:
    shapes = {str(i): (2,) for i in range(modalities)}
    net = TATE(shapes, Regression(), TATEConfig()).student
    xs = [torch.randn(4, 2) for _ in shapes]
    chosen = torch.rand(3, 4, modalities) < 0.5
    seen = net(xs, chosen)
    assert seen.tokens.shape == (3, 4, modalities, width)
    assert torch.equal(seen.tokens[..., -(modalities + 1) :], tags(chosen)[:, :, None].expand(-1, -1, modalities, -1))
    common = 128 if modalities == 1 else (modalities - 1) * (128 // (modalities - 1))
    assert not seen.tokens[..., common : -(modalities + 1)].any()


def test_each_pair_of_modalities_shares_a_matrix() -> None:
    net, xs = model().student, list(batch().inputs.values())
    h = [f(x) for f, x in zip(net.f.each, xs, strict=True)]
    ta, tv, av = (pair.weight for pair in net.pairs)
    rows = [(h[0], ta, tv), (h[1], ta, av), (h[2], tv, av)]
    expected = torch.stack([torch.cat([x @ first.T, x @ second.T], dim=1) for x, first, second in rows], dim=1)
    torch.testing.assert_close(net.embed(xs)[0], expected)


def written_out(method: TATE, of: Batch) -> dict[str, float]:
    """The student's losses pattern by pattern, each made in the data, and sample by sample."""
    config, whole = method.config, torch.ones(1, 8, 3, dtype=torch.bool)
    inputs = list(of.inputs.values())
    teacher = method.teacher(inputs, whole).encoded[0]
    parts: dict[str, list[list[float]]] = {
        name: [[] for _ in range(8)] for name in ("sup", "decoder", "encoder", "tag")
    }

    def apart(a: Tensor, b: Tensor) -> float:
        """Mean over the tokens of the divergence both ways, by torch's own Kullback-Leibler function."""
        p, q = torch.distributions.Categorical(logits=a), torch.distributions.Categorical(logits=b)
        return float((torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)).mean())

    for pattern in missing_patterns(3, 63):
        zeroed = [x * there for x, there in zip(inputs, pattern, strict=True)]
        seen = method.student(zeroed, pattern.expand(1, 8, 3))
        drawn = (
            teacher
            if config.teacher_input == "complete"
            else method.teacher(zeroed, pattern.expand(1, 8, 3)).encoded[0]
        )
        for j in range(8):
            if (pattern & ~of.available[j]).any():
                continue
            if of.labelled[j]:
                parts["sup"][j].append(float((seen.output[0, j, 0] - of.target[j]).abs()))
            parts["decoder"][j].append(apart(seen.decoded[0, j], seen.tokens[0, j]))
            if config.teacher_input == "zeroed" or of.available[j].all():
                parts["encoder"][j].append(apart(seen.encoded[0, j], drawn[j]))
            tag = torch.tensor([float(pattern.all()), *(~pattern).float()])
            tag = torch.tensor([0.0, 1.0, 1.0, 0.0]) if config.tag == "constant" else tag
            parts["tag"][j].append(float((tag - seen.pooled[0, j, -4:].sigmoid()).abs().mean()))
    means = {name: [sum(x) / len(x) for x in rows if x] for name, rows in parts.items()}
    weights = {"sup": 1.0, "decoder": config.lambda_decoder, "encoder": config.lambda_encoder, "tag": config.lambda_tag}
    return {name: weights[name] * sum(x) / len(x) for name, x in means.items()}


@pytest.mark.parametrize("available", [None, INCOMPLETE])
@pytest.mark.parametrize("values", [{}, dict(TATE.variants["reference"])])
def test_losses_equal_sums_written_out(values: dict[str, object], available: Tensor | None) -> None:
    method, of = model(**values), batch(available)
    with torch.no_grad():
        terms = {name: float(value) for name, value in method.loss(of).items()}
        assert terms == pytest.approx(written_out(method, of), abs=1e-5)


def test_a_student_like_its_teacher_has_no_distance_to_it() -> None:
    method = model()
    method.student.load_state_dict(method.teacher.state_dict())
    assert method.loss(batch())["encoder"] > 1e-3  # under the patterns
    method.patterns = method.patterns[:1]
    assert method.loss(batch())["encoder"].item() == pytest.approx(0, abs=1e-7)
    assert method.diagnose(batch())["unlike_teacher"].item() == pytest.approx(0, abs=1e-6)


def test_the_teacher_learns_from_complete_samples_and_is_then_frozen() -> None:
    method, of = model("teacher"), batch(INCOMPLETE)
    terms = method.loss(of)
    assert set(terms) == {"sup", "decoder"}
    errors = (method.predict(of)[:, 0] - of.target).abs()
    torch.testing.assert_close(terms["sup"], errors[[0, 4]].mean())  # complete and labelled
    only = Batch({k: x[[0, 4]] for k, x in of.inputs.items()}, *(column[[0, 4]] for column in of[1:]))
    torch.testing.assert_close(method.loss(only)["decoder"], terms["decoder"])
    method.stage = "student"
    sum(method.loss(of).values()).backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(p.grad is not None for p in method.student.parameters())


def test_inference_reads_the_student_and_its_tag() -> None:
    method, of = model(), batch(INCOMPLETE)
    before, embedded = method.predict(of), method.embed(of)
    torch.testing.assert_close(method.student.head(embedded["s"]), before)
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter += 1
    assert torch.equal(method.predict(of), before)
    lying = of._replace(inputs={k: torch.zeros_like(x) for k, x in of.inputs.items()})
    told = [
        method.predict(lying._replace(available=torch.tensor([p] * 8).bool()))[0, 0] for p in product([0, 1], repeat=3)
    ]
    assert len({round(float(x.detach()), 5) for x in told}) == 8  # zeros alike, tags not


def test_attention_is_dropped_in_training_only_and_never_for_the_teacher() -> None:
    method = model(dropout=0.5)
    first, again, other = (method.train().loss(batch(step=step)) for step in (0, 0, 1))
    for name in ("sup", "decoder", "encoder", "tag"):
        assert first[name].item() == again[name].item() != other[name].item()
    assert len({method.eval().loss(batch(step=step))["sup"].item() for step in (0, 1)}) == 1
    frozen = copy.deepcopy(method).train()
    whole = torch.ones(1, 8, 3, dtype=torch.bool)
    drawn = [frozen.drawn_to(list(batch().inputs.values()), whole, batch(step=step))[0] for step in (0, 1)]
    assert torch.equal(*drawn)


@pytest.mark.parametrize(
    ("stage", "values", "needs"),
    [
        ("teacher", {}, False),
        ("teacher", {"lambda_decoder": 0.0}, True),
        ("student", {"lambda_decoder": 0.0}, False),
        ("student", {"lambda_decoder": 0.0, "lambda_encoder": 0.0, "lambda_tag": 0.0}, True),
    ],
)
def test_labels_are_needed_where_nothing_else_teaches(stage: str, values: dict[str, object], needs: bool) -> None:
    assert model(stage, **values).needs_labels == needs


def test_diagnosis_tells_a_forgotten_tag() -> None:
    method, of = model(), batch()
    told = method.diagnose(of)
    assert sum(float(told[f"weight/{name}"]) for name in SHAPES) == pytest.approx(1, abs=1e-5)
    with torch.no_grad():  # the tail of the pooled output is zero: a sigmoid of one half
        method.student.encoder.norm_mlp.weight[-4:] = 0
        method.student.encoder.norm_mlp.bias[-4:] = 0
    told = method.diagnose(of)
    for name in ("complete", *SHAPES):
        assert told[f"tag/{name}"].item() == pytest.approx(0.5, abs=1e-6)
