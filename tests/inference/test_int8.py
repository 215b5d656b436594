"""An int8 encoder comes near to float32, and is refused where it does not run."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from inference.test_inference import (
    SHAPES,
    check_the_number_of_threads_changes_no_bit,
    float64,
    make_batch,
    make_model,
    needs_kernels,
)

import fastbert
import support
from fastbert.bert import Bert
from fastbert.inference.frozen_model import FrozenModel, choose_dtype
from fastbert.ops.cpu.frozen_encoder import NativeEncoder
from fastbert.system import native
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer
from support import SPECIAL

pytestmark = needs_kernels


def reader_of(model):
    if not native.compute().Encoder.runs("int8"):
        pytest.skip("this processor has no int8 products of ours")
    return FrozenModel(model, torch.float32, int8=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_hidden_states(shape):
    model, batch = make_model(shape), make_batch(17, 1, 64)
    exact = float64(model, batch)
    reader = reader_of(model)
    with torch.inference_mode():
        ours = reader.encode(batch).double()
        some = reader.encode(batch, torch.tensor([20, 3])).double()
    assert (ours - exact).norm() < 6e-2 * exact.norm()
    assert F.cosine_similarity(ours[:17].mean(0), exact[:17].mean(0), dim=0) > 0.998
    assert isinstance(reader._encoder, NativeEncoder)
    torch.testing.assert_close(some, ours[[20, 3]], atol=0, rtol=0)


def test_every_instruction_set_runs_it_or_refuses(isa):
    if native.compute().Encoder.runs("int8"):
        return test_hidden_states("modern")
    with pytest.raises(InputError, match="precision='int8'"):
        FrozenModel(make_model(), torch.float32, int8=True).encode(make_batch(9))


def test_columns_of_great_values():
    """Without an order and factors of its own, int8 loses every other column's precision to them."""
    model, batch = make_model(), make_batch(64)
    with torch.no_grad():
        for layer in model.encoder.layers:
            layer.feed_forward_norm.weight[5] *= 100
            layer.attention_norm.weight[77] *= 100
    exact = float64(model, batch)
    vector = reader_of(model).encode(batch).double()
    others = [i for i in range(128) if i not in (5, 77)]
    assert F.cosine_similarity(vector[:, others].mean(0), exact[:, others].mean(0), dim=0) > 0.99


def test_the_number_of_threads_changes_no_bit():
    check_the_number_of_threads_changes_no_bit(reader_of(make_model()))


def test_changed_weights_are_measured_again():
    model, batch = make_model(), make_batch(17)
    reader = reader_of(model)
    before = reader.encode(batch)
    with torch.no_grad():
        model.encoder.layers[0].feed_forward.up.weight[3] *= 1.5
    after = reader.encode(batch)
    assert not torch.equal(before, after)
    assert torch.equal(after, reader_of(model).encode(batch)), "the sample is always the same"


def test_a_loaded_model_says_how_near_it_is(tmp_path, capsys):
    reader_of(make_model())
    letters = [*SPECIAL, *"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    model = support.make_model("classic", vocab_size=len(letters), max_position_embeddings=64, noise=0.1)
    Bert(model, Tokenizer(letters)).save(tmp_path)
    capsys.readouterr()
    bert, plain = (fastbert.load(tmp_path, precision=name) for name in ("int8", "fp32"))
    assert "int8" in capsys.readouterr().err
    ours, exact = bert.embed(["one two"]), plain.embed(["one two"])
    assert not np.array_equal(ours, exact) and (ours * exact).sum() > 0.999


def test_refused_for_layers_that_are_not_ours_and_on_a_gpu():
    model = make_model()
    model.encoder.layers[0].feed_forward.down.register_forward_hook(lambda *_: None)
    with pytest.raises(InputError, match="precision='int8'"):
        FrozenModel(model, torch.float32, int8=True).encode(make_batch(9))
    with pytest.raises(InputError, match="cuda"):
        choose_dtype("int8", torch.device("cuda"))
