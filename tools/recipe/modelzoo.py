"""The commands of the ModelZoo's RoBERTa and ALBERT recipes, with their own options and file names.

Each is a few lines over the four that all models share: their folders are read as the hub would have them
(tools/source/foreign.py), and their graphs come out at one batch and length.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from tools.base import input_files, output_files
from tools.make import cli
from tools.recipe import options, pth2onnx
from tools.source import data, foreign, tokens

MODEL = Path(sys.argv[0]).resolve().parent  # the folder of the running script, under models/
ALBERT = ("input_ids", "attention_mask", "token_type_ids")


def places_of(data: Path) -> list[Path]:
    """Where the recipes leave what belongs to a data folder: in it, beside it, and where they are run."""
    return [data, data.parent, Path()]


def write_rows(folders, places, length, folder, names, prefix="") -> list[int]:
    """Write the rows of the first dev.tsv in `folders`, one .bin a text and input; its labels.

    places: where the tokenizer's files may lie; names: {the folder of each input: the model input}. Raises UserError
    where there is no dev.tsv.
    """
    if not (path := cli.first_file(Path(f) / "dev.tsv" for f in folders)):
        raise cli.UserError(f"no dev.tsv in {', '.join(map(str, folders))}; copy it there (make data rebuilds it)")
    texts, labels = data.read_tsv(path)
    with tempfile.TemporaryDirectory() as box:
        foreign.tokenizer_files(places, MODEL, Path(box) / "tokens")
        tokenizer = tokens.load(Path(box) / "tokens")
    arrays = tokens.encode(tokenizer, texts, length, tuple(names.values()))
    input_files.write_bins(folder, {name: arrays[meaning] for name, meaning in names.items()}, labels, 0, prefix)
    print(f"wrote {len(labels)} samples x {len(names)} inputs to {folder}")
    return labels


def write_onnx(folder, places, inputs, save_path, shape, folders, weights="checkpoint.pt"):
    """Write the ONNX of a recipe's own checkpoint folder, fixed to `shape` (batch, length).

    places: where its tokenizer's files may lie, too; folders: of which a dev.tsv is compared on; weights: the name of
    fairseq's file.
    """
    batch, length = shape
    with tempfile.TemporaryDirectory() as box:
        if foreign.is_foreign(folder) or (Path(folder) / weights).is_file():
            folder = foreign.as_hub(folder, MODEL, box, places, weights)
        words = ["--model_dir", folder, "--save_path", save_path, "--seq_len", length, "--eval_batch_size", batch]
        words += ["--text_file", path] if (path := cli.first_file(Path(f) / "dev.tsv" for f in folders)) else []
        pth2onnx.pth2onnx("", inputs, list(map(str, words)))


def postprocess(description: str, outputs: str, labels: str, folder: str | None = None) -> None:
    """Print the share of right outputs. outputs, labels: the recipe's names of the options; `labels` is a file beside
    labels.json, or where it may be left out, the folder of both, `folder` if not given."""
    p = cli.parser(description)
    p.add_argument(outputs, dest="outputs", type=Path, required=True, help="folder of the outputs: .bin, .npy or .txt")
    what = f"folder of the labels ({folder})" if folder else "file of the labels"
    p.add_argument(labels, dest="labels", type=Path, required=not folder, default=folder, help=what)
    args = p.parse_args()
    result = output_files.score(args.outputs, (args.labels if folder else args.labels.parent) / "labels.json")
    print(f"acc = {result['correct'] / result['total']:.3f} ({result['correct']}/{result['total']})")


def roberta_preprocess(description: str) -> None:
    p = cli.parser(description)
    p.add_argument("--data_path", type=Path, default=Path("SST-2"), help="folder of the data (%(default)s)")
    p.add_argument("--pad_length", type=options.count, default=128, help="tokens a row (%(default)s)")
    args = p.parse_args()
    names = {f"roberta_base_bin_{args.pad_length}": "src_tokens"}
    folders = args.data_path, args.data_path.parent / "SST-2"
    labels = write_rows(folders, places_of(args.data_path), args.pad_length, args.data_path, names, "src_tokens_")
    cli.write(args.data_path / "roberta_base.label", np.array(labels, "<i8").tobytes())


def roberta_pth2onnx(description: str) -> None:
    p = cli.parser(description)
    p.add_argument("--checkpoint_path", type=Path, default=Path("checkpoint"), help="folder of the weights")
    p.add_argument("--checkpoint_file", default="checkpoint.pt", help="their name (%(default)s)")
    p.add_argument("--data_name_or_path", type=Path, default=Path("SST-2"), help="folder of the data: its dictionaries")
    p.add_argument("--onnx_path", type=Path, default=Path("onnx_file"), help="folder of the .onnx (%(default)s)")
    p.add_argument("--pad_length", type=options.count, default=128, help="tokens a row (%(default)s)")
    p.add_argument("--batch_size", type=options.count, default=1, help="rows of a request (%(default)s)")
    args = p.parse_args()
    path = args.onnx_path / f"roberta_base_seq{args.pad_length}_bs{args.batch_size}.onnx"
    folder, shape = args.data_name_or_path, (args.batch_size, args.pad_length)
    texts = (folder, folder.parent / "SST-2")
    write_onnx(args.checkpoint_path, places_of(folder), ("src_tokens",), path, shape, texts, args.checkpoint_file)


def albert_preprocess(description: str) -> None:
    p = cli.parser(description)
    p.add_argument("--pth_dir", type=Path, required=True, help="folder of the checkpoint: its tokenizer")
    p.add_argument("--data_dir", type=Path, required=True, help="folder of dev.tsv")
    p.add_argument("--save_dir", type=Path, required=True, help="folder to write")
    p.add_argument("--max_seq_length", type=options.count, default=128, help="tokens a row (%(default)s)")
    args = p.parse_args()
    names = dict(zip(ALBERT, ALBERT, strict=True))
    labels = write_rows([args.data_dir], pieces_of(args.pth_dir), args.max_seq_length, args.save_dir, names)
    cli.write(args.save_dir / "label.npy", cli.npy_bytes(np.array(labels, np.int64)[:, None]))


def pieces_of(folder: Path) -> list[Path]:
    """Where the recipe has ALBERT's tokenizer: beside the checkpoint, or with the model that it was trained from."""
    return [folder, *(top / "prev_trained_model/albert_base_v2" for top in folder.absolute().parents[1:2])]


def albert_pth2onnx(description: str) -> None:
    p = cli.parser(description)
    p.add_argument("--pth_dir", type=Path, required=True, help="folder of the checkpoint")
    p.add_argument("--data_dir", type=Path, help="folder of dev.tsv, to compare on (sentences of our own if none)")
    p.add_argument("--onnx_dir", type=Path, default=Path("outputs"), help="folder of the .onnx (%(default)s)")
    p.add_argument("--batch_size", type=options.count, default=16, help="rows of a request (%(default)s)")
    p.add_argument("--max_seq_length", type=options.count, default=128, help="tokens a row (%(default)s)")
    args = p.parse_args()
    path = args.onnx_dir / f"albert_seq{args.max_seq_length}_bs{args.batch_size}.onnx"
    shape, texts = (args.batch_size, args.max_seq_length), [args.data_dir] if args.data_dir else []
    write_onnx(args.pth_dir, pieces_of(args.pth_dir), ALBERT, path, shape, texts)


def opt_onnx(description: str, flags: bool) -> None:
    """The simplified graph in the form that CANN's fusions look for; UserError where it has another shape. flags: its files
    are named by options, not by place."""
    p = cli.parser(description)
    names = ("--input_file", "--output_file") if flags else ("input_file", "output_file")
    for name, what in zip(names, ("simplified graph", "graph to write"), strict=True):
        p.add_argument(name, type=Path, help=what).required = True
    if not flags:
        p.add_argument("batch_size", type=int, help="rows of a request, as the graph has them")
        p.add_argument("seq_length", type=int, help="tokens a row, likewise")
    args = p.parse_args()
    from tools.base import onnxfile
    from tools.graph import rewrite

    shape = onnxfile.session(args.input_file).get_inputs()[0].shape
    if not flags and shape != (wished := [args.batch_size, args.seq_length]):
        raise cli.UserError(f"{args.input_file}: is of {shape}, not of {wished}; export it for that batch and length")
    print(rewrite.modify(args.input_file, args.output_file))
    print(f"wrote {args.output_file}")
