"""The table of docs/drop-in.md, in both languages, says what :func:`ops.choose` and the checks before it do."""

import re
from pathlib import Path

import pytest
import torch

from fastbert import ops, reference
from fastbert.ops.choose import OPS

PAGES = {"drop-in.md": ("kernel", "reference", "refused"), "drop-in.pt-BR.md": ("kernel", "referência", "recusado")}
DOCS = Path(__file__).resolve().parent.parent / "docs"
if ops.choose("bias_gelu")[0] != "cpp":
    pytest.skip("the table is of a machine where the C++ kernels run", allow_module_level=True)

X, W, B = torch.randn(12, 64), torch.ones(64), torch.zeros(64)
Q = torch.randn(2, 6, 2, 32)
CU = torch.tensor([0, 5, 12], dtype=torch.int32)
MASK = torch.arange(6) < torch.tensor([[4], [6]])
IDS = torch.arange(12)


def feed_forward(x=X, up_bias=None, **options):
    return ops.feed_forward(x, W, B, torch.eye(128, 64), up_bias, torch.eye(64, 128), None, **options)


def self_attention(x=X, cu_seqlens=CU, qkv_weight=None, **options):
    qkv_weight = torch.eye(192, 64) if qkv_weight is None else qkv_weight
    weights = W, B, qkv_weight, None, torch.eye(64), None
    return ops.self_attention(x, *weights, cu_seqlens, 7, **{"num_heads": 2, **options})


def inside_torch_func():
    return torch.func.grad(lambda x: ops.bias_gelu(x).sum())(X)


# the row of the table, by its first two cells → the call
CALLS = {
    ("attention", "`(B, L, N, H)`"): lambda: ops.attention(Q, Q, Q),
    ("attention", "`cu_seqlens`"): lambda: ops.attention(*[X.view(12, 2, 32)] * 3, CU, 7),
    ("attention", "`window`, `scale`"): lambda: ops.attention(Q, Q, Q, window=2, scale=0.3),
    ("attention", "`attention_mask` 1…1 0…0"): lambda: ops.attention(Q, Q, Q, attention_mask=MASK),
    ("attention", "`attention_mask` 0…0 1…1"): lambda: ops.attention(Q, Q, Q, attention_mask=MASK.flip(1)),
    ("attention", "`attention_mask` 0 / -inf"): lambda: ops.attention(
        Q, Q, Q, attention_mask=torch.zeros(2, 6).masked_fill(~MASK, -torch.inf)
    ),
    ("attention", "`bias`"): lambda: ops.attention(Q, Q, Q, bias=torch.zeros(2, 6, 6)),
    ("attention", "`is_causal`"): lambda: ops.attention(Q, Q, Q, is_causal=True),
    ("attention", "k, v `(B, S, N, H)`"): lambda: ops.attention(Q, Q[:, :4], Q[:, :4]),
    ("attention", "k, v `(B, L, N / g, H)`"): lambda: ops.attention(Q, Q[:, :, :1], Q[:, :, :1]),
    ("attention", "H = 24"): lambda: ops.attention(*[Q[..., :24].contiguous()] * 3),
    ("attention", "H = 16, 32 … 128"): lambda: ops.attention(*[Q[..., :16].contiguous()] * 3),
    ("self_attention", "`cu_seqlens` int32"): self_attention,
    ("self_attention", "`cu_seqlens` float32"): lambda: self_attention(cu_seqlens=CU.float()),
    ("self_attention", "qkv_weight[:, ::2]"): lambda: self_attention(qkv_weight=torch.randn(192, 128)[:, ::2]),
    ("feed_forward", "`norm`, `mlp`, `approximate`"): lambda: feed_forward(norm="post", approximate="tanh"),
    ("feed_forward", '`mlp="swiglu"`'): lambda: feed_forward(mlp="swiglu"),
    ("add_layer_norm", "float32, bfloat16"): lambda: ops.add_layer_norm(X, X, W, B, 1e-5),
    ("add_layer_norm", "float16, float64"): lambda: ops.add_layer_norm(X.double(), None, W.double(), None, 1e-5),
    ("add_layer_norm", "residual `(1, D)`"): lambda: ops.add_layer_norm(X, X[:1], W, B, 1e-5),
    ("bias_gelu", "bias `(F,)`, `(1,)`"): lambda: ops.bias_gelu(X, torch.zeros(1)),
    ("bias_gelu", "bias `(F / 2,)`"): lambda: ops.bias_gelu(X, torch.zeros(32)),
    ("geglu", "x `(…, 2F)`"): lambda: ops.geglu(X),
    ("embed_layer_norm", "ids int32, int64"): lambda: ops.embed_layer_norm(IDS, IDS, None, X, X, None, W, B, 1e-5),
    ("masked_lm_loss", "labels `(M,)`"): lambda: ops.masked_lm_loss(X, torch.randn(50, 64), None, IDS),
    ("rotary", "x `(…, N, H)`"): lambda: ops.rotary(
        X.view(12, 2, 32), *reference.rotary_tables(IDS, 32, 1e4, torch.float32)
    ),
    ("bias_gelu", "`torch.func`, `jvp`, `jit.trace`"): inside_torch_func,
    ("bias_gelu", "FakeTensor, DTensor, …"): lambda: ops.bias_gelu(X.as_subclass(Other)),
}


class Other(torch.Tensor):
    """A subclass, as DTensor and quantised tensors are."""


def rows(page: str) -> dict[tuple[str, str], str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return {(op, what): who for op, what, who in re.findall(r"^\| `(\w+)` \| (.*?) \| (\w+) \|$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES)
def test_the_table_names_every_op(page):
    assert set(rows(page)) == set(CALLS)
    assert {op for op, _ in CALLS} == set(OPS)


@pytest.mark.parametrize("page", PAGES)
def test_the_code_runs_and_gives_its_shapes(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert names["out"].shape == (6, 2, 64) and names["weights"].shape == (2, 2, 6, 6)
    ((call, shape),) = re.findall(r"^(ops.*\.shape) +# → (\(.*\))$", code, re.MULTILINE)
    assert eval(call, names) == eval(shape)


@pytest.mark.parametrize("row", CALLS, ids=": ".join)
def test_a_row_is_true(row, monkeypatch):
    """Which module's function ran: the kernels', the reference's, or none."""
    ran = []
    for name, module in (("kernel", "fastbert.ops.cpu.public"), ("reference", "fastbert.reference")):
        for op in (*OPS, "qkv_attention"):
            spy(monkeypatch, module, op, name, ran)
    with torch.no_grad():
        try:
            CALLS[row]()
            found = ran[0]
        except (ValueError, RuntimeError) as error:
            found, ran = "refused", [str(error)]
    for page, (kernel, by_reference, refused) in PAGES.items():
        word = {"kernel": kernel, "reference": by_reference, "refused": refused}[found]
        assert rows(page)[row] == word, (page, ran)


def spy(monkeypatch, module, op, name, ran):
    import importlib

    home = importlib.import_module(module)
    if (stock := getattr(home, op, None)) is None:
        return

    def watched(*args, **kwargs):
        ran.append(name)
        return stock(*args, **kwargs)

    monkeypatch.setattr(home, op, watched)
