"""The structure, read off the imports: downwards only, no circles, heavy packages where they belong."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("bench", "methods", "datasets", "analysis")
MAY_IMPORT = {"datasets": set(), "methods": {"datasets"}, "analysis": {"datasets"}, "bench": set(PACKAGES)}
"""Of `datasets`, `analysis` takes the errors alone: it knows no data set and no task."""
ROOMS = ("grid", "training", "scheduling", "executors", "tracking", "running", "search", "cli")
"""Of `bench`, from the ground up: a room imports those before it."""
ONLY_IN = {
    "mlflow": {
        "bench.tracking.client",
        "bench.tracking.origin",
        "bench.tracking.reading",
        "bench.tracking.studies",
        "bench.tracking.tables",
        "bench.tracking.timings",
        "bench.tracking.writing",
    },
    "pebble": {"bench.executors.local"},
    "optuna": {"bench.search.study"},
    "ray": {"bench.executors.ray"},
    "typer": {"bench.cli.app", "bench.__main__"},
}


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Modules a file imports anywhere: at its top, inside functions, for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downwards_only(module: str) -> None:
    package = module.partition(".")[0]
    for name in imports(MODULES[module]):
        other = name.partition(".")[0]
        if other in PACKAGES and other != package:
            assert other in MAY_IMPORT[package], f"{module} imports {name}"
        assert other != "tests", f"{module} imports {name}"
    if package == "analysis":
        of_datasets = {name for name in imports(MODULES[module]) if name.startswith("datasets")}
        assert {name for name in of_datasets if not name.startswith("datasets.errors")} == set()


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("bench.") and m.split(".")[1] in ROOMS])
def test_rooms_import_downwards_only(module: str) -> None:
    above = ROOMS[ROOMS.index(module.split(".")[1]) + 1 :]
    for name in imports(MODULES[module]):
        assert not (name.startswith("bench.") and name.split(".")[1] in above), f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_have_one_home(module: str) -> None:
    for name in imports(MODULES[module]):
        homes = ONLY_IN.get(name.partition(".")[0])
        assert homes is None or module in homes, f"{module} imports {name}"


def test_there_is_no_circle() -> None:
    edges = {m: {n for n in imports(path) if n in MODULES and n != m} for m, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join([*trail[trail.index(module) :], module])}"
        if module not in done:
            for other in edges[module]:
                visit(other, (*trail, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def loaded_by(code: str) -> set[str]:
    """Top-level packages in memory after running `code` in a fresh Python."""
    words = [sys.executable, "-c", f"{code}\nimport sys; print(*{{m.partition('.')[0] for m in sys.modules}})"]
    return set(subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT).stdout.split())


def test_help_loads_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "pandas", "mlflow", "matplotlib", "sklearn", "scipy", "pydantic"}
    assert not heavy & loaded_by("import bench.cli.app")


def test_the_trainer_needs_no_tracking_and_no_runner() -> None:
    assert not {"mlflow", "pebble", "pandas", "sklearn", "scipy", "typer", "rich"} & loaded_by(
        "import bench.training.trainer"
    )


def test_preparing_affect_data_needs_no_torch() -> None:
    """Its import takes longer than hashing the file."""
    assert not {"torch", "mlflow", "pandas", "sklearn", "scipy"} & loaded_by(
        "import bench.cli.app, bench.cli.data_commands, datasets.cmu_mosei, datasets.iemocap"
    )


def test_the_fork_server_is_light() -> None:
    assert not {"torch", "numpy", "mlflow"} & loaded_by("import bench.executors.forkserver")


def test_another_datasets_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("raise_nothing = True\n")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from bench.__main__ import main; main()"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "another package named 'datasets' is in the way" in done.stderr
    assert str(tmp_path / "datasets") in done.stderr
    assert "Traceback" not in done.stderr


def test_everything_is_in_the_distribution() -> None:
    """An editable installation finds what an ordinary one would lack."""
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {path.parent for name in PACKAGES for path in (ROOT / name).rglob("__init__.py")}
    assert {ROOT / name.replace(".", "/") for name in setup["packages"]} == packages
    for path in (path for name in PACKAGES for path in (ROOT / name).rglob("*")):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            package = next(folder for folder in path.parents if folder in packages)
            patterns = setup["package-data"].get(package.relative_to(ROOT).as_posix().replace("/", "."), [])
            inside = path.relative_to(package)
            assert any(inside.match(pattern) for pattern in patterns), f"{path} is left out of the distribution"
