"""The C++ kernels for CPU tensors, ``impl="cpp"``: each a ``torch.library`` op over ``fastbert._C``.

Every module has the same order: docstring (formula, shapes, dtypes) → the calls into the core → custom_op,
register_fake, register_autograd → the public function, which ``public`` lists under the name that ``fastbert.ops``
gives it. ``dispatch`` says why a kernel cannot take some arguments. Tensors go to the core as addresses, so the wrapper
is the place where shapes, strides and dtypes are proven. csrc/cpu/README.md has the other side.
"""
