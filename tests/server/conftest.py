"""One server for all tests of this folder that do not break it."""

from collections.abc import Iterator

import pytest

from tests.server.services import Server, running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server")) as running_server:
        yield running_server
