"""Write the Unicode tables of the tokenizer by asking Hugging Face `tokenizers` about every code point.

    python csrc/tables/generate.py            # writes the two generated files
    python csrc/tables/generate.py --check    # exit code 1 when a committed file differs

Why ask instead of reading the Unicode Character Database: the reference mixes three Unicode versions (general
categories of 8.0, combining classes and decompositions of 9.0, lower case of the newest), so no single version of
`unicodedata` gives its answers. The same facts are written twice, as a C++ header and as a Python module, so the
C++ core and its Python twin cannot disagree.
"""

import argparse
import itertools
import sys
import unicodedata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CPP = ROOT / "csrc" / "tables" / "unicode_tables.h"
PYTHON = ROOT / "fastbert" / "text" / "unicode_tables.py"
HANGUL = range(0xAC00, 0xAC00 + 11172)
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def bert_normalizer(**on):
    from tokenizers import normalizers

    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return normalizers.BertNormalizer(**{**off, **on}).normalize_str


def hangul_decomposition(cp):
    """Unicode Standard, section 3.12: the arithmetic both implementations use instead of 11,172 table rows."""
    index = cp - 0xAC00
    parts = [0x1100 + index // 588, 0x1161 + index % 588 // 28]
    return parts + ([0x11A7 + index % 28] if index % 28 else [])


def probe_simple():
    """One pass over every scalar value: sets of code points and maps of code point -> list of code points."""
    from tokenizers import normalizers, pre_tokenizers

    clean, chinese, strip, lower = (
        bert_normalizer(**{name: True}) for name in ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
    )
    nfd = normalizers.NFD().normalize_str
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    sets = {name: set() for name in ("removed", "clean_space", "white_space", "punctuation", "ideograph", "nonspacing")}
    decompositions, lower_map = {}, {}
    for cp in SCALARS:
        char = chr(cp)
        cleaned = clean(char)
        assert cleaned in ("", " ", char), hex(cp)
        if cleaned == "":
            sets["removed"].add(cp)
        elif cleaned == " ":
            sets["clean_space"].add(cp)
        pieces = len(split("a" + char + "a"))  # 1: part of the word, 2: a space, 3: on its own
        if pieces > 1:
            sets["white_space" if pieces == 2 else "punctuation"].add(cp)
        padded = chinese(char)
        assert padded in (char, f" {char} "), hex(cp)
        if padded != char:
            sets["ideograph"].add(cp)
        decomposed = nfd(char)
        if decomposed != char:
            decompositions[cp] = [ord(c) for c in decomposed]
        elif strip(char) == "":
            sets["nonspacing"].add(cp)
        if lower(char) != char:
            lower_map[cp] = [ord(c) for c in lower(char)]
    for cp in SCALARS:  # the model of strip_accents used by both implementations: decompose, then drop nonspacing marks
        parts = decompositions.get(cp, [cp])
        assert strip(chr(cp)) == "".join(chr(p) for p in parts if p not in sets["nonspacing"]), hex(cp)
    return sets, decompositions, lower_map


def probe_combining_classes(decompositions):
    """Canonical combining class of every code point, found by whether NFD swaps it with a mark of a known class."""
    from tokenizers import normalizers

    nfd = normalizers.NFD().normalize_str
    lowest, highest = "\u0334", "\u0345"  # classes 1 and 240, both as old as Unicode

    def starter(char):
        return nfd(char + lowest) == char + lowest and nfd(highest + char) == highest + char

    known = {}  # class -> one code point that has it; marks newer than the reference are starters to it
    for cp in SCALARS:
        klass = unicodedata.combining(chr(cp))
        if klass and cp not in decompositions and not starter(chr(cp)):
            known.setdefault(klass, chr(cp))
    for low, high in itertools.pairwise(sorted(known)):
        assert nfd(known[high] + known[low]) == known[low] + known[high], (low, high)

    classes = {}
    for cp in SCALARS:
        char = chr(cp)
        if cp in decompositions or cp in HANGUL:
            continue
        if starter(char):
            continue
        below = [k for k in known if nfd(char + known[k]) != char + known[k]]
        above = [k for k in known if nfd(known[k] + char) != known[k] + char]
        equal = [k for k in known if k not in below and k not in above]
        assert len(equal) == 1, (hex(cp), equal)
        classes[cp] = equal[0]
    return classes


def ranges(code_points):
    """[(first, last), ...] of a set of code points, ends included; surrogates never bridge two ranges."""
    result = []
    for cp in sorted(code_points):
        if result and result[-1][1] == cp - 1:
            result[-1][1] = cp
        else:
            result.append([cp, cp])
    return [tuple(r) for r in result]


def class_runs(classes):
    runs = []
    for cp, klass in sorted(classes.items()):
        if runs and runs[-1][1] == cp - 1 and runs[-1][2] == klass:
            runs[-1][1] = cp
        else:
            runs.append([cp, cp, klass])
    return [tuple(r) for r in runs]


def lower_runs(lower_map):
    """[(first, last, step, delta), ...]: step 2 serves the alphabets that alternate upper and lower case."""
    runs = []
    for cp, target in sorted((c, t[0]) for c, t in lower_map.items() if len(t) == 1):
        delta = target - cp
        if runs and runs[-1][3] == delta:
            first, last, step, _ = runs[-1]
            if cp - last == step or (first == last and cp - last in (1, 2)):
                runs[-1] = [first, cp, cp - last, delta]
                continue
        runs.append([cp, cp, 1, delta])
    return [tuple(r) for r in runs]


def tables():
    sets, decompositions, lower_map = probe_simple()
    for cp in HANGUL:
        assert decompositions.pop(cp) == hangul_decomposition(cp), hex(cp)
    result = {name: ("ranges", ranges(members)) for name, members in sets.items()}
    result["combining_classes"] = ("runs", class_runs(probe_combining_classes(decompositions)))
    result["lower_runs"] = ("runs", lower_runs(lower_map))
    result["lower_expansions"] = ("maps", [(c, *t) for c, t in sorted(lower_map.items()) if len(t) > 1])
    result["decompositions"] = ("maps", [(c, *t) for c, t in sorted(decompositions.items())])
    return result


DOCUMENTATION = {
    "removed": "deleted by clean_text",
    "clean_space": "turned into a space by clean_text",
    "white_space": "separates words",
    "punctuation": "a word of its own",
    "ideograph": "padded with spaces by handle_chinese_chars",
    "nonspacing": "dropped by strip_accents after decomposition (general category Mn)",
    "combining_classes": "(first, last, canonical combining class); every other code point has class 0",
    "lower_runs": "(first, last, step, delta): lower case of first, first + step, ..., last is itself + delta",
    "lower_expansions": "(code point, lower case of more than one code point)",
    "decompositions": "(code point, full canonical decomposition); Hangul syllables are decomposed by arithmetic",
}
HEAD = "Generated by csrc/tables/generate.py from Hugging Face tokenizers {version}; do not edit."


def rows(items):
    """Rows of text of at most 120 columns from short strings."""
    line = ""
    for item in items:
        if len(line) + len(item) > 117:
            yield line.rstrip()
            line = ""
        line += item + " "
    if line:
        yield line.rstrip()


def numbers(row):
    return ", ".join(f"{n:#x}" if n >= 0 else str(n) for n in row)


def as_python(data, version):
    out = [f'"""{HEAD.format(version=version)}"""']
    for name, (_, table) in data.items():
        kind = "tuple[int, ...]"
        out += ["", f"# {DOCUMENTATION[name]}", "# fmt: off", f"{name.upper()}: tuple[{kind}, ...] = ("]
        out += ["  " + row for row in rows(f"({numbers(row)})," for row in table)]
        out += [")", "# fmt: on"]
    return "\n".join(out) + "\n"


def as_cpp(data, version):
    width = max(len(row) for row in data["decompositions"][1])
    types = {
        "ranges": "struct CodePointRange {\n  uint32_t first, last;\n};",
        "combining_classes": "struct CombiningRun {\n  uint32_t first, last, combining_class;\n};",
        "lower_runs": "struct LowerRun {\n  uint32_t first, last, step;\n  int32_t delta;\n};",
        "maps": "// zeros fill the end of `to`\nstruct CodePointMap {\n"
        f"  uint32_t from;\n  uint32_t to[{width - 1}];\n}};",
    }
    names = {"ranges": "CodePointRange", "maps": "CodePointMap"}
    out = [f"// {HEAD.format(version=version)}", "#pragma once", "#include <cstdint>", "", "namespace fastbert {"]
    out += [*types.values(), ""]
    for name, (kind, table) in data.items():
        row_type = names.get(kind) or {"combining_classes": "CombiningRun", "lower_runs": "LowerRun"}[name]
        title = "k" + "".join(word.capitalize() for word in name.split("_"))
        out += [f"// {DOCUMENTATION[name]}", f"inline constexpr {row_type} {title}[] = {{"]
        if kind == "maps":
            items = [f"{{{row[0]:#x}, {{{numbers(row[1:])}}}}}," for row in table]
        else:
            items = [f"{{{numbers(row)}}}," for row in table]
        out += ["  " + row for row in rows(items)]
        out += ["};", ""]
    return "\n".join([*out, "}  // namespace fastbert"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a file would change")
    check = parser.parse_args().check
    import tokenizers

    data = tables()
    stale = []
    for path, render in ((CPP, as_cpp), (PYTHON, as_python)):
        text = render(data, tokenizers.__version__)
        if check and path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
        if not check:
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: {len(text):,} bytes")
    for name, (_, table) in data.items():
        print(f"  {name}: {len(table)} rows")
    if stale:
        sys.exit(f"out of date: {', '.join(stale)}. Try: python csrc/tables/generate.py")


if __name__ == "__main__":
    main()
