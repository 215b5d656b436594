"""The text of a run: corpus, vocabulary and token stores, each made once and reused by a resumed run."""

from dataclasses import dataclass, fields
from pathlib import Path

from fastbert.data import Corpus, TokenStore, write_store
from fastbert.data.corpus.reading import Normalization
from fastbert.data.store.token_store import MANIFEST
from fastbert.data.store.unknown import check_unknown, refuse_unknown
from fastbert.distributed.world import World
from fastbert.inspect.clues import quick_findings
from fastbert.runs.metrics_log import Monitor
from fastbert.system.background import Background
from fastbert.system.errors import InputError
from fastbert.system.option_checks import flag
from fastbert.text import Tokenizer
from fastbert.text.library_tokenizer import require_wordpiece
from fastbert.text.trained_tokens import NoWordsError
from fastbert.text.vocabulary_extension import WordList, count_words, extended, most_useful_pieces
from fastbert.text.word_counts import MAX_WORD_CHARS
from fastbert.training import source_files
from fastbert.training.options import TrainOptions

SMALL_CORPUS_BYTES = 100_000  # below: a word seen once may become a piece
VERIFY_AT_ONCE_BYTES = 256 << 20  # takes a fraction of a second


@dataclass(frozen=True)
class DataOptions:
    """What to read, and which vocabulary to use or train."""

    data: list[str]
    eval_data: list[str]
    replay: str | None  # text
    text_field: str | None
    documents: str
    normalize: Normalization
    allow_unknown: bool
    vocabulary: str | Path | None  # directory; None: train one
    vocab_size: int
    max_word_chars: int | None
    min_frequency: int | None
    lowercase: bool
    strip_accents: bool
    no_chinese_chars: bool
    split: str
    single_digits: bool
    special_tokens: list[str]
    case: bool | None  # of a given vocabulary without configuration: uncased, cased, or as its entries are
    add_words: str | None  # file
    extend_vocab: int | None
    token_type_ids: bool  # transformers' ModernBERT takes none
    max_positions: int  # tokens that the model takes
    threads: int | None

    def corpus(self, data: list[str]) -> Corpus:
        return Corpus(data, self.text_field, self.documents, self.normalize)

    @classmethod
    def of(cls, options: TrainOptions, *, token_type_ids: bool, max_positions: int) -> "DataOptions":
        shared = {field.name for field in fields(cls)} & {field.name for field in fields(options)} - {"replay"}
        vocabulary = options.tokenizer or options.init or token_store(options.data)
        given = {name: getattr(options, name) for name in shared}
        return cls(
            vocabulary=vocabulary,
            case=options.case,
            replay=options.replayed[0],
            token_type_ids=token_type_ids,
            max_positions=max_positions,
            **given,
        )


@dataclass(frozen=True)
class TrainingText:
    """A vocabulary, the text in its tokens, and the texts of ``--eval-data`` and ``--replay``."""

    tokenizer: Tokenizer
    store: TokenStore
    heldout_store: TokenStore | None = None
    replay_store: TokenStore | None = None

    @property
    def identity(self) -> str:
        """Changes with the vocabulary and the text."""
        stores = [self.store] if self.replay_store is None else [self.store, self.replay_store]
        files = [file.crc32 for store in stores for file in store.manifest.files[:99]]
        return " ".join([self.tokenizer.fingerprint(), *files])


def prepare(run: Path, options: DataOptions, monitor: Monitor) -> TrainingText:
    """Vocabulary and tokens, found in the run or written there."""
    complete = (run / "vocab.txt").is_file() and (run / "tokens" / MANIFEST).is_file()
    corpus = None if complete or token_store(options.data) else options.corpus(options.data)
    tokenizer = get_tokenizer(run, options, corpus, monitor)
    store = get_store(run, options, corpus, tokenizer, monitor)
    return TrainingText(
        tokenizer,
        store,
        get_heldout_store(run, options, tokenizer, monitor),
        get_replay_store(run, options, tokenizer, monitor),
    )


def token_store(data: list[str]) -> Path | None:
    """The directory written by ``python -m fastbert.tokenize``, if ``--data`` is one."""
    path = Path(data[0])
    return path if len(data) == 1 and (path / MANIFEST).is_file() else None


def get_tokenizer(run: Path, options: DataOptions, corpus: Corpus | None, monitor: Monitor) -> Tokenizer:
    """The tokenizer of a resumed run, the given one, or a new one trained on the corpus; saved in the run."""
    if (run / "vocab.txt").is_file():
        tokenizer = Tokenizer.load(run)
        listed = (run / "vocab.txt").read_text(encoding="utf-8", errors="replace").split("\n")
        if listed[: len(tokenizer)] != [tokenizer.id_to_token(i) for i in range(len(tokenizer))]:
            raise InputError(
                f"{run}/vocab.txt: is not the vocabulary of {run}/tokenizer.json. Try: restore them, or a new run"
            )
        return tokenizer
    if options.vocabulary:
        tokenizer = Tokenizer.load(options.vocabulary, "auto", options.max_word_chars, options.case)
        monitor.log(f"vocabulary: {len(tokenizer):,} pieces from {options.vocabulary}")
        if options.add_words or options.extend_vocab or options.special_tokens:
            tokenizer = extend(tokenizer, options, corpus, monitor)
    else:
        assert corpus is not None
        tokenizer = trained_tokenizer(options, corpus)
        smaller = f" (of {options.vocab_size:,} requested; the text has no more)"
        monitor.log(
            f"vocabulary: {len(tokenizer):,} pieces, {'uncased' if options.lowercase else 'cased'}, accents "
            f"{'stripped' if options.strip_accents else 'kept'}{smaller if len(tokenizer) < options.vocab_size else ''}"
        )
    tokenizer.save(run, token_type_ids=options.token_type_ids, max_length=options.max_positions)
    return tokenizer


def trained_tokenizer(options: DataOptions, corpus: Corpus) -> Tokenizer:
    """A tokenizer with a vocabulary trained on the corpus.

    Raises:
        InputError: bad text, or no words in it.
    """
    try:
        return Tokenizer.train(
            corpus.text_chunks(),
            vocab_size=options.vocab_size,
            min_frequency=options.min_frequency or min_frequency_of(corpus),
            lowercase=options.lowercase,
            strip_accents=options.strip_accents,
            handle_chinese_chars=not options.no_chinese_chars,
            max_input_chars_per_word=options.max_word_chars or MAX_WORD_CHARS,
            split_punctuation=options.split == "punctuation",
            single_digits=options.single_digits,
            special_tokens=options.special_tokens,
            threads=options.threads,
        )
    except NoWordsError as error:
        raise InputError(f"{corpus.name}: {error}") from None


def extend(tokenizer: Tokenizer, options: DataOptions, corpus: Corpus | None, monitor: Monitor) -> Tokenizer:
    """The tokenizer with the pieces of ``--add-words``, ``--extend-vocab`` and ``--special-tokens``."""
    given = {name: getattr(options, name) for name in ("add_words", "extend_vocab", "special_tokens")}
    option = flag(next(name for name, value in given.items() if value))
    if corpus is None:
        raise InputError(f"{option}: --data {options.data[0]} is tokens already. Try: --data with the text itself")
    require_wordpiece(option, tokenizer)
    if options.add_words:
        listed = WordList.read(options.add_words, tokenizer, compose=options.normalize == "nfc")
        tokenizer = extended(tokenizer, listed.words)
        monitor.log(f"--add-words {options.add_words}: {listed}")
    if options.extend_vocab:
        counts = count_words(corpus.text_chunks(), tokenizer, threads=options.threads)
        frequency = options.min_frequency or min_frequency_of(corpus)
        pieces = most_useful_pieces(counts, tokenizer, options.extend_vocab, frequency)
        tokenizer = extended(tokenizer, pieces)
        fewer = "; the text has no more" if len(pieces) < options.extend_vocab else ""
        monitor.log(
            f"--extend-vocab {options.extend_vocab}: {len(pieces):,} pieces added{fewer}: {' '.join(pieces[:8])}"
        )
    if options.special_tokens:
        size = len(tokenizer)
        tokenizer = extended(tokenizer, (), options.special_tokens)
        monitor.log(f"--special-tokens: {len(tokenizer) - size:,} added: {' '.join(options.special_tokens[:8])}")
    return tokenizer


def min_frequency_of(corpus: Corpus) -> int:
    """Minimum count of a pair to be merged, by default."""
    return 1 if corpus_bytes(corpus) < SMALL_CORPUS_BYTES else 2


def corpus_bytes(corpus: Corpus) -> int:
    """Size of the text in UTF-8 bytes, counted up to SMALL_CORPUS_BYTES."""
    total = 0
    for chunk in corpus.text_chunks():
        total += len(chunk.encode())
        if total >= SMALL_CORPUS_BYTES:
            break
    return total


def get_store(
    run: Path, options: DataOptions, corpus: Corpus | None, tokenizer: Tokenizer, monitor: Monitor
) -> TokenStore:
    """The token store given by ``--data``, or that of the run in ``tokens/``, written if it is not there."""
    given = token_store(options.data)
    directory = given or run / "tokens"
    if given or (directory / MANIFEST).is_file():
        store = TokenStore.open(directory)
        if store.fingerprint != tokenizer.fingerprint():
            used, remedy = f"{run}/vocab.txt", "a new run"
            if given:
                used, remedy = str(options.vocabulary), "--tokenizer with the vocabulary of these tokens"
            raise InputError(f"{directory}: was made with another vocabulary than {used}. Try: {remedy}")
        if given:
            refuse_unknown(store, options.allow_unknown)
        elif changes := source_files.describe_changes(directory, options.data):
            monitor.log(f"continuing with the tokens in {directory}, although text has changed ({changes})")
    else:
        assert corpus is not None
        store = write_store(directory, corpus, tokenizer, threads=options.threads)
        if unknown := check_unknown(store, corpus, tokenizer, allowed=options.allow_unknown):
            monitor.log(f"warning: {unknown}")
        for finding in quick_findings(corpus, store.num_documents):
            if finding.severe:
                monitor.log(f"warning: {finding}")
        source_files.write(directory, corpus)
    monitor.log(
        f"text: {store.num_tokens:,} tokens in {store.num_sentences:,} lines of {store.num_documents:,} documents"
    )
    return store


def get_heldout_store(run: Path, options: DataOptions, tokenizer: Tokenizer, monitor: Monitor) -> TokenStore | None:
    """The text of ``--eval-data`` in ``eval_tokens/`` of the run, None without the option."""
    if not options.eval_data:
        return None
    store = _get_store(run / "eval_tokens", "--eval-data", options.eval_data, options, tokenizer, monitor)
    monitor.log(f"held-out text: {store.num_tokens:,} tokens of {store.num_documents:,} documents")
    return store


def get_replay_store(run: Path, options: DataOptions, tokenizer: Tokenizer, monitor: Monitor) -> TokenStore | None:
    """The text of ``--replay``: a token store, or text in ``replay_tokens/`` of the run; None without the option."""
    if options.replay is None:
        return None
    directory = token_store([options.replay]) or run / "replay_tokens"
    store = _get_store(directory, "--replay", [options.replay], options, tokenizer, monitor)
    if store.fingerprint != tokenizer.fingerprint():
        raise InputError(
            f"--replay {options.replay}: has another vocabulary than {run}/vocab.txt. Try: the text itself"
        )
    monitor.log(f"replayed text: {store.num_tokens:,} tokens of {store.num_documents:,} documents")
    return store


def _get_store(
    directory: Path, option: str, data: list[str], options: DataOptions, tokenizer: Tokenizer, monitor: Monitor
) -> TokenStore:
    """The store in ``directory``, made of the option's text where there is none yet."""
    if (directory / MANIFEST).is_file():
        return TokenStore.open(directory, verify=True)
    corpus = options.corpus(data)
    store = write_store(directory, corpus, tokenizer, threads=options.threads)
    if unknown := check_unknown(store, corpus, tokenizer, allowed=options.allow_unknown):
        monitor.log(f"warning: {option}: {unknown}")
    return store


def verify_in_background(store: TokenStore, world: World) -> Background:
    """Verify the checksums of a store on the main rank: a small one at once, a large one while training begins."""
    check = Background("store-check")
    if world.main:
        check.submit(store.verify)
        if sum(file.bytes for file in store.manifest.files) <= VERIFY_AT_ONCE_BYTES:
            check.wait()
    return check
