"""Reading a grid: every problem in words, with its line and key, all at once; and nothing but GridError, ever."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.grid import yaml_lines
from bench.grid.file import load_grid, parse_grid
from bench.grid.problems import GridError
from bench.grid.yaml_lines import YamlError, read_yaml
from bench.grids import bundled_grids
from datasets.catalog import DATASETS
from datasets.registry import Entry
from methods.registry import METHODS
from tests.bench.grid_slips import FAKES, SLIPS, with_line, with_methods

QUICKSTART = files("bench.grids") / "quickstart.yaml"


@pytest.fixture(scope="module", autouse=True)
def _fakes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, cls in {"fake": "Fake", "plain": "Plain"}.items():
            patch.setitem(METHODS.builtin, name, Entry(f"{FAKES}:{cls}", "made up"))
        for name in ("views", "letters", "absent"):
            patch.setitem(DATASETS.builtin, name, Entry(f"{FAKES}:{name.title()}", "made up"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


def problems_of(text: str) -> list[str]:
    with pytest.raises(GridError) as caught:
        parse_grid(dedent(text))
    assert str(caught.value).split("\n") == [str(problem) for problem in caught.value.problems]
    assert caught.value.exit_code == 2
    return [str(problem) for problem in caught.value.problems]


def problem_of(text: str) -> str:
    (problem,) = problems_of(text)
    return problem


# ---- what a good grid means -----------------------------------------------------------------------------------


def test_defaults() -> None:
    grid = parse_grid("methods: [plain]\ndatasets: [letters]\n", "some dir/my grid.yaml")
    assert (grid.name, grid.label_ratios, grid.modalities, grid.seeds) == ("my-grid", (1.0,), ("all",), (0, 1, 2))
    assert (grid.checkpoint, grid.tracking.uri) == ("last", "sqlite:///mlflow.db")
    assert (grid.executor.kind, grid.executor.devices, grid.executor.slots) == ("local", "auto", "auto")
    assert grid.source.startswith("methods: [plain]")


def test_a_single_value_is_a_list_of_one() -> None:
    short = parse_grid("methods: plain\ndatasets: letters\nlabel_ratios: 1\nmodalities: text + audio\nseeds: 1\n")
    long = parse_grid(
        "methods: [plain]\ndatasets: [letters]\nlabel_ratios: [1.0]\nmodalities: [[text, audio]]\nseeds: [0]\n"
    )
    assert short == long
    assert short.modalities == ("text+audio",)


def labels(methods: str) -> list[str]:
    return [asked.label for asked in parse_grid(f"methods: {methods}\ndatasets: [letters]").asked_methods]


def test_sweeps_multiply_and_are_labelled_by_what_differs() -> None:
    assert labels("[fake, fake: {variant: no_rec, tau: 0.5}]") == ["fake", "fake[no_rec,tau=0.5]"]
    assert labels("[fake: {tau: [0.3, 1e-2], kappa: [1, 2]}]") == [
        "fake[tau=0.3,kappa=1]",
        "fake[tau=0.3,kappa=2]",
        "fake[tau=0.01,kappa=1]",
        "fake[tau=0.01,kappa=2]",
    ]
    assert labels("[fake: {variant: [default, no_rec]}]") == ["fake[default]", "fake[no_rec]"]
    assert labels("[fake: {label: ours, tau: 0.2, kappa: [1, 2]}]") == ["ours[kappa=1]", "ours[kappa=2]"]
    assert labels("[fake: {tau: 0.3}]") == ["fake"], "the default value is no difference"
    assert labels(f"['{FAKES}:Undecided', fake: {{bias: false}}]") == ["Undecided", "fake[bias=false]"]


def test_an_option_that_takes_a_list_sweeps_over_lists_of_lists() -> None:
    grid = parse_grid("methods: [fake: {widths: [4, 4]}]\ndatasets: [views: {uniqueness: [[1, 0], 3]}]")
    assert grid.asked_methods[0].config.model_dump()["widths"] == (4, 4)
    assert [asked.label for asked in grid.asked_datasets] == ["views[uniqueness=(1,0)]", "views[uniqueness=3]"]
    grid = parse_grid("methods: [plain]\ndatasets: [views: {uniqueness: [1, 0]}]")
    assert [asked.config.model_dump()["uniqueness"] for asked in grid.asked_datasets] == [(1, 0)]


def test_variant_values_come_first_and_overrides_after() -> None:
    grid = parse_grid("methods: [fake: {variant: sharp}, fake: {variant: sharp, tau: 0.2}]\ndatasets: [letters]")
    assert [asked.config.model_dump()["tau"] for asked in grid.asked_methods] == [0.1, 0.2]
    assert [asked.variant for asked in grid.asked_methods] == ["sharp", "sharp"]


def test_long_labels_are_cut_and_stay_apart() -> None:
    first, second = labels(f"[fake: {{widths: [[{'1, ' * 60}1], [{'1, ' * 60}2]]}}]")
    assert len(first) == len(second) == 100
    assert first != second


def test_settings_of_a_data_set_go_before_those_of_all_and_a_label_before_a_name() -> None:
    grid = parse_grid(
        dedent("""
        methods: [plain]
        datasets: [letters, views: {views: [2, 3], label: v}]
        train:
          epochs: [5, 6]
          lr: 1e-3
          datasets: {views: {epochs: 7}, "v[views=3]": {epochs: 8}}
        """)
    )
    by_label = {a.label: grid.train.values_for(a.name, a.label)["epochs"] for a in grid.asked_datasets}
    assert by_label == {"letters": (5, 6), "v[views=2]": (7,), "v[views=3]": (8,)}
    assert grid.train.values == {"epochs": (5, 6), "lr": (0.001,)}


def test_tracking_uri_of_the_environment_is_used_and_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@server")
    grid = parse_grid(with_line(""))
    assert grid.tracking.uri == "http://me:secret@server"
    assert "secret" not in grid.to_yaml()
    assert parse_grid(with_line("tracking: {uri: 'sqlite:///a.db'}")).tracking.uri == "sqlite:///a.db"


def test_anchors_and_merges() -> None:
    grid = parse_grid(
        "methods:\n- fake: &base {tau: 0.5, kappa: 2}\n- fake: {<<: *base, tau: 0.6}\ndatasets: [letters]\n"
    )
    assert [asked.label for asked in grid.asked_methods] == ["fake[tau=0.5,kappa=2]", "fake[tau=0.6,kappa=2]"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1.", 1.0), ("010", 10), ("0x10", 16), ("no", "no"), ("on", "on"), ("1:30", "1:30"),
     ("2024-01-01", "2024-01-01"), ("1_000", "1_000"), ("~", None), ("True", True), ("-.5E+2", -50.0), ("'1'", "1"),
     ("!!str 1", "1"), ("9" * 50, 1e50)],
)  # fmt: skip
def test_scalars_are_read_as_yaml_1_2(text: str, value: object) -> None:
    node, _ = read_yaml(text)
    assert node.plain() == value
    assert type(node.plain()) is type(value)


# ---- what is wrong, in words ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "message"), SLIPS, ids=range(len(SLIPS)))
def test_each_slip_has_one_sentence(text: str, message: str) -> None:
    assert problem_of(text) == message


def test_syntax_errors_name_line_and_column() -> None:
    assert problem_of("methods: [fake\ndatasets: [views]\n").startswith("grid.yaml:2: not valid YAML at column 9: ")
    assert problem_of("methods:\n\t- fake").startswith("grid.yaml:2: not valid YAML at column 1: ")
    assert problem_of("a: 1\nb: \x07").startswith("grid.yaml:2: not valid YAML")
    assert problem_of("a: \ud800") == "grid.yaml: not text: it holds half of a surrogate pair"


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    told = problems_of("""
        name: a b
        methods:
          - robutl
          - fake: {tau: -1, variant: no_rek}
        datasets:
          - views
          - letterz
          - absent: {folder: x}
        modalities: [full, v9]
        seeds: [1, 1]
        sedes: 3
        """)
    assert [line.split(":")[1] for line in told] == ["2", "4", "5", "5", "8", "9", "11", "12"]
    assert told[5] == (
        "grid.yaml:9: datasets[2]: data set 'absent' is not prepared. "
        "Prepare it with: bench data prepare absent --from FILE"
    )


def test_modalities_are_told_with_the_rest() -> None:
    told = problems_of("methods: [plain]\ndatasets: [letters, views]\nmodalities: [full, tekst+v1]\nseeds: -1\n")
    assert told == [
        "grid.yaml:3: modalities[1]: unknown modality 'tekst'. Did you mean 'text'? "
        "The data sets here have: text, audio, v1, v2",
        "grid.yaml:4: seeds: expected a count from 1 to 100,000 or a list of seeds, got -1",
    ]


def test_hundreds_of_problems_are_cut_on_screen_and_kept_as_data() -> None:
    with pytest.raises(GridError) as caught:
        parse_grid(with_line(f"seeds: [{'x, ' * 200}]"))
    assert len(caught.value.problems) == 200
    assert str(caught.value).endswith("... and 150 more problems")


def test_a_problem_is_one_line_whatever_the_file_holds() -> None:
    assert problem_of('methods: [plain]\ndatasets: ["a\\n\\e[31mb"]') == (
        "grid.yaml:2: datasets[0]: unknown data set 'a \\x1b[31mb'. List them with: bench ls datasets"
    )


def test_a_module_that_fails_when_imported_is_a_problem_of_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "grid_test_broken.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert problem_of(with_methods("grid_test_broken:Mine")) == (
        "grid.yaml:2: methods[0]: method 'grid_test_broken:Mine' cannot be imported: RuntimeError: no licence."
    )


# ---- bounds ---------------------------------------------------------------------------------------------------


def test_alias_bombs_are_counted_not_expanded() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for name, last in zip("bcdefgh", "abcdefg", strict=True):
        bomb += f"{name}: &{name} [{', '.join([f'*{last}'] * 10)}]\n"
    assert problem_of(bomb) == "grid.yaml:6: more than 250,000 values (every alias counts in full)"
    text = f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 1000)}]\n"
    assert problem_of(text) == "grid.yaml:2: more than 250,000 values (every alias counts in full)"


def test_aliases_cannot_build_depth() -> None:
    chain = "n0: &n0 [x]\n" + "".join(f"n{i}: &n{i} [*n{i - 1}]\n" for i in range(1, 1000))
    assert problem_of(chain).endswith("nested more than 20 levels deep")


def test_a_megabyte_of_open_brackets_is_refused_at_once() -> None:
    assert problem_of("[" * 900_000) == "grid.yaml:1: nested more than 20 levels deep"


def test_the_plain_python_parser_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = QUICKSTART.read_text(encoding="utf-8")
    with_c = read_yaml(text)
    monkeypatch.setattr(yaml_lines, "_LOADER", yaml.SafeLoader)
    assert read_yaml(text) == with_c
    with pytest.raises(YamlError, match="not valid YAML"):
        read_yaml('"\\UFFFFFFFF"')


# ---- finding the file -----------------------------------------------------------------------------------------


def refusal(name_or_path: str) -> str:
    with pytest.raises(GridError) as caught:
        load_grid(name_or_path)
    return str(caught.value)


def test_bundled_grids_are_found_by_name_and_listed_with_a_line() -> None:
    told = {
        "handwritten": "Four methods on the six views of UCI's handwritten numerals, by label ratio.",
        "quickstart": "Four methods on two data sets that need no download, in a minute or two on a laptop.",
    }
    assert told.items() <= bundled_grids().items()
    assert all(bundled_grids().values())
    for name in told:
        assert load_grid(name).name == name
    grid = load_grid("quickstart")
    assert [asked.label for asked in grid.asked_methods] == ["robult", "gmc", "unimodal", "constant"]
    assert [asked.label for asked in grid.asked_datasets] == ["digits", "synthetic"]
    assert (len(grid.label_ratios), grid.seeds, grid.modalities) == (2, (0, 1, 2), ("all",))


def test_every_line_a_bundled_grid_comments_out_is_valid() -> None:
    text = QUICKSTART.read_text(encoding="utf-8")
    lines = text.splitlines()
    optional = [line.replace("# ", "", 1) for line in lines if ":" in line and line.lstrip().startswith("# ")]
    optional = [
        line
        for line in optional
        if line.startswith(("  ", "tracking", "executor", "corruptions", "save")) and "my_package" not in line
    ]
    assert len(optional) == 13
    for line in optional:
        changed = [line if line == old.replace("# ", "", 1) else old for old in lines]
        assert changed != lines
        parse_grid("\n".join(changed))


def test_a_file_goes_before_a_bundled_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()
    assert load_grid("quickstart").name == "quickstart", "a directory of that name does not hide the bundled grid"
    (tmp_path / "quickstart").rmdir()
    (tmp_path / "quickstart").write_text("name: mine\nmethods: [plain]\ndatasets: [letters]\n")
    assert load_grid("quickstart").name == "mine"


def test_files_that_are_no_grids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_grid.yaml").write_bytes(b"name: a\ndescription: caf\xe9\n")
    Path("empty.yaml").touch()
    Path("big.yaml").write_bytes(b"#" * 1_000_001)
    Path("folder").mkdir()
    assert refusal("my_grid.yaml") == (
        "my_grid.yaml:2: not UTF-8 text (byte 0xe9 at offset 24); save the file as UTF-8"
    )
    assert refusal("my_gird.yaml") == "my_gird.yaml: no such file. Did you mean 'my_grid.yaml'?"
    assert refusal("empty.yaml") == "empty.yaml: the file is empty; a grid needs at least 'methods' and 'datasets'"
    assert refusal("big.yaml") == "big.yaml: larger than 1 MB, so it is no grid file"
    assert refusal("folder") == "folder: this is a directory; give the grid file inside it"
    assert refusal("nowhere/grid.yaml") == "nowhere/grid.yaml: no such file"
    assert refusal("quickstart.yaml") == "quickstart.yaml: no such file. The bundled grid goes by its name: quickstart"
    assert refusal("quikstart") == (
        "unknown grid 'quikstart'. Did you mean 'quickstart'? List the bundled ones with: bench ls grids; "
        "a grid of your own is given by its path, ending in .yaml"
    )
    assert refusal("").startswith("unknown grid ''")
    assert refusal("a\0b.yaml").startswith("a\\x00b.yaml: cannot be read: ")
    assert refusal("x" * 300 + ".yaml").endswith("cannot be read: File name too long")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.touch(mode=0)
    assert refusal(str(path)) == f"{path}: cannot be read: Permission denied"


def test_a_byte_order_mark_is_no_part_of_the_grid(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: bom\nmethods: [plain]\ndatasets: [letters]\n")
    assert load_grid(str(path)).name == "bom"


def test_listing_grids_and_settings_need_no_torch() -> None:
    code = (
        "import sys; from bench.grids import bundled_grids; from bench.grid.settings import TrainSettings; "
        "bundled_grids(); "
        "print(sorted({'torch', 'mlflow', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- properties -----------------------------------------------------------------------------------------------

numbers = st.floats(0.01, 10).map(lambda value: round(value, 6))
names = st.text("abcXYZ019", min_size=1, max_size=12)


def some(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return values | st.lists(values, min_size=1, max_size=3, unique=True)


@st.composite
def grids(draw: st.DrawFn) -> dict[str, object]:
    """Valid grids as plain values, over every key."""
    options = {
        "tau": some(numbers),
        "kappa": some(numbers),
        "depth": some(st.integers(1, 4)),
        "rec": some(st.sampled_from(["cos", "cos2", "none"])),
        "widths": st.lists(st.integers(1, 9), max_size=3)
        | st.lists(st.lists(st.integers(1, 9), max_size=3), min_size=1, max_size=2, unique_by=tuple),
        "bias": some(st.booleans()),
    }
    method = draw(st.fixed_dictionaries({"variant": some(st.sampled_from(["default", "sharp"]))}, optional=options))
    data = draw(st.fixed_dictionaries({"label": names.map(lambda n: f"v{n}")}, optional={
        "views": some(st.integers(1, 5)),
        "noise": some(numbers),
        "uniqueness": st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=3) | st.just([[1, 0], 2]),
        "comment": st.text(max_size=10),
    }))  # fmt: skip
    ratios = st.floats(0, 1, exclude_min=True)
    settings_ = {"epochs": some(st.integers(1, 99)), "lr": some(numbers), "clip_norm": some(st.none() | numbers)}
    special = st.fixed_dictionaries({"letters": st.fixed_dictionaries({}, optional=settings_)})
    subsets = st.sampled_from(["all", "single", "full", "v1", "text+audio", ["v1", "v2"], "v3+v1"])
    keys = {
        "name": names,
        "description": st.text(max_size=30),
        "label_ratios": some(ratios),
        "modalities": st.lists(subsets, min_size=1, max_size=4, unique_by=str),
        "seeds": st.integers(1, 50) | st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4, unique=True),
        "train": st.fixed_dictionaries({}, optional={**settings_, "datasets": special}),
        "checkpoint": st.sampled_from(["last", "best"]),
        "tracking": st.just({"uri": "http://localhost:5000"}),
        "executor": st.fixed_dictionaries({}, optional={
            "devices": st.sampled_from(["auto", "cpu", ["cuda:0", "cuda:1"]]),
            "slots": st.sampled_from(["auto", 4]),
            "timeout_s": st.none() | numbers,
        }),
    }  # fmt: skip
    rest = draw(st.fixed_dictionaries({}, optional=keys))
    return {"methods": ["plain", {"fake": method}], "datasets": ["letters", {"views": data}], **rest}


@settings(max_examples=150, deadline=None)
@given(grids())
def test_parse_of_print_is_the_same_grid(value: dict[str, object]) -> None:
    try:
        grid = parse_grid(yaml_lines.write_yaml(value))
    except GridError as error:  # equal configurations by chance
        assert any("is given twice" in problem.text for problem in error.problems), error  # noqa: PT017
        return
    again = parse_grid(grid.to_yaml())
    assert again == grid
    assert [asked.key for asked in again.asked_methods] == [asked.key for asked in grid.asked_methods]
    assert [asked.label for asked in again.asked_datasets] == [asked.label for asked in grid.asked_datasets]


@settings(max_examples=150, deadline=None)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8,
))  # fmt: skip
def test_written_yaml_reads_back_as_it_was(value: object) -> None:
    node, repeated = read_yaml(yaml_lines.write_yaml(value))
    assert (node.plain(), repeated) == (value, [])


keys_of_junk = st.sampled_from(
    ["fake", "views", "tau", "label", "variant", "datasets", "epochs", "uniqueness", "x", "<<"]
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["fake", "views", "all", "+", "label", "variant", "tau", 1e400, 10**30, "a:b", ":", "os:system"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys_of_junk, inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


def within_seconds(text: str) -> None:
    """Reading `text` gives a grid or a GridError whose words are ours, soon."""
    outcome: list[BaseException] = []

    def read() -> None:
        try:
            parse_grid(text)
        except GridError as error:
            outcome.extend([] if error.problems and all(p.text for p in error.problems) else [error])
            one_line_each = len(str(error).splitlines()) == min(len(error.problems), 51)
            outcome.extend([] if one_line_each else [error])
            for word in ("Input should", "pydantic", "validation error", "Value error", "Traceback"):
                outcome.extend([error] if word in str(error).replace(text, "") else [])
        except BaseException as error:
            outcome.append(error)

    worker = threading.Thread(target=read, daemon=True)
    worker.start()
    worker.join(20)
    assert not worker.is_alive(), "it hangs"
    assert not outcome, repr(outcome)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_grid_with_junk_in_it_raises_nothing_but_grid_errors(data: st.DataObject) -> None:
    value = data.draw(grids())
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from([*value, "train", "tracking", "executor", "seeds", "modalities", "odd"]))
        at = value.get(key)
        if isinstance(at, list) and at:
            at[data.draw(st.integers(0, len(at) - 1))] = data.draw(junk)
        elif isinstance(at, dict) and at:
            at[data.draw(st.sampled_from(list(at)))] = data.draw(junk)
        else:
            value[key] = data.draw(junk)
    within_seconds(yaml_lines.write_yaml(value))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("ab:-[]{},&*!|>'\"%@#?~ \n\t<=.01e\\\x85\u2028")), max_size=60))
@example("methods: &a [*a")
@example("? [a, b]\n: c")
@example("? {a: 1}\n: c")
@example("<<: 3\nmethods: [x]")
@example("<<: [1, [2]]\nmethods: [x]")
@example("- &a a\n- *a : b")
@example("%YAML 9.9\n---\na")
@example("%TAG ! !!\n---\n! a")
@example("...\n...")
@example("a: |9\n b")
@example("\ufeffa: b")
def test_text_that_looks_like_yaml_raises_nothing_but_grid_errors(text: str) -> None:
    within_seconds(text)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_bundled_grid_raises_nothing_but_grid_errors(data: st.DataObject) -> None:
    text = QUICKSTART.read_text(encoding="utf-8")
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 30))
        text = text[:start] + data.draw(st.text(max_size=5)) + text[start + length :]
    within_seconds(text)
