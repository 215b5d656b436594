"""Parquet files and folders of ``datasets`` as records, with the names of their classes."""

import json

import pytest

from fastbert.data.corpus.records import is_table, read_records
from fastbert.system.errors import InputError
from fastbert.tasks.examples import read_examples

pa = pytest.importorskip("pyarrow", reason="reads Parquet and Arrow")
import pyarrow.parquet as pq  # noqa: E402

ROWS = {"tokens": [["Ana", "mora"], ["aqui"]], "ner_tags": [[1, 0], [0]], "label": [1, -1], "id": ["a", "b"]}
CLASS = {"names": ["O", "B-PER"], "_type": "ClassLabel"}
FEATURES = {
    "tokens": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    "ner_tags": {"feature": CLASS, "_type": "List"},
    "label": CLASS,
    "id": {"dtype": "string", "_type": "Value"},
}


def table(features=FEATURES):
    return pa.table(ROWS).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def saved(folder):
    """As Dataset.save_to_disk writes it."""
    folder.mkdir()
    with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file:
        data = table()
        with pa.ipc.new_stream(file, data.schema) as stream:
            stream.write_table(data)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_indices_files": None}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def test_classes_have_their_names(tmp_path):
    pq.write_table(table(), tmp_path / "x.parquet")
    for path in (str(tmp_path / "x.parquet"), str(saved(tmp_path / "train"))):
        assert is_table(path)
        (where, first), (_, second) = read_records(path)
        assert where == f"{path}: row 1" and first["ner_tags"] == ["B-PER", "O"]
        assert (first["label"], second["label"]) == ("B-PER", -1), "-1 is no label"
        assert read_examples(path, "tagging")[0].tags == ["B-PER", "O"]


def test_lists_of_older_versions_and_plain_files(tmp_path):
    older = FEATURES | {"ner_tags": {"feature": CLASS, "length": -1, "_type": "Sequence"}, "label": [CLASS]}
    pq.write_table(table(older), tmp_path / "x.parquet")
    assert next(read_records(str(tmp_path / "x.parquet")))[1]["ner_tags"] == ["B-PER", "O"]
    for metadata in (None, {"huggingface": "{"}, {"huggingface": "[]"}, {"pandas": "{}"}):
        pq.write_table(pa.table(ROWS).replace_schema_metadata(metadata), tmp_path / "x.parquet")
        assert next(read_records(str(tmp_path / "x.parquet")))[1]["ner_tags"] == [1, 0]


def test_folders_that_cannot_be_read(tmp_path):
    both = tmp_path / "both"
    both.mkdir()
    (both / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    with pytest.raises(InputError, match=r"train, test.*both.train"):
        list(read_records(str(both)))
    folder = saved(tmp_path / "train")
    (folder / "data-00000-of-00001.arrow").write_bytes(b"not Arrow")
    with pytest.raises(InputError, match="damaged"):
        list(read_records(str(folder)))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../other.arrow"}]}))
    with pytest.raises(InputError, match="train"):
        list(read_records(str(folder)))
    (folder / "state.json").write_text("{}")
    with pytest.raises(InputError, match="not a folder of datasets"):
        list(read_records(str(folder)))
