"""A kit for a card in another room, and the records of the result that comes home (docs/ascend.md has the trip).

    python -m tools.results.kit pack build/m/default/seq128/bs8/310P3-atc-fp16/cell.json ... --save_path build/kit-310P3.tar
    python -m tools.results.kit judge result-node7.tar --save_path results/records

    kept results/records/20261130T101500-node7-bert_base_cased_sst2-default-128-8-310P3-atc-fp16-accuracy.json
    bert_base_cased_sst2/default/seq128/bs64/310P3-atc-fp16 failed there: atc failed (exit 255): E19999: ...

`cell` writes what make would run for one configuration: its graph, inputs, reference logits, and the commands of atc and
ais_bench. `pack` puts cells, the files that they name and tools/base/trip.py, as run.py, into one tar. It has the same bytes
for the same cells, and holds weights that several graphs share once. `judge` compares a result with the kit of build/ whose
hash it names: the files used there, the outputs, the times. It computes every accuracy and speed again, and names what differs.
"""

import contextlib
import hashlib
import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from tools.ascend import om
from tools.base import output_files, trip
from tools.make import cli, manifest, parameters
from tools.make.stale import PROV
from tools.results import imports, published, table
from tools.results import record as records

LARGE = 1 << 16  # bytes of a tensor that graphs may share
MOST, LARGEST = 200_000, 1 << 32  # files and bytes of a result
README = """Needs CANN (source its set_env.sh) and ais_bench with aclruntime, or TensorRT's trtexec; Python 3.7 or newer.

    python3 run.py                      # --device 0 --python PYTHON --rounds 3 --only bs8
    make record FROM=result-HOST.tar    # at home

Stopped or failed, it goes on where it was when it is started again.
"""


def cell_of_words(words: list[str], args) -> dict:
    """What a kit has to know of one configuration. words: the commands that follow `@atc`, `@infer` and `@time`."""
    marks = [i for i, word in enumerate(words) if word in ("@atc", "@infer", "@time")] + [len(words)]
    commands = {words[a][1:]: portable(words[a + 1 : b]) for a, b in zip(marks, marks[1:], strict=False)}
    spec, model = records.configuration(Path(args.leaf)), f"build/{args.leaf}/model.om"
    swap = lambda word: word.replace(model, "@model").replace(args.input, "@input").replace(args.graph, "@graph")
    return {
        "name": args.leaf,
        **{key: spec[key] for key in ("model", "seq", "bs", "chip", "engine", "precision")},
        "source": Path("build", *Path(args.leaf).parts[:2], "source").read_text().strip(),
        **{key: getattr(args, key) for key in ("graph", "input", "reference")},
        "implmode": words[words.index("--implmode") + 1] if "--implmode" in words else "",
        **{name: [swap(word) for word in command] for name, command in commands.items()},
    }


def portable(words: list[str]) -> list[str]:
    """A command without its program, and without what the other host says itself: device, Python, place of atc."""
    command, rest = [], iter(words)
    for word in rest:
        if word in ("-m", "--python", "--device", "--atc", "--image", "--implmode"):
            next(rest, None)
        else:
            option, _, chip = word.partition("=")
            command.append(f"{option}={trip.soc(chip)}" if option == "--soc_version" else word)
    return command


def order_of(folder: Path) -> dict:
    """{labels: how many classes, truth: class of each sentence, rows: {output's stem: its sentences}} of SST-2's input files."""
    labels = cli.read_json(folder / "labels.json")
    batches = any(isinstance(v, list) for v in labels.values())
    rows = cli.read_json(folder / "rows.json") if batches else {stem: [i] for i, stem in enumerate(labels)}
    return {"labels": 2, "truth": records.sst2_labels(), "rows": rows}


def pieces(path: Path) -> list[bytes]:
    """A graph's bytes in order, each large tensor a piece of its own."""
    import onnx

    data, at, parts = path.read_bytes(), 0, []
    for tensor in onnx.load_model_from_string(data).graph.initializer:
        if len(tensor.raw_data) >= LARGE and (start := data.find(tensor.raw_data, at)) >= 0:
            parts += [data[at:start], tensor.raw_data]
            at = start + len(tensor.raw_data)
    return [part for part in [*parts, data[at:]] if part]


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

    def add_inputs(self, name: str, folder: Path) -> str:
        """The same of all arrays of a folder: what trip.of_folder makes of them there."""
        paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.suffix in (".bin", ".npy")}
        files = {inside: self.add(f"{name}/{inside}", paths[inside].read_bytes()) for inside in sorted(paths)}
        return hashlib.sha256(manifest.content(files).encode()).hexdigest()


def add_cell(tar: Tar, one: dict) -> dict:
    """A cell as the kit has it; its files go into the tar."""
    folder, graph, sha256 = Path(one["input"]), Path(one["graph"]), cli.sha256(one["graph"])
    place = f"{one['model']}-seq{one['seq']}" + (f"-bs{one['bs']}" if "-" in one["seq"] else "")
    hashes = []
    for piece in pieces(graph):
        hashes.append(hashlib.sha256(piece).hexdigest())
        tar.add(f"blobs/{hashes[-1]}", piece)
    order, per_row = order_of(folder), 1
    names = {"input": f"inputs/{place}", "order": f"orders/{place}.json", "reference": "", "om": ""}
    used = {"graph": sha256, "input": tar.add_inputs(names["input"], folder)}
    used["order"] = tar.add(names["order"], json.dumps(order).encode())
    logits = output_files.read_kept(Path(one["reference"])) if one["reference"] else None
    if logits is not None and len(logits) == records.SST2:
        names["reference"] = f"reference/{place}.bin"
        used["reference"] = tar.add(names["reference"], logits.astype("<f4").tobytes())
    if parameters.seq_values(one["seq"])["PACK"]:  # sentences in each row that runs: the last batch is filled up
        per_row = round(records.SST2 / (-(-len(order["rows"]) // one["bs"]) * one["bs"]), 6)
    om_file = Path(f"build/{one['name']}/model.om")
    if om_file.is_file() and cli.read_json(f"{om_file}{PROV}")["inputs"].get(str(graph)) == sha256:
        names["om"] = f"oms/{one['name'].replace('/', '.')}.om"
        used["om"] = tar.add(names["om"], om_file.read_bytes())
    rows = published.beside(one | {"kind": "throughput"}, published.all_figures())
    same = [r for r in rows if (r["chip"], r["precision"]) == (table.series(one["chip"]), one["precision"])]
    figures, content = [f"{r['value']:g} {r['variant']}" for r in same], {"sha256": sha256, "pieces": hashes}
    return one | names | {"graph": content, "used": used, "per_row": per_row, "published": figures}


def pack_kit(cells: list[Path], save_path: Path) -> None:
    """Write the kit of these cells."""
    tar = Tar(save_path)
    content = [add_cell(tar, cli.read_json(path)) for path in cells]
    script = tar.add("run.py", Path(trip.__file__).read_bytes(), 0o755)
    for one in content:
        one["used"]["run.py"] = script
    tar.add("README", README.encode())
    tar.add("kit.json", (json.dumps({"chip": content[0]["chip"], "cells": content}, indent=1) + "\n").encode())
    tar.tar.close()
    print(f"wrote {save_path}: {len(content)} cells, {len(tar.files)} files")


def kit_of(sha256: str) -> dict:
    """The kit.json with that hash, of the kits in build/, with each cell's order. Raises UserError if none has it: a damaged
    one has none."""
    for path in sorted(Path("build").glob("kit-*.tar")):
        with contextlib.suppress(tarfile.TarError, EOFError, KeyError), tarfile.open(cli.regular(path)) as tar:
            read = lambda name, tar=tar: tar.extractfile(f"kit/{name}").read()
            if hashlib.sha256(data := read("kit.json")).hexdigest() == sha256:
                kit = json.loads(data)
                return kit | {"cells": [one | {"sentences": json.loads(read(one["order"]))} for one in kit["cells"]]}
    again = "run make kit with the words that it was made with, from the same commit"
    raise cli.UserError(f"the result is of kit {sha256[:12]}, and no build/kit-*.tar is: {again}")


def unpack(path: Path, folder: Path) -> Path:
    """The folder `result` of a result file, unpacked. Raises UserError where it is none, or too large."""
    try:
        with tarfile.open(cli.regular(path), "r:") as tar:
            members = tar.getmembers()
            if len(members) > MOST or sum(m.size for m in members) > LARGEST:
                raise cli.UserError(f"{path}: {len(members)} files; is it a result of run.py?")
            for member in members:  # by hand: tarfile has a filter from Python 3.11.4 on, and Debian 12 has 3.11.2
                place = PurePosixPath(member.name)
                if place.is_absolute() or ".." in place.parts or not (member.isreg() or member.isdir()):
                    raise cli.UserError(f"{path}: {member.name!r} is no plain file in it; is it a result of run.py?")
                if member.isreg():
                    (folder / place).parent.mkdir(parents=True, exist_ok=True)
                    (folder / place).write_bytes(tar.extractfile(member).read())
    except (tarfile.TarError, FileExistsError, NotADirectoryError, IsADirectoryError) as e:
        raise cli.UserError(f"{path}: {e}; is it the whole result file of run.py?") from None
    if not (folder / "result/result.json").is_file():
        raise cli.UserError(f"{path}: no result/result.json; is it a result of run.py?")
    return folder / "result"


def cell_of(answer: dict, cells: dict[str, dict], kit: str) -> dict:
    """The kit's cell that a result is of. Raises UserError where it is of another kit, or not of what the kit holds."""
    name, other = answer.get("cell"), str(answer.get("kit"))
    if other != kit:
        raise cli.UserError(f"{name}: of kit {other[:12]}, the others of {kit[:12]}: results are mixed")
    if name not in cells:
        raise cli.UserError(f"{name}: no cell of the kit")
    for key in ("run.py", "graph", "input", "order", "reference", "om"):
        ours, theirs = cells[name]["used"].get(key), answer["used"].get(key)
        if ours != theirs:
            raise cli.UserError(f"{name}: its {key} was not the kit's there ({str(theirs)[:12]} for {str(ours)[:12]})")
    return cells[name]


def rounds_of(one: dict, folder: Path) -> list[dict]:
    """The timed rounds of one cell. Raises UserError where there are none, or one is of another batch size or no plain run."""
    from tools.ascend import summary
    from tools.gpu import trtexec

    rounds, label = [], lambda path: Path(one["name"], path.relative_to(folder))  # what a complaint calls a file
    for path in sorted(folder.glob("round*/out_summary.json")):
        rounds.append(summary.read_summary(path))
        imports.of_ais_bench(label(path), rounds[-1])
        imports.refuse_others(label(path), imports.options_of(rounds[-1]).others)
    for log in sorted(folder.glob("time*.log")) if one["engine"] == "trtexec" else ():
        text, where = log.read_text("utf-8", "replace"), label(log)
        times = json.loads(log.with_name(f"{log.stem.replace('time', 'times')}.json").read_text())
        run = trtexec.summary(text, times, one["bs"], str(where))
        clues = imports.of_trtexec(where, text, run["tensorrt"])
        if others := [value for key, value, _ in clues if key == "CHIP" and value != one["chip"]]:
            raise cli.UserError(f"{where}: a kit for {one['chip']}, which ran on {others[0]}")
        rounds.append(run | {"times_ms": run["gpu_compute_time_list"], "timed": trtexec.MEANING})
    if not rounds or any(r["batchsize"] != one["bs"] for r in rounds):
        raise cli.UserError(f"{one['name']}: its summaries are gone, or of another batch size")
    return rounds


def om_facts(one: dict, answer: dict, folder: Path) -> dict:
    """What the head of a cell's .om says. Raises UserError where that is not what the kit asked atc for."""
    head, where = folder / "om_head.bin", f"{one['name']}: its om_head.bin"
    if not head.is_file() or one["used"].get("om", answer["om_sha256"]) != answer["om_sha256"]:
        raise cli.UserError(f"{one['name']}: its .om is not the kit's, or left no om_head.bin")
    facts = om.read_head(head.read_bytes(), where)
    words = [w.replace("@out", "model").replace("@graph", "model.onnx") for w in one["atc"]]
    om.check(facts, where, soc_version=trip.soc(one["chip"]), command=words)
    return {key: facts[key] for key in om.FACTS}


def records_of(path: Path, one: dict, answer: dict, result: dict, folder: Path) -> list[dict]:
    """Accuracy and throughput of one cell, as records; UserError where outputs or times are not what the cell says."""
    rounds = rounds_of(one, folder)
    texts = lambda d, keys: {k: v if v is None else str(v) for k, v in d.items() if k in keys}
    speed = records.speed_fields(rounds, one["per_row"])
    info = {
        "name": "trtexec" if one["engine"] == "trtexec" else "ais_bench",
        **texts(result["card"], result["card"]),
        **texts(result["machine"], ("host", "system", "python")),
        **texts(answer, ("om_sha256", "tensorrt", "started", "kit")),
        "rounds": speed["rounds"],
        "sentences_per_row": one["per_row"],
    }
    info |= om_facts(one, answer, folder) if one["engine"] == "atc" else {}
    standin = any(r["standin"] for r in rounds) or info.get("atc_version") == "STAND-IN"
    spec = records.configuration(Path(one["name"]))
    missing = {"times_ms": "in the result file", "spread": "engine_info has the rounds"}
    throughput = imports.imported_fields("throughput", path, spec, info, standin, missing) | {
        **{key: speed[key] for key in ("samples_per_second", "latency_ms", "requests")},
        "timed": f"{rounds[0]['timed']}; {records.workload(one['seq'])}",
        "rounds": [speed["samples_per_second"]],
        "spread": None,
    }
    try:
        score = trip.score_outputs(one["sentences"], str(folder / "output/out"), [])
    except trip.Failed as e:
        raise cli.UserError(f"{one['name']}: {e}") from None
    if score["correct"] != answer["correct"]:
        raise cli.UserError(f"{one['name']}: {answer['correct']} right, its outputs give {score['correct']}: edited?")
    accuracy = imports.imported_fields("accuracy", path, spec, info, standin, {}) | {
        "caveat": records.caveat(one["source"]),
        **records.proportion(score["correct"], score["total"]),
        "predictions": score["predictions"],
    }
    return [accuracy, throughput]


def judge_result(path: Path) -> tuple[list[dict], list[str]]:
    """(records, what failed there, in words) of a result file. Raises UserError where its kit does not bear it out."""
    results, failures = [], []
    with tempfile.TemporaryDirectory() as work:
        try:
            folder = unpack(path, Path(work))
            result = cli.read_json(folder / "result.json")
            kit, npu = kit_of(str(result["kit"])), result["card"].get("npu")
            if trip.unlike(kit["chip"], npu):
                raise cli.UserError(f"{path}: a kit for {kit['chip']}, and npu-smi said {npu} there")
            for place in sorted((folder / "cells").iterdir()):
                answer = cli.read_json(place / "cell.json")
                one = cell_of(answer, {one["name"]: one for one in kit["cells"]}, result["kit"])
                if "error" in answer:
                    failures.append(f"{one['name']} failed there: {answer['error']}")
                else:
                    results += records_of(path, one, answer, result, place)
        except (LookupError, TypeError, AttributeError, ValueError) as e:
            raise cli.UserError(f"{path}: not as run.py writes it ({e!r:.80}); was it edited?") from None
    return results, failures


def main():
    p = cli.parser(__doc__)
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
        return pack_kit(args.cells, args.save_path)
    if args.command == "cell":
        cli.write(args.save_path, json.dumps(cell_of_words(sys.argv[mark:], args), indent=1) + "\n")
        return print(f"wrote {args.save_path}")
    results, failures = judge_result(args.result)
    for record in results:
        print(f"kept {records.promote(args.save_path, record, args.result)}")
    for line in failures:
        print(line)
    return None


if __name__ == "__main__":
    cli.run(main)
