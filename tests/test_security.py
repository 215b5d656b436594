"""What files and texts of strangers can do: the claims of docs/security.md that no other test makes."""

import ast
import gzip
import json
import pickle
import resource
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastbert
from fastbert import BertConfig, BertForPreTraining, Tokenizer
from fastbert.data import Corpus, TokenStore
from fastbert.data.store.token_store import _crc_of
from fastbert.system.errors import InputError
from fastbert.weights import huggingface
from support import change_json

SOURCE = Path(fastbert.__file__).resolve().parent
# they run code that is in a file, or write where an archive says
UNSAFE = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
ARCHIVES = {"zipfile", "tarfile", "shutil.unpack_archive"}
SMALL = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 90}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Dotted names of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_nothing_is_unpickled_evaluated_or_unpacked():
    """Over every file of the package: no module that can, torch.load with weights only, no eval or exec."""
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 100
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in imported} & (UNSAFE | ARCHIVES), path
        for name, call in calls(tree):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert name not in ("eval", "exec", "__import__", "os.system", "os.popen") and name not in ARCHIVES, path
            assert name != "torch.load" or given.get("weights_only") == "True", path
            assert name not in ("np.load", "numpy.load"), f"{path}: may unpickle"
            assert given.get("shell") != "True" and given.get("trust_remote_code") != "True", path


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_in_a_models_directory_does_not_run(tmp_path):
    BertForPreTraining(BertConfig.preset("tiny", "classic", **SMALL)).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    went_off = tmp_path / "went_off"
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(went_off)))
    with pytest.raises(InputError, match=r"pytorch_model\.bin: cannot be read safely"):
        BertForPreTraining.from_pretrained(tmp_path)
    assert not went_off.exists()
    pickle.loads((tmp_path / "pytorch_model.bin").read_bytes()).close()  # it would have
    assert went_off.exists()


@pytest.fixture
def little_memory():
    """One GiB of address space beyond what the process has: more is a MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("arch", ["classic", "modern"])
@pytest.mark.parametrize(
    "sizes",
    [
        {"vocab_size": 50_000_000},
        {"hidden_size": 65_536, "intermediate_size": 262_144},
        {"num_hidden_layers": 1000},
        {"vocab_size": 2**31 - 1, "hidden_size": 2**20},
        {"intermediate_size": 2**30},
    ],
)
def test_sizes_are_compared_with_the_weights_before_anything_is_allocated(arch, sizes, tmp_path, little_memory):
    """config.json of hundreds of gigabytes beside weights of kilobytes."""
    BertForPreTraining(BertConfig.preset("tiny", arch, **SMALL)).save_pretrained(tmp_path)
    change_json(tmp_path / "config.json", **sizes)
    with pytest.raises(InputError):
        BertForPreTraining.from_pretrained(tmp_path)


@pytest.mark.parametrize("shape", [[2**40], [2**62, 2**62], [2**20, 2**20, 2**20], [-1], [1.5]])
def test_shapes_of_a_weights_file_are_compared_with_its_size(shape, tmp_path, little_memory):
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 16]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(InputError, match="damaged"):
        huggingface.read_safetensors(path)
    path.write_bytes((2**63).to_bytes(8, "little") + header)  # a header longer than any file
    with pytest.raises(InputError, match="damaged"):
        huggingface.read_safetensors(path)


NAMES = ["../outside", "/etc/passwd", "a/b", "..", ".", "", "a/../../outside", "a\x00b"]


@pytest.mark.parametrize("name", NAMES)
def test_no_file_name_leads_out_of_its_directory(name, tmp_path):
    """Weights in parts and token stores name their files; both were made to name one elsewhere."""
    secret = tmp_path / "outside"
    model, store = tmp_path / "model", tmp_path / "store"
    BertForPreTraining(BertConfig.preset("tiny", "classic", **SMALL)).save_pretrained(model)
    (model / "model.safetensors").rename(secret)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"bert.pooler.dense.weight": name}}))
    with pytest.raises(InputError):
        huggingface.read_weights(model)
    (tmp_path / "text.txt").write_text("uma casa azul\n")
    tokenizer = Tokenizer.train([str(tmp_path / "text.txt")], vocab_size=60, min_frequency=1)
    fastbert.data.write_store(store, Corpus([str(tmp_path / "text.txt")]), tokenizer)
    manifest = json.loads((store / "manifest.json").read_text())
    data = (store / manifest["shards"][0]["name"]).read_bytes()
    secret.write_bytes(data)
    manifest["shards"][0] |= {"name": name, "crc32": f"{zlib.crc32(data):08x}"}
    del manifest["crc32"]
    (store / "manifest.json").write_text(json.dumps(manifest | {"crc32": _crc_of(manifest)}))
    with pytest.raises(InputError):
        TokenStore.open(store)


def test_a_compressed_file_is_streamed_whatever_comes_out(tmp_path, little_memory):
    """Two gibibytes from two megabytes, under a limit of one."""
    path = tmp_path / "bomb.txt.gz"
    piece = gzip.compress((b"a b c d e f g " * 5 + b"\n") * 100_000 + b"\n", 6)
    path.write_bytes(piece * 300)
    documents = sum(1 for _ in Corpus([str(path)]).text_chunks())
    assert documents >= 1


def test_special_tokens_in_a_text_are_text_where_that_is_asked_for(tmp_path):
    """By default "[MASK]" is a mask, as in Hugging Face; for text of strangers there is split_special_tokens."""
    (tmp_path / "text.txt").write_text("a [MASK] b [SEP] c\n" * 3)
    tokenizer = Tokenizer.train([str(tmp_path / "text.txt")], vocab_size=60, min_frequency=1)
    special = {tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id}
    asked = tokenizer.encode("[MASK] [SEP] [PAD] [CLS]", add_special_tokens=False)
    assert special == set(asked.ids)
    for options in ({}, {"split_special_tokens": False}, {"split_special_tokens": True}):
        found = tokenizer.encode("[MASK] [SEP] [PAD] [CLS]", add_special_tokens=False, **options)
        assert bool(special & set(found.ids)) == (not options.get("split_special_tokens", False))
    # a corpus is always text
    store = fastbert.data.write_store(tmp_path / "store", Corpus([str(tmp_path / "text.txt")]), tokenizer)
    assert not special & set(store.gather([0], [store.num_tokens]).tolist())
