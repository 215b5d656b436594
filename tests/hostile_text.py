"""Texts and vocabularies that catch a tokenizer out: scripts, marks, controls, special tokens, edges of Unicode."""

import string

from support import SPECIAL

LETTERS = string.ascii_letters + string.digits + string.punctuation + "áéíóúãõçÁÉçßİıσςΣΩжЖ漢字가ᄀ\u0301\u0302\u1b44"
FRAGMENTS = (
    "de que não nao com uma ação acao ##ção ##s ##mente ##ing un ##aff ##able "
    "hello world wor ##ld the ##ed runn want ##want Rio São Sao ##ão ##ao ﬁ"
).split()
VOCAB = list(dict.fromkeys([*SPECIAL, *LETTERS, *("##" + c for c in LETTERS), *FRAGMENTS]))
TRAPS = [
    *SPECIAL, *"[mask] [MA SK] [ ] ## #".split(), "a" * 100, "a" * 101, "b" * 99 + "é", "가" * 50, "가" * 51,
    " ", "  ", *"\t\n\r\0\x0b\x0c\x1c\x1f\x7f\x85\xa0\xad\u1680\u2028",
    *"\u200b\u200d\u3000\ufeff\ufffd\ufffe\u0378\ue000\U000e0001\U0010ffff\u180e",
    *"\u0301\u0327\u0344\u0345\u0f73\u1b44\u302e\u08d4\U0001d165\U0001d160\u05b0",
    "é", "e\u0301", *"ÉçãÃßẞİıςΣﬁÅΩ\u037e\u1fef\u2329\u0387",
    *"漢字\uf900\U0002f800\U0002b820\U0002b920\u3007가각ᄀ", "👩\u200d👧", *"€°—…",
    *FRAGMENTS,
    *"aAbzZ09.,!?-'\"$+<=>^`|~@[]{}_",
]  # fmt: skip
