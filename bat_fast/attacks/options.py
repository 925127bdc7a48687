"""What an attack may be told, and what is said where somebody tells it something else."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Any

from bat_fast.spelling import hint

# What other libraries call it.
_ELSEWHERE = {
    "alpha": "step_size",
    "eps_iter": "step_size",
    "eps_step": "step_size",
    "epsilon": "eps",
    "nb_iter": "steps",
    "n_iter": "steps",
    "num_steps": "steps",
    "max_iter": "steps",
    "n_queries": "queries",
    "steps": "queries",  # where an attack has no steps
    "n_restarts": "restarts",
    "n_target_classes": "targets",
    "eot_iter": "eot",
    "rand_init": "random_start",
    "bs": "batch_size",
}


def options_of(kind: type) -> list[str]:
    """The names of the arguments of an attack, beside the model: its own, and those that it hands on to the
    class that it is derived from, but for what it decides by itself (``decides``)."""
    found: list[str] = []
    decided: set[str] = set()
    for base in kind.__mro__:
        if "__init__" in vars(base):
            parameters = list(signature(vars(base)["__init__"]).parameters.values())[2:]  # self, model
            kinds = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
            found += [each.name for each in parameters if each.kind not in kinds and each.name not in found]
            if not any(each.kind is Parameter.VAR_KEYWORD for each in parameters):
                break
        decided |= set(vars(base).get("decides", ()))
    return [name for name in found if name not in decided]


class Optioned:
    """A base of attacks, whose ``__init__`` says what they take where somebody names something else."""

    parameter_free = False
    """It chooses its steps by itself, and takes no ``step_size``."""
    decides: tuple[str, ...] = ()
    """Arguments of the class that it is derived from which it does not take."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__init__" in vars(cls):
            cls.__init__ = _explained(cls.__init__)  # type: ignore[method-assign]


def _explained(init: Callable[..., None]) -> Callable[..., None]:
    @wraps(init)
    def explaining(self: Any, *args: Any, **options: Any) -> None:
        if type(self).__init__ is not explaining:  # a class that is derived from this one calls it
            init(self, *args, **options)
            return
        for name in options:
            if name in type(self).decides:
                raise TypeError(_fault(type(self), name))
        try:
            init(self, *args, **options)
        except TypeError as error:
            refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if refused is None or refused[1] not in options:
                raise
            raise TypeError(_fault(type(self), refused[1])) from None

    return explaining


def _fault(kind: Any, name: str) -> str:
    known, other = options_of(kind), _ELSEWHERE.get(name, name)
    cure = "" if name in kind.decides else hint(name, known)
    if other in known:
        cure = f"; write {other}"
    elif other == "step_size" and kind.parameter_free:
        cure = "; it chooses its steps by itself"
    return f"{kind.__name__} takes no {name!r}{cure} (it takes {', '.join(known)})"
