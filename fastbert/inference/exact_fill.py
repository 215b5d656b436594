"""The most likely joint filling of a text's [MASK]s, with a proof of optimality.

Every token makes a filling less likely: the score of an unfinished filling (nats, :mod:`fastbert.inference.fill_mask`)
is an upper bound for all its completions. Unfinished fillings are expanded in the order of their scores; when none is
above the best finished one, no other filling can be more likely. For two masks that takes one pass for each first token
that alone is more likely than the best pair, often a handful.

A search that runs out of passes returns the best filling found, never below beam search's, marked as not proven.

Reference: Land & Doig, An Automatic Method of Solving Discrete Programming Problems, 1960 (branch and bound).
"""

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fastbert.inference.fill_mask import Choices, Filling, Template, fill_together, most_confident_positions
from fastbert.model import BertForPreTraining
from fastbert.text import Tokenizer

EXPANDED_AT_ONCE = 64  # unfinished fillings of a text per step: more waste passes, fewer waste the processor


@dataclass
class _Search:
    """One text: finished fillings, the most likely first, and a heap of unfinished ones by their bounds."""

    finished: list[Filling]
    count: int  # how many of the most likely are wanted
    passes: int  # left
    heap: list[tuple[float, int, Filling]] = field(default_factory=list)
    number: itertools.count = field(default_factory=itertools.count)  # of equal bounds the oldest comes first

    @property
    def bound(self) -> float:
        """The score a filling must exceed to matter."""
        return self.finished[self.count - 1].log_score if len(self.finished) >= self.count else -math.inf

    def push(self, filling: Filling) -> None:
        heapq.heappush(self.heap, (-filling.log_score, next(self.number), filling))

    def next(self) -> list[Filling]:
        """The unfinished fillings to expand now; none: the search is over."""
        expanded: list[Filling] = []
        while self.heap and len(expanded) < min(EXPANDED_AT_ONCE, self.passes) and -self.heap[0][0] > self.bound:
            expanded.append(heapq.heappop(self.heap)[2])
        self.passes -= len(expanded)
        return expanded

    def finish(self, fillings: list[Filling]) -> None:
        known = {(filling.template, filling.ids) for filling in self.finished}
        new = [filling for filling in fillings if (filling.template, filling.ids) not in known]
        self.finished = sorted(self.finished + new, key=lambda f: (-f.log_score, f.ids))[: self.count]

    @property
    def proven(self) -> bool:
        return not self.heap or -self.heap[0][0] <= self.bound


def fill_exactly(
    model: BertForPreTraining,
    tokenizer: Tokenizer,
    problems: Sequence[Sequence[Template]],
    *,
    count: int,
    beam: int,
    passes: int,
) -> list[tuple[list[Filling], bool]]:
    """Search the ``count`` most likely joint fillings of each text.

    Args:
        model, tokenizer: they belong together.
        problems: the templates of each text, see :func:`fastbert.inference.fill_mask.templates`.
        count: fillings wanted of each text.
        beam: width of the beam search that gives the first bound.
        passes: maximum number of unfinished fillings of a text to expand.

    Returns:
        For each text its fillings, the most likely first, and whether it is proven that none is more likely (to the
        rounding of float32).
    """
    choices = Choices(tokenizer)
    begun = fill_together(model, tokenizer, problems, width=max(beam, count))
    searches = []
    for templates, finished in zip(problems, begun, strict=True):
        search = _Search(finished[:count], count, passes)
        for template in templates:
            search.push(Filling.begin(template))
        searches.append(search)
    while expanded := [(search, filling) for search in searches for filling in search.next()]:
        answers = most_confident_positions(model, [filling for _, filling in expanded], choices)
        for (search, filling), (position, tokens, log_probs) in zip(expanded, answers, strict=True):
            last = len(filling.open) == 1
            above = log_probs.double() > search.bound - filling.log_score
            tokens, log_probs = tokens[above], log_probs[above]
            children = filling.with_most_likely(position, tokens, log_probs, search.count if last else len(tokens))
            if last:
                search.finish(children)
            else:
                for child in children:
                    search.push(child)
    return [(search.finished, search.proven) for search in searches]
