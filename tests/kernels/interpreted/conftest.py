"""Sets the interpreter up: the bf16 repair, and helpers on the path (pytest's importlib mode adds none)."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import interpreter_bf16
import torch

from fastbert.kernels import dispatch


@pytest.fixture(autouse=True)
def repaired_bfloat16(monkeypatch):
    monkeypatch.setattr(dispatch, "INTERPRETED_DTYPES", (torch.float16, torch.bfloat16, torch.float32))
    with interpreter_bf16.repaired():
        yield


# The interpreter takes minutes for all cases. Of these files the ordinary run tries each kernel forward and backward
# once a kind of dtype, and each of its paths; ``pytest -m slow`` tries the rest.
QUICK = {
    "test_attention.py": (
        "test_parity[one block-torch.float32]", "test_parity[one block-torch.bfloat16]",
        "test_parity[three kernels-torch.float32]", "test_parity[window, three kernels-torch.float16]",
        "test_parity[padding mask-torch.float32]", "test_parity[bias per sequence-torch.float32]",
        "test_nothing_to_see_gives_zeros_and_finite_gradients", "test_empty[shape0]", "test_empty[shape1]",
        "test_dropout_gradient_is_the_slope_of_its_own_forward[lengths0]",
    ),
    "test_rows.py": (
        "test_add_layer_norm[residual and sum-(5, 129)-torch.float32]",
        "test_add_layer_norm[plain-(1, 17)-torch.bfloat16]",
        "test_gelu[bias_gelu-True-none-(70, 66)-torch.float32]", "test_gelu[geglu-False-tanh-(1, 18)-torch.bfloat16]",
        "test_rotary[16-torch.float32]", "test_embed_layer_norm[all-torch.float32]",
        "test_embed_layer_norm[word only-torch.bfloat16]",
        "test_masked_lm_loss[(21, 290, 320)-8-torch.float32]", "test_masked_lm_loss[(1, 5, 64)-None-torch.bfloat16]",
        "test_masked_lm_loss_corners", "test_feed_forward[True-geglu-pre-torch.float32]",
        "test_feed_forward[False-gelu-post-torch.bfloat16]",
    ),
    "test_torch_integration.py": (
        "test_opcheck[attention]", "test_opcheck[masked_lm_loss]",
        "test_compile_and_checkpoint_change_nothing[attention]", "test_autocast",
        "test_the_dispatch_point_compiles_into_one_graph",
    ),
    "test_training.py": ("test_ten_steps[modern]",),
}  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for name, quick in QUICK.items():
        cases = {item.name: item for item in items if item.path.name == name}
        if len(cases) > len(quick) and (unknown := set(quick) - set(cases)):
            raise pytest.UsageError(f"{name} has no {sorted(unknown)}: change QUICK in {__file__}")
        for case in cases.keys() - set(quick):
            cases[case].add_marker(pytest.mark.slow)
