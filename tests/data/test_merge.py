"""Parts of a corpus stored one by one, and merged into one store."""

import os

import pytest
from made_up_stores import Words, a_corpus, documents_of, numbers

from fastbert.data import TokenStore, merge_stores, write_store
from fastbert.system.errors import InputError


@pytest.mark.parametrize("count", [1, 2, 3])
def test_parts_of_a_corpus_merged(tmp_path, small_batches, count):
    corpus = a_corpus(tmp_path, numbers(100))
    whole = write_store(tmp_path / "whole", corpus, Words())
    parts = [
        write_store(tmp_path / f"part-{i}", corpus, Words(), shard=(i, count), shard_tokens=30) for i in range(count)
    ]
    merged = merge_stores([part.directory for part in parts], tmp_path / "merged")
    merged.verify()

    assert documents_of(merged) == sum(map(documents_of, parts), [])  # noqa: RUF017
    assert sorted(documents_of(merged)) == sorted(documents_of(whole))
    assert TokenStore.open(tmp_path / "merged", verify=True).num_documents == whole.num_documents


def test_part_without_documents_and_merge_of_strangers(tmp_path):
    corpus = a_corpus(tmp_path, "um só")
    with pytest.raises(InputError, match=r"a\.txt: .*no document.*3/3"):
        write_store(tmp_path / "s", corpus, Words(), shard=(2, 3))
    one = write_store(tmp_path / "one", corpus, Words())
    two = write_store(tmp_path / "two", corpus, Words(2000))
    with pytest.raises(InputError, match="another tokenizer"):
        merge_stores([one.directory, two.directory], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    merge_stores([one.directory], tmp_path / "merged")
    with pytest.raises(InputError, match="already contains a store"):
        merge_stores([one.directory], tmp_path / "merged")
    with pytest.raises(InputError, match="at least one"):
        merge_stores([], tmp_path / "x")


def test_merge_across_file_systems_copies(tmp_path, monkeypatch):
    one = write_store(tmp_path / "one", a_corpus(tmp_path, numbers(30)), Words())

    def no_link(*arguments):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    merged = merge_stores([one.directory, one.directory], tmp_path / "merged")
    merged.verify()
    assert merged.num_tokens == 2 * one.num_tokens
