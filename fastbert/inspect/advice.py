"""What a survey means: problems with their remedies, and settings that suit the text."""

from dataclasses import dataclass

from fastbert.inspect.findings import Finding
from fastbert.inspect.survey import Survey
from fastbert.inspect.vocabulary import Spelling

MIN_REPEATED_SHARE = 0.05  # of the text, for near-duplicates of the lines
MIN_OVERLAP_SHARE = 0.01  # of the text
MIN_UNKNOWN_SHARE = 0.01  # of the tokens
LITTLE_TOKENS = 2000  # below, nothing is held out (fastbert.data.batches.split)
TINY_TOKENS = 50_000
MAX_LENGTH = 128  # of a sequence, by default
# tokens up to which a size is suggested, and tokens per second on one core: tiny, small and large scaled by layers x
# width^2 from mini and base (README.md: AMD EPYC Zen 5, 28 November 2026)
PRESETS = (("tiny", TINY_TOKENS, 60_000), ("mini", 50_000_000, 17_767), ("small", 500_000_000, 4_400))
LARGEST_PRESET = ("base", 794)
VOCAB_SIZES = ((8192, 20_000_000), (16_384, 200_000_000))  # words up to which
LARGEST_VOCAB_SIZE = 32_768
# up to four passes over a text are about as good as new text (Muennighoff et al., Scaling Data-Constrained Language
# Models, 2023)
PASSES = 4
DEFAULT_MINUTES, MOST_MINUTES = 5, 24 * 60


@dataclass(frozen=True)
class Suggestion:
    """A value for an option of ``python -m fastbert.train``, and why."""

    option: str
    value: str
    reason: str


def vocab_size_for(num_words: int, alphabet: int) -> int:
    """Pieces for a text; twice its alphabet at least, so that there is room for words."""
    size = next((size for size, most in VOCAB_SIZES if num_words <= most), LARGEST_VOCAB_SIZE)
    while size < 2 * alphabet and size < 2 * LARGEST_VOCAB_SIZE:
        size *= 2
    return size


def suggestions(found: Survey, spelling: Spelling) -> list[Suggestion]:
    """Vocabulary size, preset unless the minutes decide it, sequence length and minutes."""
    tokens = spelling.tokens
    if not tokens:
        return []
    preset, speed = next(((name, speed) for name, most, speed in PRESETS if tokens < most), LARGEST_PRESET)
    minutes = PASSES * tokens / speed / 60
    shown = min(max(round(minutes), DEFAULT_MINUTES), MOST_MINUTES)
    what = f"{PASSES} passes over {tokens:,} tokens at about {speed:,} tokens/s a core"
    long = _document_tokens(found, spelling, 0.9)
    length = 64 if long <= 62 else 128
    cut = "hardly any document is cut" if long <= length - 2 else "longer documents are cut into windows"
    size = vocab_size_for(found.num_words, spelling.alphabet)
    words = f"{found.num_words:,} words with {spelling.alphabet:,} distinct characters"
    # for a medium text, training chooses between tiny and mini by the minutes
    of_size = [Suggestion("--preset", preset, f"{tokens:,} tokens; a larger model learns more from more text")]
    return [
        Suggestion("--vocab-size", str(size), words),
        *(of_size if preset != "mini" else []),
        Suggestion("--max-length", str(length), f"nine of ten documents have at most about {long:,} tokens: {cut}"),
        Suggestion("--minutes", str(shown), what if minutes > DEFAULT_MINUTES else f"{what} take less"),
    ]


def _document_tokens(found: Survey, spelling: Spelling, share: float) -> int:
    """The tokens that this share of the documents does not exceed, to a factor of two."""
    bytes_per_token = max(found.num_bytes / max(spelling.tokens, 1), 1.0)
    left = share * sum(found.document_bytes.values())
    for bits in sorted(found.document_bytes):
        left -= found.document_bytes[bits]
        if left <= 0:
            return int(2**bits / bytes_per_token)
    return 0


def problems(found: Survey, spelling: Spelling) -> list[Finding]:
    """Findings about files, words and repetition."""
    repetition = _about_repetition(found) if spelling.tokens >= LITTLE_TOKENS else []
    return [*_about_files(found), *_about_words(found, spelling), *repetition]


def _about_files(found: Survey) -> list[Finding]:
    result = [Finding("unreadable file", *_what_and_remedy(problem)) for problem in found.problems]
    if (more := found.num_problems - len(found.problems)) > 0:
        result.append(Finding("unreadable file", f"{more:,} more"))
    if found.left_out:
        listed = ", ".join(f"{ending} ({count:,})" for ending, count in found.left_out.most_common(8))
        result.append(Finding("files left out", listed, "name them one by one, if they are text", severe=False))
    return result


def _what_and_remedy(problem: str) -> tuple[str, str]:
    what, _, remedy = problem.partition(" Try: ")
    return what.rstrip("."), remedy


def _about_words(found: Survey, spelling: Spelling) -> list[Finding]:
    result = []
    if 0 < spelling.tokens < LITTLE_TOKENS:
        what = f"{spelling.tokens:,} tokens in {found.num_lines:,} lines: the model is evaluated on the same text"
        result.append(Finding("little text", what, "more text, or --eval-data", severe=False))
    if found.num_lines == 1 and spelling.tokens > MAX_LENGTH:
        what = (
            f"the text is one line of {spelling.tokens:,} tokens: it is cut into windows, and nothing can be held out"
        )
        result.append(Finding("one line", what, "a sentence in each line, or --eval-data", severe=False))
    if spelling.long_words and spelling.long_words >= MIN_UNKNOWN_SHARE * spelling.tokens:
        len_longest = max((len(word) for word, _ in found.word_counts.items()), default=0)
        longest = f"up to {len_longest:,}" if not found.long_words else "over 1,000"
        what = f"{spelling.long_words:,} words are over the limit, with {longest} characters: each is one [UNK]"
        remedy = f"--max-word-chars {len_longest}" if not found.long_words else "text with spaces"
        result.append(Finding("words over the limit", what, remedy))
    if spelling.unknown_share >= MIN_UNKNOWN_SHARE:
        causes = "; ".join(f"{cause} ({count:,})" for cause, count in spelling.causes.most_common())
        characters = " ".join(char for char, _ in spelling.missing.most_common(8))
        what = f"{spelling.unknown_share:.1%} of the tokens: {causes}" + (f": {characters}" if characters else "")
        result.append(Finding("unknown words", what, "a vocabulary trained on this text, or a larger one"))
    if spelling.trained and 2 * spelling.alphabet > spelling.room:
        what = f"{spelling.alphabet:,} distinct characters leave little room for words in {spelling.room:,} pieces"
        size = vocab_size_for(found.num_words, spelling.alphabet)
        result.append(Finding("large alphabet", what, f"--vocab-size {size}", severe=False))
    if found.dropped_words:
        what = f"{found.dropped_words:,} occurrences of rare words were dropped: figures about words are estimates"
        result.append(Finding("estimates", what, severe=False))
    return result


def _about_repetition(found: Survey) -> list[Finding]:
    lines = found.lines
    result: list[Finding] = []
    about = "about " if lines.estimated else ""
    if (share := lines.duplicate_text_share()) >= MIN_REPEATED_SHARE:
        what = f"{about}{lines.duplicate_share():.0%} of the lines, {share:.0%} of the text"
        result.append(Finding("duplicate lines", what, "remove repeated lines"))
    if (share := lines.near_duplicate_share()) >= MIN_REPEATED_SHARE:
        what = f"{about}{share:.0%} of the lines differ from another only in case, digits or punctuation"
        result.append(Finding("near-duplicate lines", what, "keep one of each", severe=False))
    for name, count in (("duplicate", lines.totals.exact_documents), ("near-duplicate", lines.totals.near_documents)):
        if count and count >= MIN_OVERLAP_SHARE * lines.num_documents:
            what = f"{about}{count:,} of {lines.num_documents:,} documents"
            result.append(Finding(f"{name} documents", what, "keep one of each"))
    repeated = lines.boilerplate()
    if repeated and lines.num_documents > 1:
        listed = ", ".join(f"{line.text!r} in {line.documents:,}" for line in repeated)
        result.append(Finding("boilerplate", f"lines of many documents: {listed}", "remove them"))
    if (share := lines.overlap_share()) >= MIN_OVERLAP_SHARE:
        where = "that other documents also have" if lines.num_documents > 1 else "that occur again"
        what = f"{about}{share:.1%} of the text is in lines {where}: held-out text would not be new"
        result.append(Finding("held-out overlap", what, "remove repeated lines, or --eval-data with other text"))
    return result
