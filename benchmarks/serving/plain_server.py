"""The servers that most people write first: FastAPI, each request on its own through sentence-transformers.

    python benchmarks/serving/plain_server.py MODEL PORT [threads | loop]

``threads``: a plain ``def``, which FastAPI runs in a pool of threads, several at a time. ``loop``: an ``async def``,
one at a time.
"""

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

app = FastAPI()
model = SentenceTransformer(sys.argv[1], device="cpu")


class Body(BaseModel):
    """Texts to embed."""

    input: list[str]
    model: str = ""


@app.get("/health")
def health() -> dict:
    return {"status": "ok"}


def embeddings(body: Body) -> dict:
    vectors = model.encode(body.input, normalize_embeddings=True)
    return {"data": [{"index": i, "embedding": vector.tolist()} for i, vector in enumerate(vectors)]}


async def embeddings_in_loop(body: Body) -> dict:
    return embeddings(body)


app.post("/v1/embeddings")(embeddings_in_loop if sys.argv[3:] == ["loop"] else embeddings)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
