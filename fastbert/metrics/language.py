"""What the measures know of languages: words of any, and stems, articles, function words, synonyms of English and
Portuguese."""

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache

from fastbert.metrics.score import ANY, Language, check_language, library
from fastbert.system.errors import InputError
from fastbert.system.marks import mark_class


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARTICLES: dict[str, frozenset[str]] = {
    "en": _set("a an the"),
    "pt": _set("o a os as um uma uns umas"),
    ANY: frozenset(),
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
# scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, kana, ideographs
UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\uff66-\uff9f\U00020000-\U000323af"
)


@cache
def _word_pattern(signs: bool, characters: bool) -> re.Pattern[str]:
    """Words, which keep their inner apostrophes and hyphens (don't, deu-lhe) and their marks; or also signs."""
    marks = mark_class()
    letter = rf"[^\W{UNSPACED}]" if characters else r"\w"
    run = rf"{letter}(?:{letter}|[{marks}])*"
    word = rf"{run}(?:['’\-]{run})*"
    if characters:
        word = rf"{word}|\w[{marks}]*"
    return re.compile(rf"{word}|[^\w\s][{marks}]*" if signs else word)


def words(text: str, *, tokenize: str = "words", lowercase: bool = True, language: str = "en") -> list[str]:
    """Split a text.

    Args:
        text: the text; composed (NFC) first, so that both ways to write "é" are one.
        tokenize: "words" drops punctuation, "signs" gives each mark a token of its own, "none" splits at white space.
        lowercase: in lower case.
        language: with "any", each character of a script without spaces (Chinese, Thai …) is a word.
    """
    text = unicodedata.normalize("NFC", text)
    text = text.lower() if lowercase else text
    if tokenize == "none":
        return text.split()
    if tokenize not in ("words", "signs"):
        raise InputError(f"tokenize={tokenize!r}: expected words, signs or none")
    return _word_pattern(tokenize == "signs", language == ANY).findall(text)


def note_on_words(texts: Iterable[str], splits: bool, remedy: str = "language any") -> tuple[str, ...]:
    """A note if some texts are of a script without spaces, and nothing ``splits`` them: a sentence is one word."""
    if splits:
        return ()
    found = next((match for text in texts if (match := re.search(rf"(?=\w)[{UNSPACED}]+", text))), None)
    if found is None:
        return ()
    return (f"{found[0][:12]!r} and the like are single words here. Try: {remedy}, which compares characters",)


def strip_accents(text: str) -> str:
    """Letters without their accents: Ação → Acao."""
    return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")


@cache
def stemmer(language: Language, kind: str) -> Callable[[str], str]:
    """A word's stem: nltk's Porter (English only), or the Snowball algorithm of the language; of "any" the word."""
    check_language(language)
    if language == ANY and kind == SNOWBALL:
        return str
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
    if language == ANY:
        return None, ""
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
