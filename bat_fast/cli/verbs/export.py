"""``bat-fast export``."""

from __future__ import annotations

from bat_fast.cli.parser import Parser

SUMMARY = "a model for other programs: bat-fast export runs/my-run --to torch"


def run(words: list[str]) -> None:
    """Write the model of a run in another form, and print the proof that it answers as before."""
    parser = Parser("export", "The model of a run for other programs, compared with the run's own.")
    add = parser.add_argument
    add("run", help="run folder or model.safetensors")
    add(
        "--to", choices=("timm", "robustbench", "onnx", "torch"), required=True,
        help="weights for timm; what RobustBench loads; ONNX; a program of torch.export",
    )  # fmt: skip
    add("--out", help="folder of the files (default: export-TO in the run)")
    add("--name", help="of robustbench: name of the model, such as Author2026Title")
    add("--results", metavar="FILE.json", help="of robustbench: what eval --attack aa --out wrote")
    add("--root", "--data.root", dest="root", help="folder of the data (default: that of the training)")
    options = {name: value for name, value in vars(parser.parse_args(words)).items() if value is not None}
    for name in ("name", "results"):
        if name in options and options["to"] != "robustbench":
            raise ValueError(f"--{name}: only --to robustbench takes it")
    from bat_fast.export import export_run

    path = options.pop("run")
    files, proof = export_run(path, options.pop("to"), options.pop("out", None), **options)
    for file in files:
        print(f"written     {file}")
    print(f"proof       {proof.line}")
