"""The queue of requests: texts of several requests are computed together, and requests are answered in their order.

A request is a list of texts. A worker, a thread, takes texts from the front of the queue, those of other requests for
the same kind of work with them, up to a number of tokens; a long request is thus computed in several batches, and none
of them runs once its client has left. An idle worker starts at once. If its previous batch served several requests, it
first waits a few milliseconds for as many again: clients that were answered together ask again together. Workers that
are idle at the same time share what waits, and one that computes alone may use all cores.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastbert.system.errors import InputError

# (key, texts, how many workers share the cores) → answers, in the order of the texts
Compute = Callable[[Hashable, list[Any], int], Sequence[Any]]


class QueueFull(Exception):
    """No room for another request; ``retry_after_s`` is when to try again."""

    def __init__(self, retry_after_s: int):
        super().__init__(f"the queue is full. Try: again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Stopping(Exception):
    """The server stops, and the request was not begun."""


@dataclass
class QueueSizes:
    """How much waits, and how much is computed at a time."""

    batch_tokens: int = 2048  # most tokens of a batch, at least one text
    batch_ms: float = 2.0  # longest wait for more requests
    waiting_requests: int = 256  # a further request is refused
    waiting_tokens: int = 1 << 21  # of all requests; a single one that waits for nobody may have more
    workers: int = 1  # batches computed at a time


@dataclass(eq=False)
class _Request:
    key: Hashable
    items: list[Any]
    costs: list[int]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future
    taken: int = 0  # items given to workers
    answers: list[Any] = field(default_factory=list)  # one for each item, once it is computed
    left: int = 0  # items without an answer
    cancelled: bool = False

    def __post_init__(self) -> None:
        self.answers, self.left = [None] * len(self.items), len(self.items)

    def finish(self, answer: Any) -> None:
        """Answer, or fail with an exception; called in the event loop."""
        if self.future.done():
            return
        if isinstance(answer, BaseException):
            self.future.set_exception(answer)
        else:
            self.future.set_result(answer)


class BatchQueue:
    """Requests in, answers out; :meth:`answer` is called in an event loop, ``compute`` in the workers' threads.

    Args:
        compute: answers a list of texts; :class:`InputError` refuses the requests that it concerns.
        sizes: limits.
    """

    def __init__(self, compute: Compute, sizes: QueueSizes):
        self.compute, self.sizes = compute, sizes
        self._changed = threading.Condition()
        self._requests: deque[_Request] = deque()
        self._waiting_tokens = 0
        self._busy = 0  # workers that compute
        self._stopping = False
        self.batches = 0
        self.tokens = 0
        self.busy_s = 0.0
        self.cancelled = 0
        self._threads = [
            threading.Thread(target=self._work, args=(i,), name=f"fastbert-serve-{i}", daemon=True)
            for i in range(sizes.workers)
        ]
        for thread in self._threads:
            thread.start()

    # ---- in the event loop ----
    async def answer(self, key: Hashable, items: list[Any], costs: list[int]) -> list[Any]:
        """The answers of ``items``, in their order; cancelling this call withdraws what was not begun.

        Args:
            key: items of one key may share a batch.
            items: what ``compute`` takes.
            costs: tokens of each.

        Raises:
            QueueFull: too much waits already.
            Stopping: the server stops.
            InputError: from ``compute``.
        """
        if not items:
            return []
        loop = asyncio.get_running_loop()
        request = _Request(key, items, costs, loop, loop.create_future())
        total = sum(costs)
        with self._changed:
            if self._stopping:
                raise Stopping
            full = len(self._requests) >= self.sizes.waiting_requests
            if full or (self._requests and self._waiting_tokens + total > self.sizes.waiting_tokens):
                raise QueueFull(self._retry_after_s())
            self._requests.append(request)
            self._waiting_tokens += total
            self._changed.notify_all()
        try:
            return await request.future
        except asyncio.CancelledError:
            with self._changed:
                request.cancelled = True
                self.cancelled += 1
                if request in self._requests:
                    self._drop(request)
            raise

    @property
    def waiting(self) -> tuple[int, int]:
        """Requests and tokens that wait."""
        with self._changed:
            return len(self._requests), self._waiting_tokens

    @property
    def running(self) -> bool:
        """Whether a worker computes, or may."""
        return any(thread.is_alive() for thread in self._threads)

    def refuse(self) -> None:
        """Refuse what waits and what comes; the current batches are answered."""
        with self._changed:
            self._stopping = True
            waiting, self._requests, self._waiting_tokens = list(self._requests), deque(), 0
            self._changed.notify_all()
        for request in waiting:
            self._tell(request, Stopping())

    def stop(self, timeout_s: float) -> None:
        """Refuse what waits, and give the current batches time to end."""
        self.refuse()
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _retry_after_s(self) -> int:
        """Seconds until what waits is done, at the speed so far."""
        speed = self.sizes.workers * self.tokens / self.busy_s if self.busy_s else 10_000.0
        return max(1, min(60, math.ceil(self._waiting_tokens / max(speed, 1.0))))

    # ---- in a worker's thread ----
    def _work(self, number: int) -> None:
        expected = 1  # requests: as many as in this worker's previous batch
        while True:
            with self._changed:
                if not self._wait_for_requests(number, expected):
                    return
                batch = self._take()
                if not batch:
                    continue
                self._busy += 1
                sharers = self.sizes.workers if self._requests else self._busy
                self._changed.notify_all()  # the next worker, if something is left
            began = time.perf_counter()
            answers = self._run(batch, sharers)
            expected = len(batch)
            with self._changed:
                self._busy -= 1
                self.busy_s += time.perf_counter() - began
            for request, answer in answers:
                self._tell(request, answer)

    def _wait_for_requests(self, number: int, expected: int) -> bool:
        """Whether there is something to do; False once the server stops.

        A worker begins only when those before it compute: a lone client always has the first, whose threads are warm.
        """
        while not (self._requests and self._busy >= number) and not self._stopping:
            self._changed.wait()
        expected = min(expected, self.sizes.waiting_requests)
        until = time.monotonic() + self.sizes.batch_ms / 1000
        while not self._stopping and len(self._requests) < expected and self._waiting_tokens < self.sizes.batch_tokens:
            if (left := until - time.monotonic()) <= 0:
                break
            self._changed.wait(left)
        return not self._stopping

    def _take(self) -> list[tuple[_Request, int, int]]:
        """(request, first, stop) of the items of the next batch: the first request's, and others' of the same key."""
        batch: list[tuple[_Request, int, int]] = []
        idle = self.sizes.workers - self._busy
        free = min(self.sizes.batch_tokens, math.ceil(self._waiting_tokens / idle))
        for request in list(self._requests):
            if free <= 0:
                break
            if batch and request.key != batch[0][0].key:
                continue
            first = stop = request.taken
            # the first text of a batch may have any length
            while stop < len(request.items) and (request.costs[stop] <= free or not (batch or stop > first)):
                free -= request.costs[stop]
                stop += 1
            if stop == first:
                break  # no overtaking within a key
            batch.append((request, first, stop))
            self._waiting_tokens -= sum(request.costs[first:stop])
            request.taken = stop
            if stop == len(request.items):
                self._requests.remove(request)
        return batch

    def _run(self, batch: list[tuple[_Request, int, int]], sharers: int) -> list[tuple[_Request, Any]]:
        """Compute; the requests that are now complete, with their answers, or failed, with the error."""
        try:
            items = [item for request, first, stop in batch for item in request.items[first:stop]]
            answers = list(self.compute(batch[0][0].key, items, sharers))
        except InputError as error:
            if len(batch) > 1:  # one of them is to blame: the others are answered
                return [told for part in batch for told in self._run([part], sharers)]
            return self._failed(batch, error)
        except Exception as error:
            return self._failed(batch, error)
        done, start = [], 0
        with self._changed:
            self.batches += 1
            for request, first, stop in batch:
                self.tokens += sum(request.costs[first:stop])
                request.answers[first:stop] = answers[start : start + stop - first]
                request.left -= stop - first
                start += stop - first
                if not request.left and not request.cancelled:
                    done.append((request, request.answers))
        return done

    def _failed(self, batch: list[tuple[_Request, int, int]], error: Exception) -> list[tuple[_Request, Any]]:
        """The rest of these requests is not computed."""
        with self._changed:
            for request, _, _ in batch:
                if request in self._requests:
                    self._drop(request)
        return [(request, error) for request, _, _ in batch]

    def _drop(self, request: _Request) -> None:
        self._requests.remove(request)
        self._waiting_tokens -= sum(request.costs[request.taken :])

    @staticmethod
    def _tell(request: _Request, answer: Any) -> None:
        try:
            request.loop.call_soon_threadsafe(request.finish, answer)
        except RuntimeError:  # the loop is closed
            return
