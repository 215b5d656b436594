"""Which fields of ``config.json`` are honoured, which cannot change an answer, and which values are refused.

A field in none of these tables is refused by name: what it means is not known, so it might change an answer.
"""

from collections.abc import Mapping

from fastbert.system.errors import InputError
from fastbert.system.json_files import shown


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SHAPE = _names(
    """
    vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings
    initializer_range pad_token_id tie_word_embeddings
    """
)
_BERT = _SHAPE | _names("type_vocab_size hidden_act hidden_dropout_prob attention_probs_dropout_prob layer_norm_eps")
# model_type → fields that the model is built from
HONOURED: dict[str, frozenset[str]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "electra": _BERT | {"embedding_size"},
    "roformer": _BERT | {"embedding_size"},
    "distilbert": _SHAPE | _names("dim n_layers n_heads hidden_dim activation dropout attention_dropout"),
    "modernbert": _SHAPE
    | _names(
        """
        hidden_activation norm_eps mlp_dropout attention_dropout local_attention global_attn_every_n_layers
        global_rope_theta local_rope_theta layer_types rope_parameters classifier_pooling classifier_activation
        """
    ),
}
# of the task heads (fastbert.tasks.model), of the tokenizer, and our own
READ_ELSEWHERE = _names(
    "architectures model_type id2label label2id num_labels problem_type classifier_dropout tokenizer_class fastbert"
)
# where a model comes from, how it was trained or is run; what other classes, other tasks and generation read
HARMLESS = _names(
    """
    transformers_version torch_dtype dtype name_or_path finetuning_task task_specific_params language license
    use_cache gradient_checkpointing output_attentions output_hidden_states output_past return_dict torchscript
    use_bfloat16 chunk_size_feed_forward tf_legacy_loss xla_device attn_implementation use_return_dict
    bos_token_id eos_token_id sep_token_id cls_token_id mask_token_id unk_token_id decoder_start_token_id
    forced_bos_token_id forced_eos_token_id suppress_tokens begin_suppress_tokens exponential_decay_length_penalty
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p
    typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences output_scores return_dict_in_generate remove_invalid_values prefix
    pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type
    initializer_cutoff_factor embedding_dropout qa_dropout seq_classif_dropout sinusoidal_pos_embds decoder_bias
    summary_type summary_use_proj summary_activation summary_last_dropout summary_first_dropout summary_proj_to_labels
    sparse_prediction sparse_pred_ignore_index deterministic_flash_attn reference_compile repad_logits_with_grad
    tie_encoder_decoder sentence_transformers sbert_ce_default_activation_function transformers.js_config
    model_max_length total_flops gen_kwargs custom_pipelines
    """
)
# the values that are what we compute; any other is refused
ONLY: dict[str, tuple[object, ...]] = {
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "pruned_heads": ({}, []),
    "position_embedding_type": ("absolute",),
    "directionality": ("bidi",),
    "rotary_value": (False,),
    "norm_bias": (False,),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "classifier_bias": (False,),
    "rope_scaling": (),
    "quantization_config": (),
    "auto_map": (),
}
REMEDIES = {
    "is_decoder": "false, if the model was trained to see both sides",
    "auto_map": "without this field, if the model is one of transformers itself and needs no code of its own",
    "quantization_config": "the model before quantization",
    "pruned_heads": "prune_heads is not read: the model before pruning",
}
ROPE = {"rope_type": ("default",), "type": ("default",), "partial_rotary_factor": (1, 1.0), "factor": (1, 1.0)}


def check_fields(hf: Mapping, kind: str, source: str) -> None:
    """Refuse a field, or a value of one, that is not understood; a null says nothing.

    Raises:
        InputError: the first such field, with its value.
    """
    for name, value in hf.items():
        if value is None or name in HONOURED[kind] or name in READ_ELSEWHERE or name in HARMLESS:
            continue
        if name.startswith("_"):  # notes that transformers makes to itself
            continue
        if name == "position_embedding_type" and kind in ("modernbert", "roformer"):
            continue  # read by neither
        if name not in ONLY:
            raise InputError(
                f"{source}: {name} is {shown(value)}, a field that is not known for {kind}. "
                "Try: delete it, if the answers do not depend on it"
            )
        if value not in ONLY[name]:
            supported = f"only {shown(ONLY[name][0])} is supported" if ONLY[name] else "not supported"
            remedy = REMEDIES.get(name, "another model")
            raise InputError(f"{source}: {name} is {shown(value)}, {supported}. Try: {remedy}")
    rope = hf.get("rope_parameters")
    parts = [rope, *rope.values()] if isinstance(rope, Mapping) else []
    for part in parts:
        for name, value in part.items() if isinstance(part, Mapping) else ():
            if name in ("full_attention", "sliding_attention", "rope_theta") or value is None:
                continue
            if name not in ROPE or value not in ROPE[name]:
                raise InputError(
                    f"{source}: rope_parameters: {name} is {shown(value)}, not supported. Try: another model"
                )
