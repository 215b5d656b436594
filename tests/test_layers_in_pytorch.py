"""Layers, ops and accelerated models under what PyTorch and others do to modules: compilers, modes, sharding, tools.

The real packages of the slow part (peft, torchao, accelerate, Lightning, ema-pytorch) are optional.
"""

import copy
import dataclasses
import io

import pytest
import torch
import torch._dynamo
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils.flop_counter import FlopCounterMode

import fastbert
from fastbert import layers, ops
from fastbert.config import BertConfig
from fastbert.model import BertForPreTraining
from fastbert.optim.adamw import AdamW

CU = torch.tensor([0, 5, 12], dtype=torch.int32)
SIZES = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128, "num_hidden_layers": 2}
CONFIG = BertConfig(
    vocab_size=100, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **SIZES  # type: ignore[arg-type]
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore")


def close(a, b, tolerance=1e-4):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def stock_bert():
    transformers = pytest.importorskip("transformers")
    return transformers.BertModel(transformers.BertConfig(vocab_size=90, **SIZES)).eval()


IDS = torch.arange(30).view(3, 10) + 5


# ---- compilers ----
@pytest.fixture
def fresh_dynamo():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters
    torch._dynamo.reset()


def test_one_graph_without_breaks_for_all_lengths(fresh_dynamo):
    encoder = layers.Encoder(dataclasses.replace(CONFIG, num_hidden_layers=1))
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    for length in (5, 6, 9):
        x = torch.randn(2, length, 64)
        close(compiled(x), encoder(x))
    assert fresh_dynamo["stats"]["unique_graphs"] <= 2  # one for the first length, one for any
    for lengths in ((5, 7), (4, 6), (3, 8)):
        x = torch.randn(sum(lengths), 64)
        cu_seqlens = torch.tensor([0, lengths[0], sum(lengths)], dtype=torch.int32)
        close(compiled(x, None, cu_seqlens, max(lengths)), encoder(x, None, cu_seqlens, max(lengths)))
    assert fresh_dynamo["stats"]["unique_graphs"] <= 4


def test_strict_export():
    encoder = layers.Encoder(dataclasses.replace(CONFIG, num_hidden_layers=1)).eval()
    x = torch.randn(2, 6, 64)
    close(torch.export.export(encoder, (x,), strict=True).module()(x), encoder(x))


@pytest.mark.slow
def test_an_accelerated_model_has_no_graph_breaks(fresh_dynamo):
    model = stock_bert()
    right = model(IDS).last_hidden_state
    fastbert.accelerate(model)
    close(torch.compile(model, backend="eager")(IDS).last_hidden_state, right)
    assert not fresh_dynamo["graph_break"]


@pytest.mark.slow
def test_inductor_and_its_gradients(fresh_dynamo):
    encoder, x = layers.Encoder(CONFIG), torch.randn(2, 6, 64, requires_grad=True)
    compiled = torch.compile(encoder, fullgraph=True)
    (found,), (right,) = (torch.autograd.grad(f(x).square().sum(), x) for f in (compiled, encoder))
    close(found, right, 1e-3)


# ---- modes and tensors of other kinds ----
def test_a_trace_follows_its_input():
    encoder, x = layers.Encoder(CONFIG).eval(), torch.randn(2, 6, 64)
    with torch.no_grad():
        traced = torch.jit.trace(encoder, (x,), check_trace=False)
        close(traced(x + 1), encoder(x + 1))


def test_default_device_fake_tensors_and_flops():
    encoder, x = layers.Encoder(CONFIG), torch.randn(12, 64)
    with torch.device("meta"):
        encoder(x, torch.arange(12, device="cpu"), CU, 7)
    with FakeTensorMode():
        assert layers.Encoder(CONFIG)(torch.randn(2, 6, 64)).shape == (2, 6, 64)
    with FlopCounterMode(display=False) as counter:
        encoder(x, None, CU, 7)
    assert counter.get_total_flops() >= 2 * 12 * 64 * 64 * 2 * 8  # two layers of 3 + 1 + 2 + 2 square products


@pytest.fixture
def mesh(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_distributed_tensors_and_tensor_parallelism(mesh):
    x = torch.randn(12, 64)
    found = ops.bias_gelu(distribute_tensor(x, mesh, [Replicate()]))
    close(found.full_tensor(), F.gelu(x))
    feed_forward = layers.FeedForward(64, 128)
    right = feed_forward(x)
    parallelize_module(feed_forward, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
    close(feed_forward(x), right)


def test_inference_mode_before_training():
    hidden, labels = torch.randn(300, 64).bfloat16(), torch.randint(0, 50, (300,))
    weight = torch.randn(50, 64).bfloat16().requires_grad_()
    with torch.inference_mode():
        ops.masked_lm_loss(hidden, weight, None, labels)
    ops.masked_lm_loss(hidden[:10].clone(), weight, None, labels[:10]).backward()
    assert weight.grad.isfinite().all()


def test_dynamic_quantisation_is_called():
    encoder, x = layers.Encoder(CONFIG).eval(), torch.randn(12, 64)
    right = encoder(x, None, CU, 7)
    quantised = torch.ao.quantization.quantize_dynamic(encoder, {nn.Linear})
    with torch.no_grad():
        found = quantised(x, None, CU, 7)
    assert 1e-5 < (found - right).abs().max() < 0.1


def test_weights_saved_with_keep_vars_load_safely():
    model = BertForPreTraining(CONFIG)
    with torch.autocast("cpu", torch.bfloat16):
        model(IDS, labels=IDS).loss.backward()
    file = io.BytesIO()
    torch.save(model.state_dict(keep_vars=True), file)
    file.seek(0)
    assert torch.load(file, weights_only=True).keys() == model.state_dict().keys()


# ---- bfloat16 copies of weights that an optimizer wrote ----
def _numpy(parameters):
    for p in parameters:
        p.detach().numpy()[...] *= 0.5


CHANGES = {
    "an average is copied in": lambda ps: [p.data.copy_(torch.randn(p.shape)) for p in ps],
    "multiplied": lambda ps: [p.data.mul_(0.5) for p in ps],
    "numpy": _numpy,
    "another fused optimizer": lambda ps: torch.optim.AdamW(ps, lr=0.1, fused=True).step(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_copies_follow_weights_written_past_the_counter(change):
    encoder, x = layers.Encoder(CONFIG), torch.randn(12, 64)
    optimizer = AdamW(encoder.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            encoder(x, None, CU, 7).square().sum().backward()
        optimizer.step()
    CHANGES[change](list(encoder.parameters()))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder(x, None, CU, 7), copy.deepcopy(encoder)(x, None, CU, 7))


# ---- real packages ----
@pytest.mark.slow
@pytest.mark.parametrize("packed", [True, False])
def test_peft(packed):
    peft = pytest.importorskip("peft")
    encoder, x = layers.Encoder(CONFIG).eval(), torch.randn(12, 64)

    def run(module):
        return module(x, None, CU, 7) if packed else module(x.view(2, 6, 64))

    before = run(encoder)
    names = ["qkv", "out", "up", "down"]
    config = peft.LoraConfig(target_modules=names, r=4, init_lora_weights=False)
    adapted = peft.get_peft_model(encoder, config).eval()
    after = run(adapted)
    assert (after - before).abs().max() > 1e-3
    for module in encoder.modules():
        module.impl = "reference"
    close(after, run(adapted))
    close(run(adapted.merge_and_unload()), after)


@pytest.mark.slow
def test_peft_before_and_after_accelerate():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["query", "dense"], r=4, init_lora_weights=False)
    model = peft.get_peft_model(stock_bert(), config).eval()
    right = model(IDS).last_hidden_state
    fastbert.accelerate(model)
    close(model(IDS).last_hidden_state, right)


@pytest.mark.slow
def test_torchao():
    quantization = pytest.importorskip("torchao.quantization")
    encoder, x = layers.Encoder(CONFIG).eval(), torch.randn(12, 64)
    right = encoder(x, None, CU, 7)
    with torch.no_grad():
        quantization.quantize_(encoder, quantization.Int8WeightOnlyConfig())
        found = encoder(x, None, CU, 7)
    assert 1e-6 < (found - right).abs().max() < 0.1


@pytest.mark.slow
def test_accelerates_offload():
    accelerate = pytest.importorskip("accelerate")
    cpu = torch.device("cpu")
    encoder, x = layers.Encoder(CONFIG).eval(), torch.randn(2, 6, 64)
    model = stock_bert()
    with torch.no_grad():
        right, right_hf = encoder(x), model(IDS).last_hidden_state
        accelerate.cpu_offload(encoder, execution_device=cpu)
        close(encoder(x), right)
        accelerate.cpu_offload(model, execution_device=cpu)
        fastbert.accelerate(model)
        close(model(IDS).last_hidden_state, right_hf)


@pytest.mark.slow
def test_lightning(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.losses = BertForPreTraining(CONFIG), []

        def training_step(self, batch, _):
            loss = self.model(batch, labels=batch).loss
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self):
            return AdamW(self.parameters(), lr=1e-2)

    module = Module()
    data = torch.utils.data.DataLoader(IDS.repeat(20, 1), batch_size=6)
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, data)
    assert len(module.losses) == 20 and module.losses[-1] < module.losses[0] / 2


@pytest.mark.slow
def test_ema_pytorch():
    ema_pytorch = pytest.importorskip("ema_pytorch")
    from fastbert.batch import pack
    from fastbert.inference.frozen_model import FrozenModel

    model = BertForPreTraining(CONFIG).eval()
    ema = ema_pytorch.EMA(model, beta=0.5, update_after_step=0, update_every=1)
    frozen = FrozenModel(ema.ema_model.eval(), torch.float32)
    batch, _ = pack(IDS)
    answers = []
    with torch.no_grad():
        for _ in range(3):
            for p in model.parameters():
                p.add_(torch.randn(p.shape) * 0.1)
            ema.update()
            answers.append(frozen.encode(batch))
            close(answers[-1], ema.ema_model.encode(batch))
    assert not torch.equal(answers[1], answers[2])
