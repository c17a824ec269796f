#!/usr/bin/env python3
"""Copy a whole artifact store into a tar stream and back: a folder, or an S3 bucket.

    artifacts.py make STORE             make the bucket or folder unless it is there
    artifacts.py export STORE >FILE     every object, as a tar file
    artifacts.py import STORE <FILE     put every object of a tar file there; what else is there stays

STORE is s3://BUCKET[/PREFIX], with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and MLFLOW_S3_ENDPOINT_URL in the
environment as MLflow reads them, or a folder.
"""

import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

SPOOLED = 16 * 2**20
"""Bytes of an object that are held in memory; a larger one goes through a temporary file."""


class Bucket:
    """The objects below a prefix of an S3 bucket."""

    def __init__(self, uri: str) -> None:
        import boto3  # type: ignore[import-untyped]

        parts = urlsplit(uri)
        self.name, self.prefix = parts.netloc, parts.path.strip("/")
        # Any region will do where an endpoint is given; boto3 wants one.
        region = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
        self.client: Any = boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL"), region_name=region)

    def make(self) -> None:
        """Make the bucket unless it is there."""
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]

        try:
            self.client.head_bucket(Bucket=self.name)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
            self.client.create_bucket(Bucket=self.name)

    def objects(self) -> Iterator[tuple[str, int, float]]:
        """Name below the prefix, size and time of change of every object."""
        under = f"{self.prefix}/" if self.prefix else ""
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=under):
            for found in page.get("Contents", []):
                name = found["Key"][len(under) :]
                if name and not name.endswith("/"):
                    yield name, found["Size"], found["LastModified"].timestamp()

    def read(self, name: str) -> BinaryIO:
        """An object's content."""
        file: Any = tempfile.SpooledTemporaryFile(SPOOLED)  # noqa: SIM115 - the caller closes it
        self.client.download_fileobj(self.name, str(PurePosixPath(self.prefix) / name), file)
        file.seek(0)
        return file  # type: ignore[no-any-return]

    def write(self, name: str, content: BinaryIO) -> None:
        """Put an object there, over one of its name."""
        self.client.upload_fileobj(content, self.name, str(PurePosixPath(self.prefix) / name))


class Folder:
    """The files below a folder."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def make(self) -> None:
        """Make the folder unless it is there."""
        self.path.mkdir(parents=True, exist_ok=True)

    def objects(self) -> Iterator[tuple[str, int, float]]:
        """Name, size and time of change of every file."""
        for file in sorted(self.path.rglob("*")):
            if file.is_file():
                yield file.relative_to(self.path).as_posix(), file.stat().st_size, file.stat().st_mtime

    def read(self, name: str) -> BinaryIO:
        """A file's content."""
        return (self.path / name).open("rb")

    def write(self, name: str, content: BinaryIO) -> None:
        """Put a file there, whole or not at all."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.new")
        with draft.open("wb") as file:
            shutil.copyfileobj(content, file)
        draft.replace(target)


def export(store: Bucket | Folder, out: BinaryIO) -> int:
    """Write every object to a tar stream; returns how many there are."""
    count = 0
    with tarfile.open(fileobj=out, mode="w|") as tar:
        for name, size, changed in store.objects():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = size, int(changed)
            with store.read(name) as content:
                tar.addfile(entry, content)
            count += 1
    return count


def restore(store: Bucket | Folder, source: BinaryIO) -> int:
    """Put every object of a tar stream there; returns how many. A name that leads elsewhere is refused."""
    count = 0
    with tarfile.open(fileobj=source, mode="r|") as tar:
        for entry in tar:
            name = PurePosixPath(entry.name)
            if not entry.isfile() or name.is_absolute() or ".." in name.parts:
                raise ValueError(f"'{entry.name}' is no plain file below the store")
            content = tar.extractfile(entry)
            assert content is not None
            # boto3 seeks, which a stream cannot
            with tempfile.SpooledTemporaryFile(SPOOLED) as whole:
                shutil.copyfileobj(content, whole)
                whole.seek(0)
                store.write(entry.name, whole)  # type: ignore[arg-type]
            count += 1
    return count


def main() -> int:
    """Do what the command line says."""
    if len(sys.argv) != 3 or sys.argv[1] not in ("make", "export", "import"):
        print(__doc__, file=sys.stderr)
        return 2
    verb, uri = sys.argv[1:]
    store = Bucket(uri) if uri.startswith("s3://") else Folder(uri)
    try:
        if verb == "make":
            store.make()
        elif verb == "export":
            print(f"{export(store, sys.stdout.buffer)} artifacts", file=sys.stderr)
        else:
            print(f"{restore(store, sys.stdin.buffer)} artifacts", file=sys.stderr)
    except Exception as error:  # boto3 raises of many kinds, and a backup script wants one line
        print(f"artifacts: {verb} {uri}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
