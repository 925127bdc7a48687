"""Run the adapters of bat_fast/integrations beside their hosts, in an environment of its own.

    python tests/hosts.py [HOST ...]

The environment is a scratch folder, which is removed afterwards. It sees the packages of the Python that runs
this (torch among them), so that only hosts are installed in it: about 2 GB, two minutes. Some hosts ask for
versions of other packages that do not fit together, hence ``--no-deps``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOSTS = {
    "torchattacks": ["torchattacks", "--no-deps"],
    "foolbox": ["foolbox", "GitPython"],
    "art": ["adversarial-robustness-toolbox"],
    "secml": ["secml-torch"],
    "adv_lib": ["adv-lib", "--no-deps"],
    "lightning": ["lightning"],
    "accelerate": ["accelerate"],
    "transformers": ["transformers", "accelerate"],
    "robustbench": ["robustbench", "--no-deps"],
    "robustbench needs": ["geotorch", "torchdiffeq", "beautifulsoup4", "pandas", "gdown", "setuptools<81"],
    "jax": ["jax"],
    "onnx": ["onnx", "onnxscript", "onnxruntime"],
}
TESTS = ["tests/integrations", "tests/test_docs.py", "tests/test_cpp_face.py", "tests/export/test_export.py"]
VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "BAT_FAST_FAULTS": "1",
}  # the second: tests marked whole too


def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "venv"
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        (site,) = environment.glob("lib/python*/site-packages")
        (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
        for name in names:
            print(f"+ {name}: pip install {' '.join(HOSTS[name])}", flush=True)
            subprocess.run([python, "-m", "pip", "install", "-q", *HOSTS[name]], check=True)
        subprocess.run([python, "-m", "pytest", *TESTS], check=True, cwd=ROOT, env=os.environ | VARIABLES)


if __name__ == "__main__":
    main(sys.argv[1:] or list(HOSTS))
