"""Muon is torch's on single matrices and treats the parts of a fused one apart; weight decay goes by the budget."""

import math
import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

from fastbert import ops
from fastbert.batch import pack
from fastbert.config import BertConfig
from fastbert.model import BertForPreTraining
from fastbert.optim.adamw import AdamW
from fastbert.optim.groups import fused_projections, uses_muon
from fastbert.optim.muon import Muon, orthogonalise
from fastbert.optim.optimizers import Optimizers
from fastbert.optim.schedules import (
    DECAY_TIMESCALE,
    DEFAULT_LEARNING_RATE,
    DEFAULT_MUON_LEARNING_RATE,
    DEFAULT_WEIGHT_DECAY,
    MAX_DECAY_PER_STEP,
    MAX_LR_SCALE,
    REFERENCE_STEPS,
    HyperparameterRule,
)


def twins(*shape):
    torch.manual_seed(0)
    first = nn.Parameter(torch.randn(*shape))
    return first, nn.Parameter(first.detach().clone())


@pytest.mark.parametrize("shape", [(32, 32), (24, 60), (60, 24)])
def test_single_matrices_move_as_torch_moves_them(shape):
    ours, theirs = twins(*shape)
    mine = Muon([("w", ours)], lr=0.02, weight_decay=0.1)
    peer = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95)
    start = ours.detach().clone()
    for step in range(5):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        for parameter, optimizer in ((ours, mine), (theirs, peer)):
            parameter.grad = gradient.clone()
            optimizer.step()
    moved = (theirs - start).norm()
    # both iterate in bf16, in another order of operations
    assert (ours - theirs).norm() <= 0.02 * moved


def test_parts_of_a_fused_matrix_are_orthogonalised_apart():
    fused, _ = twins(96, 32)
    single = [nn.Parameter(part.clone()) for part in fused.detach().chunk(3)]
    together = Muon([("qkv", fused)], {"qkv": 3})
    apart = Muon([(f"w{i}", p) for i, p in enumerate(single)])
    gradient = torch.randn(96, 32)
    fused.grad = gradient
    for parameter, part in zip(single, gradient.chunk(3), strict=True):
        parameter.grad = part
    together.step()
    apart.step()
    torch.testing.assert_close(fused, torch.cat([p.detach() for p in single]))


def test_orthogonalise_brings_singular_values_near_one():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(4, 20, 50)).float())
    assert values.min() > 0.6 and values.max() < 1.3


def test_muon_refuses_what_is_no_matrix():
    with pytest.raises(ValueError, match=r"b has shape \(4,\)"):
        Muon([("b", nn.Parameter(torch.zeros(4)))])
    with pytest.raises(ValueError, match="2 equal parts"):
        Muon([("w", nn.Parameter(torch.zeros(5, 4)))], {"w": 2})


@pytest.mark.parametrize("arch", ["classic", "modern"])
def test_every_parameter_of_a_model_moves(arch):
    torch.manual_seed(0)
    model = BertForPreTraining(BertConfig.preset("tiny", arch, vocab_size=70))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizers = Optimizers(model)
    ids = torch.randint(5, 70, (2, 9))
    relation = torch.tensor([0, 1]) if arch == "classic" else None
    model(ids, labels=ids, next_sentence_label=relation).loss.backward()
    optimizers.step(1.0)
    still = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert still == []
    glu = 2 if arch == "modern" else 1
    assert fused_projections("encoder.layers.0.feed_forward.up.weight", model.config) == glu
    assert fused_projections("encoder.layers.1.attention.qkv.weight", model.config) == 3


def test_weights_changed_by_another_optimizer_are_seen():
    """PyTorch's fused AdamW writes without counting; images of weights that ours kept must not outlive ours."""
    torch.manual_seed(0)
    config = BertConfig.preset("tiny", "classic", vocab_size=64)
    model = BertForPreTraining(config)
    ids = torch.randint(5, 64, (2, 16))

    def turn(optimizer):
        with torch.autocast("cpu", torch.bfloat16):
            model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        model(ids)  # leaves nothing behind that training could stumble over
    ours = AdamW(model.parameters(), lr=1e-3)
    for _ in range(3):
        turn(ours)
    del ours
    theirs = torch.optim.AdamW(model.parameters(), lr=1e-1, fused=True)
    turn(theirs)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        now = model(ids).prediction_logits
        fresh = BertForPreTraining(config)
        fresh.load_state_dict(model.state_dict())
        assert torch.equal(now, fresh(ids).prediction_logits)
    pickle.loads(pickle.dumps(model))


def halfway(steps, **options):
    """A model after half a budget of so many steps without gradients, where only the decay is left, and its start."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=32)
    model = BertForPreTraining(config)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizers = Optimizers(model, weight_decay=None, **options)
    for step in range(steps // 2):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizers.update(1.0, step_share=1 / steps if step else 0.0)
    return {name: p.detach() for name, p in model.named_parameters()}, before


def test_weights_forget_over_a_share_of_the_budget_whatever_its_length():
    name = "encoder.layers.0.attention.out.weight"
    for steps in (400, 800):
        after, before = halfway(steps)
        kept = float((after[name] / before[name]).median())
        assert kept == pytest.approx(math.exp(-0.5 / DECAY_TIMESCALE), rel=0.1)
        assert torch.equal(after["embeddings.norm.weight"], before["embeddings.norm.weight"])  # scales have no decay


def test_a_few_steps_do_not_erase_the_weights():
    name = "encoder.layers.0.attention.out.weight"
    after, before = halfway(8)
    assert float((after[name] / before[name]).median()) == pytest.approx((1 - MAX_DECAY_PER_STEP) ** 3, rel=1e-3)
    after, before = halfway(8, muon_learning_rate=0.0)
    assert torch.equal(after[name], before[name])


def test_a_weight_decay_that_is_given_stays():
    model = BertForPreTraining(BertConfig.preset("tiny", "modern", vocab_size=64))
    for given, optimizer in ((0.07, "muon"), (None, "adamw")):
        optimizers = Optimizers(model, optimizer=optimizer, weight_decay=given)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizers.update(1.0, step_share=0.5)
        decays = {g["weight_decay"] for part in optimizers.parts.values() for g in part.param_groups}
        assert decays == {0.0, given or DEFAULT_WEIGHT_DECAY}


def test_rates_fall_with_the_cube_root_of_the_budget():
    model = BertForPreTraining(BertConfig.preset("tiny", "modern", vocab_size=64))
    usual = {"adamw": DEFAULT_LEARNING_RATE, "muon": DEFAULT_MUON_LEARNING_RATE}

    def peaks(steps, **options):
        optimizers = Optimizers(model, **{"learning_rate": None, "muon_learning_rate": None, **options})
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizers.update(0.5, step_share=1 / steps)
        for name, optimizer in optimizers.parts.items():
            assert {group["lr"] for group in optimizer.param_groups} == {0.5 * optimizers.peaks[name]}
        return optimizers.peaks

    for steps, times in ((REFERENCE_STEPS, 1.0), (250, 2.0), (16_000, 0.5), (8, MAX_LR_SCALE)):
        assert peaks(steps) == pytest.approx({name: times * rate for name, rate in usual.items()})
    assert peaks(250, muon_learning_rate=0.05) == {"adamw": 2 * DEFAULT_LEARNING_RATE, "muon": 0.05}
    assert peaks(400, optimizer="adamw") == {"adamw": DEFAULT_LEARNING_RATE}  # not known to suit AdamW alone


def test_biases_and_gains_have_a_rate_of_their_own():
    model = BertForPreTraining(BertConfig.preset("tiny", "modern", vocab_size=64))
    optimizers = Optimizers(model, vector_scale=4.0)
    optimizers.set_rates({"adamw": 0.5, "muon": 0.25})
    groups = [group for part in optimizers.parts.values() for group in part.param_groups]
    rates = {parameter: group["lr"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        usual = 0.25 * DEFAULT_MUON_LEARNING_RATE if uses_muon(name, parameter) else 0.5 * DEFAULT_LEARNING_RATE
        assert rates[parameter] == (usual if parameter.ndim > 1 else 4.0 * usual), name
    optimizers.keep_rates_on_device(torch.device("cpu"))
    assert len({group["lr"].data_ptr() for group in groups}) == 3  # one for each rate


def test_the_rule_is_a_function_of_the_share_of_a_step():
    rule = HyperparameterRule.of(None, 0.05, None, muon=True)
    assert rule.at(0.0) == ({"adamw": DEFAULT_LEARNING_RATE, "muon": 0.05}, DEFAULT_WEIGHT_DECAY)
    peaks, decay = rule.at(1 / 16_000)
    assert peaks == {"adamw": pytest.approx(DEFAULT_LEARNING_RATE / 2), "muon": 0.05}
    assert decay == pytest.approx(1 / 16_000 / DECAY_TIMESCALE / 0.05)
    fixed = HyperparameterRule.of(None, None, None, muon=False)
    assert fixed.at(1 / 16_000) == ({"adamw": DEFAULT_LEARNING_RATE}, DEFAULT_WEIGHT_DECAY)


def test_bf16_gradients_are_those_of_autocast_uncast():
    """bf16 gradients of matrices stay bf16, and the step they lead to is that of their float32 copies."""
    if not hasattr(torch.Tensor, "grad_dtype") or ops.fused_adamw([torch.nn.Parameter(torch.zeros(2))]) is None:
        pytest.skip("needs torch with Tensor.grad_dtype and the C++ core")
    torch.manual_seed(0)
    config = BertConfig.preset("tiny", "classic", vocab_size=96)
    start = BertForPreTraining(config).state_dict()
    ids = torch.randint(5, 96, (4, 32))
    batch, _ = pack(ids)
    batch = replace(batch, masked_index=torch.arange(0, 128, 3), labels=ids.flatten()[::3])
    found = {}
    for narrow in (False, True):
        model = BertForPreTraining(config)
        model.load_state_dict(start)
        optimizers = Optimizers(model, optimizer="adamw", learning_rate=1e-3)
        optimizers.keep_bf16_gradients(narrow)
        with torch.autocast("cpu", torch.bfloat16):
            model(batch).loss.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None and p.ndim == 2}
        optimizers.step(1.0)
        found[narrow] = gradients, {n: p.detach().clone() for n, p in model.named_parameters()}
        # several passes in a step are summed in float32
        optimizers.keep_bf16_gradients(False)
        with torch.autocast("cpu", torch.bfloat16):
            model(batch).loss.backward()
        assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)
    (wide, wide_weights), (narrow_ones, weights) = found[False], found[True]
    products = ["embeddings.word.weight", *[n for n in wide if n.startswith("encoder.")]]
    assert len(products) == 9 and all(narrow_ones[n].dtype == torch.bfloat16 for n in products)
    for name, gradient in wide.items():
        if name == "embeddings.word.weight":  # rows of words are added to the product's before it is rounded
            torch.testing.assert_close(narrow_ones[name].float(), gradient, atol=1e-6, rtol=2**-8)
        else:
            assert torch.equal(narrow_ones[name].float(), gradient), name
            torch.testing.assert_close(weights[name], wide_weights[name], atol=1e-6, rtol=1e-5)
