#!/usr/bin/env python3
"""Write the lock files of the images from pyproject.toml: every package by version and hash (`make docker-lock`).

Resolved by uv for the images' Python and platform, wheels only. What is locked already stays as it is while it fits;
`--upgrade` takes the newest of everything. UV_FIND_LINKS may name a folder of wheels if torch's index is out of reach.
"""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON, PLATFORM = "3.11", "x86_64-manylinux_2_28"
PYPI, TORCH_CPU = "https://pypi.org/simple", "https://download.pytorch.org/whl/cpu"
NOT_IN_THE_RUNNER = {"test", "lint", "audit", "docker", "server"}


def inputs() -> dict[str, list[str]]:
    """Lock file -> the requirements it fulfils."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, extras = told["project"], told["project"]["optional-dependencies"]
    named = [word for extra in sorted(set(extras) - NOT_IN_THE_RUNNER) for word in extras[extra]]
    # what the package is built with is locked too: the image is built without isolation and without an index
    runner = [*project["dependencies"], *named, *told["build-system"]["requires"]]
    runner = [word for word in dict.fromkeys(runner) if not word.startswith(project["name"])]
    return {"server": extras["server"], "cpu": runner, "cuda": runner}


def compile_one(name: str, requirements: list[str], words: list[str]) -> None:
    """Write one lock file."""
    file = ROOT / "docker" / f"requirements-{name}.lock"
    indexes = [PYPI, TORCH_CPU] if name == "cpu" else [PYPI]
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "-", "--quiet", "--no-header", *words]
    command += ["--generate-hashes", "--only-binary", ":all:", "--output-file", str(file)]
    command += ["--python-version", PYTHON, "--python-platform", PLATFORM]
    env = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_"))}
    env |= {"UV_NO_CONFIG": "1", "UV_DEFAULT_INDEX": PYPI}  # a private index of this machine has no place in the file
    if name == "cpu" and "UV_FIND_LINKS" in os.environ:
        env["UV_FIND_LINKS"] = os.environ["UV_FIND_LINKS"]
    elif name == "cpu":
        command += ["--torch-backend", "cpu"]
    subprocess.run(command, input="\n".join(requirements), text=True, env=env, check=True)
    head = f"# Python {PYTHON}, {PLATFORM}; written by `make docker-lock` from pyproject.toml. Do not edit.\n"
    head += f"--index-url {indexes[0]}\n" + "".join(f"--extra-index-url {index}\n" for index in indexes[1:])
    body = [line for line in file.read_text().splitlines() if not line.startswith(("#", "--"))]
    file.write_text(head + "\n".join(body) + "\n")


def main() -> int:
    """Write all lock files."""
    for name, requirements in inputs().items():
        compile_one(name, requirements, sys.argv[1:])
        print(f"docker/requirements-{name}.lock")
    return 0


if __name__ == "__main__":
    sys.exit(main())
