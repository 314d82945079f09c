"""postprocess.py: outputs against labels."""

import json
from pathlib import Path

from tools import cli
from tools.recipe import options


def postprocess(description: str, word: str = "accuracy: ") -> None:
    """Compare outputs with labels: the recipe's accuracy line, and a score.json where --save_path is given."""
    from tools.base import output_files

    p = options.parser(description)
    p.add_argument("--output_path", required=True, type=Path, help="folder of <sample>_0.bin, .npy or .txt")
    p.add_argument("--label_path", required=True, type=Path, help="labels.json of preprocess.py")
    p.add_argument("--save_path", type=Path, help="score.json to write")
    args = p.parse_args()
    result = output_files.score(args.output_path, args.label_path)
    print(f"{word}{result['correct'] / result['total']:.6f} ({result['correct']}/{result['total']})")
    if args.save_path:
        with cli.whole_file(args.save_path, "w") as f:
            json.dump(result, f, indent=1)
            f.write("\n")
        print(f"wrote {args.save_path}")
