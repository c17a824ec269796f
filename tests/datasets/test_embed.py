"""Features from pretrained networks: each modality alone, the same whatever the batch, whole after a kill.

The networks are tiny ones of the same architecture with random weights.
"""

import errno
import fcntl
import hashlib
import io
import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.embed import Corruption, Job, Work, ahead, embed, masked, noised
from datasets.errors import DataError, UserError
from datasets.food101 import Food101
from datasets.hateful_memes import HatefulMemes
from datasets.image_text import ImageTextConfig, square_pixels, token_ids, tokenizer, vocabulary_hash
from datasets.mm_imdb import MMIMDb, MMIMDbConfig
from datasets.n24news import N24News, N24NewsConfig
from datasets.pairs import read_pairs
from datasets.pretrained import ResNetBert, Vilt, load_network
from datasets.store import read_card, store_directory, verify_store
from tests.datasets.image_text_fixtures import (
    MAKERS,
    VOCABULARY,
    make_bert,
    make_hateful_memes,
    make_resnet,
    make_vilt,
    picture,
    write,
)

SETS = {cls.name: cls for cls in (MMIMDb, Food101, HatefulMemes, N24News)}


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    make_vilt(folder / "vilt")
    make_bert(folder / "bert")
    make_resnet(folder / "resnet")
    return folder


@pytest.fixture
def vilt(networks):
    return Vilt({"both": str(networks / "vilt")}, None, "cpu")


@pytest.fixture
def resnet_bert(networks):
    return ResNetBert({"text": str(networks / "bert"), "image": str(networks / "resnet")}, None, "cpu")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "stores"))
    return tmp_path / "stores"


@pytest.fixture
def memes(tmp_path):
    """A prepared data set whose images have several sizes."""
    folder = make_hateful_memes(tmp_path / "raw")
    for i, path in enumerate(sorted((folder / "img").iterdir())):
        write(path, picture(i % 2, ((12, 12), (30, 12), (9, 40))[i % 3], "PNG", seed=i))
    HatefulMemes.prepare(folder, store_directory("hateful_memes"))
    return HatefulMemes()


def job(networks, **changed):
    return Job(**{"encoder": "vilt", "weights": {"both": str(networks / "vilt")}, "batch": 4, **changed})


def digest(directory):
    return hashlib.sha256((directory / "data.safetensors").read_bytes()).hexdigest()


def tokens(encoder, texts):
    ids = [encoder.token_ids(text) for text in texts]
    longest = max(map(len, ids))
    padded = torch.tensor([own + [0] * (longest - len(own)) for own in ids])
    return padded, torch.tensor([[True] * len(own) + [False] * (longest - len(own)) for own in ids])


# ---- the vectors ------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_vilt_text_is_what_the_stock_model_gives_when_it_cannot_attend_to_any_image(vilt):
    ids, mask = tokens(vilt, ["the quiet river", "old dog train song house"])
    patches = torch.randn(2, 5, 16)
    stock = vilt.network(
        input_ids=ids, attention_mask=mask.long(), image_embeds=patches, pixel_mask=torch.zeros(2, 5, dtype=torch.long)
    ).last_hidden_state[:, : ids.shape[1]]
    for row in range(2):
        expected = stock[row][mask[row]].mean(0)
        assert torch.allclose(vilt.encode_text(ids, mask)[row], expected, atol=1e-5)


@torch.inference_mode()
def test_vilt_image_is_what_the_stock_model_gives_when_it_cannot_attend_to_any_text(vilt):
    pixels = torch.rand(2, 3, 32, 48) * 2 - 1
    stock = vilt.network(
        input_ids=torch.randint(5, 20, (2, 4)), attention_mask=torch.zeros(2, 4, dtype=torch.long),
        pixel_values=pixels, pixel_mask=torch.ones(2, 32, 48, dtype=torch.long),
    ).last_hidden_state[:, 4:]  # fmt: skip
    assert stock.shape[1] == 1 + 4 * 6
    assert torch.allclose(vilt.encode_image(pixels), stock.mean(1), atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["vilt", "resnet_bert"])
def test_neither_padding_nor_neighbours_change_a_text(kind, request):
    encoder = request.getfixturevalue(kind)
    texts = ["the dog", "a quiet old house the river love", ""]
    together = encoder.encode_text(*tokens(encoder, texts))
    for row, text in enumerate(texts):
        assert torch.allclose(encoder.encode_text(*tokens(encoder, [text]))[0], together[row], atol=1e-5)


def test_images_are_prepared_as_the_stock_processor_of_vilt_does(vilt):
    from transformers import ViltImageProcessorPil

    stock = ViltImageProcessorPil(size={"shortest_edge": 32}, size_divisor=8)
    for size in ((20, 30), (70, 40), (16, 90), (33, 33)):
        image = Image.open(io.BytesIO(picture(1, size, "PNG")))
        expected = np.asarray(stock(image, return_tensors="np")["pixel_values"][0])
        ours = vilt.normalise(vilt.unit_pixels(image))
        assert ours.shape[1:] == vilt.shape(*size) == expected.shape[1:]
        assert np.allclose(ours, expected, atol=1e-5)


def test_an_image_of_extreme_form_still_has_a_patch(vilt):
    assert min(vilt.shape(2000, 3)) == 8
    assert vilt.shape(2000, 3)[1] <= 53


def test_resnet_sees_the_middle_224_of_256_pixels(resnet_bert):
    image = Image.open(io.BytesIO(picture(1, (512, 300), "PNG")))
    shorter = image.resize((round(512 * 256 / 300), 256), Image.Resampling.BILINEAR)
    left, top = (shorter.width - 224) // 2, 16
    expected = np.asarray(shorter.crop((left, top, left + 224, top + 224)), dtype=float)
    ours = np.asarray(resnet_bert.resize(image), dtype=float)
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).mean() < 6  # half a pixel apart, and noise is what it sees
    assert resnet_bert.encode_image(torch.zeros(2, 3, 224, 224)).shape == (2, 10)


def test_longer_texts_stretch_the_table_of_positions(networks, vilt):
    longer = Vilt({"both": str(networks / "vilt")}, 30, "cpu")
    text = "the dog " * 40
    assert len(vilt.token_ids(text)) == 12
    ids, mask = tokens(longer, [text])
    assert ids.shape == (1, 30)
    assert torch.isfinite(longer.encode_text(ids, mask)).all()
    ends = longer._positions()[[0, -1]]
    assert torch.allclose(ends, longer.table[[0, -1]], atol=1e-6)


# ---- from pairs to features -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_every_data_set_gets_features_that_a_grid_can_train_on(name, networks, tmp_path):
    dataset = SETS[name]()
    SETS[name].prepare(MAKERS[name](tmp_path / "raw"), store_directory(name))
    with pytest.raises(DataError, match=f"has no features 'vilt' yet. Make them with: bench data embed {name} --with"):
        dataset.spec()
    told = embed(dataset, job(networks))
    assert f"In a grid: {name}. Kept in" in told
    spec, data, found = dataset.spec(), dataset.load(), read_pairs(store_directory(name))
    assert data.spec == spec
    assert spec.modalities == {"text": (16,), "image": (16,)}
    assert spec.task == found.task
    for split, part in data.parts.items():
        assert np.array_equal(part.target, found.target[found.rows(split)])
    assert dataset.verify() == []
    assert not list(store_directory(name).parent.glob(".*"))


@torch.inference_mode()
def test_each_row_is_the_vector_of_its_own_text_and_image(networks, memes, vilt):
    embed(memes, job(networks))
    found, parts = read_pairs(store_directory("hateful_memes")), memes.load().parts
    for split, part in parts.items():
        for i, row in enumerate(found.rows(split)):
            text = vilt.encode_text(*tokens(vilt, found.texts(row)))[0]
            image = Image.open(io.BytesIO(found.image(row))).convert("RGB")
            pixels = torch.from_numpy(vilt.normalise(vilt.unit_pixels(image)))[None]
            assert np.allclose(part.inputs["text"][i], text, atol=1e-5)
            assert np.allclose(part.inputs["image"][i], vilt.encode_image(pixels)[0], atol=1e-5)


def test_the_text_does_not_leak_into_the_image_nor_the_image_into_the_text(networks, tmp_path):
    stores = {}
    for changed in ("nothing", "text", "image"):
        folder = make_hateful_memes(tmp_path / changed)
        if changed == "text":
            for path in folder.glob("*_seen.jsonl"):
                lines = [json.loads(line) for line in path.read_text().splitlines()]
                write(path, "\n".join(json.dumps({**line, "text": "a quiet war"}) for line in lines))
        if changed == "image":
            for path in (folder / "img").iterdir():
                write(path, picture(7, (12, 12), "PNG"))
        HatefulMemes.prepare(folder, store_directory("hateful_memes"))
        embed(HatefulMemes(), job(networks))
        stores[changed] = {k: x.copy() for k, x in HatefulMemes().load().parts["test"].inputs.items()}
    assert np.array_equal(stores["nothing"]["image"], stores["text"]["image"])
    assert not np.allclose(stores["nothing"]["text"], stores["text"]["text"])
    assert np.array_equal(stores["nothing"]["text"], stores["image"]["text"])
    assert not np.allclose(stores["nothing"]["image"], stores["image"]["image"])


def test_the_batch_does_not_change_the_vectors(networks, memes):
    found = []
    for batch in (1, 3, 64):
        embed(memes, job(networks, batch=batch))
        found.append({k: x.copy() for k, x in memes.load().parts["train"].inputs.items()})
        for path in memes.features_directory().iterdir():
            path.unlink()
        memes.features_directory().rmdir()
    for other in found[1:]:
        assert all(np.allclose(other[k], found[0][k], atol=1e-5) for k in ("text", "image"))


def test_one_sample_a_plot(networks, tmp_path):
    MMIMDb.prepare(MAKERS["mm_imdb"](tmp_path / "raw"), store_directory("mm_imdb"))
    each = MMIMDb(MMIMDbConfig(plots="all"))
    with pytest.raises(DataError, match="bench data embed mm_imdb --with vilt --option plots=all"):
        each.spec()
    assert "In a grid: mm_imdb: {plots: all}" in embed(each, job(networks))
    found, parts = read_pairs(store_directory("mm_imdb")), each.load().parts
    plots = [len(found.texts(row)) for row in found.rows("test")]
    assert sum(plots) == len(parts["test"]) > len(plots)
    image = parts["test"].inputs["image"]
    assert np.array_equal(image, np.repeat(image[np.cumsum([0, *plots[:-1]])], plots, axis=0))
    embed(MMIMDb(), job(networks))
    assert len(MMIMDb().load().parts["test"]) == len(plots)


def test_features_of_other_text_fields_live_beside_the_default(networks, tmp_path):
    N24News.prepare(MAKERS["n24news"](tmp_path / "raw"), store_directory("n24news"))
    embed(N24News(), job(networks))
    embed(N24News(N24NewsConfig(text="caption+body")), job(networks))
    default, other = N24News().load().parts, N24News(N24NewsConfig(text="caption+body")).load().parts
    assert np.array_equal(default["test"].inputs["image"], other["test"].inputs["image"])
    assert not np.allclose(default["test"].inputs["text"], other["test"].inputs["text"])


def test_resnet_and_bert_give_the_features_of_raml(networks, memes):
    weights = {"text": str(networks / "bert"), "image": str(networks / "resnet")}
    told = embed(memes, job(networks, encoder="resnet-bert", weights=weights))
    assert "In a grid: hateful_memes: {features: resnet-bert}" in told
    dataset = HatefulMemes(ImageTextConfig(features="resnet-bert"))
    assert dataset.spec().modalities == {"text": (24,), "image": (10,)}
    with pytest.raises(DataError, match=r"or use what is there \(features: resnet-bert\)"):
        HatefulMemes().spec()


def test_the_card_says_how_the_vectors_were_made(networks, memes):
    embed(memes, job(networks))
    facts = read_card(memes.features_directory()).facts
    assert facts["pairs"] == read_pairs(store_directory("hateful_memes")).card.fingerprint
    assert facts["max_length"] == 12
    assert facts["pooling"] == "mean of the last layer's tokens, no padding"
    other = Vilt({"both": str(make_vilt(networks / "other", seed=5))}, None, "cpu").facts()
    assert other["weights_hash"] != facts["weights_hash"]


# ---- stopping and going on --------------------------------------------------------------------------------------


class Killed(BaseException):
    """What a kill looks like from within: no handler of errors sees it."""


def counted(monkeypatch, fail_at=None):
    """Count the batches that are computed; the one of number `fail_at` never comes back."""
    seen, original = Counter(), Work._encoded

    def encoded(self, batch, loaded, encode):
        seen["batches"] += 1
        if seen["batches"] == fail_at:
            raise Killed
        return original(self, batch, loaded, encode)

    monkeypatch.setattr(Work, "_encoded", encoded)
    return seen


@pytest.mark.parametrize("fail_at", [1, 2, 5, 6, 9])
def test_a_killed_job_goes_on_where_it_stopped_and_gives_the_same_bytes(networks, memes, monkeypatch, fail_at):
    embed(memes, job(networks))
    undisturbed = digest(memes.features_directory())
    for path in memes.features_directory().iterdir():
        path.unlink()
    memes.features_directory().rmdir()
    with monkeypatch.context() as patch:
        all_batches = counted(patch, fail_at)
        with pytest.raises(Killed):
            embed(memes, job(networks))
    assert not memes.features_directory().exists()
    seen = counted(monkeypatch)
    embed(memes, job(networks))
    assert digest(memes.features_directory()) == undisturbed
    assert seen["batches"] == 5 + 6 - (fail_at - 1)  # 20 texts in fours; images of three sizes: 7, 7 and 6
    assert all_batches["batches"] == fail_at


def test_a_job_with_other_options_starts_anew(networks, memes, monkeypatch):
    with monkeypatch.context() as patch:
        counted(patch, 8)
        with pytest.raises(Killed):
            embed(memes, job(networks))
    seen = counted(monkeypatch)
    embed(memes, job(networks, max_length=6))
    assert seen["batches"] == 11
    assert verify_store(memes.features_directory()) == []


def test_what_is_finished_is_left_alone_until_something_changes(networks, memes, monkeypatch):
    embed(memes, job(networks))
    seen = counted(monkeypatch)
    embed(memes, job(networks, batch=7))
    assert seen["batches"] == 0
    embed(memes, job(networks, max_length=5))
    assert seen["batches"] > 0


def test_two_jobs_do_not_share_a_folder(networks, memes):
    folder = memes.features_directory().with_name(f".{memes.features_directory().name}.partial")
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process makes these features already"):
            embed(memes, job(networks))


def test_batches_come_in_order_with_their_members():
    batches = [np.array([3, 1]), np.array([2]), np.array([0, 5, 4]), np.array([6])]
    found = list(ahead(batches, lambda i: i * 10))
    assert [loaded for _, loaded in found] == [[30, 10], [20], [0, 50, 40], [60]]
    with pytest.raises(ZeroDivisionError):
        list(ahead(batches, lambda i: 1 // i))


# ---- corruption of the test split -------------------------------------------------------------------------------


def test_corruption_changes_the_test_split_alone(networks, memes):
    embed(memes, job(networks))
    told = embed(memes, job(networks, corruption=Corruption(noise=0.3, seed=4)))
    assert "{features: vilt.noise-0.3.seed-4}" in told
    clean = memes.load().parts
    noisy = HatefulMemes(ImageTextConfig(features="vilt.noise-0.3.seed-4")).load().parts
    for split in ("train", "valid"):
        assert all(np.array_equal(clean[split].inputs[k], noisy[split].inputs[k]) for k in ("text", "image"))
    assert np.array_equal(clean["test"].inputs["text"], noisy["test"].inputs["text"])
    assert not np.isclose(clean["test"].inputs["image"], noisy["test"].inputs["image"]).all(axis=1).any()
    embed(memes, job(networks, corruption=Corruption(mask=1.0)))
    silent = HatefulMemes(ImageTextConfig(features="vilt.mask-1.seed-0")).load().parts
    assert np.array_equal(clean["test"].inputs["image"], silent["test"].inputs["image"])
    assert not np.isclose(clean["test"].inputs["text"], silent["test"].inputs["text"]).all(axis=1).any()


def test_corruption_needs_the_clean_features_of_the_same_making(networks, memes):
    for _ in range(2):
        with pytest.raises(DataError, match="run the same command without noise and mask first"):
            embed(memes, job(networks, corruption=Corruption(noise=0.1)))
        embed(memes, job(networks, max_length=6))


def test_noise_has_its_deviation_and_words_their_share(vilt):
    grey = np.full((3, 200, 200), 0.5, np.float32)
    drawn = noised(grey, Corruption(noise=0.08), "a") - grey
    assert drawn.std() == pytest.approx(0.08, rel=0.01)
    assert drawn.mean() == pytest.approx(0, abs=0.001)
    twice = noised(grey, Corruption(noise=0.16), "a") - grey
    assert np.allclose(twice, np.clip(2 * drawn, -0.5, 0.5), atol=1e-6)
    assert not np.array_equal(noised(grey, Corruption(noise=0.08), "b") - grey, drawn)
    loud = noised(grey, Corruption(noise=5), "a")
    assert (loud.min(), loud.max()) == (0, 1)
    words = masked("word " * 5000, Corruption(mask=0.25), "a", 0, vilt).split()
    assert Counter(words)["[MASK]"] / 5000 == pytest.approx(0.25, abs=0.02)
    assert len(words) == 5000
    assert vilt.token_ids(masked("the dog", Corruption(mask=1), "a", 0, vilt)) == [2, 4, 4, 3]


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"encoder": "vitl"}, "unknown encoder 'vitl'. Did you mean 'vilt'? There are: vilt, resnet-bert."),
        ({"weights": {"text": "x"}}, "vilt has no weights 'text': it takes both"),
        ({"batch": 0}, "a batch has 1 to 65536 samples"),
        ({"max_length": 2}, "max-length is 3 to 8192 tokens"),
        ({"device": "warp"}, "there is no device 'warp' here"),
    ],
)
def test_wrong_use_is_one_sentence(networks, memes, changed, told):
    with pytest.raises(UserError) as caught:
        embed(memes, job(networks, **changed))
    assert told in str(caught.value)


def test_corruption_out_of_range_is_refused():
    for wrong in ({"noise": -1}, {"mask": 1.5}, {"noise": float("nan")}):
        with pytest.raises(UserError, match=r"noise is|noise and|noise .* mask"):
            Corruption(**wrong)


def test_bert_reads_no_more_tokens_than_it_has_positions(networks, memes):
    weights = {"text": str(networks / "bert"), "image": str(networks / "resnet")}
    with pytest.raises(UserError, match="reads at most 20 tokens, got 21"):
        embed(memes, job(networks, encoder="resnet-bert", weights=weights, max_length=21))


def test_weights_that_are_absent_or_of_another_kind_are_told(networks, memes, tmp_path):
    def refusal(path):
        with pytest.raises(DataError) as caught:
            embed(memes, job(networks, weights={"both": str(path)}))
        assert str(caught.value).isprintable()
        assert not memes.features_directory().exists()
        return str(caught.value)

    assert f"the settings of '{tmp_path / 'no'}' cannot be loaded" in refusal(tmp_path / "no")
    assert "is a network of the kind 'bert', expected 'vilt'" in refusal(networks / "bert")
    damaged = make_vilt(tmp_path / "damaged")
    content = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(content[:-100])
    assert "cannot be loaded" in refusal(damaged)
    (damaged / "model.safetensors").unlink()
    assert "cannot be loaded" in refusal(damaged)


def test_released_checkpoints_have_heads_and_old_names(networks, tmp_path):
    """ViLT and BERT are released with their pretraining heads, BERT with TensorFlow's names, ViLT as a .bin file."""
    from safetensors.torch import save_file
    from transformers import BertForPreTraining, ViltForMaskedLM

    vilt, bert = (
        ViltForMaskedLM.from_pretrained(networks / "vilt"),
        BertForPreTraining.from_pretrained(networks / "bert"),
    )
    for name, value in bert.named_parameters():
        if "LayerNorm" in name:
            torch.nn.init.normal_(value)
    vilt.config.save_pretrained(tmp_path / "vilt")
    bert.config.save_pretrained(tmp_path / "bert")
    torch.save(vilt.state_dict(), tmp_path / "vilt" / "pytorch_model.bin")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value.clone()
        for name, value in bert.state_dict().items()
    }
    save_file(old, tmp_path / "bert" / "model.safetensors", metadata={"format": "pt"})
    found = load_network("ViltModel", str(tmp_path / "vilt"), "vilt", "cpu").state_dict()
    assert all(torch.equal(found[name], value) for name, value in vilt.vilt.state_dict().items() if name in found)
    found = load_network("BertModel", str(tmp_path / "bert"), "bert", "cpu").state_dict()
    assert all(torch.equal(found[name], value) for name, value in bert.bert.state_dict().items())


def test_a_pickle_of_weights_that_would_run_code_is_refused(networks, memes, tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "trace"), "w")

    folder = make_vilt(tmp_path / "evil")
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="cannot be loaded"):
        embed(memes, job(networks, weights={"both": str(folder)}))
    assert not (tmp_path / "trace").exists()


@pytest.mark.slow
def test_without_a_connection_absent_weights_are_one_sentence():
    import os
    import subprocess
    import sys

    code = "from datasets.pretrained import load; load('AutoConfig', 'nobody/nothing', 'settings')"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    told = done.stderr.splitlines()[-1]
    assert "DataError: the settings of 'nobody/nothing' cannot be loaded" in told
    assert told.endswith("name a folder that has them.")


def test_code_that_comes_with_weights_is_not_run(networks, memes, tmp_path):
    folder, trace = tmp_path / "evil", tmp_path / "trace"
    write(folder / "config.json", {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}})
    write(folder / "evil.py", f"open({str(trace)!r}, 'w')\nclass Evil: pass\n")
    with pytest.raises(DataError, match=r"the settings of '.*evil' cannot be loaded"):
        embed(memes, job(networks, weights={"both": str(folder)}))
    assert not trace.exists()


def test_a_full_disk_is_an_error_and_no_crash(networks, memes, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        embed(memes, job(networks))
    monkeypatch.undo()


def test_weights_that_lack_some_are_not_filled_with_random_ones(networks, memes, tmp_path):
    from safetensors.torch import load_file, save_file

    path = make_vilt(tmp_path / "partial") / "model.safetensors"
    arrays = {name: x for name, x in load_file(path).items() if "layer.1." not in name}
    save_file(arrays, path, metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"lack \d+ of a ViltModel's, the first is 'encoder.layer.1"):
        embed(memes, job(networks, weights={"both": str(path.parent)}))


def test_without_transformers_the_extra_is_named(memes, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"which is not installed: pip install 'robult-bench\[vilt\]'"):
        embed(memes, Job("vilt"))


def test_without_a_prepared_store_the_command_is_named(networks):
    with pytest.raises(DataError, match="Prepare it with: bench data prepare food101 --from PATH"):
        embed(Food101(), job(networks))
    with pytest.raises(DataError, match="Prepare it with: bench data prepare food101 --from PATH"):
        Food101().spec()


def test_a_damaged_features_store_names_the_command_that_makes_it_again(networks, memes):
    embed(memes, job(networks))
    (memes.features_directory() / "card.json").write_text("{")
    with pytest.raises(DataError, match=r"is not JSON. Make them with: bench data embed hateful_memes --with vilt"):
        memes.spec()


def test_weights_that_give_nan_are_told(networks, memes, monkeypatch):
    monkeypatch.setattr(Vilt, "encode_text", lambda self, ids, mask: torch.full((len(ids), 16), float("nan")))
    with pytest.raises(DataError, match="vilt gives values that are not finite: its weights are damaged"):
        embed(memes, job(networks))


# ---- raw inputs -------------------------------------------------------------------------------------------------


def raw_config(networks, **changed):
    return ImageTextConfig(
        inputs="raw", tokenizer=str(networks / "vilt"), **{"max_length": 8, "image_size": 32, **changed}
    )


def test_raw_inputs_are_token_ids_and_pixels(networks, memes):
    dataset = HatefulMemes(raw_config(networks))
    spec, data, found = dataset.spec(), dataset.load(), read_pairs(store_directory("hateful_memes"))
    assert data.spec == spec
    assert spec.modalities == {"text": (8,), "image": (3, 32, 32)}
    words = tokenizer(str(networks / "vilt"))
    for split, part in data.parts.items():
        for i, row in enumerate(found.rows(split)):
            ids = token_ids(words, found.texts(row)[0], 8)
            assert part.inputs["text"][i].tolist() == ids + [0] * (8 - len(ids))
            assert np.array_equal(part.inputs["image"][i], square_pixels(found.image(row), 32))
        assert part.inputs["text"].dtype == part.inputs["image"].dtype == np.float32
        assert part.inputs["image"].min() >= -1
        assert part.inputs["image"].max() <= 1
    first = data.parts["train"].inputs["text"][0]
    assert [VOCABULARY[int(i)] for i in first[[0, 7]]] == ["[CLS]", "[SEP]"]


def test_raw_fingerprints_tell_every_option_apart(networks, memes, tmp_path):
    other = make_vilt(tmp_path / "other")
    write(other / "vocab.txt", "\n".join([*VOCABULARY, "more"]))
    configs = [
        raw_config(networks), raw_config(networks, max_length=9), raw_config(networks, image_size=64),
        ImageTextConfig(inputs="raw", tokenizer=str(other), max_length=8, image_size=32),
    ]  # fmt: skip
    assert len({HatefulMemes(config).spec().fingerprint for config in configs}) == 4


def test_raw_inputs_that_do_not_fit_are_told(networks, memes, monkeypatch):
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    with pytest.raises(DataError, match=r"with raw inputs needs .* GiB of memory, 0 GiB are free"):
        HatefulMemes(raw_config(networks)).load()


def test_word_pieces_that_are_not_here_are_told(memes):
    with pytest.raises(DataError, match="the word pieces of 'nobody/nothing' are not on this machine"):
        HatefulMemes(ImageTextConfig(inputs="raw", tokenizer="nobody/nothing")).spec()
    with pytest.raises(DataError, match="are not on this machine"):
        vocabulary_hash("/no/such folder")


def test_describing_raw_inputs_loads_no_transformers(networks, memes):
    import os
    import subprocess
    import sys

    code = (
        "import sys; from datasets.hateful_memes import HatefulMemes; from datasets.image_text import ImageTextConfig\n"
        f"HatefulMemes(ImageTextConfig(inputs='raw', tokenizer={str(networks / 'vilt')!r})).spec()\n"
        "assert not {'transformers', 'PIL', 'pyarrow', 'h5py'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
