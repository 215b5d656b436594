"""Every promise of docs/drop-in.md, and of the README about it, has a test that would fail if it were broken."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = "docs/drop-in.md"

# (page, words of the promise) → the tests behind it
PROMISES = {
    ("README.md", "`fastbert.layers`, which are ordinary `nn.Module`s"): [
        "test_layers_in_pytorch.py::test_weights_saved_with_keep_vars_load_safely",
        "test_layers_in_pytorch.py::test_lightning",
    ],
    (PAGE, "a `transformers` encoder or an `nn.TransformerEncoder`"): [
        "drop_in/test_drop_in.py::test_same_outputs_and_gradients_everywhere",
        "drop_in/test_drop_in.py::test_transformer_encoder",
        "drop_in/test_drop_in.py::test_the_example",
    ],
    (PAGE, "what plain PyTorch gives, up to"): ["fuzz_ops.py::test_auto_equals_the_reference"],
    (PAGE, "another length, and two heads shared by four"): [
        "ops/test_attention_forms.py::test_padded",
        "ops/test_attention_forms.py::test_packed_sequences_of_other_lengths",
    ],
    (PAGE, "a decoder's self-attention"): ["ops/test_attention_forms.py::test_padded"],
    (PAGE, 'batch_first=False, device="cpu", dtype=torch.float32'): [
        "ops/test_attention_forms.py::test_device_and_dtype",
        "ops/test_attention_forms.py::test_batch_first_and_need_weights",
    ],
    (PAGE, "What PyTorch would broadcast or promote"): ["ops/test_guard.py::test_what_broadcasts_is_served"],
    (PAGE, "What does not fit together is **refused**"): [
        "ops/test_guard.py::test_what_does_not_fit_is_refused",
        "ops/test_attention_forms.py::test_what_does_not_fit_is_refused",
    ],
    (PAGE, "runs or raises; it never falls back"): [
        "ops/test_guard.py::test_a_kernel_requested_by_name_is_refused_inside_a_transform",
        "ops/test_attention_forms.py::test_a_kernel_asked_for_by_name_runs_no_causal_attention",
        "drop_in/test_drop_in.py::test_an_implementation_asked_for_by_name_raises_where_it_cannot_run",
    ],
    (PAGE, "who\nwould\nrun, and why"): ["test_drop_in_page.py::test_a_row_is_true"],
    (PAGE, "without hooks, parametrization or a patched `forward`"): [
        "test_layers_stock.py::test_backward_hooks_run",
        "test_layers_stock.py::test_a_forward_that_is_patched_for_a_class_is_called",
        "test_layers_stock.py::test_accelerate_calls_a_forward_that_was_patched_on_the_instance",
        "drop_in/test_drop_in.py::test_hooks_and_replaced_linears_are_heard",
    ],
    (PAGE, "LoRA (peft)"): [
        "test_layers_stock.py::test_an_adapter_is_called",
        "test_layers_in_pytorch.py::test_peft",
        "test_layers_in_pytorch.py::test_peft_before_and_after_accelerate",
    ],
    (PAGE, "pruning, `spectral_norm`"): [
        "test_layers_stock.py::test_a_pruned_projection_follows_its_parameter",
        "test_layers_stock.py::test_a_parametrized_projection_follows_its_original",
    ],
    (PAGE, "int8 weights (torchao, dynamic quantisation)"): [
        "test_layers_in_pytorch.py::test_torchao",
        "test_layers_in_pytorch.py::test_dynamic_quantisation_is_called",
    ],
    (PAGE, "CPU\noffload (Hugging Face accelerate)"): ["test_layers_in_pytorch.py::test_accelerates_offload"],
    (PAGE, "tensor parallelism"): ["test_layers_in_pytorch.py::test_distributed_tensors_and_tensor_parallelism"],
    (PAGE, "norms of your own"): ["test_layers_stock.py::test_a_replaced_norm_is_called"],
    (PAGE, "They are made again when a parameter is replaced or"): [
        "test_layers_stock.py::test_a_frozen_model_follows_its_model",
        "test_layers_in_pytorch.py::test_ema_pytorch",
    ],
    (PAGE, "are noticed by 64\nelements of each weight"): [
        "test_layers_in_pytorch.py::test_copies_follow_weights_written_past_the_counter"
    ],
    (PAGE, "go through the reference; with dropout inside a kernel they are refused"): [
        "ops/test_second_derivatives.py::test_they_are_those_of_the_reference",
        "ops/test_second_derivatives.py::test_dropout_inside_a_kernel_is_refused",
    ],
    (PAGE, "**`torch.func`, forward mode, `torch.jit.trace`, FLOP counters, FakeTensor:** the reference"): [
        "ops/test_guard.py::test_torch_func_runs_the_reference",
        "ops/test_guard.py::test_tangents_are_those_of_the_reference",
        "test_layers_in_pytorch.py::test_a_trace_follows_its_input",
        "test_layers_in_pytorch.py::test_default_device_fake_tensors_and_flops",
    ],
    (PAGE, "see layers and accelerated models without a graph\n  break and without recompiling for each length"): [
        "test_layers_in_pytorch.py::test_one_graph_without_breaks_for_all_lengths",
        "test_layers_in_pytorch.py::test_an_accelerated_model_has_no_graph_breaks",
        "test_layers_in_pytorch.py::test_strict_export",
    ],
    (PAGE, "Attention stays a kernel there, and Inductor fuses the rest"): [
        "test_layers_in_pytorch.py::test_inductor_and_its_gradients"
    ],
    (PAGE, "kernels keep bfloat16 where PyTorch's LayerNorm returns float32"): [
        "drop_in/test_drop_in.py::test_autocast_compile_and_checkpointing",
        "fuzz_ops.py::test_auto_equals_the_reference",
    ],
    (PAGE, "`maximize`, `amsgrad`, `GradScaler` and sparse gradients"): [
        "optim/test_optimizer_protocol.py::test_adamw_is_torchs",
        "optim/test_optimizer_protocol.py::test_adamw_of_other_strides_and_sparse_gradients",
        "optim/test_optimizer_protocol.py::test_a_gradient_scaler_skips_what_overflows",
    ],
    (PAGE, "takes one group of matrices and refuses a second"): [
        "optim/test_optimizer_protocol.py::test_muon_refuses_groups_and_is_copied"
    ],
    (PAGE, "computes bfloat16 wrongly up to 3.9"): [
        "kernels/interpreted/test_dispatch.py::test_bfloat16_is_computed_in_float32_where_the_interpreter_is_wrong"
    ],
}


@pytest.mark.parametrize(("page", "words"), PROMISES, ids=[words[:40] for _, words in PROMISES])
def test_a_promise_has_its_tests(page, words):
    plain = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    assert " ".join(words.split()) in plain, "the promise is not on the page any more"
    for node in PROMISES[page, words]:
        file, _, name = node.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        assert name in {item.name for item in tree.body if isinstance(item, ast.FunctionDef)}, node
