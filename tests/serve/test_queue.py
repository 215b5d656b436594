"""The queue: texts of several requests in one batch, order, withdrawal, a full queue, the end."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastbert.serve.queue import BatchQueue, QueueFull, QueueSizes, Stopping
from fastbert.system.errors import InputError


def in_a_thread(main):
    """Run a coroutine; the main thread has an event loop of its own once a browser is open."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, main()).result(30)


class Worker:
    """Answers texts in capitals; waits at a gate, so that a test decides what is queued meanwhile."""

    def __init__(self, **sizes):
        self.gate, self.batches = threading.Event(), []
        self.queue = BatchQueue(self.compute, QueueSizes(**sizes))

    def compute(self, key, items, sharers):
        self.batches.append((key, list(items)))
        assert self.gate.wait(10)
        if "wrong" in items:
            raise InputError("wrong")
        return [item.upper() for item in items]

    def ask(self, key, *items, cost=10):
        return asyncio.ensure_future(self.queue.answer(key, list(items), [cost] * len(items)))

    async def hold(self):
        """Occupy the thread, so that what follows waits in the queue."""
        task = self.ask("first", "x")
        while not self.batches:
            await asyncio.sleep(0.001)
        return task


def test_batches_are_gathered_by_key_in_order_up_to_the_tokens():
    async def main():
        worker = Worker(batch_tokens=40, batch_ms=0)
        await worker.hold()
        tasks = [worker.ask("a", "a1", "a2"), worker.ask("b", "b1"), worker.ask("a", "a3", "a4", "a5")]
        await asyncio.sleep(0)
        worker.gate.set()
        assert await asyncio.gather(*tasks) == [["A1", "A2"], ["B1"], ["A3", "A4", "A5"]]
        assert [items for _, items in worker.batches[1:]] == [["a1", "a2", "a3", "a4"], ["b1"], ["a5"]]
        assert worker.queue.waiting == (0, 0)
        worker.queue.stop(1)

    in_a_thread(main)


def test_a_text_over_the_tokens_is_computed_alone():
    async def main():
        worker = Worker(batch_tokens=40)
        worker.gate.set()
        assert await worker.ask("a", "long", "longer", cost=500) == ["LONG", "LONGER"]
        assert [items for _, items in worker.batches] == [["long"], ["longer"]]
        worker.queue.stop(1)

    in_a_thread(main)


def test_after_a_batch_of_several_it_waits_for_as_many():
    async def main():
        worker = Worker(batch_ms=500)
        await worker.hold()
        tasks = [worker.ask("a", "1"), worker.ask("a", "2")]
        await asyncio.sleep(0)
        worker.gate.set()
        await asyncio.gather(*tasks)
        began = time.monotonic()
        one = worker.ask("a", "3")
        await asyncio.sleep(0.05)
        assert len(worker.batches) == 2  # the first, and 1 with 2: the thread waits for a second request
        await asyncio.gather(one, worker.ask("a", "4"))
        assert worker.batches[-1] == ("a", ["3", "4"]) and time.monotonic() - began < 0.4
        worker.queue.stop(1)

    in_a_thread(main)


def test_two_workers_share_what_waits_and_answers_stay_in_order():
    async def main():
        first_done, seen = threading.Event(), []

        def compute(key, items, sharers):
            seen.append((list(items), sharers))
            if items[0] == "1":  # the first part ends last
                assert first_done.wait(10)
            else:
                first_done.set()
            return [item.upper() + "!" for item in items]

        queue = BatchQueue(compute, QueueSizes(workers=2, batch_ms=0))
        assert await queue.answer("a", ["1", "2", "3", "4"], [10] * 4) == ["1!", "2!", "3!", "4!"]
        assert [items for items, _ in seen] == [["1", "2"], ["3", "4"]]
        assert [sharers for _, sharers in seen] == [2, 2]  # the second worker is about to begin
        first_done.set()
        assert await queue.answer("a", ["5"], [10]) == ["5!"] and seen[-1] == (["5"], 1)  # alone: all cores
        queue.stop(1)
        assert not queue.running

    in_a_thread(main)


def test_a_refused_part_fails_the_whole_request_once():
    async def main():
        def compute(key, items, sharers):
            if "wrong" in items:
                raise InputError("wrong")
            return items

        queue = BatchQueue(compute, QueueSizes(workers=2, batch_tokens=10))
        with pytest.raises(InputError):
            await queue.answer("a", ["1", "wrong", "2", "3"], [10] * 4)
        assert await queue.answer("a", ["4"], [10]) == ["4"] and queue.waiting == (0, 0)
        queue.stop(1)

    in_a_thread(main)


def test_what_was_withdrawn_is_not_computed():
    async def main():
        worker = Worker(batch_tokens=20)
        await worker.hold()
        gone, stays = worker.ask("a", "1", "2", "3", "4"), worker.ask("a", "5")
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        assert worker.queue.waiting == (1, 10) and worker.queue.cancelled == 1
        worker.gate.set()
        assert await stays == ["5"]
        assert worker.batches[1:] == [("a", ["5"])]
        worker.queue.stop(1)

    in_a_thread(main)


def test_a_full_queue_says_when_to_come_again():
    async def main():
        worker = Worker(waiting_requests=2, waiting_tokens=1000)
        await worker.hold()
        tasks = [worker.ask("a", "1")]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as refused:
            await worker.ask("a", "2", cost=5000)  # tokens
        assert 1 <= refused.value.retry_after_s <= 60
        tasks.append(worker.ask("a", "3"))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await worker.ask("a", "4")  # requests
        worker.gate.set()
        assert await asyncio.gather(*tasks) == [["1"], ["3"]]
        worker.queue.stop(1)

    in_a_thread(main)


def test_a_refused_text_fails_its_own_request():
    async def main():
        worker = Worker()
        await worker.hold()
        tasks = [worker.ask("a", "1"), worker.ask("a", "2", "wrong"), worker.ask("a", "3")]
        await asyncio.sleep(0)
        worker.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert answers[0] == ["1"] and isinstance(answers[1], InputError) and answers[2] == ["3"]
        worker.queue.stop(1)

    in_a_thread(main)


def test_a_bug_fails_the_requests_and_the_thread_goes_on():
    async def main():
        def compute(key, items, sharers):
            return [1 // item for item in items]

        queue = BatchQueue(compute, QueueSizes())
        with pytest.raises(ZeroDivisionError):
            await queue.answer("a", [0], [1])
        assert await queue.answer("a", [1], [1]) == [1]
        queue.stop(1)

    in_a_thread(main)


def test_stop_refuses_what_waits():
    async def main():
        worker = Worker()
        begun = await worker.hold()
        waits = worker.ask("a", "1")
        await asyncio.sleep(0)
        stopping = asyncio.ensure_future(asyncio.to_thread(worker.queue.stop, 5))
        with pytest.raises(Stopping):
            await waits
        worker.gate.set()
        assert await begun == ["X"]
        await stopping
        assert not worker.queue.running
        with pytest.raises(Stopping):
            await worker.ask("a", "2")

    in_a_thread(main)
