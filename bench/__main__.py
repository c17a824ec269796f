"""Entry point of `bench`: one clear sentence for whatever goes wrong, and the right exit code."""

import sys
import time
import traceback
from pathlib import Path


def main() -> None:
    """Run the command line; exit 0 done, 1 work failed, 2 wrong use, 130 interrupted."""
    sys.exit(_run())


def _run() -> int:
    problem = shadowed()
    if problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 2
    from datasets.errors import UserError, printable

    # A user's own method may lie in the working directory: `my_method:MyMethod`. Last, so that it shadows nothing.
    if not any(Path(place or ".").absolute() == Path.cwd() for place in sys.path):
        sys.path.append(str(Path.cwd()))
    try:
        from bench.cli.app import app

        return int(app(prog_name="bench", standalone_mode=False) or 0)
    except UserError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe left: nothing to say, and nobody to say it to
        return 0
    except OSError as error:
        if error.filename is None:
            return _unexpected(error)
        print(f"bench: {printable(str(error.filename)[:200])}: {error.strerror}.", file=sys.stderr)
        return 1
    except Exception as error:
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    """Usage errors of the command line show themselves; anything else is our fault, and is kept in a file."""
    import typer

    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, typer.Abort):
        return 130
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # click's, or typer's own copy of it
        error.show()
        return int(error.exit_code)
    from datasets.errors import without_secrets

    text = without_secrets(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}")
    report = Path(f"bench-crash-{time.strftime('%Y%m%d-%H%M%S')}.txt").absolute()
    try:
        report.write_text(without_secrets(traceback.format_exc()), encoding="utf-8")
        where = f"the details are in {report}; please report them"
    except OSError:
        where = "the details could not be written to the working directory"
    print(f"bench: internal error ({text}); nothing already computed is lost; {where}.", file=sys.stderr)
    return 1


def shadowed() -> str | None:
    """Why our `datasets` package cannot be used, when another one is found first."""
    import datasets

    if getattr(datasets, "__robult_bench__", False):
        return None
    where = getattr(datasets, "__file__", None) or next(iter(getattr(datasets, "__path__", ["?"])))
    return (
        f"another package named 'datasets' is in the way ({where}). "
        "Install robult-bench in a virtual environment of its own, without Hugging Face's datasets, "
        "and start it outside folders called datasets."
    )


if __name__ == "__main__":
    main()
