"""The static configuration table of attention: the largest tiles that compile without spills, and by the length of the
sequences smaller ones of which several fit an SM.

Found with ``python kernels/audit/audit.py`` on Triton 3.7.1, 23 November 2026; none has been timed yet. An entry is
(BLOCK_M queries, BLOCK_N keys, warps, stages); the one-block backward takes all keys, so BLOCK_N follows the
length, and None sends the case to the three-kernel backward.
"""

from collections.abc import Mapping
from typing import Any

import triton

from fastbert.kernels import configs
from fastbert.kernels.launch import Config, next_power_of_2

ONE_BLOCK_MAX = 128
_FAMILIES = {"sm_90": "hopper", "sm_100": "sm_100", "sm_103": "sm_100", "sm_120": "sm_120", "gfx942": "gfx942"}
# options of a call, the one that costs most registers first; masks are free with a bias or dropout
_VARIANTS = ("both", "bias", "dropout", "masked", "plain")

Tile = tuple[int, int, int, int] | None


def _row(both: Tile, bias: Tile, dropout: Tile, masked: Tile, plain: Tile) -> dict[str, Tile]:
    return dict(zip(_VARIANTS, (both, bias, dropout, masked, plain), strict=True))


# Triton 3.6 spills 16 bytes in the gradient of the keys on sm_80 at the tile that 3.7 fits
_OLD_TRITON = tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7)
_L, _M, _S = (128, 128, 8, 2), (128, 64, 8, 2), (64, 64, 8, 2)
_M1 = (128, 64, 8, 1)
_K, _KS, _KT = (64, 128, 8, 2), (32, 64, 8, 2), (64, 32, 8, 2)
_O64, _O32, _O16 = (64, 0, 8, 2), (32, 0, 8, 2), (16, 0, 8, 2)
# head_dim up to 64, two bytes an element: family → kernel → variant
_NARROW = {
    "hopper": {
        "forward": _row(_M, _M, _M, _L, _L),
        "one_block": _row(_O32, _O32, _O32, _O64, _O64),
        "keys": _row(_KS, _KS, _KS, _K, _K),
        "queries": _row(_S, _S, _S, _M, _M),
    },
    "ampere": {
        "forward": _row(_S, _M, _M, _M, _L),
        "one_block": _row(None, _O32, _O32, _O32, _O32),
        "keys": _row(_KT, _KS, _KS, _KS, _KS if _OLD_TRITON else _K),
        "queries": _row(_KS, _KS, _S, _M, _M),
    },
    "sm_120": {
        "forward": _row(_S, _S, _S, _M, _L),
        "one_block": _row(None, _O16, _O16, _O16, _O32),
        "keys": _row(_KT, _KT, _KT, _KS, _K),
        "queries": _row(_KS, _KS, _S, _M, _M),
    },
    "gfx942": {
        "forward": _row(_M, _M, _M, _M, _M),
        "one_block": _row(None, (32, 0, 8, 1), (32, 0, 8, 1), (32, 0, 8, 1), (32, 0, 8, 1)),
        "keys": _row((32, 64, 8, 1), (32, 64, 8, 1), (32, 64, 8, 1), (32, 64, 8, 1), (64, 128, 8, 1)),
        "queries": _row(_M1, _M1, _M1, _M1, _M1),
    },
}
# as Hopper, except for a mask with the gradient of the keys, which spills there
_NARROW["sm_100"] = _NARROW["hopper"] | {"keys": _row(_KS, _KS, _KS, _KS, _K)}
# head_dim 128
_WIDE = {
    "hopper": {
        "forward": _row(_M, _M, _M, _L, _L),
        "one_block": _row(None, None, None, _O32, _O32),
        "keys": _row(_KS, _KS, _KS, _S, _S),
        "queries": _row(_S, _S, _S, _M, _M),
    },
    "ampere": {
        "forward": _row(_KS, (32, 32, 4, 1), (32, 32, 4, 1), (64, 64, 4, 2), (32, 32, 4, 1)),
        "one_block": _row(None, None, None, None, None),
        "keys": _row(_KS, _KS, _KS, _S, _S),
        "queries": _row(_S, _S, _S, _S, _S),
    },
}
# up to so many tokens a sequence has tiles of its own; None: the tables above
BUCKETS = (32, 64, 128, 512)
_B16, _B32, _B64 = (16, 32, 4, 1), (32, 64, 4, 1), (64, 64, 4, 1)


def _short(kind: str, bucket: int, family: str, variant: str) -> Tile:
    """Small tiles with 4 warps, of which two programs or more fit an SM: a short sequence fills no large one.

    packed-encoders 0.2.0 publishes that such tiles beat FlashAttention's at lengths up to 128 (H200, October 2026).
    """
    if bucket == 32:
        return _B16
    if bucket == 64 and kind == "forward":
        light = variant in ("plain", "masked") or family in ("hopper", "sm_100")
        return _B64 if light else _B32
    if bucket == 64:
        light = variant in ("plain", "masked") and family == "hopper"
        return _B64 if light or family == "sm_100" else _B32
    if variant != "plain" or family not in ("hopper", "ampere"):
        return None
    if kind == "one_block":
        return (16, 0, 4, 1) if family == "hopper" else None
    if bucket == 128:
        return (64, 128, 4, 1) if family == "hopper" else _B64
    return 64, 128, 4, 2


_INTERPRETED = {
    "forward": (32, 32, 4, 1),
    "one_block": (16, 0, 4, 1),
    "keys": (16, 32, 4, 1),
    "queries": (32, 16, 4, 1),
}


def bucket_of(max_seqlen: int) -> int | None:
    """The least of :data:`BUCKETS` that holds the longest sequence; None: longer than all."""
    return next((bucket for bucket in BUCKETS if max_seqlen <= bucket), None)


def variant_of(arguments: Mapping[str, Any]) -> str:
    if arguments["DROPOUT"] and arguments["HAS_BIAS"]:
        return "both"
    if arguments["HAS_BIAS"]:
        return "bias"
    if arguments["DROPOUT"]:
        return "dropout"
    return "masked" if arguments["HAS_MASK"] or arguments["HAS_WINDOW"] else "plain"


def tile_of(kind: str, arch: str, itemsize: int, head_dim: int, max_seqlen: int, arguments: Mapping[str, Any]) -> Tile:
    """The table's entry for "forward", "one_block", "keys" or "queries"; None: this kernel does not serve the case."""
    if kind == "one_block" and max_seqlen > (64 if arch == "interpreter" else ONE_BLOCK_MAX):
        return None
    if arch == "interpreter":
        return _INTERPRETED[kind]
    if itemsize == 4:
        if kind == "one_block":
            return None
        if head_dim <= 64:
            return 16, 32, 4, 1
        return 16, 16, 8 if kind == "forward" else 4, 1
    family = _FAMILIES.get(arch, "ampere")
    wide = _WIDE["hopper" if family == "sm_100" else "ampere" if family not in _WIDE else family]
    table = _NARROW[family] if head_dim <= 64 else wide
    tile, variant, bucket = table[kind][variant_of(arguments)], variant_of(arguments), bucket_of(max_seqlen)
    if tile is None or head_dim > 64 or bucket is None or kind not in ("forward", "one_block"):
        return tile
    return _short(kind, bucket, family, variant) or tile


def config_of(
    kind: str, arch: str, itemsize: int, head_dim: int, max_seqlen: int, arguments: Mapping[str, Any]
) -> Config | None:
    """The configuration to launch with, tuned or static; None if :func:`tile_of` returns none."""
    tile = tile_of(kind, arch, itemsize, head_dim, max_seqlen, arguments)
    if tile is None:
        return None
    block_m, block_n, num_warps, num_stages = tile
    if kind == "one_block":
        block_n = max(16, next_power_of_2(max_seqlen)) if arch == "interpreter" else max(bucket_of(max_seqlen) or 0, 16)
    elif kind == "forward" and max_seqlen <= 64:
        block_n = min(block_n, 64)
    op = f"attention_{kind if kind == 'forward' else 'backward_' + kind}_{variant_of(arguments)}"
    size = f"{head_dim}x{bucket_of(max_seqlen) or 'long'}"
    return configs.pick(op, arch, itemsize, size, configs.tile(block_m, block_n, num_warps, num_stages))
