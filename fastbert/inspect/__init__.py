"""``python -m fastbert.inspect``: what a corpus holds, and what is wrong with it, before anything is trained."""
