"""What the measures know of English and Portuguese: words, stems, articles, function words, synonyms."""

import re
import unicodedata
from collections.abc import Callable
from functools import cache

from fastbert.metrics.score import Language, check_language, library
from fastbert.system.errors import InputError


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARTICLES: dict[str, frozenset[str]] = {
    "en": _set("a an the"),
    "pt": _set("o a os as um uma uns umas"),
}
# closed classes: articles, pronouns, prepositions and their contractions, conjunctions, auxiliaries
FUNCTION_WORDS: dict[str, frozenset[str]] = {
    "en": _set(
        """
        a an the this that these those i you he she it we they me him her us them my your his its our their mine yours
        hers ours theirs myself yourself himself herself itself ourselves themselves who whom whose which what
        of in to for on at by with from as into about after before between through over under against during without
        within along up down out off than and or but nor so yet if because while although though whether when where
        how why there here not no be am is are was were been being have has had having do does did doing will would
        shall should can could may might must also only such other more most some any all both each every one two
        """
    ),
    "pt": _set(
        """
        o a os as um uma uns umas ao aos à às do da dos das no na nos nas num numa nuns numas dum duma pelo pela pelos
        pelas este esta estes estas esse essa esses essas aquele aquela aqueles aquelas isto isso aquilo neste nesta
        nestes nestas nesse nessa nesses nessas deste desta destes destas desse dessa desses dessas daquele daquela
        daqueles daquelas naquele naquela disto disso eu tu ele ela nós vós eles elas você vocês me te se lhe lhes mim
        ti si comigo contigo consigo conosco lo la los las meu minha meus minhas teu tua teus tuas seu sua seus suas
        nosso nossa nossos nossas dele dela deles delas que quem qual quais cujo cuja cujos cujas onde quando como
        quanto de em por para com sem sob sobre entre até desde contra após ante perante durante e ou mas nem porém
        pois porque se embora enquanto não sim já também só mais menos muito muita muitos muitas todo toda todos todas
        outro outra outros outras algum alguma alguns algumas nenhum nenhuma cada tal tais tão é são era eram foi foram
        ser sendo sido está estão estava estavam estar há havia haver ter tem têm tinha tinham teve tendo vai vão ir
        """
    ),
}
PORTER, SNOWBALL = "porter", "snowball"
_SNOWBALL_NAMES = {"en": "english", "pt": "portuguese"}
_WORDNET_NAMES = {"en": "eng", "pt": "por"}
# a word keeps its inner apostrophes and hyphens: don't, deu-lhe
_WORD = re.compile(r"\w+(?:['’\-]\w+)*")
_WORD_OR_SIGN = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]")


def words(text: str, *, tokenize: str = "words", lowercase: bool = True) -> list[str]:
    """Split a text.

    Args:
        text: the text; composed (NFC) first, so that both ways to write "é" are one.
        tokenize: "words" drops punctuation, "signs" gives each mark a token of its own, "none" splits at white space.
        lowercase: in lower case.
    """
    text = unicodedata.normalize("NFC", text)
    text = text.lower() if lowercase else text
    if tokenize == "none":
        return text.split()
    if tokenize not in ("words", "signs"):
        raise InputError(f"tokenize={tokenize!r}: expected words, signs or none")
    return (_WORD if tokenize == "words" else _WORD_OR_SIGN).findall(text)


def strip_accents(text: str) -> str:
    """Letters without their accents: Ação → Acao."""
    return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")


@cache
def stemmer(language: Language, kind: str) -> Callable[[str], str]:
    """A word's stem: nltk's Porter (English only), or the Snowball algorithm of the language."""
    check_language(language)
    if kind == PORTER:
        if language != "en":
            raise InputError(f"Porter's stemmer is for English, not {language!r}. Try: snowball")
        return library("nltk.stem.porter", "nltk").PorterStemmer().stem
    if kind != SNOWBALL:
        raise InputError(f"stemmer {kind!r}: expected {PORTER} or {SNOWBALL}")
    return library("snowballstemmer").stemmer(_SNOWBALL_NAMES[language]).stemWord


@cache
def synonyms(language: Language) -> tuple[Callable[[str], frozenset[str]] | None, str]:
    """WordNet's one-word synonyms of a word, where nltk and its data are on this machine; else None, and the reason.

    The data are not fetched: ``python -m nltk.downloader wordnet omw-1.4`` does that when the user wants it.
    """
    check_language(language)
    try:
        nltk = library("nltk")
    except InputError as error:
        return None, f"WordNet's synonyms were not used: {error}"
    needed = ["wordnet"] if language == "en" else ["wordnet", "omw-1.4"]
    for name in needed:
        try:
            nltk.data.find(f"corpora/{name}")
        except LookupError:
            try:
                nltk.data.find(f"corpora/{name}.zip")
            except LookupError:
                return None, (
                    "WordNet's synonyms were not used, its data are not on this machine: "
                    f"python -m nltk.downloader {' '.join(needed)}"
                )
    from nltk.corpus import wordnet

    code = _WORDNET_NAMES[language]

    @cache
    def of(word: str) -> frozenset[str]:
        names = (name for synset in wordnet.synsets(word, lang=code) for name in synset.lemma_names(code))
        return frozenset(name for name in names if "_" not in name) | {word}

    return of, "WordNet"
