"""Which fields of a tokenizer's files are honoured, which cannot change an id, and which values are refused.

A field of ``tokenizer_config.json`` in none of these tables is refused by name: it might change an answer.
"""

from collections.abc import Mapping

from fastbert.system.errors import InputError
from fastbert.system.json_files import shown

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


HONOURED = frozenset(ROLES) | _names(
    """
    tokenizer_class do_lower_case strip_accents tokenize_chinese_chars clean_text add_prefix_space trim_offsets
    added_tokens_decoder additional_special_tokens extra_special_tokens model_input_names model_max_length
    """
)
# where it comes from; how text is decoded, padded or laid out for a chat; arguments of a call, which calls here set
HARMLESS = _names(
    """
    name_or_path special_tokens_map_file tokenizer_file vocab_file merges_file use_fast processor_class chat_template
    backend is_local local_files_only clean_up_tokenization_spaces errors padding_side max_length max_len stride
    truncation_strategy pad_to_multiple_of pad_token_type_id padding truncation legacy use_default_system_prompt
    transformers_version full_tokenizer_file sep_style response_template chat_control_tokens
    """
)
# the values that are what we compute; any other is refused. An empty tuple: null alone
ONLY: dict[str, tuple[object, ...]] = {
    "truncation_side": ("right",),
    "split_special_tokens": (False,),
    "do_basic_tokenize": (True,),
    "never_split": ([],),
    "add_bos_token": (False,),
    "add_eos_token": (False,),
    "do_word_tokenize": (True,),
    "do_subword_tokenize": (True,),
    "word_tokenizer_type": ("basic",),
    "subword_tokenizer_type": ("wordpiece",),
    "mecab_kwargs": (),
    "sp_model_kwargs": ({},),
    "normalization": (False,),
    "keep_accents": (),
    "remove_space": (),
    "fix_mistral_regex": (False,),
    "auto_map": (),
}
# the tokenizer that a class of transformers builds, whatever the rest of tokenizer.json says; "": all that it says
CLASSES = {
    "": "",
    "PreTrainedTokenizer": "",
    "TokenizersBackend": "",
    "BertTokenizer": "bert",
    "DistilBertTokenizer": "bert",
    "ElectraTokenizer": "bert",
    "RobertaTokenizer": "roberta",
    "XLMRobertaTokenizer": "unigram",
    "CamembertTokenizer": "camembert",
}
DEFAULT_CLASSES = {
    "bert": "BertTokenizer",
    "distilbert": "BertTokenizer",
    "electra": "BertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
}


def check_tokenizer_config(config: Mapping, source: str) -> None:
    """Refuse a field, or a value of one, that is not understood; a null says nothing.

    Raises:
        InputError: the first such field, with its value.
    """
    for name, value in config.items():
        if value is None or name in HONOURED or name in HARMLESS or name.startswith("_") or name.endswith("_token"):
            continue
        if name not in ONLY:
            raise InputError(
                f"{source}: {name} is {shown(value)}, a field that is not known. "
                "Try: delete it, if the ids do not depend on it"
            )
        if value not in ONLY[name]:
            only = f"only {shown(ONLY[name][0])} is supported" if ONLY[name] else "not supported"
            raise InputError(
                f"{source}: {name} is {shown(value)}, {only}. "
                "Try: save the tokenizer as one of PreTrainedTokenizerFast, whose tokenizer.json says it all"
            )


def built_kind(config: Mapping, model: Mapping, source: str) -> str:
    """What kind of tokenizer the class in ``tokenizer_config.json`` builds, or else that of the model; see CLASSES.

    Args:
        config: of ``tokenizer_config.json``.
        model: of ``config.json``.
        source: of ``tokenizer_config.json``, for errors.

    Raises:
        InputError: a class that is not known.
    """
    if model.get("model_type") == "modernbert":  # transformers reads tokenizer.json alone
        return ""
    name = (
        config.get("tokenizer_class")
        or model.get("tokenizer_class")
        or DEFAULT_CLASSES.get(str(model.get("model_type")))
    )
    kind = CLASSES.get(str(name or "").removesuffix("Fast"))
    if kind is None:
        raise InputError(
            f"{source}: tokenizer_class is {shown(name)}, which is not known. "
            "Try: PreTrainedTokenizerFast, if tokenizer.json says all that it does"
        )
    return kind
