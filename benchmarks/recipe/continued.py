"""Rates for `--init`: what is learned of a new text, and what is forgotten of the old one.

    python benchmarks/recipe/continued.py mini RUN --new wealth.txt      # RUN: trained on bundled:en
    python benchmarks/recipe/continued.py rxnfp MODEL_DIR       # bert_pretrained of the package rxnfp 0.1.0
    python benchmarks/recipe/continued.py report

Two models, each with a text of the kind it was trained on, never trained on here, and a new one:

- mini: held-out documents of bundled:en; Adam Smith's Wealth of Nations (Standard Ebooks), or without --new the
  Markdown pages of this repository.
- rxnfp (a BERT of 12 layers for chemical reactions, Schwaller et al. 2021): amide couplings and esterifications made up
  from common building blocks; peptides written backwards. Its tokens are written as words, "t17", so that an ordinary
  vocabulary reads them with the ids of its own tokenizer.

Each run appends one line to continued.jsonl; what is there is not run again.
"""

import argparse
import itertools
import json
import random
import re
import shutil
import statistics
import time
from pathlib import Path

import torch

from fastbert.data import BatchLoader, Corpus, TokenStore, split_documents, write_store
from fastbert.data.batches.mixed_loader import MixedLoader
from fastbert.model import BertForPreTraining
from fastbert.optim.optimizers import Optimizers
from fastbert.optim.schedules import CONTINUED_HYPERPARAMETERS, CONTINUED_SCHEDULE, CONTINUED_SHARE, Schedule
from fastbert.text import Tokenizer
from fastbert.training.loaders import EVALUATION_RATE, EVALUATION_SEED
from fastbert.training.options import replay_tokens
from fastbert.training.validation import evaluate

HERE = Path(__file__).parent
LOG = HERE / "continued.jsonl"
BATCH_TOKENS, MAX_LENGTH, MASK_RATE, EVAL_TOKENS = 2048, 128, 0.3, 16_384

# ---- texts ----
SMILES = re.compile(r"\[[^\]]+]|Br?|Cl?|>>|%[0-9]{2}|.")
ACIDS = [
    "c1ccccc1", "c1ccc(F)cc1", "c1ccc(Cl)cc1", "c1cccc(Br)c1", "c1ccncc1", "CCC", "C1CCCCC1", "c1ccc2ccccc2c1",
    "c1cccs1", "c1ccc(OC)cc1", "Cc1ccccc1", "C(C)(C)C", "CCCCC", "c1ccc(I)cc1", "COc1ccccc1", "c1ccc(C#N)cc1",
]  # fmt: skip
AMINES = [
    "NC1CCCCC1", "NCc1ccccc1", "N1CCOCC1", "Nc1ccc(F)cc1", "N1CCCCC1", "NCCN(C)C", "NC1CC1", "Nc1ccc(OC)cc1", "NCCC",
    "N1CCN(C)CC1", "Nc1cccnc1", "NCC(C)C",
]  # fmt: skip
ALCOHOLS = ["CO", "CCO", "CC(C)O", "OCc1ccccc1", "OCCOC", "OC1CCCC1"]
CONDITIONS = ["CCN=C=NCCCN(C)C.ClCCl", "CCN(CC)CC.ClCCl", "CN(C)C=O.c1ccncc1", "O=S(Cl)Cl.ClCCl"]
RESIDUES = ["C", "CO", "CC(C)C", "C(C)C", "Cc1ccccc1", "CCCCN", "CS", "CC(N)=O", "CCC(=O)O", "Cc1ccc(O)cc1", "CCSC"]


def reaction(draw: random.Random) -> str:
    acid, conditions = draw.choice(ACIDS), draw.choice(CONDITIONS)
    if draw.random() < 0.7:
        amine = draw.choice(AMINES)
        return f"O=C(O){acid}.{amine}.{conditions}>>O=C({amine}){acid}"
    alcohol = draw.choice(ALCOHOLS)
    group = alcohol if alcohol[0] == "O" else alcohol[-1] + alcohol[:-1]
    return f"O=C(O){acid}.{alcohol}.{conditions}>>O=C({group}){acid}"


def peptide(draw: random.Random) -> str:
    """A peptide, written from its end, which no chemist does: the model has to learn another grammar."""
    chain = "".join(f"NC({draw.choice(RESIDUES)})C(=O)" for _ in range(draw.randint(2, 8)))
    return "".join(reversed(SMILES.findall(f"{chain}O")))


def chemistry(model: Path, work: Path) -> dict[str, Path]:
    """The model with its vocabulary as words, and its old and new text."""
    pieces = (model / "vocab.txt").read_text().split()
    ids = {piece: i for i, piece in enumerate(pieces)}
    words = [
        piece if piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") else f"t{i}" for i, piece in enumerate(pieces)
    ]
    home = work / "rxnfp"
    home.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "pytorch_model.bin"):
        shutil.copy(model / name, home / name)
    (home / "vocab.txt").write_text("\n".join(words))
    (home / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    for name, make, number in (("old", reaction, 2000), ("new", peptide, 2700)):
        draw = random.Random(name)
        texts = dict.fromkeys(make(draw) for _ in range(number))
        # the model was trained with [UNK] for atoms in brackets and for ">>"
        known = {token: f"t{i}" for token, i in ids.items() if token[0] not in "[>"}
        lines = [" ".join(known.get(token, "x") for token in SMILES.findall(text)) for text in texts]
        (work / f"{name}.txt").write_text("\n\n".join(lines))
    return {"model": home, "old": work / "old.txt", "new": work / "new.txt"}


def english(model: Path, work: Path, new: Path | None) -> dict[str, Path]:
    """The run, the held-out documents of its text, and a book or this repository's pages."""
    if new is not None:
        return {"model": model, "old": model / "tokens", "new": new}
    pages = [
        page for page in sorted(HERE.parents[1].glob("**/*.md")) if not page.name.endswith((".pt-BR.md", "LEIAME.md"))
    ]
    pages = [
        page for page in pages if not any(part.startswith(".") for part in page.relative_to(HERE.parents[1]).parts)
    ]
    (work / "new.txt").write_text("\n".join(page.read_text(encoding="utf-8") for page in pages), encoding="utf-8")
    return {"model": model, "old": model / "tokens", "new": work / "new.txt"}


# ---- one run ----
class Bench:
    """A model and its two texts in tokens."""

    def __init__(self, name: str, model: Path, work: Path, new: Path | None = None, heldout: float = 0.05):
        self.name = name if new is None else f"{name} {new.stem}"
        paths = chemistry(model, work) if name == "rxnfp" else english(model, work, new)
        self.path, self.tokenizer = paths["model"], Tokenizer.load(paths["model"])
        self.stores, self.spans = {}, {}
        for kind, fraction in (("old", 0.05 if name == "mini" else 0.99), ("new", heldout)):
            written = paths[kind] if paths[kind].is_dir() else work / f"{kind}_tokens"
            if not (written / "manifest.json").is_file():
                write_store(written, Corpus([str(paths[kind])]), self.tokenizer)
            self.stores[kind] = TokenStore.open(written)
            self.spans[kind] = split_documents(self.stores[kind], fraction=fraction)

    def mixed_loader(self, share: float, seed: int) -> BatchLoader | MixedLoader:
        """New text, with a share of the old one."""
        if not share:
            return self.loader("new", "train", seed)
        replay = replay_tokens(BATCH_TOKENS, share, MAX_LENGTH)
        return MixedLoader(
            self.loader("new", "train", seed, BATCH_TOKENS - replay), self.loader("old", "train", seed, replay)
        )

    def loader(self, kind: str, part: str, seed: int, batch_tokens: int = BATCH_TOKENS) -> BatchLoader:
        spans = getattr(self.spans[kind], part)
        return BatchLoader(
            self.stores[kind], spans, self.tokenizer, batch_tokens=batch_tokens, max_length=MAX_LENGTH, seed=seed,
            shuffle=part == "train",
        )  # fmt: skip

    def loss(self, model: BertForPreTraining, kind: str) -> float:
        batches = self.loader(kind, "heldout", 0).evaluation_batches(EVALUATION_RATE, EVALUATION_SEED, EVAL_TOKENS)
        return evaluate(model, batches, torch.autocast("cpu", torch.bfloat16)).loss

    def trained(self, setting: dict | None, steps: int, seed: int) -> BertForPreTraining:
        """The model after that many steps on the new text; setting None: the defaults of `--init` for Muon.

        A setting may have the "share" of the weights it began with in the result.
        """
        setting = {"optimizer": "muon", "share": CONTINUED_SHARE["muon"]} if setting is None else setting
        rate, muon_rate, decay = CONTINUED_HYPERPARAMETERS[setting.get("optimizer", "adamw")]
        warmup, falling = CONTINUED_SCHEDULE.warmup, CONTINUED_SCHEDULE.decay
        torch.manual_seed(seed)
        model = BertForPreTraining.from_pretrained(self.path).train()
        start = [parameter.detach().clone() for parameter in model.parameters()]
        schedule = Schedule(setting.get("warmup", warmup), setting.get("decay", falling))
        optimizers = Optimizers(
            model, optimizer=setting.get("optimizer", "adamw"), learning_rate=setting.get("learning_rate", rate),
            muon_learning_rate=setting.get("muon_learning_rate", muon_rate), weight_decay=decay,
        )  # fmt: skip
        optimizers.keep_bf16_gradients(True)
        loader = self.mixed_loader(setting.get("replay", 0.0), seed)
        for step in range(steps):
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(loader.next_batch(MASK_RATE)).loss
            loss.backward()
            optimizers.step(schedule(step / steps), 1 / steps)
        loader.close()
        with torch.no_grad():
            for parameter, first in zip(model.parameters(), start, strict=True):
                parameter.lerp_(first, setting.get("share", 0.0))
        return model

    def run(self, setting: dict, steps: int, seed: int) -> dict:
        began = time.process_time()
        model = self.trained(setting, steps, seed)
        return {
            "model": self.name, "setting": setting, "steps": steps, "seed": seed,
            "old": round(self.loss(model, "old"), 4), "new": round(self.loss(model, "new"), 4),
            "cpu_s": round(time.process_time() - began, 1),
        }  # fmt: skip


def settings() -> list[dict]:
    """The grid: Muon with multiples of the default rates, AdamW alone; warm-up and decay."""
    muon = [
        {"optimizer": "muon", "learning_rate": 0.002 * a, "muon_learning_rate": 0.02 * m}
        for a, m in ((1, 1), (0.1, 0.1), (0.05, 0.05), (0.025, 0.05), (0.025, 0.025), (0.05, 0.025), (0.01, 0.01))
    ]
    adamw = [{"optimizer": "adamw", "learning_rate": rate} for rate in (2e-5, 5e-5, 1e-4, 2e-4, 5e-4)]
    return [*muon, *adamw]


def done() -> list[dict]:
    return [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=("mini", "rxnfp", "report"))
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--work", type=Path, default=Path("continued_work"))
    parser.add_argument("--new", type=Path, default=None, help="new text for mini, instead of the repository's pages")
    parser.add_argument("--steps", type=int, nargs="*", default=[60, 200])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--settings", default=None, help="JSON list, instead of the grid")
    options = parser.parse_args()
    if options.name == "report":
        report()
        return
    options.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.name, options.model, options.work, options.new)
    model = BertForPreTraining.from_pretrained(bench.path)
    print("before:", {kind: round(bench.loss(model, kind), 4) for kind in ("old", "new")}, flush=True)
    chosen = json.loads(options.settings) if options.settings else settings()
    keys = ("model", "setting", "steps", "seed")
    for seed, steps, setting in itertools.product(options.seeds, options.steps, chosen):
        job = {"model": bench.name, "setting": setting, "steps": steps, "seed": seed}
        if any(all(row[key] == job[key] for key in keys) for row in done()):
            continue
        row = bench.run(setting, steps, seed)
        with LOG.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def report() -> None:
    groups: dict[str, list[dict]] = {}
    for row in done():
        groups.setdefault(json.dumps([row["model"], row["steps"], row["setting"]]), []).append(row)
    for key, rows in sorted(groups.items()):
        old, new = ([row[kind] for row in rows] for kind in ("old", "new"))
        print(key, f"seeds {len(rows)}  old {statistics.mean(old):.3f}  new {statistics.mean(new):.3f}")


if __name__ == "__main__":
    main()
