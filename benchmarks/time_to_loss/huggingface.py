"""Pretrain a small BERT with transformers and tokenizers, as their own example for masked language models does.

    python benchmarks/time_to_loss/huggingface.py --prepared DIR --minutes 10 --variant tuned --learning-rate 1e-3 \
        --output run

Variants: ``default`` is fp32, SDPA attention, dropout 0.1 and plain AdamW, what the library does when nothing is set;
``tuned`` is bf16 autocast, eager attention (quicker than SDPA in bf16 on a CPU), no dropout and fused AdamW.
Both: BertForMaskedLM, texts joined and cut into rows of 128, 32 rows a batch, 15 % masks 80/10/10 by transformers'
collator, gradients clipped at 1, 2 % warm-up and linear decay to zero over the minutes.

The clock starts with the first line; tokenizing is charged, evaluation and saving are not. Blank lines are left out and
no ``datasets`` is used: texts are tokenized by one call to ``tokenizers`` and grouped with numpy, which only makes the
start quicker than the example's.
"""

import time

START_S = time.monotonic()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
from pathlib import Path  # noqa: E402

LENGTH, ROWS_A_BATCH, MASK_RATE, WARMUP, WEIGHT_DECAY, CLIP = 128, 32, 0.15, 0.02, 0.01, 1.0
SIZES = {"tiny": (2, 128, 2, 512), "mini": (4, 256, 4, 1024), "small": (4, 512, 8, 2048)}  # layers, width, heads, FFN


class Clock:
    """Seconds since the start of the program, without those that are not charged."""

    def __init__(self):
        self.excluded_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() - START_S - self.excluded_s

    def free(self, work):
        """Do ``work`` without charge."""
        began = time.monotonic()
        result = work()
        self.excluded_s += time.monotonic() - began
        return result


def read_rows(train: Path, tokenizer):
    """(rows, 128) token ids: every line [CLS] … [SEP], joined, cut; what is left over at the end is dropped."""
    import numpy as np

    lines = [line for line in train.read_text(encoding="utf-8").split("\n") if line.strip()]
    pieces = []
    for begin in range(0, len(lines), 1000):  # the size of `datasets`' batches
        encoded = tokenizer.backend_tokenizer.encode_batch(lines[begin : begin + 1000])
        pieces += [np.array(one.ids, np.int64) for one in encoded]
    joined = np.concatenate(pieces)
    return joined[: len(joined) // LENGTH * LENGTH].reshape(-1, LENGTH)


class Rows:
    """A map-style dataset, as the collator wants it."""

    def __init__(self, rows, special_ids):
        import numpy as np

        self.rows, self.special = rows, np.isin(rows, special_ids).astype(np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict:
        import torch

        return {
            "input_ids": torch.from_numpy(self.rows[i]),
            "attention_mask": torch.ones(LENGTH, dtype=torch.int64),
            "special_tokens_mask": torch.from_numpy(self.special[i]),
        }


def build(arguments, tokenizer):
    """The model and its optimizer."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    layers, width, heads, inner = SIZES[arguments.preset]
    tuned = arguments.variant == "tuned"
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=inner, max_position_embeddings=512,
    )  # fmt: skip
    if tuned:
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
        config._attn_implementation = "eager"
    torch.manual_seed(arguments.seed)
    model = BertForMaskedLM(config).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=arguments.learning_rate, weight_decay=WEIGHT_DECAY, fused=tuned
    )
    return model, optimizer


def evaluate(model, fixed, tuned: bool) -> tuple[float, float]:
    """Loss and accuracy over the fixed rows."""
    import torch
    from scoring import measure  # the judge's, beside this file

    model.eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=tuned):
        loss, accuracy, _ = measure(model, fixed)
    model.train()
    return loss, accuracy


def train(arguments) -> None:
    import numpy as np
    import torch
    from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    prepared, output, clock = Path(arguments.prepared), Path(arguments.output), Clock()
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(prepared / "vocabulary" / "tokenizer.json"), mask_token="[MASK]", **names
    )
    rows = read_rows(prepared / "train.txt", tokenizer)
    fixed = clock.free(lambda: dict(np.load(prepared / "rows.npz")))
    curve = clock.free(lambda: (output.mkdir(parents=True, exist_ok=True), (output / "curve.jsonl").open("w"))[1])
    model, optimizer = build(arguments, tokenizer)
    collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=MASK_RATE)
    loader = torch.utils.data.DataLoader(
        Rows(rows, tokenizer.all_special_ids), ROWS_A_BATCH, shuffle=True, collate_fn=collator, drop_last=True
    )
    tuned, step, first_step_s = arguments.variant == "tuned", 0, None
    began_s, budget_s = clock(), arguments.minutes * 60

    def record(kind: str) -> None:
        loss, accuracy = evaluate(model, fixed, tuned)
        facts = {"kind": kind, "elapsed_s": round(clock_s, 3), "step": step, "tokens": step * ROWS_A_BATCH * LENGTH,
                 "loss": loss, "accuracy": accuracy, "first_step_s": first_step_s}  # fmt: skip
        curve.write(json.dumps(facts) + "\n")
        curve.flush()
        print(f"{clock_s:7.1f} s  step {step:,}  loss {loss:.3f}  accuracy {accuracy:.1%}", flush=True)

    next_s = budget_s / arguments.evaluations
    while (clock_s := clock()) < budget_s:
        for batch in loader:
            progress = min(1.0, (clock() - began_s) / (budget_s - began_s))
            for group in optimizer.param_groups:
                group["lr"] = arguments.learning_rate * min(1.0, progress / WARMUP) * (1.0 - progress)
            with torch.autocast("cpu", torch.bfloat16, enabled=tuned):
                loss = model(**{k: batch[k] for k in ("input_ids", "attention_mask", "labels")}).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            clock_s = clock()
            first_step_s = first_step_s or round(clock_s, 3)
            if clock_s >= budget_s:
                break
            if clock_s >= next_s:
                next_s = clock_s + budget_s / arguments.evaluations
                clock.free(lambda: record("heldout"))
    clock_s = clock()
    record("final")
    model.save_pretrained(output / "model")
    shutil.copytree(prepared / "vocabulary", output / "model", dirs_exist_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", required=True, help="a corpus's folder, as run.py makes it")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--variant", choices=("default", "tuned"), default="tuned")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--preset", choices=SIZES, default="mini")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--evaluations", type=int, default=60, help="evenly over the minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", required=True)
    arguments = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(arguments.threads), "RAYON_NUM_THREADS": str(arguments.threads),
                   "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}  # fmt: skip
    train(arguments)


if __name__ == "__main__":
    main()
