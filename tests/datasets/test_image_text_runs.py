"""From raw folders to the report: prepare, embed with tiny networks, run a grid, read the store, report."""

import json
import sys
from pathlib import Path

import pytest

from bench import __main__ as entry
from tests.bench.run_tools import bench, cell_metrics, finished_cells, query, write_grid
from tests.datasets.image_text_fixtures import (
    MAKERS,
    film_ids,
    make_bert,
    make_mm_imdb_hdf5,
    make_resnet,
    make_vilt,
    mm_imdb_hdf5_arrays,
    write,
)

METRICS = {"mm_imdb": "f1_macro", "food101": "acc", "hateful_memes": "auroc", "n24news": "acc"}


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """`bench WORDS` in this process, with stores in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "120")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, words)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        code = entry._run()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def prepare_and_embed(call, folder: Path, name: str, *more: str) -> str:
    code, out, err = call("data", "prepare", name, "--from", MAKERS[name](folder / name))
    assert code == 0, err
    assert f"bench data embed {name} --with vilt" in out
    code, out, err = call("data", "embed", name, "--with", "vilt", "--weights", folder / "vilt", *more)
    assert code == 0, err
    return out


@pytest.mark.slow
def test_every_image_text_set_goes_from_raw_files_to_results(call, tmp_path, monkeypatch):
    make_vilt(tmp_path / "vilt")
    for name in METRICS:
        prepare_and_embed(call, tmp_path, name)
        assert call("data", "verify", name)[0] == 0
    prepare_and_embed(call, tmp_path, "mm_imdb", "--option", "plots=all")
    make_bert(tmp_path / "bert")
    make_resnet(tmp_path / "resnet")
    weights = "--weights", f"text={tmp_path / 'bert'}", "--weights", f"image={tmp_path / 'resnet'}"
    assert call("data", "embed", "food101", "--with", "resnet-bert", *weights)[0] == 0
    ids = film_ids()
    write(tmp_path / "gmu" / "split.json", ids)
    make_mm_imdb_hdf5(tmp_path / "gmu" / "multimodal_imdb.hdf5", **mm_imdb_hdf5_arrays(sum(map(len, ids.values()))))
    assert call("data", "prepare", "mm_imdb", "--from", tmp_path / "gmu")[0] == 0
    raw = f"{{inputs: raw, tokenizer: {tmp_path / 'vilt'}, max_length: 6, image_size: 32}}"
    write_grid(
        tmp_path,
        "name: pairs\nmethods: [unimodal]\n"
        "datasets: [mm_imdb, mm_imdb: {plots: all}, mm_imdb: {features: vgg-word2vec}, food101, "
        "food101: {features: resnet-bert}, hateful_memes, n24news]\n"
        "label_ratios: [1.0]\nmodalities: all\nseeds: 1\ntrain: {epochs: 2, batch_size: 8}\n",
    )
    write_grid(
        tmp_path,
        "name: raw\nmethods:\n  - prompt_vilt: {weights: random-tiny, prompted_layers: 2}\n"
        f"datasets:\n  - hateful_memes: {raw}\nlabel_ratios: [1.0]\nmodalities: all\nseeds: 1\n"
        "train: {epochs: 1, batch_size: 4}\n",
        "raw.yaml",
    )
    monkeypatch.setattr("tests.bench.run_tools.environment", environment_with_data(tmp_path))
    done = bench("run", "grid.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(finished_cells(tmp_path)) == 7 * 3
    found = cell_metrics(tmp_path)
    for name, metric in METRICS.items():
        values = [found[cell, f"last/{metric}"] for cell in cells_of(tmp_path, name)]
        assert values
        assert all(value is not None and 0 <= value <= 1 for value in values)
    assert bench("run", "raw.yaml", cwd=tmp_path).returncode == 0
    assert len(finished_cells(tmp_path)) == 7 * 3 + 3
    for experiment, names in {"pairs": METRICS, "raw": ["hateful_memes"]}.items():
        assert bench("report", experiment, "--quick", cwd=tmp_path).returncode == 0
        page = (tmp_path / "reports" / experiment / "index.html").read_text()
        assert all(name in page for name in names)


def environment_with_data(folder: Path):
    from tests.bench.run_tools import environment

    plain = environment()
    return lambda: plain | {"BENCH_DATA": str(folder / "data")}


def cells_of(folder: Path, dataset: str) -> list[str]:
    """Ids of the cells of a data set, whatever its options."""
    rows = query(
        folder,
        "SELECT cell.value, data.value FROM tags cell JOIN tags data ON data.run_uuid = cell.run_uuid "
        "WHERE cell.key = 'cell_id' AND data.key = 'dataset'",
    )
    return [str(cell) for cell, name in rows if str(name).startswith(dataset)]


def test_help_has_an_example(call):
    code, out, _ = call("data", "embed", "--help")
    assert code == 0
    assert "Example: bench data embed mm_imdb --with vilt" in out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["digits", "--with", "vilt"], 2, "data set 'digits' has no images and texts to embed"),
        (["mm_imbd", "--with", "vilt"], 2, "unknown data set 'mm_imbd'. Did you mean 'mm_imdb'?"),
        (["mm_imdb", "--with", "vitl"], 2, "unknown encoder 'vitl'. Did you mean 'vilt'?"),
        (["mm_imdb", "--with", "vilt"], 1, "Prepare it with: bench data prepare mm_imdb --from PATH"),
        (["mm_imdb", "--with", "vilt", "--option", "plots"], 2, "--option takes key=value, got 'plots'"),
        (
            ["mm_imdb", "--with", "vilt", "--option", "plots=some"],
            2,
            "--option plots: Input should be 'longest' or 'all'",
        ),
        (["mm_imdb", "--with", "vilt", "--option", "plot=all"], 2, "--option plot: Extra inputs are not permitted"),
        (["mm_imdb", "--with", "vilt", "--weights", "text=a"], 2, "vilt has no weights 'text': it takes both"),
        (["mm_imdb", "--with", "vilt", "--noise", "-1"], 2, "noise is a deviation in [0, 10]"),
    ],
)
def test_wrong_use_is_one_sentence(call, words, code, told):
    found, out, err = call("data", "embed", *words)
    assert (found, out) == (code, "")
    assert told in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("name", METRICS)
def test_a_raw_folder_that_is_something_else_is_one_sentence(call, tmp_path, name):
    write(tmp_path / "odd" / "train.jsonl", json.dumps({"id": 1}))
    code, out, err = call("data", "prepare", name, "--from", tmp_path / "odd")
    assert (code, out) == (1, "")
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "data" / name).exists()
