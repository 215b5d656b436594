"""The C++ kernels for CPU tensors, ``impl="cpp"``: each a ``torch.library`` op over ``fastbert._C``.

Every module has the same order: docstring (formula, shapes, dtypes) → the calls into the core → custom_op,
register_fake, register_autograd → the public function, which ``public`` lists under the name that ``fastbert.ops``
gives it. ``dispatch`` gives the reason why a kernel cannot run some arguments. Tensors are passed to the core as
addresses: shapes, strides and dtypes are proven before. csrc/cpu/README.md has the other side.
"""
