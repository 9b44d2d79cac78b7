"""Fixtures that several test files share."""

import os
import signal
from pathlib import Path

import pytest


if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # each core has a worker already


@pytest.fixture(scope="session")
def shared():
    """The folder with real data sets and models, `$SCHOOLHOUSE_SHARED`; skips where there is none."""
    folder = os.environ.get("SCHOOLHOUSE_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data: CONTRIBUTING.md says how to get it; then SCHOOLHOUSE_SHARED=FOLDER")
    return Path(folder)


@pytest.fixture(scope="module")
def one_thread():
    """One thread, as in the processes that tests start: the order of a sum changes its last bits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def signals():
    """A [`Stop`] takes them over."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
        signal.signal(number, handler)
