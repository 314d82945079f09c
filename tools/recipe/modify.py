"""modify_onnx.py: a graph rewritten for its target."""

from pathlib import Path

from tools.make import cli
from tools.recipe import options


def modify(description: str) -> None:
    """Rewrite a graph for its target; written only if every layer was matched and the logits stay the same."""
    p = cli.parser(description)
    p.add_argument("source", type=Path, metavar="IN.onnx")
    p.add_argument("save_path", type=options.new_file, metavar="OUT.onnx")
    p.add_argument("--target", choices=["ascend", "cpu", "gpu"], default="ascend", help="who gets it (%(default)s)")
    p.add_argument("--input", type=Path, help="folder of preprocess.py to compare on (a few rows of our own if none)")
    p.add_argument("--rows", type=options.count, help="compare on this many rows, longest first (all if not given)")
    args = p.parse_args()
    if args.rows and not args.input:
        p.error(f"--rows {args.rows}: needs --input, the folder of these rows")
    from tools.graph import rewrite

    print(rewrite.modify(args.source, args.save_path, args.target, args.input, args.rows))
    print(f"wrote {args.save_path}")
