"""Fixtures of the token stores' tests."""

import pytest

from fastbert.data.corpus import text_blocks
from fastbert.data.store import text_batches


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(text_batches, "BATCH_SIZE", 100)
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 60)
