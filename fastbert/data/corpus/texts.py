"""One text for every line or record of files, in order and without gaps, so that results can be matched by number."""

from collections.abc import Iterator, Sequence

from fastbert.data.corpus.compression import ByteStream
from fastbert.data.corpus.formats import RecordFormat, field_names, format_of
from fastbert.data.corpus.sources import find_sources
from fastbert.data.corpus.text_blocks import BOM, text_blocks


def read_texts(names: Sequence[str], text_field: str | None = None) -> Iterator[str]:
    """Yield every line of plain text, blank ones included, and the text of every record ("" if it has none).

    Args:
        names: files, folders, globs or URLs, as for :class:`fastbert.data.Corpus`; "-" is standard input.
        text_field: of records; None: "text".

    Raises:
        InputError: a file that cannot be read, or a record without the field.
    """
    for source in find_sources(list(names)):
        with ByteStream(source.open, source.name, source.compression) as stream:
            form = format_of(source.format)
            if isinstance(form, RecordFormat):
                yield from form.texts(stream, field_names(text_field))
            else:
                for block in text_blocks(stream, records=True):
                    lines = block.removesuffix("\n").split("\n")
                    yield from (line.removeprefix(BOM) for line in lines)
