"""Measures are the textbook's, and what is shown to a person is readable."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from fastbert.batch import pack
from fastbert.bert import Bert
from fastbert.config import BertConfig
from fastbert.evaluation.examples import fill_examples
from fastbert.model import BertForPreTraining
from fastbert.text import Tokenizer
from fastbert.text.detokenize import detokenize
from fastbert.training.validation import Evaluation, evaluate


def batches(model, count=3):
    generator = torch.Generator().manual_seed(3)
    for _ in range(count):
        ids = torch.randint(5, 60, (4, 9), generator=generator)
        batch, _ = pack(ids)
        rows = torch.arange(0, 36, 5)
        relation = torch.tensor([0, 1, -100, 0])
        yield dataclasses.replace(batch, masked_index=rows, labels=batch.input_ids[rows], next_sentence_label=relation)


def test_evaluation_pools_tokens_over_batches():
    torch.manual_seed(0)
    model = BertForPreTraining(BertConfig.preset("tiny", vocab_size=60, initializer_range=0.3)).train()
    result = evaluate(model, batches(model))
    assert model.training, "the model is left in the mode it was in"
    model.eval()
    losses, right, said = [], [], []
    for batch in batches(model):
        whole = dataclasses.replace(batch, labels=None, masked_index=None, next_sentence_label=None)
        out = model(whole)
        logits = out.prediction_logits[batch.masked_index]
        losses.append(F.cross_entropy(logits, batch.labels, reduction="none"))
        right.append(logits.argmax(-1) == batch.labels)
        said.append(out.seq_relationship_logits.argmax(-1)[batch.next_sentence_label >= 0] == torch.tensor([0, 1, 0]))
    assert result.loss == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
    assert result.accuracy == pytest.approx(torch.cat(right).float().mean().item())
    assert result.next_sentence_accuracy == pytest.approx(torch.cat(said).float().mean().item())
    assert (result.masked_tokens, result.sentence_pairs) == (24, 9)
    assert result.perplexity == pytest.approx(math.exp(result.loss))


def test_evaluation_without_pairs_says_nothing_of_them():
    result = Evaluation(loss=2.0, accuracy=0.25, masked_tokens=4)
    assert "next-sentence" not in str(result) and "25.0%" in str(result)
    assert result.record()["next_sentence_accuracy"] is None


@pytest.mark.parametrize(
    ("decoded", "shown"),
    [
        ("Não ; carro para quê ? deixemo - nos [MASK] carro .", "Não; carro para quê? deixemo-nos [MASK] carro."),
        ("— Sim , ( disse ela ) , d ' África", "— Sim, (disse ela), d'África"),
        ("a [MASK] - lhe [MASK] .", "a [MASK]-lhe [MASK]."),
    ],
)
def test_readable(decoded, shown):
    assert detokenize(decoded) == shown


def test_examples_are_of_medium_length_where_there_are_any():
    tokenizer = Tokenizer.train(["a casa amarela fica na rua da praia e tem um jardim com flores"] * 3, vocab_size=120)
    bert = Bert(BertForPreTraining(BertConfig.preset("tiny", vocab_size=len(tokenizer))), tokenizer)
    long, short = "a casa amarela fica na rua da praia", "a casa amarela fica"
    sentences = [tokenizer.encode(text, add_special_tokens=False).ids for text in (short, long, "a casa", short)]
    assert [len(ids) for ids in sentences] == [4, 8, 2, 4]
    examples = fill_examples(bert, sentences)
    assert [example.text.replace("[MASK]", example.word) for example in examples] == [long, short, short]
    assert all(len(example.guesses) == 3 for example in examples)


def test_a_diverged_model_does_not_fill_the_screen():
    assert "perplexity 106.9 " in str(Evaluation(4.672, 0.2, 100))
    assert "perplexity 1.01e+304 " in str(Evaluation(333435.9, 0.0, 100))
