"""A kit for a card in another room, and the records of the result that comes home (docs/ascend.md has the trip).

    python -m tools.results.kit pack build/m/default/seq128/bs8/310P3-atc-fp16/cell.json ... --save_path build/kit-310P3.tar
    python -m tools.results.kit judge result-node7.tar --save_path results/records

    kept results/records/20261130T101500-node7-bert_base_cased_sst2-default-128-8-310P3-atc-fp16-accuracy.json
    bert_base_cased_sst2/default/seq128/bs64/310P3-atc-fp16 failed there: exit 255: E19999: ...

`cell` writes what make would run for one configuration: its graph, inputs, reference logits and the words of atc and
ais_bench. `pack` puts cells and all that they name into one tar, the same bytes for the same cells, weights that graphs
share once; beside them tools/base/trip.py as run.py. `judge` holds a result to the kit of build/ whose hash it names:
what was used there, the outputs, the times. It computes every accuracy and speed again, and says by name what differs.
"""

import argparse
import hashlib
import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path

from tools.base import output_files, tasks, trip
from tools.make import cli, manifest, parameters
from tools.results import imports, published
from tools.results import record as records

LARGE = 1 << 16  # bytes of a tensor that graphs may share
MOST, LARGEST = 200_000, 1 << 32  # files and bytes of a result
README = """Needs CANN (source its set_env.sh) and ais_bench with aclruntime, or TensorRT's trtexec; Python 3.7 or newer.

    python3 run.py                      # --device 0 --python PYTHON --rounds 3 --only bs8
    make record FROM=result-HOST.tar    # at home

Stopped or failed, it goes on where it was when it is started again.
"""


def cell(words: list[str], args) -> dict:
    """What a kit has to know of one configuration. words: those of the program behind `@atc`, `@infer`, `@time`."""
    marks = [i for i, word in enumerate(words) if word in ("@atc", "@infer", "@time")] + [len(words)]
    commands = {words[a][1:]: words[a + 1 : b] for a, b in zip(marks, marks[1:], strict=False)}
    spec = records.parameters(Path(args.leaf))
    model, given = f"build/{args.leaf}/model.om", args.input
    swap = lambda word: word.replace(model, "@model").replace(given, "@input").replace(args.graph, "@graph")
    plain = {name: [swap(w) for w in without(said)] for name, said in commands.items()}
    modes = [w for w in plain.get("atc", []) if "=high_" in w and not w.startswith("--")]
    return {
        "name": args.leaf,
        **{key: spec[key] for key in ("model", "seq", "bs", "chip", "engine", "precision")},
        "source": Path("build", *Path(args.leaf).parts[:2], "source").read_text().strip(),
        "graph": args.graph,
        "input": args.input,
        "reference": args.reference,
        "implmode": dict(mode.split("=") for mode in modes),
        **{name: [w for w in said if w not in (*modes, "--implmode")] for name, said in plain.items()},
    }


def without(words: list[str]) -> list[str]:
    """A command without its program, and without what the other host says itself: device, Python, place of atc."""
    kept, said = [], iter(words)
    for word in said:
        if word in ("-m", "--python", "--device", "--atc", "--image"):
            next(said, None)
        elif word != "run":
            kept.append(word)
    return kept


def order_of(folder: Path) -> dict:
    """{labels: how many classes, truth: class of each sentence, rows: {output's stem: its sentences}} of input files.

    Raises UserError for a task that has scores.
    """
    _, task, names = tasks.read(folder)
    labels = cli.read_json(folder / "labels.json")
    whole = any(isinstance(v, list) for v in labels.values())
    rows = cli.read_json(folder / "rows.json") if whole else {stem: [i] for i, stem in enumerate(labels)}
    if task.score:
        raise cli.UserError(f"{folder}: scores, of which none is right or wrong; a kit is for classes")
    truth = {}
    for stem, value in labels.items():
        wanted = value if isinstance(value, list) else [value]
        truth |= dict(zip(rows[stem], output_files.numbers_of(wanted, task, len(names), folder), strict=True))
    return {"labels": len(names), "truth": [truth[i] for i in range(len(truth))], "rows": rows}


def pieces(path: Path) -> list[bytes]:
    """A graph's bytes in order, each large tensor a piece of its own."""
    import onnx

    data, at, found = path.read_bytes(), 0, []
    for tensor in onnx.load_model_from_string(data).graph.initializer:
        if len(tensor.raw_data) >= LARGE and (start := data.find(tensor.raw_data, at)) >= 0:
            found += [data[at:start], tensor.raw_data]
            at = start + len(tensor.raw_data)
    return [piece for piece in [*found, data[at:]] if piece]


def per_row(own: dict, order: dict) -> float:
    """Sentences in each row that runs, where rows are packed: the last batch is filled up."""
    if not parameters.rows_of(own["seq"])["PACK"]:
        return 1
    rows, bs = len(order["rows"]), own["bs"]
    return round(len(order["truth"]) / (-(-rows // bs) * bs), 6)


class Tar:
    """A tar whose bytes depend on its files alone, each name once."""

    def __init__(self, path: Path):
        self.tar, self.files = tarfile.open(path, "w", format=tarfile.GNU_FORMAT), {}  # noqa: SIM115

    def add(self, name: str, data: bytes, mode: int = 0o644) -> str:
        """The hash of a file, which is put in unless it is there."""
        if name not in self.files:
            info = tarfile.TarInfo(f"kit/{name}")
            info.size, info.mode = len(data), mode
            self.tar.addfile(info, io.BytesIO(data))
            self.files[name] = hashlib.sha256(data).hexdigest()
        return self.files[name]


def packed(tar: Tar, one: dict) -> dict:
    """A cell as the kit has it; its files go into the tar."""
    folder, graph = Path(one["input"]), Path(one["graph"])
    place = f"{one['model']}-seq{one['seq']}" + (f"-bs{one['bs']}" if "-" in one["seq"] else "")
    made = one | {"graph": {"sha256": cli.sha256(graph), "pieces": []}, "published": figures_beside(one)}
    for piece in pieces(graph):
        name = hashlib.sha256(piece).hexdigest()
        tar.add(f"blobs/{name}", piece)
        made["graph"]["pieces"].append(name)
    sent = {}
    if one["engine"] == "atc":
        order = order_of(folder)
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in (".bin", ".npy")):
            tar.add(f"inputs/{place}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        sent = {"input": f"inputs/{place}", "order": f"orders/{place}.json", "reference": ""}
        tar.add(sent["order"], json.dumps(order).encode())
        logits = output_files.read_kept(Path(one["reference"])) if one["reference"] else None
        if logits is not None and len(logits) == len(order["truth"]):
            sent["reference"] = f"reference/{place}.bin"
            tar.add(sent["reference"], logits.astype("<f4").tobytes())
        made |= {"per_row": per_row(one, order)}
    om = Path(f"build/{one['name']}/model.om")
    if om.is_file() and cli.read_json(records.prov_of(str(om)))["inputs"].get(str(graph)) == made["graph"]["sha256"]:
        sent["om"] = f"oms/{one['name'].replace('/', '.')}.om"
        tar.add(sent["om"], om.read_bytes())
    of = lambda key: folder_hash(tar, sent[key]) if key == "input" else tar.files[sent[key]]
    used = {key: of(key) for key in sent if sent[key]} | {"graph": made["graph"]["sha256"]}
    nothing = dict.fromkeys(("input", "order", "reference", "om"), "")
    return {"per_row": 1} | made | nothing | sent | {"used": used}


def folder_hash(tar: Tar, folder: str) -> str:
    """What trip.of_folder makes of a folder of the kit."""
    files = {n.removeprefix(f"{folder}/"): sha for n, sha in tar.files.items() if n.startswith(f"{folder}/")}
    return hashlib.sha256(manifest.text(files).encode()).hexdigest()


def figures_beside(one: dict) -> list[str]:
    """The published throughputs of the same chip, model, length and batch size, in words."""
    chip = "310P" if one["chip"].startswith("310P") else one["chip"]
    found = published.beside(one | {"kind": "throughput"}, published.read())
    return [f"{f['value']:g} {f['variant']}" for f in found if f["chip"] == chip and f["precision"] == one["precision"]]


def pack(cells: list[Path], save_path: Path) -> None:
    """Write the kit of these cells."""
    tar = Tar(save_path)
    made = [packed(tar, cli.read_json(path)) for path in cells]
    script = tar.add("run.py", Path(trip.__file__).read_bytes(), 0o755)
    content = {"chip": made[0]["chip"], "cells": [one | {"used": one["used"] | {"run.py": script}} for one in made]}
    tar.add("README", README.encode())
    tar.add("kit.json", (json.dumps(content, indent=1) + "\n").encode())
    tar.tar.close()
    print(f"wrote {save_path}: {len(made)} cells, {len(tar.files)} files")


def handed_out(sha256: str) -> dict:
    """The kit.json with that hash, of the kits in build/, with each cell's order. Raises UserError where none has it."""
    for path in sorted(Path("build").glob("kit-*.tar")):
        with tarfile.open(path) as tar:
            inside = lambda name, tar=tar: tar.extractfile(f"kit/{name}").read()
            if hashlib.sha256(data := inside("kit.json")).hexdigest() == sha256:
                cells = [c | {"sentences": json.loads(inside(c["order"])) if c["order"] else None}
                         for c in json.loads(data)["cells"]]  # fmt: skip
                return json.loads(data) | {"cells": cells}
    raise cli.UserError(
        f"the result is of kit {sha256[:12]}, and no build/kit-*.tar is: run make kit with the words that it was made"
        " with, from the same commit"
    )


def unpacked(path: Path, folder: Path) -> Path:
    """The folder `result` of a result file, unpacked. Raises UserError where it is none, or too large."""
    try:
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            if len(members) > MOST or sum(m.size for m in members) > LARGEST:
                raise cli.UserError(f"{path}: {len(members)} files; is it a result of run.py?")
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as e:
        raise cli.UserError(f"{path}: {e}; is it the whole result file of run.py?") from None
    if not (folder / "result/result.json").is_file():
        raise cli.UserError(f"{path}: no result/result.json; is it a result of run.py?")
    return folder / "result"


def held(told: dict, known: dict[str, dict], kit: str) -> dict:
    """The kit's cell that a result is of. Raises UserError where it is of another kit, or not of what the kit holds."""
    name = told.get("cell")
    if told.get("kit") != kit:
        raise cli.UserError(f"{name}: of kit {str(told.get('kit'))[:12]}, the others of {kit[:12]}: results are mixed")
    if name not in known:
        raise cli.UserError(f"{name}: no cell of the kit")
    for key in ("run.py", "graph", "input", "order", "reference", "om"):
        own, used = known[name]["used"].get(key), told["used"].get(key)
        if own != used:
            raise cli.UserError(f"{name}: its {key} was not the kit's there ({str(used)[:12]} for {str(own)[:12]})")
    return known[name]


def of_cell(path: Path, one: dict, told: dict, result: dict, folder: Path) -> list[dict]:
    """The records of one cell: its accuracy, where it has outputs, and its throughput. path: the result file.

    Raises UserError where outputs or times are not what the cell says.
    """
    from tools.ascend import summary
    from tools.gpu import trtexec

    spec = records.parameters(Path(one["name"]))
    if one["engine"] == "trtexec":
        rounds = [timed_by_trtexec(trtexec, f, one["bs"]) for f in sorted(folder.glob("time*.log"))]
    else:
        rounds = [summary.read(p) for p in sorted(folder.glob("round*/out_summary.json"))]
    if not rounds or any(r.get("batchsize", one["bs"]) != one["bs"] for r in rounds):
        raise cli.UserError(f"{one['name']}: its summaries are gone, or of another batch size")
    card = {k: v for k, v in result.get("card", {}).items() if v is None or isinstance(v, str)}
    kept = {k: str(told[k]) for k in ("om_sha256", "tensorrt", "started", "kit") if k in told}
    host = {k: str(v) for k, v in result["machine"].items() if k in ("host", "system", "python")}
    speed = records.throughput(rounds, one["per_row"])
    name = "trtexec" if one["engine"] == "trtexec" else "ais_bench"
    info = {"name": name, **card, **host, **kept, "rounds": speed["rounds"], "sentences_per_row": one["per_row"]}
    standin = any(r.get("standin") for r in rounds)
    base = lambda kind, missing: imports.elsewhere(kind, path, spec, info, standin, missing)
    made = [base("throughput", {"times_ms": "in the result file", "spread": "engine_info has the rounds"}) | {
        "timed": f"{rounds[0]['timed']}; {records.work_of(one['seq'])}",
        "samples_per_second": speed["samples_per_second"],
        "rounds": [speed["samples_per_second"]],
        "spread": None,
        "latency_ms": speed["latency_ms"],
        "requests": speed["requests"],
    }]  # fmt: skip
    if one["engine"] == "trtexec":
        return made
    accuracy = imports.scored(folder / "output/out", labels_of(folder, one))
    if accuracy["correct"] != told["correct"]:
        raise cli.UserError(f"{one['name']}: {told['correct']} right, its outputs give {accuracy['correct']}: edited?")
    return [base("accuracy", {}) | {"caveat": records.caveat(one["source"])} | accuracy, *made]


def timed_by_trtexec(trtexec, log: Path, bs: int) -> dict:
    """A round by trtexec: its log, with the single times beside it."""
    found, times = trtexec.read(log, bs), log.with_name(log.stem.replace("time", "times") + ".json")
    own = trtexec.summary(log.read_text("utf-8", "replace"), json.loads(times.read_text()), bs, str(log))
    return found | {"times_ms": own["gpu_compute_time_list"]}


def labels_of(folder: Path, one: dict) -> Path:
    """labels.json and rows.json as postprocess.py reads them, from the order that the kit holds."""
    order = one["sentences"]
    whole = not all(len(rows) == 1 for rows in order["rows"].values()) or "-" in one["seq"]
    labels = {stem: [str(order["truth"][r]) for r in rows] for stem, rows in order["rows"].items()}
    path = folder / "labels.json"
    path.write_text(json.dumps(labels if whole else {stem: v[0] for stem, v in labels.items()}))
    (folder / "rows.json").write_text(json.dumps(order["rows"]))
    return path


def judge(path: Path) -> tuple[list[dict], list[str]]:
    """(records, what failed there, in words) of a result file. Raises UserError where it is not held by its kit."""
    with tempfile.TemporaryDirectory() as work:
        folder = unpacked(path, Path(work))
        result = cli.read_json(folder / "result.json")
        kit = str(result.get("kit"))
        content = handed_out(kit)
        npu = result.get("card", {}).get("npu")
        if trip.unlike(trip.RENAMED.get(f"Ascend{content['chip']}", content["chip"]), [npu] if npu else []):
            raise cli.UserError(f"{path}: a kit for {content['chip']}, and npu-smi said {npu} there")
        known = {one["name"]: one for one in content["cells"]}
        made, failed = [], []
        for place in sorted((folder / "cells").iterdir()):
            told = cli.read_json(place / "cell.json")
            one = held(told, known, kit)
            if "error" in told:
                failed.append(f"{one['name']} failed there: {told['error']}")
            else:
                made += of_cell(path, one, told, result, place)
    return made, failed


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="command", required=True)
    k = sub.add_parser("cell")
    for name in ("--leaf", "--graph", "--input", "--reference", "--save_path"):
        k.add_argument(name, default="")
    k = sub.add_parser("pack")
    k.add_argument("cells", nargs="+", type=Path)
    k.add_argument("--save_path", type=Path, required=True)
    k = sub.add_parser("judge")
    k.add_argument("result", type=Path)
    k.add_argument("--save_path", type=Path, required=True, help="folder of records")
    mark = next((i for i, w in enumerate(sys.argv) if w.startswith("@")), len(sys.argv))
    args = p.parse_args(sys.argv[1:mark])
    if args.command == "pack":
        return pack(args.cells, args.save_path)
    if args.command == "cell":
        with cli.whole_file(args.save_path, "w") as f:
            f.write(json.dumps(cell(sys.argv[mark:], args), indent=1) + "\n")
        return print(f"wrote {args.save_path}")
    made, failed = judge(args.result)
    for record in made:
        print(f"kept {records.promote(args.save_path, record, args.result)}")
    for line in failed:
        print(line)
    return None


if __name__ == "__main__":
    cli.run(main)
