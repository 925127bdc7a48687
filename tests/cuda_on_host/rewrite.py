"""Rewrites a CUDA source as C++, keeping its lines: launches and shared memory, which C++ cannot spell.

Usage: rewrite.py SOURCE RESULT
"""

import re
import sys
from pathlib import Path

# Shared memory is aligned to 16 bytes anyway, so the words that ask for it go.
ALIGN = r"(?:(?:__align__|alignas)\(\d+\)\s+)?"
SHARED_WORD = rf"\b{ALIGN}__shared__\s+{ALIGN}"
DYNAMIC = re.compile(rf"\bextern\s+{SHARED_WORD}([\w:\s]+?)\s+(\w+)\s*\[\s*\]\s*;")
SHARED = re.compile(rf"{SHARED_WORD}([^;,=]+?)\s+(\w+)((?:\[[^\]]*\])*)\s*;")
ASKING = re.compile(r"\bcudaFuncSetAttribute\(\s*(\w+)")
LAUNCH = re.compile(r"(\s*)<<<(.*?)>>>", re.DOTALL)


def callee_start(text: str, end: int) -> int:
    """Where the kernel's name, with its template arguments, that ends at ``end`` begins."""
    depth = 0
    while end > 0:
        c = text[end - 1]
        depth += (c == ">") - (c == "<")
        if depth == 0 and c != "<" and not (c.isalnum() or c in "_:"):
            break
        end -= 1
    return end


def rewrite(text: str) -> str:
    text = DYNAMIC.sub(r"\1* \2 = cuda_on_host::dynamic_shared<\1>();", text)
    text = SHARED.sub(r"auto& \2 = cuda_on_host::shared<\1\3>([] {});", text)
    asking = set(ASKING.findall(text))  # for shared memory, say: their launches are known by their address
    done, at = [], 0
    for launch in LAUNCH.finditer(text):
        start = callee_start(text, launch.start())
        kernel = text[start : launch.start()]
        address = f", reinterpret_cast<const void*>({kernel})" if kernel in asking else ""
        done += [text[at:start], f"cuda_on_host::kernel([&](auto... v) {{ {kernel}(v...); }}{address})"]
        done += [launch[1], ".on(", launch[2], ")"]
        at = launch.end()
    return "".join([*done, text[at:]])


def main() -> None:
    source, result = (Path(name) for name in sys.argv[1:])
    text = rewrite(source.read_text())
    code = re.sub(r"//.*", "", text)
    if left := re.search(r".*(__shared__|<<<).*", code):
        raise SystemExit(
            f"{source}: not understood, one plain declaration or launch at a time: {left[0].strip()}"
        )
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(f'#line 1 "{source}"\n{text}')


main()
