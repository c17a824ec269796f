"""Prompt-Trans on ViLT: equal outputs with transformers' own model, what is prompted, frozen, missing and refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.contract import CHECKS, Subject, small_config
from bench.grid.file import parse_grid
from bench.grid.plan import make_plan
from bench.training.trainer import train
from datasets.base import SPLITS, Data, DataConfig, DataSet, DataSpec, Part
from datasets.batch import Batch, make_batch
from datasets.errors import UserError
from datasets.seeds import generator
from datasets.tasks import MultiClass, MultiLabel, Regression
from methods import prompt_vilt
from methods.noise import row_keys
from methods.prompt_vilt import PromptViLT, PromptViLTConfig
from methods.registry import METHODS
from methods.vilt import CLS, PAD, SEP, UNKNOWN

SHAPES: dict[str, tuple[int, ...]] = {"text": (6,), "image": (3, 12, 12)}
ALL_PATTERNS = torch.tensor([[1, 1], [0, 1], [1, 0]]).bool()  # complete, without text, without image
SMALL: dict[str, Any] = {"weights": "random-tiny", "prompt_length": 4, "prompted_layers": 1}


def config(**values: Any) -> PromptViLTConfig:
    return PromptViLTConfig(**(SMALL | values))


def build(shapes: Mapping[str, tuple[int, ...]] = SHAPES, **values: Any) -> PromptViLT:
    return PromptViLT(shapes, Regression(), config(**values)).eval()


def batch_of(size: int, available: Tensor | None = None, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> Batch:
    """Sentences of different lengths, [CLS] ... [SEP] [PAD] ..., and normal pixels."""
    random = torch.Generator().manual_seed(4)
    words = shapes["text"][0]
    text = torch.randint(1000, 30522, (size, words), generator=random)
    text[:, 0] = CLS
    for row in range(size):
        end = 1 + row % (words - 1)
        text[row, end], text[row, end + 1 :] = SEP, PAD
    made = {"text": text.float(), "image": torch.randn(size, *shapes["image"], generator=random)}
    inputs = {name: made[name] for name in shapes}
    return make_batch(inputs, torch.linspace(-2, 2, size), available=available, noise=row_keys(3, 0, size))


# ---- equal outputs with transformers --------------------------------------------------------------------------------


@pytest.fixture
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="needs transformers: pip install 'robult-bench[vilt]'")


def vilt_config(transformers: Any, **values: Any) -> Any:
    return transformers.ViltConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128, image_size=12, patch_size=4,
        **({"max_position_embeddings": 8, "initializer_range": 0.2} | values),
    )  # fmt: skip


def randomised(model: Any) -> Any:
    """All tensors random: positions and the image's [CLS] would start at zero, biases too."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture
def theirs(transformers: Any, tmp_path: Path) -> Any:
    model = randomised(transformers.ViltModel(vilt_config(transformers)))
    model.save_pretrained(tmp_path / "vilt")
    return model


def ask(model: Any, batch: Batch) -> Tensor:
    """What transformers pools."""
    ids, image = batch.inputs["text"].long(), batch.inputs["image"]
    mask = torch.ones(len(ids), *image.shape[2:])
    with torch.no_grad():
        pooled: Tensor = model(
            input_ids=ids, attention_mask=(ids != PAD).long(), pixel_values=image, pixel_mask=mask
        ).pooler_output
    return pooled


@pytest.mark.parametrize("prompt_type", ["input", "attention"])
@pytest.mark.parametrize("image", [(12, 12), (8, 20)])
def test_without_prompts_it_is_the_vilt_of_transformers(
    theirs: Any, tmp_path: Path, image: tuple[int, int], prompt_type: str
) -> None:
    shapes = {"text": (6,), "image": (3, *image)}
    ours = build(shapes, weights=str(tmp_path / "vilt"), prompt_length=0, prompt_type=prompt_type)
    batch = batch_of(5, shapes=shapes)
    torch.testing.assert_close(ours.embed(batch)["s"], ask(theirs, batch), atol=1e-5, rtol=1e-5)


def test_a_checkpoint_with_the_heads_of_its_pretraining_is_read(transformers: Any, tmp_path: Path) -> None:
    """The published file is a ViLT under a masked-word head."""
    model = randomised(transformers.ViltForMaskedLM(vilt_config(transformers)))
    model.save_pretrained(tmp_path / "mlm")
    ours = build(weights=str(tmp_path / "mlm"), prompt_length=0)
    torch.testing.assert_close(ours.embed(batch_of(4))["s"], ask(model.vilt, batch_of(4)), atol=1e-5, rtol=1e-5)


def test_reading_a_checkpoint_prints_nothing(theirs: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    build(weights=str(tmp_path / "vilt"))
    assert capfd.readouterr() == ("", "")


def test_longer_texts_stretch_the_positions(transformers: Any, theirs: Any, tmp_path: Path) -> None:
    """8 positions for 20 words: each row the straight line between the two it lies between, pixel centres aligned."""
    shapes = {"text": (20,), "image": (3, 12, 12)}
    table = theirs.embeddings.text_embeddings.position_embeddings.weight.detach()
    at = np.clip((np.arange(20) + 0.5) * 8 / 20 - 0.5, 0, 7)
    columns = [np.interp(at, np.arange(8), table[:, column].numpy()) for column in range(32)]
    longer = transformers.ViltModel(vilt_config(transformers, max_position_embeddings=20)).eval()
    own = theirs.state_dict()
    own["embeddings.text_embeddings.position_embeddings.weight"] = torch.tensor(np.stack(columns, 1)).float()
    longer.load_state_dict(own)
    ours = build(shapes, weights=str(tmp_path / "vilt"), prompt_length=0)
    batch = batch_of(20, shapes=shapes)
    torch.testing.assert_close(ours.embed(batch)["s"], ask(longer, batch), atol=1e-5, rtol=1e-5)


def embedded(theirs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """The tokens that transformers makes and the additive mask of its layers."""
    ids, image = batch.inputs["text"].long(), batch.inputs["image"]
    pixel_mask = torch.ones(len(ids), *image.shape[2:])
    tokens, seen = theirs.embeddings(ids, (ids != PAD).long(), None, image, pixel_mask, None, None)
    return tokens, seen.bool()


def test_input_prompts_come_before_the_tokens_of_their_layer_and_stay(theirs: Any, tmp_path: Path) -> None:
    """With the layers of transformers: after L layers of P prompts [CLS] stands at index L P (reference code)."""
    ours = build(weights=str(tmp_path / "vilt"), prompted_layers=2, prompt_length=4)
    batch = batch_of(6, ALL_PATTERNS[:1].repeat(6, 1))
    with torch.no_grad():
        x, seen = embedded(theirs, batch)
        for layer, block in enumerate(theirs.encoder.layer):
            if layer < 2:
                x = torch.cat([ours.prompts[0, layer].expand(6, 4, 32), x], dim=1)
                seen = torch.cat([torch.ones(6, 4, dtype=torch.bool), seen], dim=1)
            x = block(x, torch.where(seen, 0.0, -1e9)[:, None, None, :])[0]
        expected = theirs.pooler(theirs.layernorm(x)[:, 2 * 4 :])
        torch.testing.assert_close(ours.embed(batch)["s"], expected, atol=1e-5, rtol=1e-5)


def test_attention_prompts_are_prefixes_of_keys_and_values(theirs: Any, tmp_path: Path) -> None:
    """With the projections of transformers and torch's attention; half of 8 prompts are keys, half values."""
    ours = build(weights=str(tmp_path / "vilt"), prompted_layers=2, prompt_length=8, prompt_type="attention")
    batch = batch_of(6, ALL_PATTERNS[:1].repeat(6, 1))

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (4, 8)).transpose(1, 2)

    with torch.no_grad():
        x, seen = embedded(theirs, batch)
        for layer, block in enumerate(theirs.encoder.layer):
            h, attention = block.layernorm_before(x), block.attention.attention
            q, k, v, mask = attention.query(h), attention.key(h), attention.value(h), seen
            if layer < 2:
                k = torch.cat([ours.prompts[0, layer, :4].expand(6, 4, 32), k], dim=1)
                v = torch.cat([ours.prompts[0, layer, 4:].expand(6, 4, 32), v], dim=1)
                mask = torch.cat([torch.ones(6, 4, dtype=torch.bool), seen], dim=1)
            mixed = F.scaled_dot_product_attention(heads(q), heads(k), heads(v), attn_mask=mask[:, None, None, :])
            x = x + block.attention.output.dense(mixed.transpose(1, 2).flatten(2))
            x = x + block.output.dense(block.intermediate(block.layernorm_after(x)))
        torch.testing.assert_close(ours.embed(batch)["s"], theirs.pooler(theirs.layernorm(x)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("prompt_type", "tokens"), [("input", [20, 24]), ("attention", [16, 16])])
def test_only_input_prompts_lengthen_the_sequence(prompt_type: str, tokens: list[int]) -> None:
    """6 words, an image's [CLS] and 3 x 3 patches; 4 prompts in each of 2 layers."""
    model, seen = build(prompt_type=prompt_type, prompted_layers=2), []
    for block in model.vilt.trunk.transformer.blocks:
        block.mlp.register_forward_hook(lambda module, given, made: seen.append(given[0].shape[1]))  # type: ignore[union-attr,operator]
    model.predict(batch_of(3))
    assert seen == tokens


# ---- ViLT-B/32 in numbers -------------------------------------------------------------------------------------------


def test_what_learns_beside_vilt_b32() -> None:
    """Three prompt tables of 6 layers x 16 x 768, the pooler, and the classifier; counted without memory."""
    shapes = {"text": (1024,), "image": (3, 384, 384)}
    with torch.device("meta"):
        model = PromptViLT(shapes, MultiLabel(n_labels=23), PromptViLTConfig(weights="random-base"))
    pooler, classifier = 768 * 768 + 768, (768 * 1536 + 1536) + 2 * 1536 + (1536 * 23 + 23)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 3 * 6 * 16 * 768 + pooler + classifier
    assert model.vilt.embeddings.text_position.shape == (1024, 768)
    assert model.vilt.embeddings.image_position.shape == (145, 768)


def test_the_published_size_is_that_of_transformers(transformers: Any) -> None:
    """All of `ViltModel` but its pooler, which learns, and the type of a second sentence."""
    shapes = {"text": (40,), "image": (3, 384, 384)}
    with torch.device("meta"):
        theirs = transformers.ViltModel(transformers.ViltConfig())
        ours = PromptViLT(shapes, Regression(), PromptViLTConfig(weights="random-base"))
    frozen = sum(b.numel() for b in ours.vilt.buffers())
    assert frozen == sum(p.numel() for p in theirs.parameters()) - (768 * 768 + 768) - 768
    assert frozen == 111_003_648


# ---- what is missing ------------------------------------------------------------------------------------------------


def alike(model: PromptViLT) -> PromptViLT:
    """All patterns with the same prompts, so that outputs differ by inputs alone."""
    with torch.no_grad():
        model.prompts.copy_(model.prompts[:1].clone().expand_as(model.prompts))
    return model


def test_a_missing_text_is_the_empty_one() -> None:
    model, batch = alike(build()), batch_of(4)
    empty = torch.tensor([CLS, SEP, PAD, PAD, PAD, PAD]).float().expand(4, 6)
    given = batch._replace(inputs=batch.inputs | {"text": empty})
    without = make_batch(batch.inputs, batch.target, available=ALL_PATTERNS[1:2].expand(4, 2))
    torch.testing.assert_close(model.predict(without), model.predict(given))
    assert not torch.allclose(model.predict(without), model.predict(batch), atol=1e-4)


@pytest.mark.parametrize(("absent_image", "value"), [("ones", 1.0), ("zeros", 0.0)])
def test_a_missing_image_is_one_colour(absent_image: str, value: float) -> None:
    model, batch = alike(build(absent_image=absent_image)), batch_of(4)
    given = batch._replace(inputs=batch.inputs | {"image": torch.full((4, 3, 12, 12), value)})
    without = make_batch(batch.inputs, batch.target, available=ALL_PATTERNS[2:].expand(4, 2))
    torch.testing.assert_close(model.predict(without), model.predict(given))
    other = batch._replace(inputs=batch.inputs | {"image": torch.full((4, 3, 12, 12), 1 - value)})
    assert not torch.allclose(model.predict(without), model.predict(other), atol=1e-4)


@pytest.mark.parametrize("prompt_type", ["input", "attention"])
def test_a_prompt_answers_for_its_own_pattern_alone(prompt_type: str) -> None:
    model, batch = build(prompt_type=prompt_type), batch_of(6, ALL_PATTERNS.repeat(2, 1))
    before = model.predict(batch)
    for pattern in range(3):
        start = model.prompts.detach().clone()
        with torch.no_grad():
            model.prompts[pattern] += torch.linspace(-3, 3, 32)
        moved = ((model.predict(batch) - before).abs().amax(1) > 1e-5).tolist()
        assert moved == [code == pattern for code in (0, 1, 2, 0, 1, 2)]
        with torch.no_grad():
            model.prompts.copy_(start)


def test_the_order_of_modalities_is_the_data_sets_own() -> None:
    """Prompts go by what is missing, so that one state serves image + text as text + image."""
    model = build()
    turned = build(dict(reversed(SHAPES.items())))
    turned.load_state_dict(model.state_dict())
    batch = batch_of(6, ALL_PATTERNS.repeat(2, 1))
    other = batch_of(6, ALL_PATTERNS.repeat(2, 1).flip(1), dict(reversed(SHAPES.items())))
    assert torch.equal(model.predict(batch), turned.predict(other))
    for name in ("s", "z/text", "z/image"):
        assert torch.equal(model.embed(batch)[name], turned.embed(other)[name])
    assert list(turned.diagnose(other)) == ["prompt/complete", "prompt/without_text", "prompt/without_image"]


def test_ids_outside_the_vocabulary_are_unknown_words() -> None:
    text = torch.tensor([[101.0, 30521.0, 30522.0, -1.0, 1e9, 102.0]])
    assert build().known(text).tolist() == [[101, 30521, UNKNOWN, UNKNOWN, UNKNOWN, 102]]


def test_rows_go_through_in_blocks_outside_training(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = build(), batch_of(11, ALL_PATTERNS.repeat(4, 1)[:11])
    whole = model.predict(batch)
    sizes: list[int] = []
    monkeypatch.setattr(prompt_vilt, "CPU_ROWS", 4)
    model.vilt.register_forward_hook(lambda module, given, made: sizes.append(len(made)))
    torch.testing.assert_close(model.predict(batch), whole)
    assert sizes == [4, 4, 3]


# ---- what learns ----------------------------------------------------------------------------------------------------


def test_prompts_pooler_and_classifier_are_all_that_learns_and_is_saved() -> None:
    model = build()
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert names == {name.split(".")[0] for name in model.state_dict()} == {"prompts", "pooler", "classifier"}


def test_training_leaves_the_transformer_as_it_was() -> None:
    model, batch = build().train(), batch_of(12)
    before = {name: b.clone() for name, b in model.vilt.named_buffers()}
    start = {name: p.clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    for step in range(3):
        optimiser.zero_grad()
        model.loss(batch._replace(noise=row_keys(0, step, 12)))["sup"].backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert len(before) > 20
    assert all(torch.equal(b, before[name]) for name, b in model.vilt.named_buffers())
    assert not any(torch.equal(p, start[name]) for name, p in model.named_parameters())


def test_the_transformer_is_the_same_for_every_seed_but_what_learns_is_not() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        one = build()
        torch.manual_seed(2)
        other = build()
    frozen = dict(other.vilt.named_buffers())
    assert all(torch.equal(b, frozen[name]) for name, b in one.vilt.named_buffers())
    assert not torch.equal(one.prompts, other.prompts)
    assert torch.equal(one.pooler.weight, other.pooler.weight)


def test_the_pooler_starts_as_pretrained(theirs: Any, tmp_path: Path) -> None:
    ours = build(weights=str(tmp_path / "vilt"))
    assert torch.equal(ours.pooler.weight, theirs.pooler.dense.weight)
    assert ours.pooler.weight.requires_grad


@pytest.mark.parametrize("prompt_type", ["input", "attention"])
@pytest.mark.parametrize(("simulated", "trained"), [(True, [True] * 3), (False, [True, False, False])])
def test_complete_data_train_the_missing_prompts_only_when_missing_is_simulated(
    prompt_type: str, simulated: bool, trained: list[bool]
) -> None:
    model = build(prompt_type=prompt_type, simulate_missing=simulated, prompted_layers=2).train()
    model.loss(batch_of(33))["sup"].backward()  # type: ignore[no-untyped-call]
    assert model.prompts.grad is not None
    assert [bool(part.any()) for part in model.prompts.grad] == trained


def test_training_adds_no_noise_but_the_simulated_patterns() -> None:
    model, batch = build(simulate_missing=False), batch_of(9)
    evaluated = model.loss(batch)["sup"]
    torch.testing.assert_close(model.train().loss(batch)["sup"], evaluated)
    model = build().train()
    first, again = model.loss(batch)["sup"], model.loss(batch)["sup"]
    other = model.loss(batch._replace(noise=row_keys(9, 9, 9)))["sup"]
    assert first == again
    assert first != other


@pytest.mark.parametrize("rule", ["draws no random numbers of its own", "computes where its batch is"])
def test_rules_that_the_contract_asks_of_stackable_methods_hold_too(rule: str) -> None:
    subject = Subject(PromptViLT, small_config(PromptViLT))
    for case in subject.few():
        CHECKS[rule].run(subject, case)


class Memes(DataSet):
    """4 words that decide the class, beside noise as an image."""

    name = "memes"
    summary = source = licence = "made for this test"

    def spec(self) -> DataSpec:
        sizes = {"train": 96, "valid": 32, "test": 32}
        return DataSpec("memes", {"text": (5,), "image": (3, 8, 8)}, MultiClass(2), sizes, "memes")

    def load(self) -> Data:
        spec = self.spec()
        return Data(spec, {split: self.part(spec.sizes[split], split) for split in SPLITS})

    def part(self, n: int, split: str) -> Part:
        draw = generator("memes", split)
        words = draw.integers(2000, 2004, n)
        text = np.stack([np.full(n, CLS), words, np.full(n, SEP), np.zeros(n), np.zeros(n)], axis=1)
        image = 0.2 * draw.standard_normal((n, 3, 8, 8), dtype=np.float32)
        return Part({"text": text.astype(np.float32), "image": image}, (words % 2).astype(np.int64))


Memes.Config = DataConfig


def test_it_trains_from_a_grid_and_knows_what_it_read() -> None:
    """The word decides: with it nearly all is right, with the image alone nothing is known."""
    values = "{weights: random-tiny, prompt_length: 4, prompted_layers: 2}"
    text = (
        f"methods: [{{prompt_vilt: {values}}}]\ndatasets: ['{__name__}:Memes']\nlabel_ratios: [1.0]\nseeds: [0]\n"
        "modalities: all\ntrain: {epochs: 40, batch_size: 32, lr: 0.003}\n"
    )
    asked = make_plan(parse_grid(text)).trainings[0]
    result = train(asked, Memes().load())
    accuracy = {subset: cell["best"]["acc"] for subset, cell in result.cells.items()}
    assert accuracy["text"] >= 0.9
    assert accuracy["text+image"] >= 0.8
    assert 0.2 <= accuracy["image"] <= 0.8
    assert result.cost["parameters"] < 20_000


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"text": (768,)}, "takes two modalities, text and image; this data set has text; for embeddings use"),
        ({"text": (9,), "audio": (3, 8, 8)}, "this data set has text, audio; for embeddings use prompt_trans"),
        ({"text": (768,), "image": (768,)}, "takes images as pixels of the shape (3, H, W); here they have the shape"),
        ({"text": (50, 300), "image": (3, 8, 8)}, "takes text as token ids of the shape (L,); here it has the shape"),
        ({"text": (1,), "image": (3, 8, 8)}, "takes text as token ids of the shape (L,); here it has the shape (1,)"),
        ({"image": (3, 8, 8), "text": (9,)}, None),
    ],
)
def test_what_it_cannot_take(shapes: dict[str, tuple[int, ...]], reason: str | None) -> None:
    spec = DataSpec("d", shapes, Regression(), {"train": 8, "valid": 8, "test": 8}, "d")
    told = PromptViLT.refuses(spec, PromptViLTConfig())
    assert told is reason is None or (told is not None and reason is not None and reason in told)


def test_what_does_not_fit_the_checkpoint_is_told() -> None:
    with pytest.raises(UserError, match="prompted_layers is 6, but the ViLT of 'random-tiny' has 2 layers"):
        build(prompted_layers=6)
    with pytest.raises(UserError, match=r"modality 'image' has 3 x 8 pixels, less than a patch .* has 4 x 4"):
        build({"text": (6,), "image": (3, 3, 8)})


def test_without_transformers_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UserError, match=r"with the package transformers, .* Run: pip install 'robult-bench\[vilt\]'"):
        build(weights="dandelin/vilt-b32-mlm")
    assert METHODS.get("prompt_vilt") is PromptViLT
    assert build().predict(batch_of(2)).shape == (2, 1)


@pytest.mark.parametrize("weights", ["/no/such/vilt", "./vilt", "~/no-such-folder", "a/b/c"])
def test_a_folder_that_is_not_there_is_told(transformers: Any, weights: str) -> None:
    with pytest.raises(UserError, match=f"there is no folder '{weights}' with a ViLT"):
        build(weights=weights)


def test_a_folder_with_something_else_is_told(transformers: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not hold a ViLT that transformers can read"):
        build(weights=str(tmp_path))
    bert = transformers.BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=128)
    transformers.BertModel(bert).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="does not hold a ViLT"):
        build(weights=str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="does not hold a ViLT that transformers can read"):
        build(weights=str(tmp_path))


def test_layers_of_another_kind_are_told(transformers: Any, tmp_path: Path) -> None:
    transformers.ViltModel(vilt_config(transformers, hidden_act="relu")).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has layers of another kind \(relu, 128 wide\)"):
        build(weights=str(tmp_path))


def test_the_cache_is_asked_before_the_hub_and_a_hub_out_of_reach_is_told(
    transformers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def unreachable(name: str, local_files_only: bool = False, **options: Any) -> Any:
        asked.append(local_files_only)
        raise OSError("We couldn't connect to 'https://huggingface.co'.\nCheck your connection.")

    monkeypatch.setattr(transformers.ViltModel, "from_pretrained", unreachable)
    with pytest.raises(UserError) as told:
        build(weights="dandelin/vilt-b32-mlm")
    assert asked == [True, False]
    assert "neither a folder here nor in the cache of the Hugging Face hub" in str(told.value)
    assert "hf download dandelin/vilt-b32-mlm --local-dir FOLDER" in str(told.value)
    assert "\n" not in str(told.value)
