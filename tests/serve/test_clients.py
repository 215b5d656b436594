"""Stock clients of a real server: OpenAI's, and sentence-transformers on the directory that is exported from it."""

import subprocess
import sys

import numpy as np
import pytest

import fastbert
from support import command

pytestmark = pytest.mark.slow
TEXTS = ["o gato preto dorme.", "a menina feliz come pão, e o rei", "azul", "o gato " * 60]


@pytest.fixture(scope="module")
def server(served_folder):
    """The address of ``python -m fastbert.serve``."""
    arguments = [sys.executable, "-m", "fastbert.serve", str(served_folder / "plain"), "--port", "0"]
    with subprocess.Popen([*arguments, "--precision", "fp32"], stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().split()[0]
        process.terminate()


def test_openai(server, served_folder):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{server}v1", api_key="none")
    assert [model.id for model in client.models.list()] == ["plain"]
    expected = fastbert.load(served_folder / "plain", precision="fp32").embed(TEXTS)
    for options in ({}, {"encoding_format": "float"}):  # by itself the client asks for base64
        answer = client.embeddings.create(model="plain", input=TEXTS, **options)
        np.testing.assert_allclose([row.embedding for row in answer.data], expected, atol=1e-5)
    assert answer.usage.prompt_tokens > len(TEXTS)
    with pytest.raises(openai.NotFoundError, match="plain"):
        client.embeddings.create(model="other", input="o gato")
    with pytest.raises(openai.UnprocessableEntityError, match="dimensions"):
        client.embeddings.create(model="plain", input="o gato", dimensions=3)


def test_openai_in_parallel(server, served_folder):
    import asyncio

    openai = pytest.importorskip("openai")
    texts = [" ".join(["o gato", "preto"] * (1 + i % 9)) for i in range(64)]
    expected = fastbert.load(served_folder / "plain", precision="fp32").embed(texts)

    async def ask_all():
        async with openai.AsyncOpenAI(base_url=f"{server}v1", api_key="none") as client:
            return await asyncio.gather(*(client.embeddings.create(model="plain", input=text) for text in texts))

    found = [answer.data[0].embedding for answer in asyncio.run(ask_all())]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_sentence_transformers(server, served_folder, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    openai = pytest.importorskip("openai")
    arguments = (served_folder / "plain", "st", "--to", "sentence-transformers")
    command("fastbert.export", *arguments, cwd=tmp_path)
    own = sentence_transformers.SentenceTransformer(str(tmp_path / "st"), device="cpu")
    answer = openai.OpenAI(base_url=f"{server}v1", api_key="none").embeddings.create(model="plain", input=TEXTS)
    cosines = own.encode(TEXTS) @ np.array([row.embedding for row in answer.data]).T
    np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-5)
    np.testing.assert_allclose(cosines, cosines.T, atol=1e-5)
