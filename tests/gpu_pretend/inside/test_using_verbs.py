"""Every use of a trained model on the pretended GPU, against the reference on the CPU."""

import json

import numpy as np
import pytest
import torch

import fastbert
import support

TEXTS = ["O gato preto dorme na cama.", "a menina feliz", "", "o rei come pão azul e a menina dorme"]
ARCHS = ("modern", "roformer", "classic")


@pytest.fixture(params=ARCHS)
def pair(request, models, monkeypatch):
    """(on the GPU, on the CPU by the reference)."""
    folder = models[request.param]
    return fastbert.load(folder, device="cuda"), fastbert.load(folder, impl="reference")


def close(ours, right, tolerance=2e-4):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(right), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("arch", ARCHS)
def test_embed(models, arch):
    reference = fastbert.load(models[arch], impl="reference", precision="fp32")
    for pooling in ("mean", "cls", "max"):
        right = reference.embed(TEXTS, pooling=pooling)
        for impl in ("auto", "triton"):
            ours = fastbert.load(models[arch], device="cuda", impl=impl, precision="fp32")
            close(ours.embed(TEXTS, pooling=pooling), right)


def test_embed_takes_bfloat16_where_the_gpu_is_quick_at_it(models):
    bert = fastbert.load(models["modern"], device="cuda")
    assert bert._frozen.dtype == torch.bfloat16
    right = fastbert.load(models["modern"], impl="reference", precision="fp32").embed(TEXTS)
    cosines = (bert.embed(TEXTS) * right).sum(-1)
    assert cosines.min() >= 0.999


@pytest.mark.parametrize("method", ["independent", "best-first", "beam", "exact"])
def test_fill_mask(pair, method):
    text = "o [MASK] preto [MASK] na cama."
    ours, right = (one.fill_mask(text, method=method, passes=20) for one in pair)
    assert json.dumps(_strings(ours)) == json.dumps(_strings(right))


def _strings(x):
    """Answers without their scores, whose last digits may differ."""
    if isinstance(x, dict):
        return {key: _strings(value) for key, value in x.items() if isinstance(value, str | list | dict)}
    return [_strings(one) if isinstance(one, list | dict) else one for one in x]


def test_score(pair):
    texts = [text for text in TEXTS if text]
    close(*(one.score(texts) for one in pair))


def test_generate(pair):
    ours, right = (one.generate("o gato", 4, seed=1) for one in pair)
    assert ours == right


def test_attention_maps(pair):
    (tokens, ours), (_, right) = (one.attention(TEXTS[0]) for one in pair)
    assert len(tokens) > 4
    close(ours, right)


def test_next_sentence(models):
    ours, right = (
        fastbert.load(models["classic"], **options).next_sentence("o gato dorme", "na cama")
        for options in ({"device": "cuda"}, {"impl": "reference"})
    )
    close(ours, right)


def test_a_padded_call_gives_loss_and_gradients(pair):
    ids = torch.randint(5, 60, (2, 6))
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[1, 4:] = 0
    labels = torch.full((2, 6), -100)
    labels[0, 1], labels[1, 2] = 7, 9
    results = []
    for one, device in zip(pair, ("cuda", "cpu"), strict=True):
        out = one.model(ids.to(device), mask.to(device), labels=labels.to(device))
        out.loss.backward()
        norm = sum(float(p.grad.double().square().sum()) for p in one.model.parameters() if p.grad is not None)
        results.append((float(out.loss), norm**0.5, out.prediction_logits.detach().cpu().numpy()))
    close(results[0][:2], results[1][:2])
    close(results[0][2], results[1][2])


TASKS = {
    "classification": [{"text": "o gato preto", "label": "x"}, {"text": "a menina feliz", "label": "y"}] * 6,
    "regression": [{"text_a": "o gato", "text_b": "o rei", "label": 0.5},
                   {"text_a": "pão", "text_b": "azul", "label": 1.5}] * 6,
    "tagging": [{"tokens": ["o", "gato", "preto"], "tags": ["O", "B-X", "I-X"]}] * 8,
    "qa": [{"question": "quem", "context": "o rei dorme", "answers": [{"text": "rei", "answer_start": 2}]}] * 8,
}  # fmt: skip


@pytest.mark.parametrize("task", [t if t == "tagging" else pytest.param(t, marks=pytest.mark.slow) for t in TASKS])
def test_finetune_and_predict(models, work, task):
    rows = work / f"{task}.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in TASKS[task]))
    common = (models["modern"], "--task", task, "--train", rows, "--eval", rows, "--epochs", 1, "--batch-size", 4,
              "--threads", 1, "--dropout", 0, "--precision", "fp32")  # fmt: skip
    answers = []
    for device, environment in (("cuda", {}), ("cpu", {"FASTBERT_IMPL": "reference"})):
        output = work / f"finetuned-{task}-{device}"
        done = support.command(
            "fastbert.finetune", *common, "--output", output, "--device", device, cwd=work, **environment
        )
        assert done.returncode == 0, done.stderr[-3000:]
        extra = ("--question", "quem") if task == "qa" else ()
        text = "o gato\to rei" if task == "regression" else "o rei dorme"
        done = support.command(
            "fastbert.predict", output, text, "--device", device, "--json", *extra, cwd=work, **environment
        )
        assert done.returncode == 0, done.stderr[-3000:]
        answers.append(json.loads(done.stdout))
    assert json.dumps(_strings([answers[0]])) == json.dumps(_strings([answers[1]]))


@pytest.mark.slow
def test_contrastive(models, work):
    texts = work / "texts.txt"
    texts.write_text("\n".join(["o gato preto", "a menina feliz", "na cama azul", "o rei come"]) + "\n")
    for device, impl in (("cuda", "auto"), ("cuda", "triton")):
        output = work / f"contrastive-{impl}"
        done = support.command(
            "fastbert.contrastive", models["modern"], "--train", texts, "--output", output, "--batch-size", 2,
            "--device", device, "--max-length", 16, cwd=work, FASTBERT_IMPL=impl,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    close(*(fastbert.load(work / f"contrastive-{impl}").embed(TEXTS) for impl in ("auto", "triton")))


@pytest.mark.parametrize("family", ["bert", "modernbert"])
@pytest.mark.parametrize("drop_padding", [False, True])
def test_accelerate(family, drop_padding):
    transformers = pytest.importorskip("transformers")
    sizes = {
        "vocab_size": 100,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 96,
    }
    torch.manual_seed(0)
    if family == "bert":
        model = transformers.BertModel(transformers.BertConfig(**sizes)).eval()
    else:
        ids = {name: 0 for name in ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")}
        model = transformers.ModernBertModel(transformers.ModernBertConfig(**sizes, **ids)).eval()
    ids, mask = torch.randint(5, 90, (2, 6)), torch.ones(2, 6, dtype=torch.long)
    mask[1, 3:] = 0
    right = model(ids, attention_mask=mask).last_hidden_state.detach()[mask.bool()]
    model.to("cuda")
    fastbert.accelerate(model, drop_padding=drop_padding)
    out = model(ids.to("cuda"), attention_mask=mask.to("cuda")).last_hidden_state
    out.sum().backward()
    close(out.detach().cpu()[mask.bool()], right, 1e-3)


def test_layers_in_a_model_of_ones_own():
    from fastbert import layers

    torch.manual_seed(0)
    attention, x = layers.MultiHeadAttention(64, 4), torch.randn(2, 8, 64)
    right = attention(x)
    attention.to("cuda")
    close(attention(x.to("cuda")).detach().cpu(), right.detach())


@pytest.mark.slow
def test_export_of_a_model_on_the_device(models, work):
    pytest.importorskip("onnxscript")
    fastbert.load(models["modern"], device="cuda").to_onnx(work / "model.onnx")
    assert (work / "model.onnx").stat().st_size > 10_000
