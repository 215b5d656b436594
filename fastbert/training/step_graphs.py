"""The device's work of a training step as two CUDA graphs: the host gives two orders where it gave hundreds.

One graph is a forward and backward pass, replayed for each micro-batch; the other clips the gradients, checks loss and
norm, and updates the weights. A graph keeps shapes, addresses and every number that the host gave, so what changes from
step to step lies in tensors: the batch (:mod:`fastbert.training.static_batch`) and the rates. PyTorch registers the
generator of dropout with a graph and moves it on at each replay.

Reference: PyTorch's notes on CUDA semantics, "CUDA Graphs".
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from fastbert.batch import PackedBatch
from fastbert.data import BatchLoader
from fastbert.data.batches.mixed_loader import MixedLoader
from fastbert.distributed.parallelism import Parallelism
from fastbert.distributed.world import take
from fastbert.system.errors import InputError
from fastbert.training.late_readings import LateReadings
from fastbert.training.loss_shares import shares_of, weighted_loss
from fastbert.training.plan import TrainingPlan
from fastbert.training.static_batch import StaticBatch, StaticShape

WARM_UPS = 2  # steps before the capture: kernels are compiled, libraries choose theirs, the optimizers have state
Autocast = Callable[[], AbstractContextManager]


def capture_step(
    plan: TrainingPlan,
    parallelism: Parallelism,
    readings: LateReadings | None,
    loader: BatchLoader | MixedLoader,
    autocast: Autocast,
    log: Callable[[str], None],
) -> "StepGraphs | None":
    """The step as graphs, as ``--cuda-graphs`` wants it; None: each kernel is launched by itself, and the log says why.

    Raises:
        InputError: ``--cuda-graphs on``, and the capture fails.
    """
    if plan.cuda_graphs == "off":
        return None
    if (reason := plan.eager_reason) is None:
        assert readings is not None
        shape = StaticShape.of(plan, loader)
        batch = next(loader.evaluation_batches(plan.mask_rate.rate(0.0), max_tokens=plan.max_length))
        first = take(batch, batch.num_sequences, 0)
        accumulates = plan.batch_ramp.most * plan.micro_batches > 1
        try:
            place = StaticBatch(shape, first, plan.device)
            graphs = StepGraphs(parallelism, readings, place, autocast, accumulates, log)
        except RuntimeError as error:  # out of memory, or an operation that no graph can hold
            reason = " ".join(str(error).split())[:200]
        else:
            log(f"CUDA graphs: a pass has room for {shape.tokens:,} tokens in {shape.sequences:,} sequences")
            return graphs
    if plan.cuda_graphs == "on":
        raise InputError(f"--cuda-graphs on: the capture failed ({reason}). Try: --cuda-graphs auto")
    if plan.device.type == "cuda":
        log(f"no CUDA graphs, every kernel is launched by itself: {reason}")
    return None


class StepGraphs:
    """A captured step; the model is in training mode.

    Args:
        parallelism: runs the forward pass; has the optimizers, whose rates move to the device.
        readings: have the flag that makes updates change nothing.
        batch: the place of the batches.
        autocast: makes the context of a forward pass.
        accumulates: a step has several passes.
        log: takes a line for the user.
    """

    def __init__(
        self,
        parallelism: Parallelism,
        readings: LateReadings,
        batch: StaticBatch,
        autocast: Autocast,
        accumulates: bool,
        log: Callable[[str], None] = lambda line: None,
    ):
        self._parallelism, self._optimizers, self._readings = parallelism, parallelism.optimizers, readings
        self._batch, self._autocast, self._accumulates, self._log = batch, autocast, accumulates, log
        self._parameters = [p for p in parallelism.model.parameters() if p.requires_grad]
        device = self._parameters[0].device
        self._loss = torch.zeros((), dtype=torch.float64, device=device)  # sum over the passes of a step
        self._gradients: list[Tensor | None] = [None] * len(self._parameters)  # where the graphs have them
        self._pass, self._update = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        self._optimizers.keep_rates_on_device(device)
        try:
            with readings.nothing_changes():
                self._capture()
        finally:
            parallelism.model.zero_grad(set_to_none=True)

    # ---- the step ----
    def hold(self, parts: Sequence[PackedBatch]) -> bool:
        """Whether there is room for each micro-batch; the first time there is not, the log says so."""
        if all(self._batch.shape.holds(part) for part in parts):
            return True
        self._log("a batch is larger than the CUDA graphs have room for: such steps launch every kernel by itself")
        self._log = lambda line: None
        return False

    def step(
        self,
        parts: Sequence[PackedBatch],
        whole: Sequence[PackedBatch],
        factor: float | Mapping[str, float],
        step_share: float,
    ) -> None:
        """One optimizer step on the micro-batches ``parts`` of ``whole`` batches; see :meth:`Optimizers.update`."""
        self._optimizers.set_rates(factor, step_share)
        for part in parts:
            self._batch.fill(part, shares_of(part, whole))
            self._pass.replay()
        self._update.replay()
        # replays do not count as changes, and kernels cache copies of weights by version
        torch.autograd.graph.increment_version(self._parameters)

    def try_pass(self) -> None:
        """Replay a pass without effect, and wait for it."""
        self._pass.replay()
        self._loss.item()
        self._clear()

    # ---- what is captured ----
    def _forward_backward(self) -> None:
        batch, shares = self._batch.read()
        with self._autocast():
            loss = weighted_loss(self._parallelism.forward(batch), shares)
        loss.backward()
        self._loss.add_(loss.detach())

    def _clip_and_update(self) -> None:
        norm = self._optimizers.clip()
        self._optimizers.found_inf = self._readings.guard(self._loss, norm)
        self._optimizers.apply()
        self._clear()

    def _clear(self) -> None:
        self._loss.zero_()
        if self._accumulates:
            torch._foreach_zero_([gradient for gradient in self._gradients if gradient is not None])

    # ---- capture ----
    def _capture(self) -> None:
        """Warm up and record; on a stream of their own, because the default stream cannot be recorded."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._lend_gradients()
                self._forward_backward()
                self._take_gradients()
                self._clip_and_update()
        # other threads may allocate pinned memory or save a checkpoint meanwhile
        how: dict[str, Any] = {"stream": stream, "capture_error_mode": "thread_local"}
        self._lend_gradients()
        with torch.cuda.graph(self._pass, **how):
            self._forward_backward()
        self._take_gradients()
        with torch.cuda.graph(self._update, pool=self._pass.pool(), **how):
            self._clip_and_update()
        torch.cuda.current_stream().wait_stream(stream)

    def _lend_gradients(self) -> None:
        """Sums go to where the last pass had them; a single pass makes its gradients anew, in the graph's memory."""
        if not self._accumulates:
            self._gradients = [None] * len(self._parameters)
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient

    def _take_gradients(self) -> None:
        self._gradients = [parameter.grad for parameter in self._parameters]
