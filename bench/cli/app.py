"""The command line. Nothing heavy is imported before the command that needs it, so help answers at once."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core


class PlainSearch(typer.core.TyperGroup):
    """`bench search NAME` without the word `run`; a search called like one of the commands is given by its path."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="bench",
    help="Compare methods for multimodal learning when modalities go missing and labels are few.",
    epilog="A first run: bench run quickstart, then bench report quickstart, then bench ui.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="List, prepare and verify data sets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
search_app = typer.Typer(
    help="Tune hyper-parameters.\n\nFirst bench search SEARCH, then bench search best SEARCH > tuned.yaml.",
    no_args_is_help=True,
    rich_markup_mode=None,
    cls=PlainSearch,
)
app.add_typer(search_app, name="search")
new_app = typer.Typer(help="Start a method of your own.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(new_app, name="new")

GridArgument = Annotated[
    str,
    typer.Argument(metavar="GRID", help="A grid file, a bundled grid, or a collection of grids; see bench ls grids."),
]
OnOption = Annotated[
    str | None,
    typer.Option(
        "--on", metavar="DATASET", help="Put the grid on data that runs anywhere: synthetic, digits, handwritten."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
UriOption = Annotated[
    str | None,
    typer.Option("--tracking-uri", metavar="URI", help="The MLflow store; default: sqlite:///mlflow.db here."),
]


class Checkpoint(StrEnum):
    last = "last"
    best = "best"


class Kind(StrEnum):
    methods = "methods"
    datasets = "datasets"
    grids = "grids"
    searches = "searches"


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"robult-bench {version('robult-bench')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    grid: GridArgument,
    on: OnOption = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first training that fails.")] = False,
) -> int:
    """Train and test what a grid asks for and still lacks.

    Stop it with Ctrl-C, or let the machine die: the same command goes on where it stopped. Exit code 1 when a
    training failed.

    Example: bench run quickstart

    Example: bench run robult-paper --on synthetic
    """
    from bench.executors.forkserver import preload

    preload()
    from bench.cli.commands import run_grid

    return run_grid(grid, fail_fast=fail_fast, on=on)


@app.command()
def plan(
    grid: GridArgument,
    on: OnOption = None,
    simulate: Annotated[
        str | None,
        typer.Option(
            "--simulate",
            metavar="DEVICES",
            help="Show the run on devices that need not be here: gpus=8, gpus=8x2 (two workers a GPU), cpus=16.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Check a grid and say what it would take.

    Shows what it would train, what is done, what is impossible and why.

    Example: bench plan my-grid.yaml

    Example: bench plan robult-paper --on synthetic --simulate gpus=8
    """  # fmt: skip
    from bench.cli.commands import show_plan

    return show_plan(grid, as_json=as_json, on=on, simulated=simulate)


@app.command()
def report(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="The grid's name.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the report.")] = Path("reports"),
    checkpoint: Annotated[
        Checkpoint | None, typer.Option(help="Which epoch's test metrics; default: what the grid says.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Write it anew whenever cells finish, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How often --watch looks.")] = 30,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what takes long: analyses of kept arrays.")] = False,
    ui_url: Annotated[
        str | None,
        typer.Option("--ui", metavar="URL", help="MLflow UI that numbers link to; default: the server, or bench ui's."),
    ] = None,
    tracking_uri: UriOption = None,
) -> int:
    """Write the report of an experiment: tables, figures.

    One page that works offline, Markdown, LaTeX, CSV and figures; all of it is also kept in MLflow.

    What is costly is kept in OUT/.cache by its content and may be deleted.

    Example: bench report quickstart

    Example: bench report quickstart --watch --every 60
    """
    from bench.cli.reporting import make_report

    return make_report(
        experiment, out, checkpoint.value if checkpoint else None, tracking_uri, ui=ui_url, quick=quick,
        watch_s=every if watch else None,
    )  # fmt: skip


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="The experiment to compare with.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The experiment that is compared.")],
    checkpoint: Annotated[Checkpoint | None, typer.Option(help="Which epoch's test metrics; default: last.")] = None,
    tracking_uri: UriOption = None,
    as_json: JsonOption = False,
) -> int:
    """Say whether and where two experiments differ.

    Also by how much, and in what they were made with.

    Cells are compared with the same cells: same data set, method, label ratio, condition and seed.

    Example: bench compare quickstart quickstart-again
    """
    from bench.cli.commands import compare_stored

    return compare_stored(a, b, checkpoint.value if checkpoint else None, tracking_uri, as_json=as_json)


@app.command()
def reproduce(
    run: Annotated[str, typer.Argument(metavar="RUN_ID", help="The MLflow run of a training or of a cell.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:1, ...; auto: the kind it was trained on.")] = "auto",
    tracking_uri: UriOption = None,
    as_json: JsonOption = False,
) -> int:
    """Train again what a run was, and compare the numbers.

    Says whether the same come out, and what differs: versions, data, code.

    Nothing is written to the store. Exit code 0 when they are the same, to the last bit or to rounding, else 1.

    Example: bench reproduce 0f4ad7a4fa5a4de7b3ba1c2b8a0e6c55
    """
    from bench.cli.commands import reproduce_run

    return reproduce_run(run, device, tracking_uri, as_json=as_json)


SearchArgument = Annotated[
    str, typer.Argument(metavar="SEARCH", help="A search file, or a bundled search; see bench ls searches.")
]


@search_app.command("run")
def search_run(
    search: SearchArgument,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a study, or join those who work on it.")] = False,
    grid: Annotated[
        bool, typer.Option("--grid", help="Sweep over the space point by point, as a study apart.")
    ] = False,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials of each method, in place of budget.trials.")] = None,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Open optuna-dashboard on the study instead, until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the dashboard on this machine.")] = 8080,
    out: Annotated[Path, typer.Option("--out", help="Folder for the report.")] = Path("reports"),
    as_json: JsonOption = False,
) -> int:
    """Search for good hyper-parameters on validation.

    At the end the winner and the defaults are tested, once.

    Stop it with Ctrl-C, or let the machine die: with --resume it goes on, and suggests what it would have
    suggested. Several processes share the work with --resume.

    Example: bench search robult-tau-bandwidth

    Example: bench search my-search.yaml --resume --trials 100

    Example: bench search raml-lambda --grid
    """
    if dashboard:
        from bench.cli.search_commands import serve_dashboard

        return serve_dashboard(search, port)
    from bench.executors.forkserver import preload

    preload()
    from bench.cli.search_commands import run_search

    return run_search(search, resume=resume, grid=grid, trials=trials, out=out, as_json=as_json)


@search_app.command("best")
def search_best(
    search: SearchArgument,
    method: Annotated[str | None, typer.Option(help="One method of a search of several.")] = None,
    trial: Annotated[
        int | None, typer.Option(min=0, help="Another trial than the best, one of a Pareto front.")
    ] = None,
) -> int:
    """Print the winner as a grid that bench run takes.

    Example: bench search best robult-tau-bandwidth > tuned.yaml
    """
    from bench.cli.search_commands import print_best

    return print_best(search, method=method, trial=trial)


@search_app.command("show")
def search_show(search: SearchArgument, as_json: JsonOption = False) -> int:
    """Say how far a search is, and which trials are its best.

    Example: bench search show robult-tau-bandwidth
    """
    from bench.cli.search_commands import show_search

    return show_search(search, as_json=as_json)


@app.command()
def ui(
    tracking_uri: UriOption = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> int:
    """Open the MLflow UI on the right store, on this machine only.

    Example: bench ui --port 5001
    """
    from bench.cli.commands import serve_ui

    return serve_ui(tracking_uri, port)


@app.command("ls")
def list_(kind: Annotated[Kind, typer.Argument(help="What to list.")], as_json: JsonOption = False) -> int:
    """List methods, data sets, bundled grids or searches.

    Example: bench ls methods
    """
    rows = _listing(kind)
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        width = max(map(len, rows), default=0)
        for name, summary in rows.items():
            print(f"{name:<{width}}  {summary}")
    return 0


def _listing(kind: Kind) -> dict[str, str]:
    if kind is Kind.methods:
        from methods.registry import METHODS

        return METHODS.summaries()
    if kind is Kind.datasets:
        from datasets.catalog import DATASETS

        return DATASETS.summaries()
    if kind is Kind.searches:
        from bench.searches import bundled_searches

        return bundled_searches()
    from bench.grids import bundled_grids

    return bundled_grids()


@data_app.command("ls")
def data_ls(as_json: JsonOption = False) -> int:
    """List the data sets and whether they are ready here.

    Example: bench data ls
    """
    from bench.cli.data_commands import list_data

    return list_data(as_json=as_json)


@data_app.command("prepare")
def data_prepare(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The data set; see bench ls datasets.")],
    source: Annotated[Path, typer.Option("--from", metavar="PATH", help="The raw file or folder you have.")],
    overlap: Annotated[
        str, typer.Option(help="Samples in two splits: refuse, keep, or drop, which leaves them in the later split.")
    ] = "refuse",
) -> int:
    """Make a verified copy of a data set from raw files.

    The suite uses the copy from then on.

    Of images and texts, a call that was stopped is gone on with by the same command.

    Example: bench data prepare handwritten --from handwritten_6views.mat
    """
    from bench.cli.data_commands import prepare_data

    return prepare_data(name, source, overlap)


@data_app.command("embed")
def data_embed(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A prepared data set of images and texts.")],
    encoder: Annotated[str, typer.Option("--with", metavar="ENCODER", help="vilt or resnet-bert.")],
    weights: Annotated[
        list[str],
        typer.Option(help="Folder or hub id; for resnet-bert image=... and text=...; default: the released ones."),
    ] = [],  # noqa: B006 (typer copies it)
    option: Annotated[
        list[str], typer.Option(metavar="KEY=VALUE", help="An option of the data set, like plots=all; repeatable.")
    ] = [],  # noqa: B006
    batch: Annotated[int, typer.Option(help="Samples that go through at once.")] = 32,
    max_length: Annotated[int | None, typer.Option(help="Tokens of a text; default: what the network reads.")] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda:1, ...")] = "auto",
    noise: Annotated[float, typer.Option(help="Deviation of noise on the pixels of the test split.")] = 0.0,
    mask: Annotated[float, typer.Option(help="Share of words that are masked in the test split.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of noise and masks.")] = 0,
) -> int:
    """Turn images and texts into vectors for grids.

    Each modality is encoded alone, so that neither tells of the other.

    Stop it whenever you like: the same command goes on where it stopped.

    Example: bench data embed mm_imdb --with vilt
    """
    from bench.cli.data_commands import embed_data

    return embed_data(
        name, encoder, weights=weights, options=option, batch=batch, max_length=max_length, device=device,
        noise=noise, mask=mask, seed=seed,
    )  # fmt: skip


@data_app.command("verify")
def data_verify(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The data set; see bench ls datasets.")],
    folder: Annotated[Path | None, typer.Option("--from", metavar="FOLDER", help="For 'own': its folder.")] = None,
) -> int:
    """Check a data set and say all that is wrong.

    Its content is held against its fingerprint, shapes and value ranges.

    Example: bench data verify handwritten

    Example: bench data verify own --from my-folder
    """
    from bench.cli.data_commands import verify_data

    return verify_data(name, folder)


@data_app.command("make")
def data_make(
    name: Annotated[str, typer.Argument(metavar="NAME", help="cmu_mosi, cmu_mosei or iemocap.")],
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help="The file, or for iemocap the folder, to write.")],
    rows: Annotated[
        int | None, typer.Option("--rows", help="Training samples; default: as many as the real set.")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="mult, mult_unaligned, multibench, mmsa or mmsa_unaligned.")
    ] = None,
) -> int:
    """Write random data in the raw format of a data set.

    To try preparation, speed and memory without the real files.

    Example: bench data make cmu_mosei --rows 200 --out like-mosei.pkl
    """
    from bench.cli.data_commands import make_data

    return make_data(name, out, rows, form)


@app.command()
def check(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="A name, or my_package.my_module:MyMethod.")],
    as_json: JsonOption = False,
) -> int:
    """Hold a method to the contract.

    Shapes, subsets, leaks, hostile batches, stacking and more. Exit code 1 when it breaks.

    Example: bench check my_package.my_module:MyMethod
    """
    from bench.cli.commands import check_method

    return check_method(method, as_json=as_json)


@new_app.command("method")
def new_method(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its module name, like my_method.")],
) -> int:
    """Write a minimal method and its test here.

    Both pass the contract as they are.

    Example: bench new method my_method
    """
    from bench.cli.scaffold import new_method

    paths = new_method(name, Path.cwd())
    title = "".join(word.capitalize() for word in name.split("_"))
    print(f"wrote {' and '.join(path.name for path in paths)}. Try it: bench check {name}:{title}")
    return 0


@app.command()
def doctor(tracking_uri: UriOption = None, as_json: JsonOption = False) -> int:
    """Say what is wrong with this installation.

    And how to mend it. Exit code 1 when something is wrong.

    Example: bench doctor
    """
    from bench.cli.doctor import examine

    findings = examine(tracking_uri)
    if as_json:
        print(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(finding)
    return int(any(finding.state == "wrong" for finding in findings))
