"""Column files of tagged words: CoNLL, BIO and CoNLL-U, a word per line and a blank line between sentences."""

from collections.abc import Iterator

from fastbert.data.corpus.records import Record, read_lines
from fastbert.system.errors import InputError

_CONLLU_COLUMNS = 10


def read_columns(path: str) -> Iterator[tuple[str, Record]]:
    """Yield ``(where, {"tokens", "tags"})`` of every sentence: the first column, and the last.

    CoNLL-U has ten columns: its tags are the universal parts of speech. Comments and ``-DOCSTART-`` lines are skipped.

    Raises:
        InputError: a line without a tag, or with another number of columns than the first.
    """
    tokens: list[str] = []
    tags: list[str] = []
    begin, before, num_columns = "", 0, 0
    for where, row in read_lines(path):
        line = int(where.rpartition(" ")[2])
        if tokens and line > before + 1:
            yield begin, {"tokens": tokens, "tags": tags}
            tokens, tags = [], []
        before = line
        columns = row.strip().split("\t") if "\t" in row.strip() else row.split()
        if columns[0] == "-DOCSTART-" or (row.startswith("# ") and " = " in row):
            continue
        num_columns = num_columns or len(columns)
        if len(columns) != num_columns or num_columns < 2:
            raise InputError(
                f"{where}: has {len(columns)} columns, expected {max(num_columns, 2)}. "
                "Try: a word and its tag on each line, a blank line between sentences"
            )
        token, tag = (columns[1], columns[3]) if num_columns == _CONLLU_COLUMNS else (columns[0], columns[-1])
        if num_columns == _CONLLU_COLUMNS and not columns[0].isdecimal():
            continue  # 1-2 and 1.1: words written together, and words that are not written
        if not tokens:
            begin = where
        tokens.append(token)
        tags.append(tag)
    if tokens:
        yield begin, {"tokens": tokens, "tags": tags}
