"""The library names torch's libraries, all of them: through those its weak symbol of CUDA is found."""

import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bat_fast import _native

ROOT = Path(__file__).parents[1]
LIBRARY = _native._FOLDER / "libbat_fast.so"
pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason="the library is not built")
_DYNAMIC, _NEEDED, _STRTAB = 6, 1, 3  # types of a section, and of two entries of it


def needed(library: bytes) -> list[str]:
    """The NEEDED entries of a shared library, 64-bit ELF, little-endian."""
    assert library[:6] == b"\x7fELF\x02\x01"
    (sections,) = struct.unpack_from("<Q", library, 40)
    size, count = struct.unpack_from("<HH", library, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", library, sections + i * size) for i in range(count)]
    (dynamic,) = (header for header in headers if header[1] == _DYNAMIC)
    names = headers[dynamic[6]][4]  # offset of the section of strings that it links to
    entries = struct.iter_unpack("<QQ", library[dynamic[4] : dynamic[4] + dynamic[5]])
    starts = [names + value for tag, value in entries if tag == _NEEDED]
    return [library[start : library.index(b"\0", start)].decode() for start in starts]


def test_the_library_names_every_library_of_torch():
    assert {"libtorch.so", "libtorch_cpu.so", "libc10.so"} <= set(needed(LIBRARY.read_bytes()))


def test_a_library_of_which_only_weak_symbols_are_used_stays(tmp_path):
    # As the build links: the flags are its own. A torch whose libtorch.so exports nothing is one such.
    text = (ROOT / "CMakeLists.txt").read_text()
    (flag,) = re.findall(r"target_link_options\(bat_fast PRIVATE LINKER:(\S+)\)", text)
    source = tmp_path / "caller.c"
    source.write_text("__attribute__((weak)) int f(void);\nint call(void) { return f ? f() : 0; }\n")
    (tmp_path / "empty.c").write_text("int nothing;\n")
    shared = ["cc", "-shared", "-fPIC", "-o"]
    empty, caller = tmp_path / "libempty.so", tmp_path / "libcaller.so"
    subprocess.run([*shared, empty, "-Wl,-soname,libempty.so", tmp_path / "empty.c"], check=True)
    subprocess.run([*shared, caller, "-Wl,--as-needed", f"-Wl,{flag}", source, empty], check=True)
    assert "libempty.so" in needed(caller.read_bytes())
    subprocess.run([*shared, caller, "-Wl,--as-needed", source, empty], check=True)
    assert "libempty.so" not in needed(caller.read_bytes())


@pytest.mark.slow
@pytest.mark.skipif(torch.version.cuda is None, reason="this torch is built without CUDA")
def test_the_weak_symbol_is_found():
    # As the dynamic linker looks for it: in the library, and in all that it needs.
    program = (
        "import torch, bat_fast, ctypes; "
        f"print(bool(ctypes.CDLL({str(LIBRARY)!r}).aoti_torch_get_current_cuda_stream))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "True", run.stderr
