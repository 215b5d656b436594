"""Directories with tokenizers of other kinds, trained on the bundled text and saved as transformers saves them."""

import itertools
import json
from functools import cache
from pathlib import Path

import pytest
from hostile_text import VOCAB

from support import SPECIAL

transformers = pytest.importorskip("transformers", reason="transformers is the peer compared with")
tokenizers = pytest.importorskip("tokenizers")

ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
GENERIC = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))


@cache
def lines() -> list[str]:
    """English and Portuguese prose."""
    from fastbert.data import Corpus

    found: list[str] = []
    for name in ("bundled:en", "bundled:pt"):
        text = (line for document in Corpus([name]).documents() for line in document.lines)
        found += itertools.islice(text, 600)
    return found


def _frame(tk, cls="[CLS]", sep="[SEP]"):
    ids = [(text, tk.token_to_id(text)) for text in (cls, sep)]
    tk.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B:1 {sep}:1", special_tokens=ids
    )


@cache
def _byte_level(special: tuple[str, ...]):
    tk = tokenizers.Tokenizer(tokenizers.models.BPE())
    tk.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tk.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=900, special_tokens=list(special), show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tk.train_from_iterator(lines(), trainer)
    return tk.to_str()


@cache
def _unigram():
    tk = tokenizers.Tokenizer(tokenizers.models.Unigram())
    tk.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.NFKC()])
    space = tokenizers.pre_tokenizers.Metaspace()
    tk.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([tokenizers.pre_tokenizers.WhitespaceSplit(), space])
    tk.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=600, special_tokens=ROBERTA, unk_token="<unk>", show_progress=False
    )
    tk.train_from_iterator(lines(), trainer)
    return tk.to_str()


def modernbert(root: Path) -> None:
    """Byte-level BPE with BERT's special tokens, a mask that takes the blank before it, NFC."""
    tk = tokenizers.Tokenizer.from_str(_byte_level(tuple(SPECIAL)))
    tk.normalizer = tokenizers.normalizers.NFC()
    tk.add_special_tokens([tokenizers.AddedToken("[MASK]", lstrip=True)])
    _frame(tk)
    names = ["input_ids", "attention_mask"]
    transformers.PreTrainedTokenizerFast(tokenizer_object=tk, **GENERIC, model_input_names=names).save_pretrained(root)


def roberta(root: Path) -> None:
    """As RobertaTokenizer saves it: other special tokens, two separators in a pair, no types."""
    model = json.loads(_byte_level(tuple(ROBERTA)))["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    transformers.RobertaTokenizer(vocab=model["vocab"], merges=merges).save_pretrained(root)


def unigram(root: Path) -> None:
    """As XLM-RoBERTa's, with a normalizer of its own."""
    tk = tokenizers.Tokenizer.from_str(_unigram())
    _frame(tk, "<s>", "</s>")
    roles = dict(zip(("cls_token", "pad_token", "sep_token", "unk_token", "mask_token"), ROBERTA, strict=True))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tk, **roles).save_pretrained(root)


def xlm_roberta(root: Path) -> None:
    """As XLMRobertaTokenizer saves it."""
    vocab = [tuple(entry) for entry in json.loads(_unigram())["model"]["vocab"]]
    transformers.XLMRobertaTokenizer(vocab=vocab).save_pretrained(root)


def course(root: Path) -> None:
    """WordPiece with other normalizers and pre-tokenizers, as the course of transformers teaches it."""
    tk = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({w: i for i, w in enumerate(VOCAB)}, unk_token="[UNK]", max_input_chars_per_word=50)
    )
    n, p = tokenizers.normalizers, tokenizers.pre_tokenizers
    tk.normalizer = n.Sequence([n.NFD(), n.Lowercase(), n.StripAccents()])
    tk.pre_tokenizer = p.Sequence([p.WhitespaceSplit(), p.Punctuation()])
    _frame(tk)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tk, **GENERIC).save_pretrained(root)


def _wordpiece(root: Path, vocab, **config) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    whole = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, **config}
    (root / "tokenizer_config.json").write_text(json.dumps(whole))


def own_special_tokens(root: Path) -> None:
    """WordPiece with <s> and <mask> in the place of [CLS] and [MASK]."""
    names = {
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "mask_token": "<mask>",
    }
    _wordpiece(root, [*names.values(), *VOCAB[5:]], **names)


def added_tokens_json(root: Path) -> None:
    """A slow tokenizer's file of added tokens."""
    _wordpiece(root, VOCAB)
    (root / "added_tokens.json").write_text(json.dumps({"lockdown": len(VOCAB), "vacina": len(VOCAB) + 1}))


def added_tokens_decoder(root: Path) -> None:
    """The same in tokenizer_config.json."""
    flags = {"lstrip": False, "rstrip": False, "single_word": False}
    listed = {str(i): {"content": t, "normalized": False, "special": True, **flags} for i, t in enumerate(SPECIAL)}
    listed[str(len(VOCAB))] = {"content": "lockdown", "normalized": True, "special": False, **flags}
    _wordpiece(root, VOCAB, added_tokens_decoder=listed)


def add_tokens(root: Path) -> None:
    """``tokenizer.add_tokens`` of transformers, saved again; words are matched in normalized text."""
    _wordpiece(root / "before", VOCAB)
    tok = transformers.AutoTokenizer.from_pretrained(root / "before")
    tok.add_tokens(["lockdown", "vacina", tokenizers.AddedToken("<user>", single_word=True)])
    tok.add_special_tokens({"additional_special_tokens": ["<ent>"]})
    tok.save_pretrained(root)


def special_tokens_map(root: Path) -> None:
    """Roles in special_tokens_map.json alone."""
    _wordpiece(root, [*VOCAB, "<m>", "<e>"])
    content = {"mask_token": {"content": "<m>", "lstrip": True}, "additional_special_tokens": ["<e>"]}
    (root / "special_tokens_map.json").write_text(json.dumps(content))


def byte_level_without_frame(root: Path) -> None:
    """No post-processor: nothing is added around a text."""
    tk = tokenizers.Tokenizer.from_str(_byte_level(tuple(SPECIAL)))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tk, **GENERIC).save_pretrained(root)


KINDS = {
    make.__name__: make
    for make in (
        modernbert, roberta, unigram, xlm_roberta, course, own_special_tokens, added_tokens_json, added_tokens_decoder,
        add_tokens, special_tokens_map, byte_level_without_frame,
    )
}  # fmt: skip
