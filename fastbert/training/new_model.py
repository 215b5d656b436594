"""Architecture and configuration of the model to train."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastbert.config import Arch, BertConfig, preset_of
from fastbert.runs.directory import pretraining_optimizer
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer
from fastbert.text.library_tokenizer import require_wordpiece
from fastbert.training.options import TrainOptions
from fastbert.weights.huggingface import read_config
from fastbert.weights.vocabulary_transfer import VocabularyTransfer


@dataclass(frozen=True)
class Architecture:
    """The architecture of a run, and the configuration of the weights it starts from, if any.

    A resumed run takes them from its checkpoint, and the directory of ``--init`` may be gone.
    """

    arch: Arch
    init: BertConfig | None = None
    resumed: bool = False
    preset: str | None = None  # None: not decided yet

    @classmethod
    def of(cls, options: TrainOptions, checkpoint: BertConfig | None = None) -> "Architecture":
        """That of ``--init`` or of a checkpoint begun with it, of ``--arch``, or the default of the objective."""
        if options.init and checkpoint is not None:
            return cls(checkpoint.arch, checkpoint, True, preset_of(checkpoint))
        if not options.init:
            preset = options.preset if checkpoint is None else preset_of(checkpoint)
            return cls(options.arch or ("classic" if options.next_sentence else "modern"), preset=preset)
        config = read_config(Path(options.init))
        preset = preset_of(config)
        for option, given, found in (("--arch", options.arch, config.arch), ("--preset", options.preset, preset)):
            if given not in (None, found):
                raise InputError(
                    f"{option} {given}: the weights of --init {options.init} are {found}. Try: without {option}"
                )
        return cls(config.arch, config, preset=preset)

    def max_positions(self, max_length: int) -> int:
        """Tokens that the model takes: BERT's 512, or more for longer sequences."""
        return max(512, max_length) if self.init is None else self.init.max_position_embeddings


def default_optimizer(options: TrainOptions) -> Literal["muon", "adamw"]:
    """Muon; for ``--init`` the optimizer that trained its weights (docs/recipe.md)."""
    return "adamw" if options.init and pretraining_optimizer(options.init) == "adamw" else "muon"


def config_of(options: TrainOptions, architecture: Architecture, preset: str, tokenizer: Tokenizer) -> BertConfig:
    """The configuration to train, dropout included.

    Raises:
        InputError: the weights of ``--init`` do not suit the other options.
    """
    config = architecture.init
    if config is None:
        config = BertConfig.preset(
            preset,
            architecture.arch,
            vocab_size=len(tokenizer),
            max_position_embeddings=architecture.max_positions(options.max_length),
            pad_token_id=tokenizer.pad_id,
            window=options.window,
        )
    elif options.max_length > config.max_position_embeddings:
        raise InputError(
            f"--max-length {options.max_length}: {options.init} has only {config.max_position_embeddings} positions. "
            f"Try: --max-length {config.max_position_embeddings}"
        )
    elif config.arch != "classic" and options.next_sentence:
        raise InputError(
            f"--objective mlm+nsp: {options.init} is a {config.arch} model without a next-sentence head. "
            "Try: --objective mlm"
        )
    else:
        config = config.replace(vocab_size=len(tokenizer), pad_token_id=max(tokenizer.pad_id, 0))
    if config.arch == "modern":  # stock transformers would take the ids of the released ModernBERT
        config = config.replace(cls_token_id=tokenizer.cls_id, sep_token_id=tokenizer.sep_id)
    return config.replace(hidden_dropout_prob=options.dropout, attention_probs_dropout_prob=options.dropout)


def transfer_of(options: TrainOptions, architecture: Architecture, tokenizer: Tokenizer) -> VocabularyTransfer | None:
    """How the rows of ``--init`` go to another vocabulary; None: they stay where they are.

    Raises:
        InputError: the weights of ``--init`` do not belong to its own vocabulary, or come without one and have another
            number of rows.
    """
    if options.init is None or architecture.init is None or architecture.resumed:
        return None
    root, rows = Path(options.init), architecture.init.vocab_size
    if not any((root / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        if len(tokenizer) != rows:
            raise InputError(
                f"--init {root}: has {rows:,} rows and no vocabulary of its own, and --tokenizer {len(tokenizer):,} "
                f"pieces. Try: the vocab.txt of the weights in {root}"
            )
        return None
    old = Tokenizer.load(root, lowercase=None if options.tokenizer else options.case)
    if len(old) > rows:
        raise InputError(
            f"--init {root}: its vocabulary has {len(old):,} pieces and its weights {rows:,} rows. "
            "Try: the vocabulary that the weights were trained with"
        )
    if old == tokenizer and len(old) == rows:
        return None
    require_wordpiece("--tokenizer", old, tokenizer)
    transfer = VocabularyTransfer.between(old, tokenizer)
    return None if transfer.identity and len(old) == rows else transfer
