"""Write a saved model in the form that a peer reads.

python benchmarks/peers/convert.py ctranslate2|openvino DIRECTORY TARGET
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path


def main(kind: str, directory: Path, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    if kind == "ctranslate2":
        from ctranslate2.converters import TransformersConverter

        TransformersConverter(str(directory)).convert(str(part))
        config = part / "config.json"  # where it can't read that there is no such token
        values = json.loads(config.read_text(encoding="utf-8"))
        spare = next(value for key, value in values.items() if key.endswith("_token") and value)
        values |= {key: spare for key, value in values.items() if key.endswith("_token") and value is None}
        config.write_text(json.dumps(values), encoding="utf-8")
    else:
        command = [Path(sys.executable).with_name("optimum-cli"), "export", "openvino", "--model", directory]
        subprocess.run([*command, "--task", "text-generation-with-past", "--weight-format", "fp32", part], check=True)
    part.rename(target)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
