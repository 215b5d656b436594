"""Score a checkpoint on a corpus's rows with stock transformers in fp32: one judge for every contestant.

python benchmarks/time_to_loss/scoring.py CHECKPOINT rows.npz
"""

import json
import subprocess
import sys
from pathlib import Path


def measure(model, fixed: dict) -> tuple[float, float, int]:
    """Mean loss (nats), accuracy and number of the masked tokens of rows, by a model of transformers in evaluation."""
    import torch

    total, right, count = 0.0, 0, 0
    with torch.no_grad():
        for i in range(0, len(fixed["labels"]), 64):
            ids, mask, labels = (
                torch.from_numpy(fixed[k][i : i + 64]) for k in ("input_ids", "attention_mask", "labels")
            )
            asked = labels >= 0
            logits = model(input_ids=ids, attention_mask=mask).logits[asked].float()
            total += torch.nn.functional.cross_entropy(logits, labels[asked], reduction="sum").item()
            right += int((logits.argmax(-1) == labels[asked]).sum())
            count += int(asked.sum())
    return total / count, right / count, count


def score(checkpoint: Path, rows: Path, threads: int | None = None) -> dict:
    """Mean loss (nats) and accuracy over the masked tokens, and what the checkpoint is."""
    import numpy as np
    import torch
    from transformers import AutoModelForMaskedLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    if threads:
        torch.set_num_threads(threads)
    model = AutoModelForMaskedLM.from_pretrained(checkpoint, attn_implementation="eager").float().eval()
    loss, accuracy, count = measure(model, dict(np.load(rows)))
    return {
        "loss": loss,
        "accuracy": accuracy,
        "masked_tokens": count,
        "architecture": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def score_in_process(checkpoint: Path, rows: Path, environment: dict[str, str] | None = None) -> dict:
    """The same, in a process of its own."""
    command = [sys.executable, __file__, str(checkpoint), str(rows)]
    judged = subprocess.run(command, env=environment, capture_output=True, text=True)
    if judged.returncode:
        raise SystemExit(f"{checkpoint} cannot be scored:\n{judged.stderr[-2000:]}")
    return json.loads(judged.stdout.rpartition("SCORE ")[2])


if __name__ == "__main__":
    print("SCORE " + json.dumps(score(Path(sys.argv[1]), Path(sys.argv[2]))))
