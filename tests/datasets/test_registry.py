"""Finding data sets by name, entry point and import string."""

import sys
from importlib.metadata import EntryPoint

import pytest

from datasets.base import DataSet
from datasets.catalog import DATASETS
from datasets.digits import Digits
from datasets.errors import UserError, did_you_mean
from datasets.registry import Registry


def plugin_registry(monkeypatch, **plugins):
    points = [EntryPoint(name, value, "robult_bench.datasets") for name, value in plugins.items()]
    monkeypatch.setattr("datasets.registry.entry_points", lambda group: points)
    return Registry("data set", DataSet, "robult_bench.datasets", DATASETS.builtin)


def test_a_built_in_name_and_its_import_string_give_the_same_class():
    assert DATASETS.get("digits") is Digits
    assert DATASETS.get("datasets.digits:Digits") is Digits


@pytest.mark.parametrize("name", list(DATASETS.builtin))
def test_every_built_in_entry_is_what_it_says(name):
    found = DATASETS.get(name)
    assert found.name == name
    assert found.summary == DATASETS.summaries()[name]
    assert found.source
    assert found.licence


def test_an_unknown_name_gets_a_suggestion_and_the_command_that_lists():
    with pytest.raises(UserError) as caught:
        DATASETS.get("synthetics")
    assert str(caught.value) == (
        "unknown data set 'synthetics'. Did you mean 'synthetic'? List them with: bench ls datasets"
    )
    assert caught.value.exit_code == 2


def test_a_name_far_from_all_gets_no_suggestion():
    with pytest.raises(UserError, match=r"^unknown data set 'zzz'\. List them with: bench ls datasets$"):
        DATASETS.get("zzz")
    assert did_you_mean("zzz", ["digits"]) == ""


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("no_such_package.x:Y", "cannot be imported: No module named 'no_such_package'"),
        ("datasets.digits:Digit", "cannot be imported: module 'datasets.digits' has no attribute 'Digit'"),
        (":Digits", "cannot be imported: ValueError: Empty module name"),
        ("datasets.seeds:generator", "is not a DataSet: it must subclass DataSet"),
        ("datasets.tasks:Binary", "is not a DataSet: it must subclass DataSet"),
    ],
)
def test_an_import_string_that_leads_nowhere_says_why(path, told):
    with pytest.raises(UserError, match=f"^data set '{path}' {told}") as caught:
        DATASETS.get(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def broken(:", "cannot be imported: SyntaxError: invalid syntax"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("from datasets.base import DataSet as Mine", "is not finished: it does not define load, spec."),
    ],
)
def test_foreign_code_that_does_not_work_is_told_without_a_traceback(tmp_path, monkeypatch, code, told):
    (tmp_path / "foreign_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "foreign_module", raising=False)
    with pytest.raises(UserError, match=f"^data set 'foreign_module:Mine' {told}"):
        DATASETS.get("foreign_module:Mine")


def test_listing_imports_no_data_set():
    import subprocess

    code = (
        "import sys; from datasets.catalog import DATASETS; DATASETS.summaries();"
        "print([m for m in sys.modules if m.startswith(('datasets.', 'sklearn', 'scipy', 'pandas'))])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "datasets.digits" not in told
    assert not {"sklearn", "scipy", "pandas"} & {name.strip("[]' \n") for name in told.split(",")}


def test_a_plugin_is_found_and_listed(monkeypatch):
    registry = plugin_registry(monkeypatch, mine="datasets.digits:Digits")
    assert registry.names() == [*DATASETS.builtin, "mine"]
    assert registry.get("mine") is Digits
    assert registry.summaries()["mine"] == "plugin: datasets.digits:Digits"


def test_a_plugin_cannot_take_a_built_in_name(monkeypatch):
    registry = plugin_registry(monkeypatch, digits="datasets.tasks:Binary")
    assert registry.get("digits") is Digits
    assert registry.names() == list(DATASETS.builtin)
