"""What every contestant is given: training text, vocabulary, and rows of unseen paragraphs with fixed masks.

A corpus is the shared novels ("en", "pt"), a bundled text ("bundled-en", "bundled-pt"), or a .txt file of one's own
with blank lines between documents. What is held out is whole books, or every tenth document where there is one file.
Everything is a pure function of the text: the same corpus gives the same files, byte for byte.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VOCAB_SIZE = 8192
MAX_LENGTH = 128
NUM_ROWS = 512
LEAST_TOKENS = 16  # of a paragraph: a few words tell nothing
OVERLAP = 13  # tokens in a row that a paragraph may not share with the training text
EVERY, REMAINDER = 10, 7  # documents held out of a single file
ROWS_SEED = 7

# about 30 MB of training text
ENGLISH = [
    "alexandre-dumas_the-count-of-monte-cristo_chapman-and-hall",
    "anthony-trollope_the-way-we-live-now",
    "charles-dickens_bleak-house",
    "charles-dickens_david-copperfield",
    "charles-dickens_dombey-and-son",
    "charles-dickens_little-dorrit",
    "charles-dickens_the-pickwick-papers",
    "fyodor-dostoevsky_the-brothers-karamazov_constance-garnett",
    "george-eliot_daniel-deronda",
    "henry-fielding_the-history-of-tom-jones-a-foundling",
    "herman-melville_moby-dick",
    "leo-tolstoy_anna-karenina_constance-garnett",
    "miguel-de-cervantes-saavedra_don-quixote_john-ormsby",
    "victor-hugo_les-miserables_isabel-f-hapgood",
    "william-makepeace-thackeray_vanity-fair",
]
ENGLISH_HELD_OUT = [
    "charles-dickens_our-mutual-friend",
    "george-eliot_middlemarch",
    "leo-tolstoy_war-and-peace_louise-maude_aylmer-maude",
    "mary-shelley_frankenstein",
]
PORTUGUESE = [
    "machado-completo",
    "A-Cidade-e-as-Serras_18220",
    "Os-Lus-adas_3333",
    "ateneu",
    "memorias_de_um_sargento_de_milicias",
    "noite_na_taverna",
]
PORTUGUESE_HELD_OUT = ["cortico", "escrava_isaura"]
BOOKS = {"en": (ENGLISH, ENGLISH_HELD_OUT), "pt": (PORTUGUESE, PORTUGUESE_HELD_OUT)}
BUNDLED = {"bundled-en": "bundled:en", "bundled-pt": "bundled:pt"}


@dataclass(frozen=True)
class Prepared:
    """A corpus's folder."""

    folder: Path

    @property
    def train(self) -> Path:
        """The training text, a blank line between documents."""
        return self.folder / "train.txt"

    @property
    def heldout(self) -> Path:
        """The unseen paragraphs, each a document."""
        return self.folder / "heldout.txt"

    @property
    def vocabulary(self) -> Path:
        """Directory with vocab.txt and tokenizer.json."""
        return self.folder / "vocabulary"

    @property
    def rows(self) -> Path:
        """.npz with input_ids, attention_mask and labels, (R, 128) int64; labels are -100 where nothing is asked."""
        return self.folder / "rows.npz"

    @property
    def facts(self) -> dict:
        return json.loads((self.folder / "facts.json").read_text(encoding="utf-8"))


def prepare(corpus: str, folder: Path, texts: Path, vocab_size: int = VOCAB_SIZE) -> Prepared:
    """Make the files of a corpus, or find them made.

    Args:
        corpus: name, or path of a .txt file.
        folder: where they go; renamed into place when whole.
        texts: directory with the folders ``en`` and ``pt`` of the shared novels.
        vocab_size: pieces of the uncased vocabulary, which keeps accents.
    """
    if (folder / "facts.json").is_file():
        return Prepared(folder)
    from fastbert import Tokenizer

    partial = Prepared(folder.with_name(f".{folder.name}.partial"))
    shutil.rmtree(partial.folder, ignore_errors=True)
    partial.folder.mkdir(parents=True)
    train, heldout = split(corpus, texts)
    partial.train.write_text(joined(train), encoding="utf-8")
    tokenizer = Tokenizer.train([str(partial.train)], vocab_size=vocab_size, lowercase=True, strip_accents=False)
    tokenizer.save(partial.vocabulary)
    paragraphs, found = choose_paragraphs(heldout, tokenizer, partial)
    partial.heldout.write_text(joined(paragraphs), encoding="utf-8")
    rows = make_rows(partial, tokenizer)
    np.savez(partial.rows, **rows)
    facts = {
        "corpus": corpus,
        "train_bytes": partial.train.stat().st_size,
        "train_documents": len(train),
        "vocabulary": len(tokenizer),
        "paragraphs_available": found,
        "rows": len(rows["input_ids"]),
        "row_tokens": int(rows["attention_mask"].sum()),
        "masked_tokens": int((rows["labels"] >= 0).sum()),
        "sha256": digests(partial, rows),
    }
    (partial.folder / "facts.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    partial.folder.rename(folder)
    return Prepared(folder)


def split(corpus: str, texts: Path) -> tuple[list[str], list[str]]:
    """Training and held-out documents, each its lines."""
    if corpus in BOOKS:
        files = [[texts / corpus / f"{name}.txt" for name in names] for names in BOOKS[corpus]]
        for path in (*files[0], *files[1]):
            if not path.is_file():
                raise SystemExit(f"{path} is missing: name the folder with --texts, or take --corpus bundled-{corpus}")
        train, heldout = (list(documents([str(path) for path in part])) for part in files)
        return train, heldout
    every = list(documents([BUNDLED.get(corpus, corpus)]))
    held = [i % EVERY == REMAINDER for i in range(len(every))]
    return [d for d, h in zip(every, held, strict=True) if not h], [d for d, h in zip(every, held, strict=True) if h]


def documents(sources: list[str]) -> Iterator[str]:
    from fastbert.data import Corpus

    for document in Corpus(sources).documents():
        yield "\n".join(document.lines)


def joined(texts: list[str]) -> str:
    return "\n\n".join(texts) + "\n"


def choose_paragraphs(heldout: list[str], tokenizer, prepared: Prepared) -> tuple[list[str], int]:
    """Up to 512 paragraphs of one row each, at random, and how many there were to choose from.

    Those too long are cut at a word; those that share 13 tokens in a row with the training text are left out.
    """
    lines = [line for document in heldout for line in document.split("\n")]
    texts, ids = [], []
    for line in lines:
        encoded = tokenizer.encode(line, add_special_tokens=False)
        room = MAX_LENGTH - 2
        if len(encoded.ids) < LEAST_TOKENS:
            continue
        if len(encoded.ids) > room:
            while encoded.word_ids[room] == encoded.word_ids[room - 1]:
                room -= 1
            line = line[: encoded.offsets[room - 1][1]]
            encoded = tokenizer.encode(line, add_special_tokens=False)
        texts.append(line)
        ids.append(np.array(encoded.ids))
    shared = shares_a_run(ids, training_tokens(prepared, tokenizer))
    unseen = [text for text, known in zip(texts, shared, strict=True) if not known]
    unseen = list(dict.fromkeys(unseen))
    order = np.random.default_rng(ROWS_SEED).permutation(len(unseen))[:NUM_ROWS]
    return [unseen[i] for i in sorted(order.tolist())], len(unseen)


def training_tokens(prepared: Prepared, tokenizer) -> np.ndarray:
    return tokenizer.encode_file(str(prepared.train), add_special_tokens=False).input_ids


def shares_a_run(rows: list[np.ndarray], tokens: np.ndarray, length: int = OVERLAP) -> list[bool]:
    """Which rows have ``length`` tokens in a row that ``tokens`` has too."""
    hashes = np.sort(window_hashes(tokens, length))
    found = []
    for row in rows:
        mine = window_hashes(row, length)
        places = np.searchsorted(hashes, mine)
        found.append(bool((hashes[np.minimum(places, len(hashes) - 1)] == mine).any()) if len(hashes) else False)
    return found


def window_hashes(tokens: np.ndarray, length: int) -> np.ndarray:
    """(T - length + 1,) uint64, one for every window: a polynomial modulo 2^64, its digits spread by an odd factor."""
    digits = (tokens.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    digits ^= digits >> np.uint64(29)
    count = max(len(tokens) - length + 1, 0)
    total = np.zeros(count, np.uint64)
    for i in range(length):
        total = total * np.uint64(0xD6E8FEB86659FD93) + digits[i : i + count]
    return total


def make_rows(prepared: Prepared, tokenizer) -> dict[str, np.ndarray]:
    """The rows that ``fastbert.train --eval-data heldout.txt`` evaluates on, with its masks, as padded arrays."""
    from fastbert.data import BatchLoader, split_documents, write_store
    from fastbert.training.loaders import EVALUATION_RATE, EVALUATION_SEED

    scratch = prepared.folder / "scratch"
    store = write_store(scratch, _corpus(prepared.heldout), tokenizer)
    spans = split_documents(store, fraction=0.0).train
    loader = BatchLoader(store, spans, tokenizer, batch_tokens=2048, max_length=MAX_LENGTH, seed=0, shuffle=False)
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in loader.evaluation_batches(EVALUATION_RATE, seed=EVALUATION_SEED):
        labels = np.full(batch.num_tokens, -100, np.int64)
        labels[batch.masked_index.numpy()] = batch.labels.numpy()
        cuts = batch.cu_seqlens.numpy()[1:-1]
        rows += zip(np.split(batch.input_ids.numpy(), cuts), np.split(labels, cuts), strict=True)
    shutil.rmtree(scratch)
    shape = (len(rows), MAX_LENGTH)
    input_ids, mask = np.full(shape, tokenizer.pad_id, np.int64), np.zeros(shape, np.int64)
    labels = np.full(shape, -100, np.int64)
    for i, (ids, asked) in enumerate(rows):
        input_ids[i, : len(ids)], labels[i, : len(ids)], mask[i, : len(ids)] = ids, asked, 1
    return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}


def _corpus(path: Path):
    from fastbert.data import Corpus

    return Corpus([str(path)])


def digests(prepared: Prepared, rows: dict[str, np.ndarray]) -> dict[str, str]:
    """SHA-256 of what must be the same for everyone."""
    together = hashlib.sha256()
    for name in sorted(rows):
        together.update(name.encode() + np.ascontiguousarray(rows[name]).tobytes())
    return {
        "train.txt": file_sha256(prepared.train),
        "vocab.txt": file_sha256(prepared.vocabulary / "vocab.txt"),
        "heldout.txt": file_sha256(prepared.heldout),
        "rows": together.hexdigest(),
    }


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
