"""python -m fastbert.evaluate text, and the measures under a model."""

import gzip
import json
import math
from types import SimpleNamespace

import pytest
import torch

import fastbert
from fastbert import metrics
from fastbert.evaluate import main
from fastbert.system.errors import InputError
from support import command

HYP = "O gato está na casa.\nA moça foi ao teatro.\n"
REF = "O gato está em casa.\nA moça foi ao teatro.\n"


def evaluate(*arguments, **options):
    return command("fastbert.evaluate", *arguments, **options)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "hyp.txt").write_text(HYP, encoding="utf-8")
    (tmp_path / "ref.txt").write_text(REF, encoding="utf-8")
    (tmp_path / "ref2.txt").write_text(REF.replace("teatro", "cinema"), encoding="utf-8")
    return tmp_path


def test_everything_at_once_is_what_the_functions_say(folder):
    done = evaluate(
        "text", "--hyp", "hyp.txt", "--ref", "ref.txt", "--ref", "ref2.txt", "--metrics", "all", "--language", "pt",
        "--json", cwd=folder,
    )  # fmt: skip
    printed = json.loads(done.stdout)
    hypotheses, first = HYP.splitlines(), REF.splitlines()
    references = [[r, r.replace("teatro", "cinema")] for r in first]
    assert (printed["texts"], printed["references"]) == (2, 2)
    assert list(printed["metrics"]) == [
        "bleu", "chrf", "rouge1", "rouge2", "rougeL", "meteor", "cider", "cider_d", "exact_match", "token_f1",
    ]  # fmt: skip
    for name, measure in (("bleu", metrics.bleu), ("chrf", metrics.chrf)):
        assert printed["metrics"][name]["score"] == measure(hypotheses, references).score
    for name in ("meteor", "cider", "cider_d", "exact_match", "token_f1"):
        score = getattr(metrics, name)(hypotheses, references, language="pt")
        assert printed["metrics"][name] == json.loads(json.dumps(score.record())), name
    assert printed["metrics"]["exact_match"]["score"] == 50
    assert "--model" in printed["skipped"]["perplexity"]


def test_the_printed_table_has_every_signature(folder):
    done = evaluate("text", "--hyp", "-", "--ref", "ref.txt", "--metrics", "bleu,rouge", cwd=folder, input=HYP)
    rows = done.stdout.splitlines()
    # in English, the default, ROUGE drops letters with accents, and says so
    assert [row.split()[0] for row in rows[1:]] == ["BLEU", "ROUGE-1", "ROUGE-2", "ROUGE-L", "note:"]
    assert all("refs:1" in row for row in rows[1:5]) and "tok:13a" in rows[1] and "letters" in rows[5]


def test_bad_input_is_one_line_with_the_remedy(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (folder / "short.txt").write_text("uma linha\n", encoding="utf-8")
    (folder / "empty.txt").write_text("")
    (folder / "gap.txt").write_text("uma linha\n\n", encoding="utf-8")
    (folder / "latin1.txt").write_bytes("a\nação\n".encode("latin-1"))
    pair = ["--hyp", "hyp.txt", "--ref", "ref.txt"]
    for arguments, expected in (
        (["--hyp", "hyp.txt", "--ref", "short.txt"], "short.txt: has 1 texts"),
        ([*pair, "--ref", "short.txt"], "short.txt: has 1 texts"),
        (["--hyp", "hyp.txt", "--ref", "nowhere.txt"], "nowhere.txt"),
        (["--hyp", "empty.txt", "--ref", "ref.txt"], "empty.txt"),
        (["--hyp", "gap.txt", "--ref", "ref.txt"], "gap.txt: line 2"),
        (["--hyp", "hyp.txt", "--ref", "gap.txt"], "gap.txt: line 2"),
        (["--hyp", "latin1.txt", "--ref", "ref.txt"], "latin1.txt: line 2"),
        ([*pair, "--metrics", "blue"], "--metrics blue"),
        ([*pair, "--metrics", "perplexity"], "--metrics perplexity"),
        (["--hyp", "hyp.txt", "--metrics", "bleu"], "--metrics bleu"),
        ([*pair, "--tokenize", "mine"], "tokenize='mine'"),
        ([*pair, "--language", "de"], "--language"),
        (["--ref", "ref.txt"], "--hyp"),
    ):
        code = main(["text", *arguments])
        printed = capsys.readouterr()
        assert code == 2 and expected in printed.err, (arguments, printed.err)
        assert printed.err.count("\n") == 1 and printed.out == ""
    assert main(["text", "--hyp", "gap.txt", "--ref", "ref.txt", "--allow-empty", "--metrics", "bleu"]) == 0


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".json", ".txt.gz"])
def test_texts_are_read_as_everywhere(folder, ending):
    """Records, arrays, compressed and plain text give the same figures."""
    lines = HYP.splitlines()
    name = folder / f"hyp{ending}"
    if ending == ".csv":
        name.write_text("id;said\n" + "".join(f'{i};"{line}"\n' for i, line in enumerate(lines)), encoding="utf-8")
    elif ending == ".txt.gz":
        name.write_bytes(gzip.compress(HYP.encode()))
    else:
        records = [{"said": line} for line in lines]
        text = json.dumps(records) if ending == ".json" else "".join(json.dumps(r) + "\n" for r in records)
        name.write_text(text, encoding="utf-8")
    pair = ("--ref", "ref.txt", "--metrics", "bleu", "--json")
    more = () if ending == ".txt.gz" else ("--text-field", "said")
    wanted = evaluate("text", "--hyp", "hyp.txt", *pair, cwd=folder)
    found = evaluate("text", "--hyp", name.name, *pair, *more, cwd=folder)
    assert found.stdout == wanted.stdout
    if more:
        wrong = evaluate("text", "--hyp", name.name, *pair, code=2, cwd=folder)
        assert "'said'" in wrong.stderr and wrong.stderr.count("\n") == 1
        made = evaluate("human", "make", "--system", f"A={name.name}", "--output", "sheet", *more, cwd=folder)
        assert f"{len(lines)} texts" in made.stdout


def test_commands_are_named(capsys):
    for arguments, code, expected in ((["--help"], 0, "human make"), ([], 2, "no command"), (["texts"], 2, "texts")):
        assert main(arguments) == code
        assert expected in "".join(capsys.readouterr())


def test_caption_scores_on_request(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["text", "--hyp", "hyp.txt", "--ref", "ref.txt", "--metrics", "caption", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["metrics"]
    expected = metrics.caption_scores(HYP.splitlines(), REF.splitlines())
    assert {name: value["score"] for name, value in printed.items()} == {n: s.score for n, s in expected.items()}


# ---- under a model ----
def test_perplexity_of_a_real_model_hides_each_token_in_turn(tmp_path, monkeypatch, capsys):
    """Against one masked text at a time, with the plain method."""
    torch.manual_seed(0)
    tokenizer = fastbert.Tokenizer.train([HYP], vocab_size=60, min_frequency=1, lowercase=False)
    config = fastbert.BertConfig.preset("tiny", arch="classic", vocab_size=len(tokenizer))
    fastbert.BertForPreTraining(config).save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    bert = fastbert.load(tmp_path)
    texts = HYP.splitlines()
    log_probs = []
    for text in texts:
        ids = list(tokenizer.encode(text).ids)
        for place in range(1, len(ids) - 1):
            hidden = torch.tensor([[*ids[:place], tokenizer.mask_id, *ids[place + 1 :]]])
            with torch.no_grad():
                logits = bert.model(hidden).prediction_logits[0, place, : len(tokenizer)]
            log_probs.append(logits.log_softmax(-1)[ids[place]].item())
    score = metrics.perplexity(texts, bert, method="pll")
    assert score.score == pytest.approx(math.exp(-sum(log_probs) / len(log_probs)), rel=1e-4)
    (tmp_path / "hyp.txt").write_text(HYP, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["text", "--hyp", "hyp.txt", "--model", ".", "--metrics", "perplexity", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["metrics"]["perplexity"]
    assert printed["score"] == pytest.approx(metrics.perplexity(texts, bert).score) and printed["scale"] is None


class WordsOnceSeen:
    """Stands for a Bert: a word is likely (e⁻¹) when the text has it before or after, otherwise not (e⁻⁵)."""

    model = SimpleNamespace(config=SimpleNamespace(num_hidden_layers=1, hidden_size=8, vocab_size=99))

    def score(self, texts, method, per_token):
        assert per_token and method == "l2r"
        scored = []
        for text in texts:
            words = text.split()
            starts = [sum(len(w) + 1 for w in words[:i]) for i in range(len(words))]
            log_probs = [-1.0 if words.count(word) > 1 else -5.0 for word in words]
            scored.append(
                SimpleNamespace(
                    log_probs=log_probs,
                    offsets=[(s, s + len(w)) for s, w in zip(starts, words, strict=True)],
                    score=sum(log_probs),
                    pseudo_perplexity=math.exp(-sum(log_probs) / len(words)),
                )
            )
        return scored


def test_perplexity_is_over_all_tokens():
    score = metrics.perplexity(["a b", "a a c c c c"], WordsOnceSeen())
    assert score.per_text == pytest.approx([math.exp(5), math.exp(1)])
    assert score.score == pytest.approx(math.exp((2 * 5 + 6 * 1) / 8))
    assert score.details["tokens"] == 8
    assert score.details["bits_per_character"] == pytest.approx(16 / math.log(2) / len("a b" + "a a c c c c"))


def test_coherence_is_the_gain_over_a_stranger():
    together = ["the cat sat. the cat ran.", "my dog ate. my dog fed."]
    score = metrics.coherence(together, WordsOnceSeen())
    # "the cat" is known from the sentence before and not from elsewhere: 2 tokens of 3 gain 4 nats
    assert score.score == pytest.approx(8 / 3) and score.per_text == pytest.approx([8 / 3, 8 / 3])
    assert score.details["sentences"] == 2
    swapped = metrics.coherence(["the cat sat. my dog fed.", "my dog ate. the cat ran."], WordsOnceSeen())
    assert swapped.score <= 0
    single = metrics.coherence([*together, "one sentence only."], WordsOnceSeen())
    assert math.isnan(single.per_text[2]) and single.details["sentences"] == 2


def test_measures_under_a_model_refuse_clearly(tmp_path):
    for call, expected in (
        (lambda: metrics.perplexity([], WordsOnceSeen()), "at least one text"),
        (lambda: metrics.perplexity(["a", " "], WordsOnceSeen()), "text 2: is empty"),
        (lambda: metrics.coherence(["a b. c d."], WordsOnceSeen()), "three or more"),
        (lambda: metrics.coherence(["a", "b", "c", "d"], WordsOnceSeen()), "two of them in one"),
        (lambda: metrics.perplexity([None], WordsOnceSeen()), "text 1: is NoneType"),
        (lambda: metrics.perplexity(["a"], str(tmp_path)), r"model: .*fastbert\.load"),
    ):
        with pytest.raises(InputError, match=expected):
            call()
