"""Each op against its limit and its peers, inference, and a short tuning."""

import importlib.util
import sys
from pathlib import Path

import torch
from record import SMALL, attempt, ceilings, config_of, device_ms, fact, make_batch, seconds_of, time_left

sys.path.insert(0, str(Path(__file__).parents[1]))
from kernel_contestants import OPS, PACKAGES, attention

# width, sequence length, tokens; attention at every bucket of its tiles
SHAPES = ((768, 128, 32768),)
LENGTHS = (32, 64, 128, 512, 2048)


def ops() -> None:
    """Forward and backward; the first contestant that runs is what the others are compared with."""
    for op in OPS:
        for width, _, tokens in ((64, 16, 64),) if SMALL else SHAPES:
            for length in (16,) if SMALL else LENGTHS if op is attention else (128,):
                one_op(op, width, length, tokens)


def one_op(op, width: int, length: int, tokens: int) -> None:
    torch.manual_seed(0)
    versions, leaves, flops, moved = op(width, length, tokens)
    if not SMALL:
        versions["compiled reference"] = torch.compile(versions["reference"])
    bytes_s, flops_s = ceilings()
    least_ms = max((moved or 0) / bytes_s, (flops or 0) / flops_s) * 1e3
    spec = None
    for who, run in versions.items():
        told = {"op": op.__name__, "who": who, "width": width, "length": length, "tokens": tokens}
        if (
            who == "cpp"
            # others' kernels launch what a pretended GPU does not know
            or (SMALL and (who == "flex_attention" or who in PACKAGES))
            or (who in PACKAGES and importlib.util.find_spec(PACKAGES[who][0]) is None)
        ):
            continue
        if not time_left(80):
            fact("op", **told, skipped="no time left")
            continue
        with attempt("op", **told):
            with torch.no_grad():
                out = run(*leaves)
            torch.manual_seed(1)
            grad = torch.randn(out.shape, device="cuda").to(out.dtype) if out.ndim else torch.ones((), device="cuda")

            def both(run=run, grad=grad) -> list[torch.Tensor]:
                out = run(*leaves)
                return [out, *torch.autograd.grad(out, leaves, grad.to(out.dtype))]

            results = [x.detach().float() for x in both()]
            spec = spec or results
            error = max(float((a - b).norm() / b.norm().clamp(min=1e-9)) for a, b in zip(results, spec, strict=True))
            ms = device_ms(both)
            fact("op", **told, ms=ms, least_ms=least_ms, share=least_ms / ms, differs_from_first=error)


def inference(directory: str) -> None:
    """Tokens a second of the encoder, one short text, and what the trained model says."""
    from fastbert.inference.frozen_model import FrozenModel
    from fastbert.model import BertForPreTraining

    model = BertForPreTraining(config_of("base", "classic")).to("cuda").eval()
    batch = (make_batch(64, 16) if SMALL else make_batch(65536, 128)).to("cuda")
    text = make_batch(16, 16).to("cuda")
    for dtype in (torch.float32, torch.bfloat16):
        with attempt("inference", dtype=str(dtype)), torch.no_grad():
            frozen = FrozenModel(model, dtype)
            seconds, host_s = seconds_of(lambda frozen=frozen: frozen.encode(batch), 5, warm=2)
            one_s, _ = seconds_of(lambda frozen=frozen: frozen.encode(text).float().cpu(), 30, warm=3)
            fact(
                "inference", dtype=str(dtype), tokens_s=batch.num_tokens / seconds, ms=seconds * 1e3,
                host_ms=host_s * 1e3, one_text_ms=one_s * 1e3,
            )  # fmt: skip
    if (Path(directory) / "config.json").is_file():
        with attempt("what it says"):
            import fastbert

            bert = fastbert.load(directory, device="cuda")
            answers = bert.fill_mask(["The old man sat by the [MASK].", "She looked at him and [MASK] nothing."])
            fact("what it says", guesses=[[(g["token_str"], round(g["score"], 3)) for g in one] for one in answers])


def tune() -> None:
    """The tuner of ``python -m fastbert.tune`` on attention at the lengths that matter, as long as there is time."""
    from fastbert import tune as tuner
    from fastbert.kernels import configs

    for length in (16,) if SMALL else (32, 64, 128, 512):
        options = tuner.TuneOptions(length=length, tokens=64 if SMALL else 32768, hidden_size=64 if SMALL else 768)
        work = tuner.workloads(options)["attention"]
        with configs.observed() as asked:
            work()
        for key, (op, static) in list(asked.items()):
            times: dict[str, float] = {}
            for candidate in tuner.candidates(op, static):
                if not time_left(52) or (SMALL and len(times) == 2):
                    break
                with attempt("tuned", key=key, config=str(candidate)), configs.forced(**{op: candidate}):
                    work()
                    times[f"{candidate.blocks} {candidate.num_warps} warps {candidate.num_stages} stages"] = device_ms(
                        work, 5
                    )
            fact(
                "tuned",
                key=key,
                static=next(iter(times), None),
                best=min(times, key=times.__getitem__, default=None),
                ms=times,
            )
