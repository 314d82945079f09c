"""The four commands that both recipes share. Each models/<model>/*.py is a line that calls one with its own values.

Options and files are those of Bert_Base_Cased_SST2; what is added has a default. Nothing heavy is imported before
it is needed: preprocess.py and postprocess.py never load torch.
"""

import argparse
import json
import sys
from pathlib import Path

from tools import cli


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser that shows the calling script's own docstring."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def lower_case() -> bool:
    """do_lower_case of the tokenizer_config.json beside the running script: for a checkpoint with vocab.txt alone."""
    return cli.read_json(Path(sys.argv[0]).with_name("tokenizer_config.json")).get("do_lower_case", True)


def pth2onnx(description: str, inputs: tuple[str, ...]) -> None:
    """Export a checkpoint folder to ONNX; written only if it agrees with PyTorch on every sentence of --text_file.

    The second spelling of an option is TinyBERT's.
    """
    p = parser(description)
    p.add_argument(
        "--model_dir", "--input_model", required=True, type=Path, help="checkpoint folder: config, weights, tokenizer"
    )
    p.add_argument("--save_path", "--output_file", required=True, type=Path, help="the .onnx to write")
    p.add_argument("--text_file", type=Path, help="sentences to compare on (a few of our own if not given)")
    p.add_argument("--data_dir", type=Path, help="the folder of that file, if it is called dev.tsv")
    p.add_argument(
        "--seq_len", "--max_seq_length", type=int, default=128, help="tokens a sentence is cut to (%(default)s)"
    )
    p.add_argument("--eval_batch_size", type=int, help="fix the shape to this batch and --seq_len (open if not given)")
    p.add_argument("--do_lower_case", action="store_true", help="changes nothing: tokenizer_config.json says it")
    args = p.parse_args()
    if args.eval_batch_size is not None and args.eval_batch_size < 1:
        p.error(f"--eval_batch_size {args.eval_batch_size}: must be 1 or more")
    from tools.graph import export
    from tools.source import data, tokens

    text_file = args.text_file or (args.data_dir and args.data_dir / "dev.tsv")
    sentences = data.read_tsv(text_file)[0] if text_file else SENTENCES
    arrays = tokens.encode(tokens.load(args.model_dir, lower_case()), sentences, args.seq_len, inputs)
    shape = args.eval_batch_size and (args.eval_batch_size, args.seq_len)
    verdict = export.export(export.load(args.model_dir), args.save_path, inputs, arrays, shape=shape)
    print(verdict.line)
    print(f"wrote {args.save_path}")


def modify(description: str) -> None:
    """Rewrite a graph for its target; written only if every layer was matched and the logits stay the same."""
    p = parser(description)
    p.add_argument("source", type=Path, metavar="IN.onnx")
    p.add_argument("save_path", type=Path, metavar="OUT.onnx")
    p.add_argument("--target", choices=["ascend", "cpu", "gpu"], default="ascend", help="who gets it (%(default)s)")
    p.add_argument(
        "--input", type=Path, help="folder of preprocess.py to compare on (a few rows of our own if not given)"
    )
    p.add_argument("--rows", type=int, help="compare on this many rows, longest first (all if not given)")
    args = p.parse_args()
    from tools.graph import rewrite

    report = rewrite.modify(args.source, args.save_path, target=args.target, inputs=args.input, rows=args.rows)
    print(rewrite.show(report))
    print(f"wrote {args.save_path}")


def preprocess(description: str, inputs: tuple[str, ...], first_index: int = 1, prefix: str = "") -> None:
    """Write the model inputs of a text file: one .bin a sample, or whole-batch .npy files for a list of lengths."""
    from tools.base import input_files

    p = parser(description)
    p.add_argument("--text_file", required=True, type=Path, help="dev.tsv")
    p.add_argument("--tokenizer_path", required=True, type=Path, help="checkpoint folder")
    p.add_argument("--seq_len", default="128", help="tokens a row, buckets such as 64,128, or real (%(default)s)")
    p.add_argument("--max_len", type=int, default=128, help="tokens a sentence is cut to, for real (%(default)s)")
    p.add_argument("--batch_size", type=int, default=1, help="rows of a file, for buckets (%(default)s)")
    p.add_argument("--pack", action="store_true", help="several sentences a row, for a packed graph (PACK=1)")
    p.add_argument("--save_path", required=True, type=Path, help="folder to write")
    args = p.parse_args()
    from tools.source import data, tokens

    real = args.seq_len == "real"
    try:
        lengths = [args.max_len] if real else [int(n) for n in args.seq_len.split(",")]
    except ValueError:
        p.error(f"--seq_len {args.seq_len}: give a number, several such as 64,128, or real")
    if args.pack and (real or len(lengths) > 1 or lengths[0] < tokens.PACKED_TOKENS):
        p.error(f"--seq_len {args.seq_len}: --pack fills rows of one length, {tokens.PACKED_TOKENS} or more")
    sentences, labels = data.read_tsv(args.text_file)
    encode = tokens.ragged if real else tokens.encode
    arrays = encode(tokens.load(args.tokenizer_path, lower_case()), sentences, max(lengths), inputs)
    if args.pack:
        arrays, planned = tokens.pack(arrays)
        input_files.write_bins(args.save_path, arrays, labels, first_index, prefix, planned)
        print(f"wrote {len(labels)} samples in {len(planned)} rows x {len(arrays)} inputs to {args.save_path}")
    elif len(lengths) == 1:
        input_files.write_bins(args.save_path, arrays, labels, first_index, prefix)
        print(f"wrote {len(labels)} samples x {len(inputs)} inputs to {args.save_path}")
    else:
        count = input_files.write_buckets(args.save_path, arrays, labels, lengths, args.batch_size)
        print(f"wrote {count} batches x {len(inputs)} inputs to {args.save_path}")


def postprocess(description: str, word: str = "accuracy: ") -> None:
    """Compare outputs with labels: the recipe's accuracy line, and a score.json where --save_path is given."""
    from tools.base import output_files

    p = parser(description)
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


# Our own, for an export without a data set at hand.
SENTENCES = [
    "A film that earns its tears.",
    "Two hours I will not get back.",
    "It's neither funny nor sad , but the score is lovely .",
    "so clever you want to hate it , and so warm that you can't",
    "The plot -- such as it is -- wanders off , falls asleep and wakes in another movie .",
    "good",
    "an unmistakably european , talky , slow-burning and finally overwhelming piece of work that asks more of its "
    "audience than most pictures dare and gives back, scene by patient scene, a good deal more than it has asked for",
    "bland , blank and badly lit",
]
