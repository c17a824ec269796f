"""Models small enough for one thread, with the same initial weights in whatever order the tests run."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_weights_on_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)
