"""`docker/backup` and `docker/restore` on a real PostgreSQL, and on a folder and a bucket of artifacts."""

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.run_tools import write_grid
from tests.server.runs import bench, cells_of, grid
from tests.server.services import ROOT, Server, running

DOCKER = ROOT / "docker"
TABLES = ("runs", "metrics", "params", "tags", "experiments", "users", "alembic_version", "alembic_version_auth")


def direct(server: Server, script: str, *words: object) -> "subprocess.CompletedProcess[str]":
    """`docker/SCRIPT --direct WORDS` on a server's database and artifacts."""
    path = os.pathsep.join([str(server.postgres.tools), os.environ["PATH"]])
    env = server.environment() | {"PATH": path, "PYTHON": sys.executable}
    command = [str(DOCKER / script), "--direct", *map(str, words)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def content(server: Server) -> dict[str, list[tuple[object, ...]]]:
    """All rows of the tables that matter."""
    return {table: sorted(server.postgres.query(f"SELECT * FROM {table}"), key=repr) for table in TABLES}


def files(folder: str | Path) -> dict[str, bytes]:
    below = Path(folder)
    return {file.relative_to(below).as_posix(): file.read_bytes() for file in below.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def kept(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of a server that has a finished grid, made while it runs."""
    folder = tmp_path_factory.mktemp("kept")
    write_grid(folder, grid("kept", seeds=2, uri=server.uri))
    code, _, err = bench("run", "grid.yaml", cwd=folder)
    assert code == 0, err
    done = direct(server, "backup", folder / "backups")
    assert done.returncode == 0, done.stderr
    (made,) = (folder / "backups").iterdir()
    assert {file.name for file in made.iterdir()} == {"database.dump", "artifacts.tar", "SHA256SUMS"}
    assert made.stat().st_mode & 0o077 == 0, "a backup holds password hashes: it is for its owner alone"
    return made


@pytest.mark.slow
def test_a_restored_server_is_the_one_that_was_kept(server: Server, kept: Path, tmp_path: Path) -> None:
    before, artifacts = content(server), files(server.artifacts)
    assert artifacts
    with running(tmp_path / "new") as new:
        done = direct(new, "restore", kept)  # its database has MLflow's tables already, but no runs
        assert done.returncode == 0, done.stderr
        assert content(new) == before
        assert files(new.artifacts) == artifacts
        assert cells_of(new, "kept") == cells_of(server, "kept")
        new.kill()
        upgrade = subprocess.run([DOCKER / "serve", "upgrade"], env=new.environment(), capture_output=True, text=True)
        assert upgrade.returncode == 0, upgrade.stderr  # there is nothing to do, and nothing changes
        assert content(new) == before
        new.start()
        write_grid(tmp_path, grid("kept", seeds=2, uri=new.uri))
        runs = new.postgres.query("SELECT count(*) FROM runs")
        code, _, err = bench("run", "grid.yaml", cwd=tmp_path)
        assert code == 0, err
        assert new.postgres.query("SELECT count(*) FROM runs") == runs, "what was finished is trained again"

        again = direct(new, "restore", kept)
        assert again.returncode == 1
        assert "nothing was changed; with --replace they are replaced" in again.stderr
        replaced = direct(new, "restore", "--replace", kept)
        assert replaced.returncode == 0, replaced.stderr
        assert content(new) == before


@pytest.mark.slow
def test_a_damaged_backup_changes_nothing(server: Server, kept: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in kept.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    with (damaged / "database.dump").open("r+b") as dump:
        dump.seek(2000)
        dump.write(b"\0" * 16)
    before = content(server)
    done = direct(server, "restore", "--replace", damaged)
    assert done.returncode == 1
    assert "damaged: nothing was changed" in done.stderr
    assert content(server) == before


@pytest.mark.slow
def test_a_backup_that_fails_leaves_nothing(server: Server, tmp_path: Path) -> None:
    env = server.environment() | {"DATABASE_URI": server.postgres.uri + "_of_another_name", "PYTHON": sys.executable}
    done = subprocess.run([DOCKER / "backup", "--direct", tmp_path], env=env, capture_output=True, text=True)
    assert done.returncode != 0
    assert list(tmp_path.iterdir()) == []


def artifacts_tool(
    *words: str, stdin: bytes = b"", env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, str(DOCKER / "artifacts.py"), *words]
    return subprocess.run(command, input=stdin, capture_output=True, env=os.environ | (env or {}))


def test_names_that_lead_out_of_the_store_are_refused(tmp_path: Path) -> None:
    evil = io.BytesIO()
    with tarfile.open(fileobj=evil, mode="w") as tar:
        entry = tarfile.TarInfo("../outside")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"evil"))
    done = artifacts_tool("import", str(tmp_path / "store"), stdin=evil.getvalue())
    assert done.returncode == 1
    assert b"no plain file below the store" in done.stderr
    assert not (tmp_path / "outside").exists()


@pytest.fixture
def s3() -> Iterator[dict[str, str]]:
    """Environment of an S3 server that keeps everything in memory."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "MLFLOW_S3_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    server.stop()


def test_a_bucket_goes_into_a_backup_and_back(s3: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name, data in {"1/a/grid.yaml": b"name: x", "1/a/empty": b"", "2/b/arrays.npz": os.urandom(9_000_000)}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    packed = artifacts_tool("export", str(folder)).stdout
    for store in ("s3://lab", "s3://lab/with/prefix"):
        assert artifacts_tool("make", store, env=s3).returncode == 0
        assert artifacts_tool("make", store, env=s3).returncode == 0  # it is there already
        assert artifacts_tool("import", store, stdin=packed, env=s3).returncode == 0
    back = artifacts_tool("export", "s3://lab/with/prefix", env=s3)
    assert back.stderr == b"3 artifacts\n"
    assert artifacts_tool("import", str(tmp_path / "back"), stdin=back.stdout).returncode == 0
    assert files(tmp_path / "back") == files(folder)


@pytest.mark.slow
def test_a_server_keeps_its_artifacts_in_a_bucket(s3: dict[str, str], tmp_path: Path) -> None:
    with running(tmp_path / "server", "s3://lab/mlflow", s3) as server:
        write_grid(tmp_path, grid("bucket", seeds=1, uri=server.uri) + "save: [embeddings]\n")
        code, _, err = bench("run", "grid.yaml", cwd=tmp_path)
        assert code == 0, err
        done = direct(server, "backup", tmp_path / "backups")
        assert done.returncode == 0, done.stderr
    (packed,) = (tmp_path / "backups").glob("*/artifacts.tar")
    with tarfile.open(packed) as tar:
        names = {Path(name).name for name in tar.getnames()}
    assert {"grid.yaml", "environment.json", "arrays.npz"} <= names
