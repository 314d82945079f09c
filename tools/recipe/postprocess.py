"""postprocess.py: outputs against labels."""

import json
from pathlib import Path

from tools.base import tasks
from tools.make import cli


def postprocess(description: str, word: str = "accuracy: ") -> None:
    """Compare outputs with labels: the recipe's accuracy line, and a score.json where --save_path is given."""
    from tools.base import output_files

    p = cli.parser(description)
    p.add_argument("--output_path", required=True, type=Path, help="folder of <sample>_0.bin, .npy or .txt")
    p.add_argument("--label_path", required=True, type=Path, help="labels.json of preprocess.py")
    p.add_argument("--save_path", type=Path, help="score.json to write")
    p.add_argument("--threshold", type=float, default=tasks.THRESHOLD, help="where labels may be several (%(default)s)")
    args = p.parse_args()
    if not 0 < args.threshold < 1:
        p.error(f"--threshold {args.threshold}: must be between 0 and 1")
    if args.threshold != tasks.THRESHOLD and not tasks.of_inputs(args.label_path.parent)[1].several:
        p.error(f"--threshold {args.threshold}: means nothing where each text has one class or a score")
    result = output_files.score(args.output_path, args.label_path, args.threshold)
    for line in lines_of(result, word):
        print(line)
    if args.save_path:
        cli.write(args.save_path, json.dumps(result, indent=1) + "\n")
        print(f"wrote {args.save_path}")


def lines_of(result: dict, word: str):
    """The lines on the screen: the recipe's accuracy; of another task each of its metrics."""
    if "metrics" not in result:
        yield f"{word}{result['correct'] / result['total']:.6f} ({result['correct']}/{result['total']})"
    for name, metric in result.get("metrics", {}).items():
        if metric["value"] is None:
            yield f"{name}: {metric['method']}"
        else:
            interval = "{} interval {:.4f} to {:.4f}".format(metric["method"], *metric["interval95"])
            yield f"{name}: {metric['value']:.6f} of {result['total']} ({interval})"
