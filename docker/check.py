#!/usr/bin/env python3
"""Say whether what is in docker/ holds together (`make docker-check`); most of it needs no container engine.

Prints one line a check; ends with 1 when one fails. What needs an engine is skipped without one, and said to be.
"""

import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
BIN = Path(sys.executable).parent
SCRIPTS = ("entrypoint", "serve", "init", "backup", "restore")
START_S = 180.0


class Failed(Exception):
    """A check did not pass; the message says why."""


class Skipped(Exception):
    """A check cannot be made here; the message says why."""


def said(*words: object, cwd: Path = HERE, **more: str) -> str:
    """Output of a command.

    Raises:
        Failed: it ended with another status than 0.
    """
    command = [str(word) for word in words]
    done = subprocess.run(command, cwd=cwd, env=os.environ | more, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed((done.stdout + done.stderr).strip()[-2000:])
    return done.stdout.strip()


def engine() -> str:
    """The container engine's command.

    Raises:
        Skipped: there is none, or none that answers.
    """
    for name in ("docker", "podman"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True).returncode == 0:
            return name
    raise Skipped("no container engine answers")


# ---- without an engine ----------------------------------------------------------------------------------------


def dockerfile() -> str:
    """hadolint has nothing to say about the Dockerfile."""
    said(BIN / "hadolint", "Dockerfile")
    return "hadolint"


def dockerfile_files() -> str:
    """Every file that the Dockerfile copies is there and is not left out of the build's context."""
    copied = re.findall(r"^COPY (?!--from)(.+)$", (HERE / "Dockerfile").read_text(), flags=re.MULTILINE)
    names = [word for line in copied for word in line.split()[:-1] if not word.startswith("--")]
    names = [name.replace("${DEVICE}", device) for name in names for device in ("cpu", "cuda")]
    missing = sorted({name for name in names if not (ROOT / name).exists()})
    kept = {line[1:] for line in (HERE / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    missing += [name for name in {name.split("/")[0] for name in names} - {"."} if name not in kept]
    missing += [name for name in sorted(kept) if not (ROOT / name).exists()]
    if missing:
        raise Failed(f"missing from the build's context: {', '.join(missing)}")
    return f"{len(set(names))} paths"


def compose_schema() -> str:
    """The compose files follow the compose specification's schema."""
    said(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml", "compose.gpu.yaml")
    return "compose-spec"


def compose_sense() -> str:
    """What the schema does not know: names refer to something, ports are on loopback, secrets are not values."""
    import yaml

    compose = yaml.safe_load((HERE / "compose.yaml").read_text())
    services, problems = compose["services"], []
    for name, service in services.items():
        for key, known in (
            ("networks", compose["networks"]),
            ("secrets", compose["secrets"]),
            ("depends_on", services),
        ):
            problems += [f"{name}: no {key} '{word}'" for word in service.get(key, []) if word not in known]
        volumes = [volume.split(":")[0] for volume in service.get("volumes", [])]
        problems += [
            f"{name}: volume '{volume}' is not named" for volume in volumes if volume not in compose["volumes"]
        ]
        for port in service.get("ports", []):
            if not re.match(r"\$\{BENCH_BIND\w*:-127\.0\.0\.1\}:", port):
                problems.append(f"{name}: port {port} is open to others than this machine")
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY", key) and not key.endswith("_FILE"):
                problems.append(f"{name}: {key} is a secret by value")
            if key.endswith(("_FILE", "_TOKEN_PATH")) and Path(str(value)).name not in service.get("secrets", []):
                problems.append(f"{name}: {key} names a secret that it is not given")
        if "image" in service and "build" not in service and "@sha256:" not in service["image"]:
            problems.append(f"{name}: {service['image']} is not pinned by digest")
    told = set(re.findall(r"\$\{(BENCH_\w+)", (HERE / "compose.yaml").read_text()))
    problems += [f"env.example: {word} is in no service" for word in _example() if word not in told]
    if problems:
        raise Failed("; ".join(problems))
    return f"{len(services)} services"


def _example() -> list[str]:
    return re.findall(r"^(\w+)=", (HERE / "env.example").read_text(), flags=re.MULTILINE)


def shell() -> str:
    """shellcheck has nothing to say about the scripts."""
    said(BIN / "shellcheck", *SCRIPTS)
    return ", ".join(SCRIPTS)


def locks() -> str:
    """Every requirement of pyproject.toml is locked, in a version that fits, with hashes, from public indexes."""
    from packaging.requirements import Requirement

    sys.path.insert(0, str(HERE))
    from lock import PYPI, TORCH_CPU, inputs

    problems = []
    for name, requirements in inputs().items():
        text = (HERE / f"requirements-{name}.lock").read_text()
        locked = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", text, flags=re.MULTILINE))
        for requirement in map(Requirement, requirements):
            version = locked.get(requirement.name.lower().replace("_", "-"))
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                problems.append(f"{name}: {requirement} is locked as {version}")
        blocks = re.split(r"\n(?=[a-z0-9.-]+==)", "\n" + text)[1:]
        problems += [f"{name}: {block.split()[0]} has no hash" for block in blocks if "--hash=sha256:" not in block]
        hosts = set(re.findall(r"https?://\S+", text)) - {PYPI, TORCH_CPU}
        problems += [f"{name}: installs from {host}" for host in sorted(hosts)]
    if problems:
        raise Failed("; ".join(problems) + ". Run: make docker-lock")
    return "3 files"


def secrets() -> str:
    """docker/init makes all secrets that compose.yaml names, and the same ones when it is run again."""
    import yaml

    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(HERE / "init", folder)
        said(Path(folder) / "init")
        first = {file.name: file.read_text() for file in (Path(folder) / "secrets").iterdir()}
        said(Path(folder) / "init")
        again = {file.name: file.read_text() for file in (Path(folder) / "secrets").iterdir()}
    wanted = {
        Path(entry["file"]).name for entry in yaml.safe_load((HERE / "compose.yaml").read_text())["secrets"].values()
    }
    if set(first) != wanted or first != again or any(len(text) < 32 for text in first.values()):
        raise Failed("docker/init does not make what compose.yaml reads, or changes what is there")
    json.loads(first["artifacts_config"])
    return f"{len(wanted)} secrets"


def server_starts() -> str:
    """The server's own packages, from its lock file alone, start through the image's entry point, with a login."""
    if sys.version_info[:2] != (3, 11) or sys.platform != "linux" or platform.machine() != "x86_64":
        raise Skipped("the lock file is for Python 3.11 on Linux, x86_64")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        pip = [folder / "venv" / "bin" / "pip", "install", "--quiet", "--require-hashes", "--no-deps"]
        said(*pip, "--only-binary", ":all:", "-r", HERE / "requirements-server.lock")
        return _serve(folder)


def _serve(folder: Path) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (folder / "password").write_text("a password of the check")
    (folder / "key").write_text("a key of the check")
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")} | {
        "PATH": f"{folder}/venv/bin:{HERE}:{os.environ['PATH']}",
        "DATABASE_URI": f"sqlite:///{folder}/mlflow.db",
        "ARTIFACTS": str(folder / "artifacts"),
        "MLFLOW_AUTH_ADMIN_PASSWORD_FILE": str(folder / "password"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY_FILE": str(folder / "key"),
        "SERVE_HOST": "127.0.0.1", "SERVE_PORT": str(port), "SERVE_WORKERS": "1", "TMPDIR": str(folder),
    }  # fmt: skip
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [HERE / "entrypoint", "serve"], env=env, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_S
        while subprocess.run([HERE / "healthy.py"], env=env).returncode != 0:
            if time.monotonic() > deadline or server.poll() is not None:
                raise Failed((folder / "log").read_text()[-2000:])
            time.sleep(1)
        answers = [_status(port), _status(port, "wrong"), _status(port, "a password of the check")]
        answers += [_status(port, "a password of the check", host="other.example")]
    finally:
        os.killpg(server.pid, 9)
        server.wait()
    if answers != [401, 401, 200, 403]:
        raise Failed(f"without, with a wrong, with the right password, under a foreign name: {answers}")
    return "healthy; 401 without the password, 200 with it, 403 under a foreign host name"


def _status(port: int, password: str | None = None, host: str | None = None) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=1")
    if password is not None:
        request.add_header("Authorization", f"Basic {b64encode(f'admin:{password}'.encode()).decode()}")
    if host is not None:
        request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return int(error.code)


def runner_starts() -> str:
    """The runner's entry point hands secrets over and starts `bench`."""
    with tempfile.NamedTemporaryFile("w") as secret:
        secret.write("s3cret")
        secret.flush()
        shown = said(HERE / "entrypoint", "sh", "-c", "echo $MLFLOW_TRACKING_PASSWORD",
                     MLFLOW_TRACKING_PASSWORD_FILE=secret.name)  # fmt: skip
        if shown != "s3cret":
            raise Failed("a secret of a file does not arrive")
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    if told not in said(HERE / "entrypoint", BIN / "bench", "--version", cwd=ROOT):
        raise Failed(f"bench --version does not say {told}")
    if f"VERSION={told}" not in (HERE / "Dockerfile").read_text():
        raise Failed(f"the Dockerfile's VERSION is not {told}")
    return "bench --version"


# ---- with an engine -------------------------------------------------------------------------------------------


def compose_config() -> str:
    """The engine's own compose reads the files and resolves every variable."""
    name = engine()
    for words in ([], ["-f", "compose.gpu.yaml"]):
        said(name, "compose", "-f", "compose.yaml", *words, "--profile", "*", "config", "--quiet")
    return f"{name} compose config"


def images_build() -> str:
    """Both images build, and `bench` and the server's packages answer in them."""
    name = engine()
    for target, command in (("server", ["mlflow", "--version"]), ("runner", ["bench", "--version"])):
        tag = f"robult-bench-check-{target}"
        said(name, "build", "-f", "docker/Dockerfile", "--target", target, "-t", tag, ".", cwd=ROOT)
        said(name, "run", "--rm", "--entrypoint", command[0], tag, *command[1:])
    return f"{name} build, both targets"


CHECKS: tuple[Callable[[], str], ...] = (
    dockerfile, dockerfile_files, compose_schema, compose_sense, shell, locks, secrets, runner_starts, server_starts,
    compose_config, images_build,
)  # fmt: skip


def main() -> int:
    """Make every check; 1 when one failed."""
    failed = 0
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        try:
            print(f"ok       {name}: {check()}", flush=True)
        except Skipped as reason:
            print(f"skipped  {name}: {reason}", flush=True)
        except Failed as reason:
            failed += 1
            print(f"FAILED   {name}: {reason}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
