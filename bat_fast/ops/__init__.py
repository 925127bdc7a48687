"""The operators: fused kernels on CPU and CUDA, each with a pure-PyTorch reference.

`is_native` tells which of the two answers on a device. A new operator is a new module of this package that
names it in ``__all__``, and no list to edit; a module without ``__all__`` is for those who import it by name.
Type checkers and editors do not run the loop below: they read ``__init__.pyi``, which
``python tests/ops/test_stub.py`` writes.
"""

import pkgutil
from importlib import import_module

from bat_fast._native import is_native

__all__ = ["is_native"]

for _found in pkgutil.iter_modules(__path__):
    _module = import_module(f"{__name__}.{_found.name}")
    for _name in getattr(_module, "__all__", ()):
        globals()[_name] = getattr(_module, _name)  # also where the module has the name of its function
        __all__ += [_name]
