"""The launches of an encoder layer, prepared: all that decides their numbers is in the kind of the call."""

import dataclasses
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from fastbert.kernels import gelu
from fastbert.kernels import norm as layer_norm
from fastbert.kernels.attention import op
from fastbert.kernels.attention.backward import launch_backward, needs_delta
from fastbert.kernels.attention.forward import launch_forward
from fastbert.kernels.dropout import seed_tensor
from fastbert.kernels.prepared import Prepared
from fastbert.kernels.rotary import turn_into

# the parameters of a layer, by their places: of the first half's norm (None without), its projections, the norm in the
# middle, the feed-forward projections, and the norm of the output (None without)
NORM, NORM_BIAS, QKV, QKV_BIAS, OUT, OUT_BIAS, MIDDLE, MIDDLE_BIAS, UP, UP_BIAS, DOWN, DOWN_BIAS, AFTER, AFTER_BIAS = (
    range(14)
)
# weights that products read and biases that they add: what is cast to the products' dtype
IN_PRODUCTS = operator.itemgetter(QKV, QKV_BIAS, OUT, OUT_BIAS, UP, DOWN, DOWN_BIAS)


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is equal in all calls with the same launches.

    Attributes:
        num_tokens, width, intermediate, num_heads: T, D, rows of the first feed-forward weight, N.
        max_seqlen: of the packed batch.
        window: the widest distance that attention sees; None: all.
        pre: the norms stand before the halves, not after them.
        x, residual, product: dtypes; of a sum's two parts, residual None where nothing is added, and of the products.
        parameters: dtype of each by its place in kernels.layer, None where there is none.
        eps: of the norms before, in the middle, and after.
        dropout_p, attention_p: of what is added to the stream, and of the attention's weights.
        exact, gated: GELU by erf, and GeGLU.
    """

    device: torch.device
    num_tokens: int
    width: int
    intermediate: int
    num_heads: int
    max_seqlen: int
    window: int | None
    pre: bool
    x: torch.dtype
    residual: torch.dtype | None
    product: torch.dtype
    parameters: Sequence[torch.dtype | None]
    eps: tuple[float, float, float]
    dropout_p: float
    attention_p: float
    exact: bool
    gated: bool


_NO_SEEDS = (None,) * 4


class LayerLaunches:
    """The prepared launchers of one kind of call, and the sizes of what they need.

    Attributes:
        sum_dtype, stream_dtype: of x + residual, and of the sum in the middle of the layer.
        active: width of what the activation makes.
        groups: of the partial sums in a norm's backward.
        casts: weights are cast to the products' dtype.
    """

    def __init__(self, kind: Kind):
        self.kind = kind
        k, self._shape = kind, (kind.num_tokens, kind.num_heads, kind.width // kind.num_heads)
        self.sum_dtype = k.x if k.residual is None else torch.promote_types(k.x, k.residual)
        self.stream_dtype = torch.promote_types(k.product, self.sum_dtype)
        self.active = k.intermediate // 2 if k.gated else k.intermediate
        self.groups = layer_norm.row_groups(k.num_tokens)[0]
        self.casts = any(dtype not in (None, k.product) for dtype in IN_PRODUCTS(k.parameters))
        self._window = op.NO_WINDOW if k.window is None or k.window >= k.max_seqlen - 1 else k.window
        self.needs_delta: bool | None = None  # as the first backward finds out
        self.gelu_groups: int | None = None
        first_p = 0.0 if k.residual is None else k.dropout_p
        self.norm, self.norm_backward = self._norm(k.eps[0], first_p)
        self.middle, self.middle_backward = self._norm(k.eps[1], k.dropout_p)
        self.after, self.after_backward = self._norm(k.eps[2], k.dropout_p)
        self.turn, self.turn_back = self._prepared(self._turn), self._prepared(self._turn_back)
        self.attention, self.attention_backward = self._prepared(self._attend), self._prepared(self._attend_backward)
        self.gelu = self._prepared(lambda *tensors: gelu.launch_forward(*tensors, k.exact, k.gated))
        self.gelu_backward = self._prepared(lambda *tensors: gelu.launch_backward(*tensors, k.exact, k.gated))

    def _prepared(self, launcher) -> Prepared:
        return Prepared(launcher, self.kind.device.index)

    def _norm(self, eps: float, dropout_p: float) -> tuple[Prepared, Prepared]:
        return (
            self._prepared(lambda *tensors: layer_norm.launch_forward(*tensors, eps, dropout_p)),
            self._prepared(lambda *tensors: layer_norm.launch_backward(*tensors, dropout_p)),
        )

    def draw_seeds(self) -> tuple[Tensor | None, ...]:
        """Of the dropout of x, of the attention's weights, of its output and of the feed-forward network's output."""
        kind = self.kind
        wanted = (
            kind.dropout_p and kind.residual is not None, kind.attention_p, kind.dropout_p,
            kind.dropout_p and not kind.pre,
        )  # fmt: skip
        return tuple([seed_tensor(None, kind.device) if p else None for p in wanted]) if any(wanted) else _NO_SEEDS

    # ---- attention, of heads (T, 3 D) and turned (T, 2 D) ----
    def _qkv(self, heads: Tensor, turned: Tensor | None) -> tuple[Tensor, ...]:
        num_tokens, num_heads, head_dim = self._shape
        q, k, v = heads.view(num_tokens, 3, num_heads, head_dim).unbind(1)
        if turned is not None:
            q, k = turned.view(num_tokens, 2, num_heads, head_dim).unbind(1)
        return q, k, v

    def _q_and_k(self, heads: Tensor) -> Tensor:
        num_tokens, num_heads, head_dim = self._shape
        return heads.view(num_tokens, -1, head_dim)[:, : 2 * num_heads]

    def _turn(self, turned: Tensor, heads: Tensor, cos: Tensor, sin: Tensor) -> None:
        turn_into(self._q_and_k(turned), self._q_and_k(heads), cos, sin, False)

    def _turn_back(self, heads: Tensor, cos: Tensor, sin: Tensor) -> None:
        both = self._q_and_k(heads)
        turn_into(both, both, cos, sin, True)

    def _options(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, seed: Tensor | None):
        kind, scale = self.kind, self._shape[2] ** -0.5
        rest = kind.max_seqlen, self._window, scale, kind.attention_p
        return op.launch_options(q, k, v, cu_seqlens, None, None, seed, *rest)

    def _attend(
        self, heads: Tensor, turned: Tensor | None, o: Tensor, lse: Tensor, cu_seqlens: Tensor, seed: Tensor | None
    ) -> None:
        qkv = self._qkv(heads, turned)
        launch_forward(*qkv, o.view(self._shape), lse, *self._options(*qkv, cu_seqlens, seed))

    def _attend_backward(
        self, grad: Tensor, heads: Tensor, turned: Tensor | None, o: Tensor, lse: Tensor, dheads: Tensor,
        delta: Tensor | None, cu_seqlens: Tensor, seed: Tensor | None,
    ) -> None:  # fmt: skip
        qkv, grads = self._qkv(heads, turned), self._qkv(dheads, None)
        options = self._options(*qkv, cu_seqlens, seed)
        launch_backward(*qkv, o.view(self._shape), grad.view(self._shape), lse, grads, delta, *options)

    # ---- what the first backward finds out ----
    def delta_like(self, lse: Tensor, heads: Tensor, cu_seqlens: Tensor, seed: Tensor | None) -> Tensor | None:
        """Memory for rowsum(O ∘ dO), where the attention's backward is several launches."""
        if self.needs_delta is None:
            qkv = self._qkv(heads, None)
            self.needs_delta = needs_delta(qkv[0], *self._options(*qkv, cu_seqlens, seed))
        return torch.empty_like(lse) if self.needs_delta else None

    def gelu_parts(self, pre: Tensor) -> Tensor:
        """Memory for the partial sums of the activation's bias gradient."""
        if self.gelu_groups is None:
            self.gelu_groups = -(-pre.shape[0] // gelu.rows_per_group(pre, self.kind.gated, True))
        return torch.empty((self.gelu_groups, pre.shape[1]), dtype=torch.float32, device=pre.device)
