"""preprocess.py: the model inputs of a text file."""

import sys
from pathlib import Path

from tools.make import cli, models
from tools.recipe import options


def preprocess(description: str, first_index: int = 1, prefix: str = "") -> None:
    """Write the model inputs of a text file: one .bin a sample, or whole-batch .npy files for a list of lengths."""
    from tools.base import input_files

    p = cli.parser(description)
    p.add_argument("--text_file", required=True, type=Path, help="dev.tsv")
    p.add_argument("--tokenizer_path", required=True, type=Path, help="checkpoint folder")
    p.add_argument("--seq_len", default="128", help="tokens a row, buckets such as 64,128, or real (%(default)s)")
    p.add_argument("--max_len", type=options.count, default=128, help="tokens of a sentence, for real (%(default)s)")
    p.add_argument("--batch_size", type=options.count, default=1, help="rows of a file, for buckets (%(default)s)")
    p.add_argument("--pack", action="store_true", help="several sentences a row, for a packed graph (PACK=1)")
    p.add_argument("--save_path", required=True, type=Path, help="folder to write")
    p.add_argument("--unlabelled", action="store_true", help="of texts without labels, to check a graph on")
    options.task(p)
    args = p.parse_args()
    from tools.base import tasks
    from tools.source import data, tokens

    real = args.seq_len == "real"
    try:
        lengths = [args.max_len] if real else [int(n) for n in args.seq_len.split(",")]
    except ValueError:
        p.error(f"--seq_len {args.seq_len}: give a number, several such as 64,128, or real")
    if args.pack and (real or len(lengths) > 1 or lengths[0] < tokens.PACKED_TOKENS):
        p.error(f"--seq_len {args.seq_len}: --pack fills rows of one length, {tokens.PACKED_TOKENS} or more")
    inputs = models.inputs(sys.argv[0])
    task, names = options.task_and_labels(args.task, args.tokenizer_path, inputs)
    if args.unlabelled:
        sentences, labels = data.read_texts(args.text_file, task), None
    else:
        sentences, labels = data.read_tsv(args.text_file, task, names)
        labels = [" ".join(map(str, label)) for label in labels] if task.several else labels
    longest = tokens.fit(args.tokenizer_path, max(lengths), cut=real)
    tokenizer = tokens.load(args.tokenizer_path)
    arrays = tokens.encode(tokenizer, sentences, longest, inputs, padded=not real)
    files, rows = f"{len(sentences)} samples", None
    if args.pack:
        arrays, rows = tokens.pack(arrays, tokenizer.padding["pad_id"])
        files += f" in {len(rows)} rows"
    if len(lengths) == 1:
        input_files.write_bins(args.save_path, arrays, labels, first_index, prefix, rows)
    else:
        files = f"{input_files.write_buckets(args.save_path, arrays, labels, lengths, args.batch_size)} batches"
    print(f"wrote {files} x {len(arrays)} inputs to {args.save_path}")
    tasks.write_task(args.save_path, args.task, names)
