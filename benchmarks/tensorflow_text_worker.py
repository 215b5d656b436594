"""tensorflow-text in an environment of its own: encodes the lines of a file when asked on standard input.

    FASTBERT_TFTEXT_PYTHON benchmarks/tensorflow_text_worker.py VOCAB_FILE TEXT_FILE LOWERCASE(0 or 1) IDS_FILE

It prints its versions, writes the ids of every line to IDS_FILE (an .npz: `ids`, `lengths`), and then answers each line
"list" or "tensor" with the CPU seconds of one pass over the Python strings, or over a tensor made of them beforehand.
test_tokenizer.py starts it; it imports nothing of fastbert.
"""

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tensorflow_text
from harness import answer


def main() -> None:
    vocab_file, text_file, lowercase, ids_file = sys.argv[1:]
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    with open(vocab_file, encoding="utf-8", newline="\n") as file:
        vocab = file.read().split("\n")[:-1]
    with open(text_file, encoding="utf-8", newline="\n") as file:
        lines = file.read().split("\n")
    tokenizer = tensorflow_text.FastBertTokenizer(
        vocab=vocab, lower_case_nfd_strip_accents=lowercase == "1", token_out_type=tf.int32
    )
    ready = tf.constant(lines)
    ragged = tokenizer.tokenize(ready)
    np.savez(ids_file, ids=ragged.flat_values.numpy(), lengths=ragged.row_lengths().numpy())
    answer(versions=f"tensorflow-text {tensorflow_text.__version__}, tensorflow {tf.__version__}")
    for command in sys.stdin:
        begin = time.process_time()
        tokenizer.tokenize(ready if command.strip() == "tensor" else lines).flat_values.numpy()
        answer(cpu_s=time.process_time() - begin)


if __name__ == "__main__":
    main()
