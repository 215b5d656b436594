"""Liger's row kernels compared with ours, compiled ahead of time by the same compiler and read by the same auditor.

``python kernels/audit/liger.py --target sm_90`` prints one table; it needs no GPU, and ``pip install --no-deps
liger-kernel`` (not a dependency). Both sides get bfloat16 at BERT-base's widths and the block sizes and warps of their
own launchers. GeGLU is the tanh form without a bias, the only one that Liger has; its embedding has no LayerNorm.

Legend: T rows, D hidden_size, F intermediate_size, V vocabulary.
"""

import argparse
import importlib
import importlib.metadata
import sys
from typing import Any

import torch
import triton
from audit import CHIPS, Report, audit
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fastbert.kernels import embed, gelu, loss, norm
from fastbert.kernels.launch import Config, Launch, recording

_T, _D, _F, _V = 4096, 768, 3072, 30528


def _tensor(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="cuda:0")


def our_launches(arch: str) -> dict[str, Launch]:
    """The same jobs as :func:`liger_launches`, from our launchers."""
    with FakeTensorMode(), recording(arch) as log:
        x, weight, ids = _tensor(_T, _D), _tensor(_D), _tensor(_T, dtype=torch.int64)
        y, _, mean, rstd = norm.forward(x, None, weight, weight, None, 1e-12, 0.0, False)
        norm.backward(y, None, x, weight, mean, rstd, None, 0.0, x.dtype, None)
        up = _tensor(_T, 2 * _F)
        gelu.backward(gelu.forward(up, None, False, True), up, None, False, True, False)
        embed.forward(ids, ids, ids, _tensor(_V, _D), _tensor(512, _D), _tensor(2, _D), weight, weight, 1e-12)
        loss.cross_entropy_in_place(_tensor(_T, _V), ids, 30522, True)
    names = ("LayerNorm forward", "LayerNorm backward", "GeGLU forward", "GeGLU backward", "embedding", "cross-entropy")
    return dict(zip(names, log, strict=True))


def _liger(module: str) -> Any:
    return importlib.import_module(f"liger_kernel.ops.{module}")


def liger_launches(arch: str) -> dict[str, Launch]:
    """Liger's kernels with the arguments of its launchers.

    Raises:
        ImportError: liger-kernel is not installed.
    """
    settings = _liger("utils").calculate_settings
    layer_norm, geglu, cross_entropy = (_liger(name) for name in ("layer_norm", "geglu", "cross_entropy"))
    embedding = _liger("experimental.embedding")

    def made(kernel: Any, num_warps: int, **arguments: Any) -> Launch:
        return Launch(kernel, _T, Config({}, num_warps, 3), arguments)

    with FakeTensorMode():
        x, y, weight, rows = _tensor(_T, _D), _tensor(_T, _D), _tensor(_D), _tensor(_T, dtype=torch.float32)
        part, inner, ids = _tensor(132, _D, dtype=torch.float32), _tensor(_T, _F), _tensor(_T, dtype=torch.int64)
        logits = _tensor(_T, _V)
    block, warps = settings(_D)
    wide, wide_warps = settings(_F)
    gated = {"a": inner, "b": inner, "stride": _F, "n_cols": _F, "BLOCK_SIZE": wide}
    side = triton.next_power_of_2(min(128, _D))
    return {
        "LayerNorm forward": made(
            layer_norm._layer_norm_forward_kernel, warps, Y_ptr=y, Y_row_stride=_D, X_ptr=x, X_row_stride=_D,
            W_ptr=weight, W_row_stride=1, B_ptr=weight, B_row_stride=1, Mean_ptr=rows, Mean_row_stride=1, RSTD_ptr=rows,
            RSTD_row_stride=1, n_cols=_D, eps=1e-12, BLOCK_SIZE=block,
        ),
        "LayerNorm backward": made(
            layer_norm._layer_norm_backward_kernel, warps, X_ptr=x, stride_x=_D, W_ptr=weight, Mean_ptr=rows,
            stride_mean=1, RSTD_ptr=rows, stride_rstd=1, DX_ptr=y, stride_dx=_D, DW_ptr=part, stride_dw=_D,
            DB_ptr=part, stride_db=_D, DY_ptr=y, stride_dy=_D, n_rows=_T, n_cols=_D, rows_per_program=32,
            BLOCK_SIZE=block, COMPUTE_DW=True, COMPUTE_DB=True,
        ),
        "GeGLU forward": made(geglu._geglu_tanh_forward_kernel, wide_warps, c=inner, **gated),
        "GeGLU backward": made(geglu._geglu_tanh_backward_kernel, wide_warps, dc=inner, **gated),
        "embedding": made(
            embedding.embedding_forward_kernel, 4, embeddings_ptr=_table(), indices_ptr=ids, output_ptr=y,
            n_elements=_T, embedding_dim=_D, BLOCK_SIZE_M=side, BLOCK_SIZE_N=side,
        ),
        "cross-entropy": made(
            cross_entropy.liger_cross_entropy_kernel, 8 if arch in ("sm_100", "sm_120") else 32, X_ptr=logits,
            X_stride=_V, Y_ptr=ids, Y_stride=1, weight_ptr=None, loss_ptr=rows, z_loss_ptr=None, loss_stride=1,
            token_accuracy_ptr=None, token_accuracy_stride=0, predicted_tokens_ptr=None, predicted_tokens_stride=0,
            n_cols=_V, n_non_ignore=_T, sum_non_ignore_weight=_T, weight_sum=0.0, ignore_index=-100,
            lse_square_scale=0.0, label_smoothing=0.0, reduction="mean", softcap=None, RETURN_Z_LOSS=False,
            RETURN_TOKEN_ACCURACY=False, RETURN_PREDICTED_TOKENS=False,
            BLOCK_SIZE=min(cross_entropy.MAX_FUSED_SIZE, triton.next_power_of_2(_V)), HAS_WEIGHT=False,
            HAS_SOFTCAPPING=False, HAS_GRADIENTS=True,
        ),
    }  # fmt: skip


def _table() -> Tensor:
    with FakeTensorMode():
        return _tensor(_V, _D)


def occupancy(report: Report, launch: Launch) -> float:
    """Share of an SM's warps that can be resident at once."""
    return report.resident_blocks * launch.config.num_warps / CHIPS[int(report.target[3:])].warps


def access_bytes(report: Report) -> int:
    """Bytes a lane moves in the widest load or store that is not alone of its kind."""
    return max((int(access.split()[1]) for access in report.widths), default=0)


def compare(target: str) -> dict[str, tuple[tuple[Report, float], tuple[Report, float]]]:
    """Job → ours and Liger's, each (report, occupancy)."""
    sides = our_launches(target), liger_launches(target)
    return {
        name: tuple((report := audit(side[name], target), occupancy(report, side[name])) for side in sides)  # type: ignore[misc]
        for name in sides[0]
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python kernels/audit/liger.py", description=__doc__)
    parser.add_argument("--target", default="sm_90", choices=[f"sm_{n}" for n in CHIPS], help="default sm_90")
    target = parser.parse_args(arguments).target
    try:
        version = importlib.metadata.version("liger-kernel")
    except importlib.metadata.PackageNotFoundError:
        print("skipped: liger-kernel is not installed. Remedy: pip install --no-deps liger-kernel")
        return 0
    print(
        f"{target}, bfloat16, D {_D}, F {_F}, V {_V}; Triton {triton.__version__}, liger-kernel {version}; ours / Liger"
    )
    print("| kernel | registers | warps resident | widest access, bytes | spills, bytes | shared, bytes |")
    print("|---|---|---|---|---|---|")
    for name, ((ours, our_share), (theirs, their_share)) in compare(target).items():
        cells = [
            f"{ours.registers} / {theirs.registers}",
            f"{our_share:.0%} / {their_share:.0%}",
            f"{access_bytes(ours)} / {access_bytes(theirs)}",
            f"{ours.spill_bytes} / {theirs.spill_bytes}",
            f"{ours.shared_bytes} / {theirs.shared_bytes}",
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
