"""What holds for every data set: description and arrays agree, twice the same, quick to plan with."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from datasets.base import SPLITS, all_subsets
from datasets.catalog import DATASETS
from datasets.errors import UserError
from datasets.handwritten import Handwritten
from datasets.own import Own, OwnConfig
from datasets.raw_maker import make_iemocap, make_raw
from datasets.store import content_problems, fingerprint, store_directory
from tests.datasets.fixtures import make_handwritten_mat, make_own_folder
from tests.datasets.image_text_fixtures import MAKERS, prepare_with_features


@pytest.fixture(params=list(DATASETS.builtin))
def dataset(request, tmp_path, monkeypatch):
    """Every data set with its default options; those that need a file get a tiny one."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "stores"))
    if request.param == "handwritten":
        make_handwritten_mat(tmp_path / "small.mat")
        Handwritten.prepare(tmp_path / "small.mat", store_directory("handwritten"))
    if request.param == "own":
        return Own(OwnConfig(folder=str(make_own_folder(tmp_path / "mine"))))
    if request.param == "iemocap":
        make_iemocap(tmp_path / "raw", 80, audio_steps=(5, 9))
        DATASETS.get("iemocap").prepare(tmp_path / "raw", store_directory("iemocap"))
    for name in ("cmu_mosei", "cmu_mosi") if request.param == "transfer" else (request.param,):
        if name.startswith("cmu_"):
            make_raw(name, tmp_path / f"{name}.pkl", rows=14)
            DATASETS.get(name).prepare(tmp_path / f"{name}.pkl", store_directory(name))
    if request.param in MAKERS:
        prepare_with_features(request.param, tmp_path)
    return DATASETS.get(request.param)()


def test_the_arrays_are_what_the_description_says(dataset):
    spec, data = dataset.spec(), dataset.load()
    assert data.spec == spec
    assert spec.name == dataset.name
    assert list(data.parts) == list(SPLITS)
    assert content_problems(spec, data.parts) == []
    for part in data.parts.values():
        assert list(part.inputs) == list(spec.modalities)


def test_twice_the_same_arrays_whatever_the_global_stream_did(dataset):
    first = dataset.load()
    np.random.seed(5)  # noqa: NPY002
    again = type(dataset)(dataset.config).load()
    assert fingerprint(first.spec.task, first.parts) == fingerprint(again.spec.task, again.parts)


def test_no_sample_is_in_two_splits(dataset):
    rows = [
        {row.tobytes() for row in np.concatenate([x.reshape(len(x), -1) for x in part.inputs.values()], axis=1)}
        for part in dataset.load().parts.values()
    ]
    assert len(rows[0] | rows[1] | rows[2]) == sum(map(len, rows))


def test_every_class_can_be_learned_and_is_tested(dataset):
    task, parts = dataset.spec().task, dataset.load().parts
    groups = [task.groups(torch.tensor(np.array(part.target))) for part in parts.values()]
    assert len({frozenset(group.tolist()) for group in groups}) == 1


def test_no_data_set_needs_more_than_numpy_torch_and_pydantic_to_be_imported():
    blocked = ("sklearn", "scipy", "pandas", "matplotlib", "mlflow", "safetensors", "platformdirs")
    code = (
        "import sys\n"
        f"for name in {blocked}: sys.modules[name] = None\n"
        "from datasets.catalog import DATASETS\n"
        "for name in DATASETS.builtin: DATASETS.get(name)\n"
        "DATASETS.get('digits')().spec(); DATASETS.get('synthetic')().load()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_subsets_come_in_the_data_sets_order_singles_first():
    assert all_subsets(("text", "audio", "vision")) == [
        "text", "audio", "vision", "text+audio", "text+vision", "audio+vision", "text+audio+vision",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_a_data_set_without_a_file_refuses_to_be_prepared(name, tmp_path):
    with pytest.raises(UserError, match=f"data set '{name}' needs no preparation: it is ready to use"):
        DATASETS.get(name).prepare(tmp_path, tmp_path)


@pytest.mark.parametrize("name", list(DATASETS.builtin))
def test_unknown_options_are_refused(name):
    from pydantic import ValidationError

    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        DATASETS.get(name).Config(sigmma=1)
