"""The same fine-tuning as people write it with transformers: padded batches, fp32, AdamW, a linear schedule.

Batches are padded to their longest row (``DataCollatorWithPadding`` and its kin), in random order. ``tuned=True`` is
what an expert would add: bf16 autocast and batches of rows of like length.
"""

import random
from pathlib import Path

import numpy as np
import torch
from tasks import Task, read
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    get_linear_schedule_with_warmup,
    set_seed,
)

from fastbert.tasks import prediction, scores  # the measures only
from fastbert.tasks.examples import read_examples

WARMUP, WEIGHT_DECAY, CLIP = 0.1, 0.01, 1.0


def finetune(model_directory: str, task: Task, train: Path, eval: Path, seed: int, tuned: bool = False) -> dict:
    """Train, evaluate once, return the measures."""
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(model_directory)
    side = {"tagging": Tagging, "qa": Questions}.get(task.kind, Texts)(task, tokenizer, train, eval)
    model = side.model(model_directory)
    loader = DataLoader(
        side.train,
        collate_fn=side.collate,
        **(
            {"batch_sampler": like_lengths([len(row["input_ids"]) for row in side.train], task.batch_size, seed)}
            if tuned
            else {"batch_size": task.batch_size, "shuffle": True}
        ),
    )
    decay = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=task.learning_rate, fused=True)
    steps = task.epochs * -(-len(side.train) // task.batch_size)
    schedule = get_linear_schedule_with_warmup(optimizer, round(WARMUP * steps), steps)
    model.train()
    for _ in range(task.epochs):
        for batch in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=tuned):
                loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    model.eval()
    return side.evaluate(model, tuned)


def like_lengths(lengths: list[int], batch_size: int, seed: int) -> list[list[int]]:
    """One epoch's batches of rows of like length (what ``group_by_length`` does), in random order."""
    order = list(range(len(lengths)))
    rng = random.Random(seed)
    rng.shuffle(order)
    chunk = 50 * batch_size
    batches = []
    for i in range(0, len(order), chunk):
        part = sorted(order[i : i + chunk], key=lambda j: lengths[j])
        batches += [part[k : k + batch_size] for k in range(0, len(part), batch_size)]
    rng.shuffle(batches)
    return batches


class Texts:
    """Texts and pairs: classes or numbers."""

    def __init__(self, task: Task, tokenizer, train: Path, eval: Path):
        self.task, self.collate = task, DataCollatorWithPadding(tokenizer)
        self.number = task.kind == "regression"
        field = task.label_field or ("score" if self.number else "label")
        rows = read(train)
        self.names = [] if self.number else sorted({row[field] for row in rows})

        def encode(row):
            encoded = tokenizer(row["text"], row.get("text_pair"), truncation=True, max_length=task.max_length)
            return dict(encoded) | {"labels": float(row[field]) if self.number else self.names.index(row[field])}

        self.train, self.eval = [encode(row) for row in rows], [encode(row) for row in read(eval)]

    def model(self, directory: str):
        return AutoModelForSequenceClassification.from_pretrained(
            directory, num_labels=1 if self.number else len(self.names)
        )

    @torch.no_grad()
    def evaluate(self, model, tuned: bool) -> dict:
        logits = torch.cat([model(**batch).logits for batch in DataLoader(self.eval, 64, collate_fn=self.collate)])
        true = np.array([row["labels"] for row in self.eval])
        if self.number:
            return scores.regression_scores(true, logits.squeeze(-1).numpy())
        matrix = scores.confusion(true, logits.argmax(-1).numpy(), len(self.names))
        return scores.classification_scores(matrix)


class Tagging:
    """Words with tags, at the first piece of each word; what is too long is cut."""

    def __init__(self, task: Task, tokenizer, train: Path, eval: Path):
        self.collate = DataCollatorForTokenClassification(tokenizer)
        rows = read(train)
        kinds = sorted({tag[2:] for row in rows for tag in row["tags"] if tag != "O"})
        self.names = ["O", *(f"{part}-{kind}" for kind in kinds for part in "BI")]

        def encode(row):
            encoded = tokenizer(row["tokens"], is_split_into_words=True, truncation=True, max_length=task.max_length)
            labels, before = [], None
            for word in encoded.word_ids():
                first = word is not None and word != before
                labels.append(self.names.index(row["tags"][word]) if first else -100)
                before = word
            return dict(encoded) | {"labels": labels}

        self.train, self.eval_rows = [encode(row) for row in rows], read(eval)
        self.eval = [encode(row) for row in self.eval_rows]

    def model(self, directory: str):
        return AutoModelForTokenClassification.from_pretrained(directory, num_labels=len(self.names))

    @torch.no_grad()
    def evaluate(self, model, tuned: bool) -> dict:
        predicted = []
        for batch in DataLoader(self.eval, 64, collate_fn=self.collate):
            guesses = model(**batch).logits.argmax(-1)
            predicted += [
                [self.names[g] for g, label in zip(a.tolist(), b.tolist(), strict=True) if label != -100]
                for a, b in zip(guesses, batch["labels"], strict=True)
            ]
        true = [row["tags"] for row in self.eval_rows]
        predicted = [p + ["O"] * (len(t) - len(p)) for p, t in zip(predicted, true, strict=True)]
        return scores.tagging_scores(true, predicted)


class Questions:
    """Windows of contexts, as in transformers' own question-answering example."""

    STRIDE = 128

    def __init__(self, task: Task, tokenizer, train: Path, eval: Path):
        self.pad = DataCollatorWithPadding(tokenizer)
        self.tokenizer, self.length = tokenizer, task.max_length
        self.train = self.windows(read_examples(str(train), "qa"), labelled=True)
        self.examples = read_examples(str(eval), "qa")
        self.eval = self.windows(self.examples, labelled=False)

    def windows(self, examples, labelled: bool) -> list[dict]:
        encoded = self.tokenizer(
            [e.question for e in examples],
            [e.context for e in examples],
            truncation="only_second",
            max_length=self.length,
            stride=self.STRIDE,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        rows = []
        for i, number in enumerate(encoded["overflow_to_sample_mapping"]):
            row = {k: encoded[k][i] for k in ("input_ids", "token_type_ids", "attention_mask")}
            parts = encoded.sequence_ids(i)
            offsets = [o if p == 1 else (-1, -1) for o, p in zip(encoded["offset_mapping"][i], parts, strict=True)]
            if labelled:
                row |= dict(
                    zip(("start_positions", "end_positions"), self.place(examples[number], offsets), strict=True)
                )
            else:
                row |= {"example": number, "offsets": offsets}
            rows.append(row)
        return rows

    @staticmethod
    def place(example, offsets) -> tuple[int, int]:
        if not example.answers:
            return 0, 0
        text, start = example.answers[0]
        end = start + len(text)
        inside = [i for i, (a, b) in enumerate(offsets) if a >= 0 and b > start and a < end]
        whole = inside and offsets[inside[0]][0] <= start and offsets[inside[-1]][1] >= end
        return (inside[0], inside[-1]) if whole else (0, 0)

    def collate(self, rows):
        return self.pad(rows)

    def model(self, directory: str):
        return AutoModelForQuestionAnswering.from_pretrained(directory)

    @torch.no_grad()
    def evaluate(self, model, tuned: bool) -> dict:
        best = [(-np.inf, "")] * len(self.examples)
        plain = [{k: row[k] for k in ("input_ids", "token_type_ids", "attention_mask")} for row in self.eval]
        at = 0
        for batch in DataLoader(plain, 32, collate_fn=self.pad):
            out = model(**batch)
            for logits in torch.stack([out.start_logits, out.end_logits], -1).numpy():
                row = self.eval[at]
                at += 1
                offsets, example = np.array(row["offsets"]), self.examples[row["example"]]
                for score, a, b in prediction.best_spans(logits[: len(offsets)], offsets)[:1]:
                    best[row["example"]] = max(best[row["example"]], (score, example.context[a:b]))
        return scores.answer_scores([text for _, text in best], [e.gold_texts for e in self.examples])
