"""pth2onnx.py: a checkpoint folder to ONNX."""

import gc
import itertools
import os
import sys
from pathlib import Path

from tools.make import cli, models
from tools.recipe import options

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


def pth2onnx(description: str, inputs: tuple[str, ...] = (), words=None) -> None:
    """Export a checkpoint folder to ONNX; written only if it agrees with PyTorch on every sentence of --text_file.

    The second spelling of an option is TinyBERT's. inputs: the model's own if not given; words: the options, the command
    line's if not given. Raises UserError where it does not agree.
    """
    p = cli.parser(description)
    p.add_argument("--model_dir", "--input_model", required=True, type=Path, help="checkpoint folder")
    p.add_argument("--save_path", "--output_file", required=True, type=options.new_file, help="the .onnx to write")
    p.add_argument("--save_logits", type=options.new_file, help="where the graph's logits of the sentences go, .npy")
    p.add_argument("--text_file", type=Path, help="sentences to compare on (a few of our own if not given)")
    p.add_argument("--data_dir", type=Path, help="the folder of that file, if it is called dev.tsv")
    p.add_argument(
        "--seq_len", "--max_seq_length", type=options.count, default=128, help="tokens of a sentence (%(default)s)"
    )
    p.add_argument(
        "--eval_batch_size", type=options.count, help="fix the shape to this batch and --seq_len (else open)"
    )
    p.add_argument("--do_lower_case", action="store_true", help="changes nothing: tokenizer_config.json says it")
    options.task(p)
    args = p.parse_args(words)
    # PyTorch's threads wait asleep: beside other work on the same cores, spinning ones took five times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    gc.disable()  # a quarter of these imports is the search for garbage among what stays
    from tools.base import input_files, tasks
    from tools.graph import export
    from tools.source import architecture, data, tokenizer, tokens

    gc.enable()
    inputs = inputs or models.inputs(sys.argv[0])
    task, names = options.task_and_labels(args.task, args.model_dir, inputs)
    tasks.refuse_others(cli.read_json(architecture.config_file(args.model_dir)), task, args.model_dir)
    text_file = args.text_file or (args.data_dir and args.data_dir / "dev.tsv")
    own = list(itertools.pairwise(SENTENCES)) if task.pair else SENTENCES
    sentences = data.read_texts(text_file, task) if text_file else own
    length = tokens.fit(args.model_dir, args.seq_len, cut=not args.eval_batch_size)
    reader = tokens.load(args.model_dir)
    print(tokenizer.compare_ids(reader, args.model_dir, sentences, length))
    arrays = tokens.encode(reader, sentences, length, inputs)
    if inputs == (input_files.UNMASKED,) and reader.padding["pad_id"] != input_files.PADDING:
        fault = f"padding is {reader.padding['pad_id']}, and the input src_tokens stands for fairseq's 1"
        raise cli.UserError(f"{args.model_dir}: {fault}; take input_ids and attention_mask as inputs")
    shape = args.eval_batch_size and (args.eval_batch_size, length)
    module = export.load(args.model_dir, names)
    print(f"labels: {', '.join(module.config.id2label.values())}, in the order of the outputs")
    print(export.export(module, args.save_path, inputs, arrays, shape, args.save_logits).line)
    print(f"wrote {args.save_path}")
