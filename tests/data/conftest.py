"""Fixtures of the tests of data: both implementations, small batches."""

import pytest

from fastbert.data.corpus import text_blocks
from fastbert.data.store import text_batches
from support import need_core


@pytest.fixture(params=["cpp", "reference"])
def impl(request):
    if request.param == "cpp":
        need_core()
    return request.param


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(text_batches, "BATCH_SIZE", 100)
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 60)
