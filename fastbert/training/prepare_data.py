"""The text of a run: corpus, vocabulary and token stores, each made once and found again by a resumed run."""

from pathlib import Path

from fastbert.config import Arch
from fastbert.data import Corpus, TokenStore, write_store
from fastbert.distributed.world import World
from fastbert.runs.metrics_log import Monitor
from fastbert.system.background import Background
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer
from fastbert.training.options import TrainOptions
from fastbert.weights.huggingface import read_config

SMALL_CORPUS_BYTES = 100_000  # below: every word seen once may have a piece of its own
VERIFIED_AT_ONCE = 256 << 20  # bytes, in a fraction of a second


def ready_store(options: TrainOptions) -> Path | None:
    """The directory that ``python -m fastbert.tokenize`` made, when ``--data`` is one."""
    path = Path(options.data[0])
    return path if len(options.data) == 1 and (path / "manifest.json").is_file() else None


def open_corpus(options: TrainOptions) -> Corpus | None:
    """The text, None when ``--data`` is a token store."""
    return None if ready_store(options) else Corpus(options.data, text_field=options.text_field)


def get_tokenizer(run: Path, options: TrainOptions, corpus: Corpus | None, monitor: Monitor) -> Tokenizer:
    """The run's own (resumed), the one asked for, or a new one trained on the corpus; saved in the run."""
    if (run / "vocab.txt").is_file():
        tokenizer = Tokenizer.load(run)
        listed = (run / "vocab.txt").read_text(encoding="utf-8", errors="replace").split("\n")
        if listed[: len(tokenizer)] != [tokenizer.id_to_token(i) for i in range(len(tokenizer))]:
            raise InputError(
                f"{run}/vocab.txt: is not the vocabulary of {run}/tokenizer.json: restore them, or start a new run"
            )
        return tokenizer
    if source := options.tokenizer or options.init or ready_store(options):
        tokenizer = Tokenizer.load(source)
        monitor.say(f"vocabulary: {len(tokenizer):,} pieces from {source}")
    else:
        assert corpus is not None
        frequency = options.min_frequency or (1 if corpus_bytes(corpus) < SMALL_CORPUS_BYTES else 2)
        tokenizer = Tokenizer.train(
            corpus.text_chunks(),
            vocab_size=options.vocab_size,
            min_frequency=frequency,
            lowercase=options.lowercase,
            strip_accents=options.strip_accents,
            threads=options.threads,
        )
        shrunk = f" (asked for {options.vocab_size:,}; the text supports no more)"
        monitor.say(
            f"vocabulary: {len(tokenizer):,} pieces, {'uncased' if options.lowercase else 'cased'}, accents "
            f"{'stripped' if options.strip_accents else 'kept'}{shrunk if len(tokenizer) < options.vocab_size else ''}"
        )
    # transformers' ModernBERT takes no token types
    tokenizer.save(run, token_type_ids=arch_of(options) != "modern")
    return tokenizer


def arch_of(options: TrainOptions) -> Arch:
    """The architecture asked for, or of the weights to start from, or the default."""
    if options.init:
        arch = read_config(Path(options.init)).arch
        if options.arch not in (None, arch):
            raise InputError(
                f"--arch {options.arch}: the weights of --init {options.init} are {arch}: leave --arch out"
            )
        return arch
    return options.arch or ("classic" if options.next_sentence else "modern")


def corpus_bytes(corpus: Corpus) -> int:
    """Size of the text in UTF-8 bytes, counted no further than it matters."""
    total = 0
    for chunk in corpus.text_chunks():
        total += len(chunk.encode())
        if total >= SMALL_CORPUS_BYTES:
            break
    return total


def get_store(
    run: Path, options: TrainOptions, corpus: Corpus | None, tokenizer: Tokenizer, monitor: Monitor
) -> TokenStore:
    """The token store that ``--data`` is, or the corpus as token shards in ``tokens/`` of the run, written once."""
    directory = ready_store(options) or run / "tokens"
    if corpus is None or (directory / "manifest.json").is_file():
        store = TokenStore.open(directory)
        if store.fingerprint != tokenizer.fingerprint():
            used, remedy = str(run / "vocab.txt"), "start a new run"
            if corpus is None:
                used, remedy = options.tokenizer or options.init or used, "--tokenizer the one it was made with"
            raise InputError(f"{directory}: was made with another vocabulary than {used}: {remedy}")
    else:
        store = write_store(directory, corpus, tokenizer, threads=options.threads)
    monitor.say(
        f"text: {store.num_tokens:,} tokens in {store.num_sentences:,} lines of {store.num_documents:,} documents"
    )
    return store


def get_heldout_store(run: Path, options: TrainOptions, tokenizer: Tokenizer, monitor: Monitor) -> TokenStore | None:
    """The text of ``--eval-data`` as token shards in ``eval_tokens/`` of the run, None without the option."""
    if not options.eval_data:
        return None
    directory = run / "eval_tokens"
    if (directory / "manifest.json").is_file():
        store = TokenStore.open(directory, verify=True)
    else:
        corpus = Corpus(options.eval_data, text_field=options.text_field)
        store = write_store(directory, corpus, tokenizer, threads=options.threads)
    monitor.say(f"held-out text: {store.num_tokens:,} tokens of {store.num_documents:,} documents")
    return store


def verify_beside(store: TokenStore, world: World) -> Background:
    """Compare the checksums of a store: a small one at once, a large one while training begins."""
    check = Background("store-check")
    if world.main:
        check.submit(store.verify)
        if sum(file.bytes for file in store.manifest.files) <= VERIFIED_AT_ONCE:
            check.wait()
    return check
