"""Training of a WordPiece vocabulary, with the readable twin of csrc/vocab/vocab_trainer.h.

The rule (both implementations give the same bytes):

1. Words are counted (:mod:`fastbert.text.word_counts`).
2. The alphabet is the characters of the words: all of them if they and their "##" forms fit into the vocabulary,
   otherwise the most frequent ones that fit (ties: the smaller code point). ``limit_alphabet`` keeps fewer;
   ``initial_alphabet`` counts towards the limit and is always kept. A word with a character that was not kept would be
   the unknown token; it is ignored.
3. A word is split into its first character as it is and the following ones with "##" before them.
4. Ids: the special tokens, the alphabet by code point, the "##" forms that occur by code point, then the merges.
5. The adjacent pair with the highest count is merged everywhere, from left to right in each word. Ties: the smaller id
   of the left piece, then of the right one. A merged piece that exists already keeps its id.
6. Training ends at ``vocab_size`` pieces, or if the best pair occurs fewer than ``min_frequency`` times.

The result does not depend on the order of the words, on hashing or on threads. Counts are exact (64 bits; the 32 bits
of Hugging Face tokenizers overflow and lose the most frequent pairs of a large corpus). The merge rule is that of their
WordPieceTrainer: the pair count of byte-pair encoding, not the likelihood ratio of the original WordPiece.

Reference: Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units", 2016;
Schuster, Nakajima, "Japanese and Korean Voice Search", 2012.
"""

import heapq
import os
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from string import ascii_uppercase
from typing import Any

from fastbert.system.errors import InputError
from fastbert.system.native import core
from fastbert.text.normalizer import NormalizerOptions, is_single
from fastbert.text.word_counts import MAX_WORD_CHARS, SPECIAL_TOKENS, WordCounts, check_special_tokens, check_unicode

Progress = Callable[[int, int], None]
_PROGRESS_EVERY_S = 0.1
_MAX_COUNT = 2**63 - 1
_LARGEST = 2**31 - 1  # ids are 32 bits wide
MIN_COMPLETE = 1024  # pieces; a smaller vocabulary has only the characters of its text


@dataclass(frozen=True)
class VocabResult:
    """A trained vocabulary.

    Attributes:
        tokens: the pieces in the order of their ids; a small text gives fewer than ``vocab_size``.
        num_words: number of words; num_distinct_words: of distinct words.
        num_characters: of the words and the initial alphabet; num_characters_dropped: those not in the alphabet.
        num_fixed: special tokens, alphabet and "##" forms, which precede the merged pieces.
    """

    tokens: list[str]
    num_words: int
    num_distinct_words: int
    num_characters: int
    num_characters_dropped: int
    num_fixed: int = 0


def train_vocab(
    source: Iterable[str] | Sequence[os.PathLike[str]] | os.PathLike[str],
    *,
    vocab_size: int = 8192,
    min_frequency: int = 2,
    limit_alphabet: int | None = None,
    initial_alphabet: Iterable[str] = (),
    lowercase: bool = True,
    strip_accents: bool | None = None,
    clean_text: bool = True,
    handle_chinese_chars: bool = True,
    split_punctuation: bool = True,
    single_digits: bool = False,
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    max_word_chars: int = MAX_WORD_CHARS,
    threads: int | None = None,
    progress: Progress | None = None,
    impl: str = "auto",
) -> VocabResult:
    """Count the words of a text and learn a vocabulary from them.

    Args:
        source: texts (any iterable of str, streamed), or paths of UTF-8 text files: path objects, or strings the first
            of which names an existing file.
        vocab_size: number of pieces, including special tokens.
        min_frequency: pairs that occur fewer times are not merged.
        limit_alphabet: number of distinct characters to keep; None keeps as many as fit into the vocabulary.
        initial_alphabet: characters to keep even if they never occur.
        lowercase, strip_accents, clean_text, handle_chinese_chars, split_punctuation, single_digits: the tokenizer's
            options; ``strip_accents=None`` means the same as ``lowercase``.
        special_tokens: the first ids; ordinary text where they occur in the source.
        max_word_chars: longer words are not counted.
        threads: for counting; they do not change the result.
        progress: called with (pieces so far, ``vocab_size``) at most ten times per second, and at the end.
        impl: "auto", "cpp" or "reference".

    Raises:
        InputError: text that is not UTF-8, a file that cannot be read, a vocabulary too small for its alphabet.
    """
    counts = WordCounts(
        lowercase=lowercase,
        strip_accents=strip_accents,
        clean_text=clean_text,
        handle_chinese_chars=handle_chinese_chars,
        split_punctuation=split_punctuation,
        single_digits=single_digits,
        max_word_chars=max_word_chars,
        threads=threads,
        impl=impl,
    )
    is_text, items = _texts_or_paths(source)
    if is_text:
        counts.add_texts(items)
    else:
        for path in items:
            counts.add_file(path)
    return learn_vocab(
        counts,
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        limit_alphabet=limit_alphabet,
        initial_alphabet=initial_alphabet,
        special_tokens=special_tokens,
        progress=progress,
        impl=impl,
    )


def _texts_or_paths(source: Any) -> tuple[bool, Iterable[Any]]:
    if isinstance(source, str | os.PathLike):
        if not os.path.isfile(source):
            raise InputError(f"{source}: no such file. Try: an existing file, or a list of texts")
        return False, [source]
    if isinstance(source, list | tuple) and source:
        first = source[0]
        if isinstance(first, os.PathLike) or (isinstance(first, str) and _is_file(first)):
            return False, source
    return True, source


def _is_file(text: str) -> bool:
    try:
        return os.path.isfile(text)
    except ValueError:  # contains NUL
        return False


def learn_vocab(
    counts: WordCounts | Mapping[str, int] | Iterable[tuple[str, int]],
    *,
    vocab_size: int = 8192,
    min_frequency: int = 2,
    limit_alphabet: int | None = None,
    initial_alphabet: Iterable[str] = (),
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    progress: Progress | None = None,
    impl: str = "auto",
) -> VocabResult:
    """Learn a vocabulary from word counts; see :func:`train_vocab` for the arguments.

    Args:
        counts: :class:`WordCounts`, or normalized words with their counts.
        special_tokens: the first ids.

    Raises:
        InputError: a vocabulary too small for its alphabet; counts that add up to more than 2**63 - 1 pieces.
    """
    special_tokens = check_special_tokens(special_tokens)
    initial = sorted(set("".join(initial_alphabet)))
    check_unicode("".join(initial), "initial_alphabet")
    limit = _LARGEST if limit_alphabet is None else limit_alphabet
    for name, value in (("vocab_size", vocab_size), ("min_frequency", min_frequency), ("limit_alphabet", limit)):
        if not 1 <= value <= _LARGEST:
            raise InputError(f"{name}={value}: expected 1 to {_LARGEST}")
    native = core(impl)
    learn = _learn_reference if native is None else native.learn_vocab

    def learned(limit: int, size: int = vocab_size) -> tuple[list[str], int, int, int]:
        return learn(counter, size, min_frequency, limit, initial, special_tokens, progress)

    try:
        counter = _counter_of(counts, impl)
        tokens, num_fixed, num_characters, num_dropped = learned(limit)
        if num_fixed > vocab_size and limit_alphabet is None:
            # the most characters that fit; size 1: without merges
            fits = bisect_left(range(1, num_characters), True, key=lambda limit: learned(limit, 1)[1] > vocab_size)
            tokens, num_fixed, num_characters, num_dropped = learned(max(1, fits))
    except OverflowError:
        raise InputError(
            "counts: the sum is more than 2**63 - 1 pieces. Try: divide all counts by one number"
        ) from None
    if num_fixed > vocab_size:
        raise InputError(
            f"vocab_size={vocab_size}: special tokens and alphabet alone need {num_fixed} pieces. "
            "Try: a larger vocabulary or a lower limit_alphabet"
        )
    if progress is not None:
        progress(len(tokens), vocab_size)
    return VocabResult(tokens, int(counter.total), len(counter), num_characters, num_dropped, num_fixed)


def complete_alphabet(result: VocabResult, vocab_size: int, options: NormalizerOptions) -> list[str]:
    """Return the pieces of a vocabulary with both forms of its letters and of printable ASCII, in place of last merges.

    Without them an acronym in capitals is [UNK] if some capital never followed another letter in the training text. The
    alphabet may take half of the vocabulary at most; a small vocabulary (below ``MIN_COMPLETE``) is left as it is.
    """
    fixed = set(result.tokens[: result.num_fixed])
    ascii_chars = {chr(code) for code in range(33, 127)} - ({*ascii_uppercase} if options.lowercase else set())
    kept = {piece for piece in fixed if len(piece) == 1}
    for chars in (ascii_chars | kept, ascii_chars):
        each = ((char,) if is_single(char, options) else (char, "##" + char) for char in sorted(chars))
        forms = chain.from_iterable(each)
        missing = [form for form in forms if form not in fixed]
        if vocab_size >= MIN_COMPLETE and result.num_fixed + len(missing) <= vocab_size // 2:
            return [*result.tokens[: vocab_size - len(missing)], *missing]
    return result.tokens


def _counter_of(counts: Any, impl: str) -> Any:
    """The counter of the implementation that will learn from the counts."""
    if not isinstance(counts, WordCounts):
        pairs = counts.items() if isinstance(counts, Mapping) else counts
        counts = WordCounts(impl=impl)
        counts.add_words(pairs)
    return counts.counter(impl)


Pair = tuple[int, int]


def _learn_reference(
    counter: Any,
    vocab_size: int,
    min_frequency: int,
    limit_alphabet: int,
    initial_alphabet: Sequence[str],
    special_tokens: Sequence[str],
    progress: Progress | None,
) -> tuple[list[str], int, int, int]:
    """The twin of csrc/vocab/vocab_trainer.h: (tokens, number before the merges, characters, dropped characters)."""
    words = [(word, count) for word, count in counter.items()]
    if sum(len(word) * count for word, count in words) > _MAX_COUNT:
        raise OverflowError
    alphabet, num_characters = _alphabet(words, limit_alphabet, initial_alphabet)
    words = [(word, count) for word, count in words if alphabet.issuperset(word)]
    continuations = {char for word, _ in words for char in word[1:]}
    tokens = [*special_tokens]
    ids = {token: i for i, token in enumerate(tokens)}
    for piece in (*sorted(alphabet), *("##" + char for char in sorted(continuations))):
        if piece not in ids:
            ids[piece] = len(tokens)
            tokens.append(piece)
    num_fixed = len(tokens)
    pieces = [[ids[char if i == 0 else "##" + char] for i, char in enumerate(word)] for word, _ in words]
    merge_pairs(tokens, ids, pieces, [count for _, count in words], vocab_size, min_frequency, progress)
    return tokens, num_fixed, num_characters, num_characters - len(alphabet)


def _alphabet(words: Sequence[tuple[str, int]], limit: int, initial_alphabet: Sequence[str]) -> tuple[set[str], int]:
    """The characters kept, and the number of all characters."""
    frequency: Counter[str] = Counter()
    for word, count in words:
        for char in word:
            frequency[char] += count
    initial = set(initial_alphabet)
    others = sorted(frequency.keys() - initial, key=lambda char: (-frequency[char], char))
    return initial.union(others[: max(0, limit - len(initial))]), len(initial) + len(others)


def merge_pairs(
    tokens: list[str],
    ids: dict[str, int],
    words: list[list[int]],
    counts: list[int],
    vocab_size: int,
    min_frequency: int,
    progress: Progress | None,
) -> None:
    """Append merges to ``tokens``; ``words`` are lists of ids, modified in place."""
    pair_counts: dict[Pair, int] = defaultdict(int)
    where: dict[Pair, set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in _pairs(word):
            pair_counts[pair] += counts[index]
            where[pair].add(index)
    # every pair has an entry with at least its count: outdated entries are detected at the top of the heap, pairs whose
    # count grew (those of the new piece) are pushed again
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)
    reported_at = time.monotonic()
    while len(tokens) < vocab_size and heap:
        negative, pair = heapq.heappop(heap)
        count = pair_counts[pair]
        if count != -negative:
            if 0 < count < -negative:
                heapq.heappush(heap, (-count, pair))
            continue
        if count < min_frequency:
            break
        piece = tokens[pair[0]] + tokens[pair[1]][2:]
        merged_id = ids.setdefault(piece, len(tokens))
        if merged_id == len(tokens):
            tokens.append(piece)
        risen: set[Pair] = set()
        for index in where.pop(pair):
            for old in _pairs(words[index]):
                pair_counts[old] -= counts[index]
            words[index] = _merged(words[index], pair, merged_id)
            for new in _pairs(words[index]):
                pair_counts[new] += counts[index]
                if merged_id in new:
                    where[new].add(index)
                    risen.add(new)
        for new in risen:
            heapq.heappush(heap, (-pair_counts[new], new))
        if progress is not None and time.monotonic() - reported_at >= _PROGRESS_EVERY_S:
            progress(len(tokens), vocab_size)
            reported_at = time.monotonic()


def _pairs(word: list[int]) -> Iterator[Pair]:
    return pairwise(word)


def _merged(word: list[int], pair: Pair, merged_id: int) -> list[int]:
    """``word`` with the occurrences of ``pair`` replaced, from left to right."""
    result: list[int] = []
    i = 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            result.append(merged_id)
            i += 2
        else:
            result.append(word[i])
            i += 1
    return result
