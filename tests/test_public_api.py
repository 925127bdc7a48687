"""The public interface, as it is promised: every name, with the arguments it is called with.

``public_api.txt`` is the one list of them, and written by

    python tests/test_public_api.py
"""

import difflib
import enum
import inspect
import re
from importlib import import_module
from pathlib import Path

from bat_fast import cli, methods

LIST = Path(__file__).with_name("public_api.txt")
MODULES = ("", ".ops", ".attacks", ".methods", ".models", ".data", ".evaluate", ".train")
ALSO = ("export.export_run",)
RENEW = "python tests/test_public_api.py"


def arguments(thing: object) -> str:
    """What a function or class is called with: names and defaults, without types."""
    if not callable(thing) or (inspect.isclass(thing) and issubclass(thing, (enum.Enum, BaseException))):
        return ""
    try:
        signature = inspect.signature(thing)
    except ValueError:
        return ""
    plain = [part.replace(annotation=inspect.Parameter.empty) for part in signature.parameters.values()]
    text = str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    text = re.sub(r"<[\w.]*?(\w+) object at 0x\w+>", r"\1()", text)  # an address is of this process alone
    return re.sub(r"<(?:object|function|factory)[^>]*>", "...", text)


def public_api() -> list[str]:
    """The names below ``bat_fast``, the methods with their options, and the verbs of the command line."""
    found = []
    for module in (import_module(f"bat_fast{suffix}") for suffix in MODULES):
        for name in module.__all__:
            found.append(f"{module.__name__}.{name}{arguments(getattr(module, name))}")
    for place in ALSO:
        module, _, name = place.rpartition(".")
        found.append(f"bat_fast.{place}{arguments(getattr(import_module(f'bat_fast.{module}'), name))}")
    found += [f"method {name}{arguments(type(methods.create(name)))}" for name in methods.names()]
    found += [f"bat-fast {name}" for name in cli._names()]
    return sorted(found)


def test_nothing_public_changes_unnoticed():
    before, now = LIST.read_text().splitlines(), public_api()
    changes = list(difflib.unified_diff(before, now, "promised", "here", n=0, lineterm=""))
    assert not changes, "\n".join(
        [
            "The public interface is another. What was removed or renamed has to be deprecated first",
            f"(CONTRIBUTING.md); what is new or meant is written down by: {RENEW}",
            *changes,
        ]
    )


def test_what_is_public_says_what_it_is():
    for suffix in MODULES[1:]:
        module = import_module(f"bat_fast{suffix}")
        for name in module.__all__:
            thing = getattr(module, name)
            if callable(thing):
                assert inspect.getdoc(thing), f"{module.__name__}.{name} has no docstring"


if __name__ == "__main__":
    LIST.write_text("".join(f"{line}\n" for line in public_api()))
