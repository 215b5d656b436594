"""Any text, however small or strange, gives batches and an evaluation, or one line that says why not."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastbert.data import BatchLoader, TokenStore
from fastbert.system.errors import InputError
from fastbert.training.evaluation_data import EvaluationText
from fastbert.training.options import TrainOptions
from fastbert.training.prepare_data import DataOptions, prepare
from support import SPECIAL

PARTS = ["a", "b", "é", "e\u0301", "\u0301", "Z", "9", ".", "[SEP]", "[UNK]", "<p>", " ", "\t", "\n", "\n\n", "\r\n"]
PARTS += ["\u200b", "\u00a0", "\ufeff", "中", "😀", "\u0378", "word ", "the cat sat. ", "x" * 101, "ab " * 30]
VOCABULARIES = {None: (), "other": ("a", "the"), "special": ()}


def prepared(folder: Path, text: str, vocabulary: str | None, **options):
    """The text of a run, its evaluation and its batches."""
    path = folder / "a.txt"
    path.write_bytes(text.encode())
    if vocabulary:
        (folder / vocabulary).mkdir()
        (folder / vocabulary / "vocab.txt").write_text("\n".join([*SPECIAL, *VOCABULARIES[vocabulary]]))
        options["tokenizer"] = str(folder / vocabulary)
    chosen = TrainOptions(data=[str(path)], threads=1, **options)
    lines: list[str] = []
    (folder / "run").mkdir()
    data = prepare(
        folder / "run",
        DataOptions.of(chosen, token_type_ids=True, max_positions=512),
        SimpleNamespace(log=lines.append),
    )
    evaluation = EvaluationText.choose(
        data, chosen.heldout_fraction, max_length=chosen.max_length, next_sentence=chosen.next_sentence
    )
    lines += evaluation.notes(data)
    assert all(line and "\n" not in line for line in lines)
    return chosen, data, evaluation


def check(text: str, max_length: int, vocabulary: str | None, **options) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            chosen, data, evaluation = prepared(folder, text, vocabulary, max_length=max_length, **options)
        except InputError as error:
            assert "\n" not in str(error) and "Try: " in str(error)
            tokens = folder / "run" / "tokens"
            assert (
                not tokens.is_dir()
                or not [p for p in tokens.iterdir() if p.name != "sources.json"]
                or ("mlm+nsp" in str(error))
            )
            return
        common = {"batch_tokens": 128, "max_length": max_length, "objective": chosen.objective, "prefetch": 0}
        loader = BatchLoader(data.store, evaluation.train, data.tokenizer, **common)
        for _ in range(3):
            batch = loader.next_batch(0.3)
            assert 0 < batch.max_seqlen <= max_length and len(batch.masked_index) == len(batch.labels)
        if evaluation.memorization is not None:
            assert len(evaluation.memorization.labels) and evaluation.memorization.max_seqlen <= max_length
        else:
            held = BatchLoader(evaluation.store, evaluation.heldout, data.tokenizer, shuffle=False, **common)
            assert list(held.evaluation_batches(0.15))
        assert evaluation.measured_on in ("the training text", "unseen lines", "unseen documents")
        TokenStore.open(data.store.directory, verify=True)


@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=st.lists(st.sampled_from(PARTS), max_size=12).map("".join),
    max_length=st.integers(8, 40),
    objective=st.sampled_from(["mlm", "mlm+nsp", "diffusion"]),
    vocabulary=st.sampled_from([*VOCABULARIES]),
    documents=st.sampled_from(["blank", "line", "file", "[SEP]"]),
    allow_unknown=st.booleans(),
)
@example("the cat sat. " * 40, 8, "mlm", None, "blank", False)
@example("x" * 101, 8, "diffusion", None, "blank", True)
@example("a\n" * 900, 8, "mlm+nsp", "other", "file", True)
@example("a b\n\n" * 900, 8, "mlm", None, "blank", False)
def test_a_tiny_text_gives_batches_or_one_line(text, max_length, objective, vocabulary, documents, allow_unknown):
    check(text, max_length, vocabulary, objective=objective, documents=documents, allow_unknown=allow_unknown)


@pytest.mark.parametrize(
    ("text", "vocabulary", "options", "words"),
    [
        ("", None, {}, ["is empty"]),
        (" \n\t\n", None, {}, ["no text"]),
        ("\u200b \u00ad", None, {}, ["no words"]),
        (("x" * 150 + "\n") * 20, None, {}, ["no words", "100", "--max-word-chars"]),
        ("the zebra\n" * 20, "other", {}, ["50.0%", "zebra"[:1], "--allow-unknown"]),
        ("zebra\n" * 20, "other", {"allow_unknown": True}, ["100.0%", "trained on this text"]),
        ("one line\n\nanother\n" * 9, None, {"documents": "line", "objective": "mlm+nsp"}, ["mlm+nsp", "single line"]),
    ],
)
def test_what_cannot_be_trained_on_is_refused_by_name(tmp_path, text, vocabulary, options, words):
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, text, vocabulary, **options)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_long_words_are_trained_on_with_a_higher_limit(tmp_path):
    _, data, _ = prepared(tmp_path, "ACGT" * 40 + "\n" + "TGCA" * 40 + "\n", None, max_word_chars=200)
    assert data.store.num_unknown == 0 and data.tokenizer.options.max_input_chars_per_word == 200


def test_half_of_the_tokens_may_be_unknown_if_allowed(tmp_path):
    _, data, _ = prepared(tmp_path, "the zebra\n" * 20, "other", allow_unknown=True)
    assert data.store.num_unknown == 20


@pytest.mark.parametrize(
    ("text", "measured_on"),
    [
        ("".join(f"line {i} of one document\n" for i in range(900)), "unseen lines"),
        ("".join(f"document {i} has this line\n\n" for i in range(900)), "unseen documents"),
        ("too short to hold anything out\n", "the training text"),
    ],
)
def test_documents_are_unseen_only_where_documents_are_held_out(tmp_path, text, measured_on):
    _, data, evaluation = prepared(tmp_path, text, None)
    assert evaluation.measured_on == measured_on
    assert not any("also stand" in note for note in evaluation.notes(data))


def test_heldout_lines_that_are_also_trained_on_are_told(tmp_path):
    text = "".join(f"sentence {i} number\n\n" for i in range(300)) * 2 + "".join(f"x {i}\n\n" for i in range(3000))
    _, data, evaluation = prepared(tmp_path, text, None)
    (warning,) = (note for note in evaluation.notes(data) if "also stand" in note)
    assert 5 < float(warning.split()[1].removesuffix("%")) < 60


@pytest.mark.parametrize("together", [False, True])
def test_chinese_characters_are_words_or_parts_of_words(tmp_path, together):
    _, data, _ = prepared(tmp_path, "中文字符 the cat\n" * 40, None, no_chinese_chars=together)
    tokens = [data.tokenizer.id_to_token(i) for i in data.store.gather([0], [data.store.num_tokens])]
    assert ("中文字符" in tokens) == together and ("文" in tokens) != together
    assert data.store.num_unknown == 0


def test_heldout_text_without_anything_to_predict_is_told(tmp_path):
    text = "the a\n" * 900 + "zebra " * 40 + "\n" + ("zebra " * 40 + "\n") * 20
    _, data, evaluation = prepared(tmp_path, text, "other", allow_unknown=True)
    assert any("nothing to predict" in note for note in evaluation.notes(data))
