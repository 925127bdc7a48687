"""``bat-fast predict``."""

from __future__ import annotations

import json

from bat_fast.cli.parser import Parser

SUMMARY = "the class of image files: bat-fast predict runs/my-run photo.jpg"


def run(words: list[str]) -> None:
    """Print the most probable classes of each file, a line for each, as they come."""
    parser = Parser("predict", "What a saved model says about image files, with the pixels of its training.")
    parser.add_argument("run", help="run folder or model.safetensors")
    parser.add_argument("images", nargs="+", help="files, in any format that Pillow reads")
    parser.add_argument("--top", type=int, default=1, help="classes of each image (default: 1)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--json", action="store_true", help="print a JSON object in each line")
    options = parser.parse_args(words)
    from bat_fast.evaluate.predict import predict

    for found in predict(options.run, options.images, top=options.top, device=options.device):
        if options.json:
            print(json.dumps(found), flush=True)
        else:
            said = ", ".join(f"{entry['name']} {entry['probability']:.1%}" for entry in found["classes"])
            note = "  (resized to that of the training images)" if found["resized"] else ""
            print(f"{found['image']}  {said}{note}", flush=True)
