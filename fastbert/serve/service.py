"""What the API and the pages ask: models by name, answers through the queue, within limits."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastbert.serve.models import Models
from fastbert.serve.queue import BatchQueue, QueueSizes
from fastbert.serve.work import KINDS, Key
from fastbert.system.errors import InputError

if TYPE_CHECKING:
    from fastbert.bert import Bert

MANY_CHARACTERS = 20_000  # to tokenize more, the event loop uses a thread


class TooLarge(InputError):
    """More than a request may ask for."""


@dataclass(frozen=True)
class Limits:
    """Of a request."""

    body_bytes: int = 4 << 20
    texts: int = 2048
    tokens: int = 1 << 19  # through the model


class Service:
    """Answers for the models of a server.

    Args:
        models: what is served.
        limits: of a request.
        sizes: of the queue.
        threads: that all batches together compute on; None: leave it to torch.
    """

    def __init__(
        self,
        models: Models,
        limits: Limits | None = None,
        sizes: QueueSizes | None = None,
        threads: int | None = None,
    ):
        self.models, self.limits, self.threads = models, limits or Limits(), threads
        self.queue = BatchQueue(self._compute, sizes or QueueSizes())

    async def bert(self, name: str | None) -> "tuple[str, Bert]":
        """A model and its name; loaded if it is not in memory."""
        found = self.models.name_of(name)
        if self.models.is_loaded(found):
            return found, self.models.get(found)
        return found, await asyncio.to_thread(self.models.get, found)

    async def ask(self, model: str | None, kind: str, items: list[Any], **options: Any) -> list[Any]:
        """Answers of the library, one for each item.

        Raises:
            InputError: the library refuses the texts; no such model.
            TooLarge: too many texts or tokens.
            QueueFull: too much waits.
        """
        if len(items) > self.limits.texts:
            raise TooLarge(f"{len(items):,} texts: a request has at most {self.limits.texts:,}. Try: fewer")
        name, bert = await self.bert(model)
        work = KINDS[kind]
        costs = await _in_thread_if_long(items, lambda: work.cost(bert, items, options))
        if (total := sum(costs)) > self.limits.tokens:
            raise TooLarge(
                f"{total:,} tokens would go through the model, a request has at most {self.limits.tokens:,}. "
                "Try: fewer or shorter texts"
            )
        return await self.queue.answer(Key(name, kind, _hashable(options)), items, costs)

    def _compute(self, key: Hashable, items: list[Any], sharers: int) -> Sequence[Any]:
        asked: Key = key  # type: ignore[assignment]
        if self.threads is not None:
            import torch

            torch.set_num_threads(max(1, self.threads // sharers))  # of this thread alone
        return KINDS[asked.kind].run(self.models.get(asked.model), items, dict(asked.options))


def _hashable(options: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    return tuple(sorted((name, frozen(value)) for name, value in options.items()))


async def _in_thread_if_long(items: list[Any], count: Callable[[], list[int]]) -> list[int]:
    characters = sum(sum(len(text or "") for text in ([item] if isinstance(item, str) else item)) for item in items)
    return count() if characters <= MANY_CHARACTERS else await asyncio.to_thread(count)
