"""UTF-8 text in blocks of whole lines, checked on the way.

Memory is bounded by ``BLOCK_BYTES`` and the longest line that the caller allows, whatever the size of the file.
"""

from collections.abc import Iterator

from fastbert.data.corpus.compression import ByteStream, remedy_for_binary
from fastbert.system.errors import InputError

BLOCK_BYTES = 1 << 20
# a longer line of plain text is cut, at white space where there is any
MAX_LINE_BYTES = 4 << 20
# a longer line of JSON or CSV is an error: a record cannot be read in parts
MAX_RECORD_BYTES = 256 << 20


def text_blocks(stream: ByteStream, *, records: bool = False) -> Iterator[str]:
    """Yield the text of ``stream`` in blocks that end with a line feed, but for the last and for cut lines.

    The end of a line that was cut begins the next block.

    A byte order mark at the start is skipped; CR LF and CR become LF.

    Args:
        stream: the bytes; closed by the caller.
        records: lines may not be cut; one longer than ``MAX_RECORD_BYTES`` is an error.

    Raises:
        InputError: a NUL byte or bytes that are not UTF-8, with their offset in the (decompressed) file, and with
            ``records`` their line.
    """
    line = 1
    for block, offset in _blocks(stream, records):
        yield _decoded(block, stream.name, offset, line if records else None)
        line += block.count(b"\n") if records else 0


def utf8_blocks(stream: ByteStream) -> Iterator[bytes]:
    """Yield what :func:`text_blocks` does as UTF-8, which the tokenizer reads without Python strings."""
    for block, offset in _blocks(stream, False):
        text = _decoded(block, stream.name, offset)
        changed = b"\r" in block or (offset == 0 and block.startswith(b"\xef\xbb\xbf"))
        yield text.encode() if changed else block


def _blocks(stream: ByteStream, records: bool) -> Iterator[tuple[bytes, int]]:
    """Yield (bytes of whole lines, their offset in the file)."""
    pending = bytearray()
    offset = 0  # of pending[0] in the text
    # a file of one small read is the common case; doubling keeps long lines from being searched again and again
    while data := stream.read(max(BLOCK_BYTES, min(len(pending), MAX_RECORD_BYTES))):
        pending += data
        end = _end_of_lines(pending, records)
        if end:
            yield bytes(memoryview(pending)[:end]), offset
            offset += end
            del pending[:end]
        elif records and len(pending) > MAX_RECORD_BYTES:
            raise InputError(
                f"{stream.name}: the line from byte {offset} on has more than {MAX_RECORD_BYTES >> 20} MiB: "
                "put each record on a line of its own"
            )
    if pending:
        yield bytes(pending), offset


def _end_of_lines(pending: bytearray, records: bool) -> int:
    """How many bytes can be given out: whole lines, or a part of a line that is too long."""
    end = pending.rfind(b"\n") + 1
    if end or records or len(pending) < MAX_LINE_BYTES:
        return end
    # not the last byte: a line feed may follow the carriage return
    end = pending.rfind(b"\r", 0, len(pending) - 1) + 1
    end = end or max(pending.rfind(b" "), pending.rfind(b"\t")) + 1
    if not end:
        end = len(pending) - 1
        while end > len(pending) - 4 and pending[end] & 0xC0 == 0x80:  # not inside a character
            end -= 1
    return end


def _decoded(block: bytes, name: str, offset: int, line: int | None = None) -> str:
    """The text of a block that begins at byte ``offset`` and, where lines are counted, is line ``line`` and more."""
    nul = block.find(b"\0")
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError as error:
        if nul < 0 or error.start < nul:
            name = name if line is None else f"{name}: line {line + block.count(10, 0, error.start)}"
            raise InputError(_not_utf8(block, name, offset, error.start)) from None
    if nul >= 0:
        remedy = (
            remedy_for_binary(block) if offset == 0 else None
        ) or "give text, or a file whose ending names its kind"
        raise InputError(f"{name}: byte {offset + nul} is NUL, so this is binary data and not text: {remedy}")
    if offset == 0:
        text = text.removeprefix("\ufeff")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def _not_utf8(block: bytes, name: str, offset: int, start: int) -> str:
    where = f"{name}: byte {offset + start} (0x{block[start]:02x}) is not UTF-8 text"
    if offset == 0 and (remedy := remedy_for_binary(block)):
        return f"{where}: {remedy}"
    return f"{where}: re-save the file as UTF-8, for example `iconv -f latin1 -t utf-8 OLD > NEW`"
