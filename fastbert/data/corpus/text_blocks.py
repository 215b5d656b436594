"""UTF-8 text in validated blocks of whole lines.

Memory is bounded by ``BLOCK_BYTES`` and the longest line allowed, independent of the file size.
"""

import re
from collections.abc import Iterator

from fastbert.data.corpus.compression import ByteStream, remedy_for_binary
from fastbert.data.corpus.reading import ReadingRules
from fastbert.system.errors import InputError

BLOCK_BYTES = 1 << 20
BOM = "\ufeff"  # byte order mark
# a longer line of plain text is cut, at white space if possible
MAX_LINE_BYTES = 4 << 20
# a longer line of JSON or CSV is an error, because records are not read in parts
MAX_RECORD_BYTES = 256 << 20
# of the bytes above ASCII in a Western European text: three and more together, as in no word with accents
MAX_WESTERN_SHARE = 0.75
_RUNS = re.compile(rb"[\x80-\xff]{3,}")
_NOT_WINDOWS_1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")  # no characters there
_SAMPLE_BYTES = 1 << 16
_FEW = 3  # a text of one script has so many times more lower than upper bytes


def text_blocks(stream: ByteStream, rules: ReadingRules | None = None, *, records: bool = False) -> Iterator[str]:
    """Yield the text of ``stream`` in blocks that end with a line feed, except the last one and cut lines.

    The rest of a cut line begins the next block. A byte order mark at the start is skipped; CR LF and CR become LF.

    Args:
        stream: the bytes; closed by the caller.
        rules: of plain text (:meth:`ReadingRules.plain_text`); None changes nothing else.
        records: lines must not be cut; a line longer than ``MAX_RECORD_BYTES`` is an error.

    Raises:
        InputError: a NUL byte or bytes that are not UTF-8, with the line and the offset in the (decompressed) file.
    """
    for _, text in _read(stream, rules, records):
        if text:
            yield text


def utf8_blocks(stream: ByteStream, rules: ReadingRules | None = None) -> Iterator[bytes]:
    """Yield the blocks of :func:`text_blocks` as UTF-8, which the tokenizer reads without Python strings."""
    for block, text in _read(stream, rules, False):
        if text:
            yield text.encode() if block is None else block


def numbered_rows(stream: ByteStream) -> Iterator[tuple[int, str]]:
    """Yield (number, line) of each line that is not blank; lines are not cut."""
    number = 0
    for block in text_blocks(stream, records=True):
        for row in block.split("\n")[: -1 if block.endswith("\n") else None]:
            number += 1
            if row and not row.isspace():
                yield number, row.removeprefix(BOM)  # of files that were joined


def _read(stream: ByteStream, rules: ReadingRules | None, records: bool) -> Iterator[tuple[bytes | None, str]]:
    """Yield the text of each block, with its bytes if they are the same text."""
    line, inside_line = 1, False
    for block, offset in _blocks(stream, records):
        decoded = _decoded(block, stream.name, offset, line)
        line += block.count(b"\n")
        text = decoded if rules is None else rules.plain_text(decoded, inside_line)
        inside_line = not decoded.endswith("\n")
        changed = text is not decoded or b"\r" in block or (offset == 0 and block.startswith(b"\xef\xbb\xbf"))
        yield None if changed else block, text


def _blocks(stream: ByteStream, records: bool) -> Iterator[tuple[bytes, int]]:
    """Yield (bytes of whole lines, their offset in the file)."""
    pending = bytearray()
    offset = 0  # of pending[0] in the text
    # most files are one small read; doubling avoids searching long lines repeatedly
    while data := stream.read(max(BLOCK_BYTES, min(len(pending), MAX_RECORD_BYTES))):
        pending += data
        end = _end_of_lines(pending, records)
        if end:
            yield bytes(memoryview(pending)[:end]), offset
            offset += end
            del pending[:end]
        elif records and len(pending) > MAX_RECORD_BYTES:
            raise InputError(
                f"{stream.name}: the line at byte {offset} has more than {MAX_RECORD_BYTES >> 20} MiB. "
                "Try: one record per line"
            )
    if pending:
        yield bytes(pending), offset


def _end_of_lines(pending: bytearray, records: bool) -> int:
    """The number of bytes to yield: whole lines, or a part of a line that is too long."""
    end = pending.rfind(b"\n") + 1
    if end or records or len(pending) < MAX_LINE_BYTES:
        return end
    # not at the last byte, because a line feed may follow the carriage return
    end = pending.rfind(b"\r", 0, len(pending) - 1) + 1
    end = end or max(pending.rfind(b" "), pending.rfind(b"\t")) + 1
    if not end:
        end = len(pending) - 1
        while end > len(pending) - 4 and pending[end] & 0xC0 == 0x80:  # not inside a character
            end -= 1
    return end


def _decoded(block: bytes, name: str, offset: int, line: int) -> str:
    """Decode a block that begins at byte ``offset``, in line ``line``."""
    nul = block.find(b"\0")
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError as error:
        if nul < 0 or error.start < nul:
            where = f"{name}: line {line + block.count(10, 0, error.start)}: byte {offset + error.start}"
            raise InputError(_not_utf8(block, where, offset, error.start)) from None
    if nul >= 0:
        where = f"{name}: line {line + block.count(10, 0, nul)}: byte {offset + nul} is NUL, which text never contains"
        kind = remedy_for_binary(block) or _remedy_for_wide_characters(block) if offset == 0 else None
        remedy = kind or r"if this is text, remove its NUL bytes. Try: tr -d '\000' < OLD > NEW"
        raise InputError(f"{where}: {remedy}")
    if offset == 0:
        text = text.removeprefix(BOM)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def _remedy_for_wide_characters(block: bytes) -> str | None:
    """What to do with UTF-16 or UTF-32 without a byte order mark: taking its NUL bytes away would destroy it.

    The upper bytes of its characters are few, for they are the numbers of scripts, and NUL stands among them only.
    """
    sample = block[: _SAMPLE_BYTES & -4]
    for width, name in ((4, "utf-32"), (2, "utf-16")):
        for order, low in (("le", 0), ("be", width - 1)):
            lower, upper = {*sample[low::width]}, {*sample[low ^ 1 :: width]}
            if width == 4 and {*sample[low ^ 2 :: 4], *sample[low ^ 3 :: 4]} - {0, 1}:
                continue
            if len(sample) >= width and 0 in upper and 0 not in lower and _FEW * len(upper) <= len(lower):
                return f"this is {name} text. Try: iconv -f {name}{order} -t utf-8 OLD > NEW"
    return None


def _is_surrogates(block: bytes) -> bool:
    """Whether only the halves of surrogate pairs keep the bytes from being UTF-8."""
    try:
        block.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _not_utf8(block: bytes, where: str, offset: int, start: int) -> str:
    where = f"{where} (0x{block[start]:02x}) is not UTF-8"
    if offset == 0 and (remedy := remedy_for_binary(block) or _remedy_for_wide_characters(block)):
        return f"{where}: {remedy}"
    if _is_surrogates(block):
        return f"{where}, but half of a surrogate pair. Try: iconv -c -f utf-8 -t utf-8 OLD > NEW, which drops it"
    num_good = sum(not char.isascii() for char in block.decode("utf-8", "ignore"))
    if num_good > block.decode("utf-8", "replace").count("\ufffd"):
        return f"{where}, but most of the file is. Try: iconv -c -f utf-8 -t utf-8 OLD > NEW, which drops such bytes"
    sample = block[:_SAMPLE_BYTES]
    in_runs = sum(map(len, _RUNS.findall(sample)))
    if in_runs > MAX_WESTERN_SHARE * sum(byte >= 0x80 for byte in sample) or _NOT_WINDOWS_1252.search(block):
        return (
            f"{where}, nor text in windows-1252. Try: iconv -f ENCODING -t utf-8 OLD > NEW with the encoding the file "
            "was saved in, such as windows-1251 (Cyrillic), gb18030 (Chinese), shift_jis (Japanese), euc-kr (Korean)"
        )
    # not latin1: it turns the quotation marks and dashes of Windows (0x80-0x9f) into control characters
    return f"{where}. Try: iconv -f windows-1252 -t utf-8 OLD > NEW, or the encoding the file was saved in"
