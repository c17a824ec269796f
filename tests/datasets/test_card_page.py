"""The card of a store: its figures are those of the arrays, and its page shows them and runs nothing."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.base import Part
from datasets.card_page import page_is_current, page_of, write_page
from datasets.progress import listening, report
from datasets.statistics import describe_target, describe_values
from datasets.store import Notes, outline, read_all, read_card, verify_store, write_store
from datasets.tasks import Binary, MultiClass, MultiLabel, Regression

HOSTILE = "<script>alert('x')</script>\"&"


def parts_of(task, sizes=(30, 10, 10)):
    rng = np.random.default_rng(0)
    return {
        split: Part({"text": rng.normal(2, 3, (n, 4, 5)).astype(np.float32)}, task.random_target(n, rng))
        for split, n in zip(("train", "valid", "test"), sizes, strict=True)
    }


@pytest.fixture
def store(tmp_path):
    task, about = MultiClass(3), {"file": HOSTILE}
    parts = parts_of(task)
    parts["train"].inputs["text"][:, :2] = 0
    notes = Notes(about, [HOSTILE, "second"], {"x": 1}, {"rows": np.arange(7), "scale": np.ones((2, 3), np.float32)})
    write_store(tmp_path / "toy", outline("toy", task, parts), parts, notes)
    return tmp_path / "toy"


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.names, self.links, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href") or key.startswith("on")]

    def handle_data(self, data):
        self.text.append(data)


# ---- the page ---------------------------------------------------------------------------------------------------


def test_the_page_is_self_contained_and_what_files_say_is_escaped(store):
    page = write_page(store, {"summary": HOSTILE, "source": HOSTILE, "licence": HOSTILE})
    tags = Tags()
    tags.feed(page.read_text())
    assert "script" not in tags.names
    assert tags.links == []
    assert not re.search(r"https?:|url\(|@import", page.read_text())
    assert sum(HOSTILE in text for text in tags.text) == 5
    assert tags.names.count("svg") == 3
    assert tags.names.count("rect") == 9


def test_the_page_is_written_once_a_card_and_leaves_the_store_sound(store):
    assert not page_is_current(store)
    write_page(store, {})
    assert page_is_current(store)
    assert verify_store(store) == []
    assert sorted(path.name for path in store.iterdir()) == ["card.html", "card.json", "data.safetensors"]
    parts = parts_of(MultiClass(3))
    write_store(store, outline("toy", MultiClass(3), parts), parts)
    assert not page_is_current(store)


@pytest.mark.parametrize("task", [Regression(), Binary(), MultiClass(101), MultiLabel(23)], ids=lambda task: task.kind)
def test_every_kind_of_label_has_a_drawing(tmp_path, task):
    parts = parts_of(task)
    write_store(tmp_path / "toy", outline("toy", task, parts), parts)
    page = page_of(read_card(tmp_path / "toy"), {})
    assert page.count("<svg") == 3
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', page)]
    assert max(heights) == 90


# ---- its figures ------------------------------------------------------------------------------------------------


def test_the_cards_statistics_are_those_of_numpy(store):
    card, data = read_card(store), read_all(store).data
    for split, part in data.parts.items():
        x, told = part.inputs["text"].astype(np.float64), card.statistics["text"][split]
        assert told["mean"] == pytest.approx(x.mean(), rel=1e-4)
        assert told["std"] == pytest.approx(x.std(), rel=1e-4)
        assert (told["low"], told["high"]) == pytest.approx((x.min(), x.max()), rel=1e-5)
        assert told["zero_rows"] == (0.5 if split == "train" else 0.0)
        assert list(card.labels[split].values()) == np.bincount(part.target, minlength=3).tolist()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**31))
def test_statistics_do_not_depend_on_how_the_array_is_cut(n, width, seed):
    x = np.random.default_rng(seed).normal(5, 2, (n, 3, width)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.statistics.CHUNK_VALUES", 7)
        cut = describe_values(x)
    assert cut.mean == pytest.approx(describe_values(x).mean)
    assert cut.std == pytest.approx(x.astype(float).std(), rel=1e-5, abs=1e-6)


def test_values_are_counted_about_every_whole_value():
    counts = describe_target(Regression(), np.array([-3, -3, 0, 0.1, 2.9, 3], np.float32))
    assert (counts["-3"], counts["0"], counts["3"]) == (2, 2, 2)
    assert sum(counts.values()) == 6
    labels = describe_target(MultiLabel(3), np.array([[1, 0, 1], [1, 0, 0]], np.float32))
    assert labels == {"0": 2, "1": 0, "2": 1}


# ---- further arrays ---------------------------------------------------------------------------------------------


def test_further_arrays_are_kept_and_belong_to_the_fingerprint(store):
    stored = read_all(store)
    assert np.array_equal(stored.extras["rows"], np.arange(7))
    assert stored.extras["scale"].shape == (2, 3)
    assert stored.card.facts == {"x": 1}
    content = bytearray((store / "data.safetensors").read_bytes())
    at = content.index(np.arange(7).tobytes())
    content[at] = 9
    (store / "data.safetensors").write_bytes(bytes(content))
    assert any("have changed" in problem for problem in verify_store(store))


# ---- progress ---------------------------------------------------------------------------------------------------


def test_progress_reaches_the_listener_and_nobody_else():
    heard = []
    report("alone", 1, 2)
    with listening(lambda *told: heard.append(told)):
        report("reading", 1, 2)
    report("after", 1, 2)
    assert heard == [("reading", 1, 2)]
