"""Run a kit on the host of a card: compile, accuracy, throughput of each of its cells, and one file to carry home.

    tar xf kit-310P3.tar && cd kit && python3 run.py        # here: python3 -m tools.base.trip --help

    bert_base_cased_sst2/default/seq128/bs8/310P3-atc-fp16   806/872  1 row differs, 0.0041 at most    1336.4 samples/s
    ...
    wrote result-node7.tar: 18 cells, 0 failed

`make kit` puts this file into the kit as run.py, and tools/ascend/ takes from here what it knows of CANN. So it is of
the standard library alone, for Python 3.7 or newer, and needs nothing but CANN and ais_bench, or trtexec. A cell that
fails is named, and the next one is run. Started again, the script runs the cells that are not done yet. Nothing is
judged here: `make record FROM=result-node7.tar` compares the result with the kit at home.
"""

from __future__ import annotations

import argparse
import array
import fcntl
import glob
import hashlib
import json
import math
import os
import platform
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tarfile
import time

# ---- CANN

ROOTS = ("/usr/local/Ascend/cann", "/usr/local/Ascend/ascend-toolkit/latest", "~/Ascend/cann",
         "~/Ascend/ascend-toolkit/latest")  # fmt: skip
RUNTIMES = ("/usr/local/Ascend/nnrt/latest", "/usr/local/Ascend/nnae/latest")  # CANN without atc
INI_SINCE = (8, 0)  # "does not evolve and will be deprecated": CANN 8.0's page on --op_select_implmode
RENAMED = {"Ascend710": "Ascend310P3", "Ascend910B4_1": "Ascend910B4-1"}
# Finds $0, such as bin/atc, below one of the roots. Prints that root, its set_env.sh, its version files and its SoC names.
FIND = """
for root in "$@"; do
  [ -x "$root/$0" ] || continue
  echo "root=$root"
  for s in "$root/set_env.sh" "$root/../set_env.sh"; do [ ! -f "$s" ] || { echo "set_env=$s"; break; }; done
  cd "$root" || exit 1
  cat {.,..}/*-linux/ascend_*_install.info version.cfg opp/version.info
  ls ./*-linux/data/platform_config
  exit 0
done 2>/dev/null
exit 1
"""
# set_env.sh must not see our arguments. devlib holds a stub of the driver, for hosts that have none. CANN's compiler
# imports packages of the first python3 on PATH: none of a virtual environment, whose NumPy may be too new for it.
RUN = """
set_env=$1 devlib=$2; shift 2; run=("$@"); set --
[ "$set_env" = /dev/null ] || unset PYTHONPATH PYTHONHOME
[ -z "${VIRTUAL_ENV:-}" ] || { PATH=:$PATH:; PATH=${PATH//:$VIRTUAL_ENV\\/bin:/:}; PATH=${PATH#:}; PATH=${PATH%:}; }
. "$set_env"
[ -d /usr/local/Ascend/driver ] || export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$devlib"
exec "${run[@]}"
"""


def soc(chip: str) -> str:
    """A chip's present name for atc: 710 is Ascend310P3, 910B4_1 as a path spells it Ascend910B4-1."""
    name = "Ascend" + chip.replace("Ascend", "", 1)
    return RENAMED.get(name, name)


def version_of(text: str) -> str | None:
    """CANN's public version, such as "8.5.0", from the files that FIND prints; None if none of them says it."""
    patterns = (r"^version=(\d\S*)", r"^toolkit_running_version=\[[^:\]]*:([^\]]+)\]", r"^version_dir=(\d\S*)",
                r"^Version=(\d\S*)")  # fmt: skip
    # The last pattern finds the number of a package, such as 7.6 in CANN 8.0 and 1.84 in 6.0.
    matches = [re.search(pattern, text, re.M) for pattern in patterns]
    return next((m.group(1) for m in matches if m), None)


def number(version: str | None) -> tuple:
    """ "8.0.RC1" as (8, 0); () if the version is not known."""
    return tuple(int(n) for n in re.findall(r"\d+", version or "")[:2])


def implmode(mode: str, version: tuple, work: str) -> dict:
    """atc's flags for an implementation mode, such as "Gelu=high_performance", in the spelling of this version of CANN."""
    if not mode:
        return {}
    if version >= INI_SINCE:
        with open(os.path.join(work, "op_precision.ini"), "w") as f:
            f.write("[ByOpType]\n" + mode + "\n")
        return {"op_precision_mode": "op_precision.ini"}
    op, _, how = mode.partition("=")
    return {"op_select_implmode": how, "optypelist_for_implmode": op}


def roots() -> list:
    """The folders where CANN may be, best first: that of the atc on PATH, ASCEND_HOME_PATH, the usual places."""
    atc, home = shutil.which("atc"), os.environ.get("ASCEND_HOME_PATH")
    first = [os.path.dirname(os.path.dirname(os.path.abspath(atc)))] if atc else []
    return first + ([home] if home else []) + [os.path.expanduser(r) for r in ROOTS]


def cann(command=("bash",), places=None, program="bin/atc") -> dict | None:
    """{root, set_env, version or None, socs} of the first root that has this program; None if no root has it."""
    words = [*command, "-c", FIND, program, *map(str, roots() if places is None else places)]
    text = subprocess.run(words, stdout=subprocess.PIPE, check=False).stdout.decode(errors="replace")
    facts = dict(re.findall(r"^(root|set_env)=(.*)", text, re.M))
    if "root" not in facts:
        return None
    socs = re.findall(r"^((?:Ascend|Kirin)\S+)\.ini$", text, re.M)
    return dict({"set_env": "/dev/null", "version": version_of(text), "socs": socs}, **facts)


def atc_command(tool: dict, words: list) -> list:
    """The command that runs atc of a CANN that `cann` found."""
    devlib = "%s/%s-linux/devlib" % (tool["root"], os.uname().machine)
    return ["bash", "-c", RUN, "bash", tool["set_env"], devlib, tool["root"] + "/bin/atc", *words]


# Patterns of complaints, the likeliest cause first: [ERROR] anywhere on a line, CANN's codes, exceptions, the rest.
COMPLAINTS = (r"\[E(?:RROR)?\] *(?:Error\[\d+\]: )?(\S.*)", r"^(E(?!19999)[A-Z0-9]\d{4}: .+)",
              r"^(?:\w+\.)*(\w*(?:Error|Exception): .+)", r"(?:ERROR|[Ee]rror)(?: while loading [a-z ]+)?: (.+)",
              r"^(E19999: .+)", r"(No such option.*)", r"\[WARN(?:ING)?\] *(.+)")  # fmt: skip
CODE = re.compile(r"(E[A-Z0-9]\d{4})[: ] *(?:\[PID: ?\d+\] ?(?:\d\S* )?)?(?:Inner Error!)? *(.*)")


def errors(text: str) -> list:
    """What a tool complained of. An [INFO] that ends in `error: ...` is no complaint: ais_bench prints one about a backend
    that nobody uses. CANN's `EZ9999: Inner Error!` is none either: the next line says what went wrong."""
    lines = [line[:4096].strip(" \t─│╭╮╰╯") for line in re.sub(r"\[(INFO|DEBUG)\][^\r\n]*", "", text).splitlines()]
    lines = [CODE.sub(lambda m: m.group(2) and m.group(1) + ": " + m.group(2), line) for line in lines]
    complaints = [m.group(1) for p in COMPLAINTS for m in (re.search(p, line) for line in lines) if m]
    return complaints or [line for line in lines if line][-1:] or ["it said nothing"]


def failure(tool: str, text: str, status: int, hints=()) -> str:
    """One line for a run that failed: the likeliest cause that it names, and the first hint whose pattern is in a cause."""
    causes = errors(text)
    killed = [("", "the kernel killed it for want of memory: see free -h, take a smaller batch, or make -j1")]
    apt = [h for p, h in (killed if status in (137, -9) else hints) for line in causes if re.search(p, line, re.I)]
    cause, hint = causes[0][:400].rstrip(". "), (apt + ["see its output above"])[0]
    return "%s failed (exit %d): %s; %s" % (tool, status, cause, hint)


# ---- the card


def query(*command, cwd=".", seconds=60) -> tuple:
    """(exit status, output) of a command; (None, "") if it is missing or does not end in time."""
    null, pipe, same = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT
    try:
        process = subprocess.run(command, cwd=cwd, timeout=seconds, stdin=null, stdout=pipe, stderr=same, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None, ""
    return process.returncode, process.stdout.decode(errors="replace")


def cards(text: str) -> list:
    """[(name, health, number of the card)] of the chips in npu-smi info's table, such as ("310P3", "OK", "0")."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    named = [(re.match(r"(\d+) +(\S+)$", row[0]), row[1]) for row in rows if len(row) > 1 and row[1].isalpha()]
    return [(m.group(2).replace("Ascend", ""), health, m.group(1)) for m, health in named if m]


def unlike(model: str | None, npu: str | None) -> bool:
    """Whether a model for this SoC is for another chip than npu-smi names. On an A3 card npu-smi says only 910."""
    chip = soc(model or "").replace("Ascend", "", 1)
    return bool(chip and npu) and chip != npu and not (npu == "910" and chip.startswith("910"))


# Prints the versions of ais_bench and aclruntime. Exits with 0 if both are there, with 2 if ais_bench is another package
# of that name (PyPI's ais_bench_benchmark, which has no __main__), else with 1. Nothing is imported.
PROBE = """
import glob, importlib.util as u, os, sys
for name in ("ais_bench", "aclruntime"):
    for info in [i for path in sys.path for i in glob.glob(os.path.join(path, name + "-*.dist-info"))][:1]:
        print(name + "=" + os.path.basename(info)[len(name) + 1:-10])
spec = u.find_spec("ais_bench")
runs = spec and any(os.path.isfile(os.path.join(p, "__main__.py")) for p in spec.submodule_search_locations or ())
sys.exit((0 if u.find_spec("aclruntime") else 1) if runs else 2 if spec else 1)
"""


# Where Pythons may be that are not on PATH, below / and below the home folder.
PLACES = ("usr/local/python3*/bin/python3", "*conda3/bin/python3", "*conda3/envs/*/bin/python3")


def pythons() -> list:
    """Interpreters that may have ais_bench, this one first."""
    names = ["python3", *("python3.%d" % minor for minor in range(7, 15))]
    paths = [os.path.join(folder, name) for folder in os.get_exec_path() for name in names]
    tops = [os.path.join(top, place) for top in ("/", os.path.expanduser("~")) for place in PLACES]
    paths += [path for top in tops for path in sorted(glob.glob(top))]
    return list(dict.fromkeys([sys.executable, *(path for path in paths if os.access(path, os.X_OK))]))


def facts(python: str | None, device: str = "0") -> dict:
    """The card `device` (the first of several) and its software, in the words of npu-smi, CANN and pip, or None."""
    status, table = query("npu-smi", "info")
    chips = cards(table) if status == 0 else []
    number = re.match(r"\d*", device).group()  # in the order of npu-smi's table
    chips = chips[int(number or 0) :] or chips
    board = query("npu-smi", "info", "-t", "board", "-i", chips[0][2])[1] if chips else ""
    toolkit = cann() or cann(places=roots() + list(RUNTIMES), program=".")
    versions = dict(re.findall(r"(\w+)=(\S+)", query(python, "-c", PROBE)[1])) if python else {}
    first = lambda pattern, text: next(iter(re.findall(pattern, text)), None)
    return {
        "npu": chips[0][0] if chips else None,
        "npu_health": chips[0][1] if chips else None,
        "npu_driver": first(r"npu-smi +\S+ +Version: +(\S+)", table),
        "npu_firmware": first(r"Firmware Version +: +(\S+)", board),
        "cann": toolkit["version"] if toolkit else None,
        "ais_bench": versions.get("ais_bench"),
        "aclruntime": versions.get("aclruntime"),
    }


def gpu() -> dict:
    """The name and driver of the first GPU, in nvidia-smi's words."""
    status, text = query("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    name, _, driver = text.partition("\n")[0].partition(", ") if status == 0 else ("", "", "")
    return {"gpu": name or None, "gpu_driver": driver or None}


# ---- ais_bench, trtexec

SWITCHES = ("--auto_set_dymdims_mode", "--divide_input", "--display_all_summary")


def as_in_2026(words: list) -> list:
    """The words as the fork of 2026 spells them: hyphens, and switches without a value."""
    parts = iter([part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])])
    spelled = []
    for part in parts:
        on = part not in SWITCHES or next(parts, "1").lower() in ("1", "true", "yes", "t", "y")
        name = part.replace("_", "-") if part.startswith("--") else part
        spelled.append(name if on else name.replace("--", "--no-", 1))
    return spelled


def dotted(n: int) -> tuple:
    """(major, minor, patch): 8503 is 8.5.3, 101303 is 10.13.3."""
    return (n // 1000, n // 100 % 10, n % 100) if n < 10000 else (n // 10000, n // 100 % 100, n % 100)


NO_TRTEXEC = ("no trtexec that names its version: looked on PATH and in /usr/src/tensorrt/bin; get TensorRT at"
              " https://developer.nvidia.com/tensorrt, or work in its container")  # fmt: skip


def trtexec() -> tuple:
    """(path, TensorRT's version) of trtexec; (None, ()) if there is none that prints its version."""
    path = shutil.which("trtexec") or shutil.which("/usr/src/tensorrt/bin/trtexec")
    match = re.search(r"TensorRT\.trtexec \[TensorRT v(\d+)\]", query(path, "--help")[1] if path else "")
    return (path, dotted(int(match.group(1)))) if match else (None, ())


def trtexec_words(version: tuple, engine: str, onnx="", fp16=False, times="", inputs="", outputs="") -> list:
    """trtexec's options to build `engine` from `onnx`, to run it once on files, or to time it, with the same meaning under
    TensorRT 8, 10 and 11."""
    if onnx:
        pool = "--memPoolSize=workspace:5000" if version >= (8, 4) else "--workspace=5000"
        typed = ["--fp16"] if fp16 and version < (11,) else []
        skip = "--skipInference" if version >= (8, 6) else "--buildOnly"
        return ["--onnx=" + onnx, pool, "--noTF32", *typed, "--saveEngine=" + engine, skip]
    if inputs:
        copies = ["--includeDataTransfers"] if version >= (11,) else []
        once = ["--warmUp=0", "--duration=0", "--iterations=1"]
        return ["--loadEngine=" + engine, *copies, "--loadInputs=" + inputs, "--exportOutput=" + outputs, *once]
    same = [] if version >= (11,) else ["--noDataTransfers", "--useSpinWait", "--useCudaGraph"]
    timed = ["--warmUp=1000", "--duration=10", "--iterations=100", "--exportTimes=" + times]
    return ["--loadEngine=" + engine, *same, *timed]


# ---- the kit


class Failed(Exception):
    """Why a cell, or the whole kit, was not run, in one line."""


def sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def of_folder(folder: str) -> str:
    """One hash of all files in a folder, as tools/make/manifest.py computes it."""
    paths = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]
    names = sorted((os.path.relpath(path, folder).replace(os.sep, "/"), path) for path in paths)
    return hashlib.sha256("".join(sha256(p) + "  " + name + "\n" for name, p in names).encode()).hexdigest()


def read_json(path: str):
    with open(path) as f:
        return json.load(f)


def write_json(path: str, value) -> None:
    """Write a JSON file whole: a run that is stopped meanwhile leaves none."""
    with open(path + ".part", "w") as f:
        json.dump(value, f, indent=1)
    os.replace(path + ".part", path)


def run(command: list, log: str, cwd: str = ".") -> str:
    """Run a command, with its words and output in `log`; its output. Raises Failed with its error if it fails."""
    status, text = query(*command, cwd=cwd, seconds=None)
    with open(log, "a", encoding="utf-8") as f:
        f.write("+ " + " ".join(command) + "\n" + text)
    if status is None:
        raise Failed("%s: not found, or no program" % command[0])
    if status:
        raise Failed(failure(os.path.basename(log).partition(".")[0], text, status, [("", "see " + log)]))
    return text


def join_graph(cell: dict, work: str) -> str:
    """The path of a cell's graph, joined from its pieces. Raises Failed if it is not the kit's."""
    path = os.path.join(work, "model.onnx")
    with open(path, "wb") as f:
        for piece in cell["graph"]["pieces"]:
            with open(os.path.join("blobs", piece), "rb") as part:
                shutil.copyfileobj(part, f)
    if sha256(path) != cell["graph"]["sha256"]:
        raise Failed("the graph is not the kit's: unpack it again")
    return path


def compile_om(cell: dict, work: str, log: str) -> str:
    """The .om of a cell: the kit's, or one that is compiled here from the kit's graph. Raises Failed if there is neither."""
    path = os.path.join(work, "model.om")
    if cell["om"]:
        shutil.copyfile(cell["om"], path)
    else:
        tool = cann()
        if tool is None:
            raise Failed("no .om in the kit and no atc here: source CANN's set_env.sh, or make the kit where atc is")
        join_graph(cell, work)
        words = [w.replace("@out", "model").replace("@graph", "model.onnx") for w in cell["atc"]]
        flags = implmode(cell["implmode"], number(tool["version"]), work)
        words += ["--%s=%s" % pair for pair in flags.items()]
        text = run(atc_command(tool, words), log, cwd=work)
        files = glob.glob(os.path.join(work, "model*.om"))
        if "ATC run success" not in text or len(files) != 1:
            raise Failed("atc left no .om: see %s" % log)
        os.replace(files[0], path)
    os.chmod(path, 0o644)
    return path


def values(path: str) -> list:
    """The float32 numbers of an output file, .bin or .npy."""
    with open(path, "rb") as f:
        raw = f.read()
    head = raw.index(b"\n", 10) + 1 if raw[:6] == b"\x93NUMPY" else 0
    return array.array("f", raw[head:]).tolist()


def score_outputs(order: dict, folder: str, reference: list) -> dict:
    """{correct, total, predictions} of the outputs in `folder`, and {differ, largest} if there are reference logits.
    predictions: one character for each sentence, its class, or = for a tie, which counts as wrong. Raises Failed if logits
    are missing or not finite."""
    count, labels = order["labels"], order["truth"]
    predictions, differ, largest = ["="] * len(labels), 0, 0.0
    for stem, rows in order["rows"].items():
        files = [p for p in (os.path.join(folder, stem + "_0" + s) for s in (".bin", ".npy")) if os.path.exists(p)]
        numbers = values(files[0])[: count * len(rows)] if files else []
        if len(numbers) < count * len(rows) or not all(map(math.isfinite, numbers)):
            raise Failed("no logits of %s, or none that are finite: see infer.log" % stem)
        for i, row in enumerate(rows):
            logits, want = numbers[count * i : count * (i + 1)], reference[count * row : count * (row + 1)]
            if logits.count(max(logits)) == 1:
                predictions[row] = str(logits.index(max(logits)))
            if want:
                differ += predictions[row] != str(want.index(max(want)))
                largest = max([largest] + [abs(a - b) for a, b in zip(logits, want)])
    correct = sum(p == str(label) for p, label in zip(predictions, labels))
    result = {"correct": correct, "total": len(labels), "predictions": "".join(predictions)}
    return dict(result, differ=differ, largest=largest) if reference else result


def score_cell(cell: dict, folder: str) -> dict:
    """The score of a cell of this kit."""
    return score_outputs(read_json(cell["order"]), folder, values(cell["reference"]) if cell["reference"] else [])


def head_of(path: str) -> bytes:
    """An .om up to the end of its model's definition (tools/ascend/om.py); weights and kernels come after it."""
    with open(path, "rb") as f:
        head = f.read(1 << 16)
        entry, start = ("<I4xQQ", 264) if struct.unpack_from("<Q", head, 184)[0] else ("<III", 260)
        base = start + struct.unpack_from("<I", head, 256)[0] * struct.calcsize(entry)
        ends = [base + at + size for kind, at, size in struct.iter_unpack(entry, head[start:base]) if kind == 0]
        return head + f.read(max(0, min(ends[0], 1 << 26) - len(head)))


def on_npu(cell: dict, work: str, place: str, a) -> dict:
    """Compile one cell, run its sentences and time it with ais_bench; what its cell.json says of that."""
    om = compile_om(cell, work, os.path.join(place, "atc.log"))
    with open(os.path.join(place, "om_head.bin"), "wb") as f:
        f.write(head_of(om))
    for folder, _, names in os.walk(cell["input"]):  # with modes that ais_bench takes, however the kit was unpacked
        os.chmod(folder, 0o755)
        for name in names:
            os.chmod(os.path.join(folder, name), 0o644)

    def bench(words, out, log):
        folder = os.path.join(place, out)
        os.mkdir(folder, 0o750)
        filled = [w.replace("@model", om).replace("@input", cell["input"]).replace("@out", folder) for w in words]
        start = [a.python, "-m", "ais_bench", "--device", str(a.device)]
        try:
            run(start + filled, os.path.join(place, log))
        except Failed as e:
            if "No such option" not in str(e):
                raise
            run(start + as_in_2026(filled), os.path.join(place, log))
        return folder

    result = score_cell(cell, os.path.join(bench(cell["infer"], "output", "infer.log"), "out"))
    folders = [bench(cell["time"], "round%d" % i, "time%d.log" % i) for i in range(1, a.rounds + 1)]
    speeds = [read_json(os.path.join(folder, "out_summary.json"))["throughput"] for folder in folders]
    return dict(result, om_sha256=sha256(om), rows_per_second=statistics.median(speeds))


def infer_by_trtexec(cell: dict, execute, version: tuple, plan: str, work: str, folder: str) -> None:
    """Run a cell's rows through trtexec, one call for each batch, and leave the logits in `folder`, as ais_bench does.
    cell: {inputs: the folders of its inputs, stems: those of their files, bs, labels: how many a row has}. execute(words)
    runs trtexec. TensorRT 8 takes the int64 of an ONNX file as int32."""
    stems, size, count = cell["stems"], cell["bs"], cell["labels"]
    code, logits_file = "q" if version >= (10,) else "i", os.path.join(work, "output.json")
    os.makedirs(folder)
    for at in range(0, len(stems), size):
        batch, files = stems[at : at + size], []
        for rows in cell["inputs"]:
            name = os.path.basename(rows)
            files.append(name + ":" + os.path.join(work, name))
            with open(os.path.join(work, name), "wb") as f:
                for stem in batch + batch[:1] * (size - len(batch)):
                    with open(os.path.join(rows, stem + ".bin"), "rb") as row:
                        array.array(code, array.array("q", row.read())).tofile(f)
        execute(trtexec_words(version, plan, inputs=",".join(files), outputs=logits_file))
        logits = read_json(logits_file)[0]["values"]
        for i, stem in enumerate(batch):
            with open(os.path.join(folder, stem + "_0.bin"), "wb") as f:
                array.array("f", logits[count * i : count * (i + 1)]).tofile(f)


def on_gpu(cell: dict, work: str, place: str, a) -> dict:
    """The same with trtexec. Raises Failed if it is not here, or lacks the cell's precision."""
    program, version = trtexec()
    if not program:
        raise Failed(NO_TRTEXEC)
    if cell["precision"] == "fp16" and version >= (11,):
        raise Failed("TensorRT 11 has no --fp16: use TensorRT 8 or 10")
    plan, speeds = os.path.join(work, "model.plan"), []
    words = trtexec_words(version, plan, onnx=join_graph(cell, work), fp16=cell["precision"] == "fp16")
    run([program, *words], os.path.join(place, "build.log"))
    order, folder = read_json(cell["order"]), os.path.join(place, "output", "out")
    rows = {"inputs": sorted(glob.glob(os.path.join(cell["input"], "*"))), "stems": list(order["rows"]),
            "bs": cell["bs"], "labels": order["labels"]}  # fmt: skip
    infer = lambda words: run([program, *words], os.path.join(place, "infer.log"))
    infer_by_trtexec(rows, infer, version, plan, work, folder)
    result = score_cell(cell, folder)
    for i in range(1, a.rounds + 1):
        words = trtexec_words(version, plan, times=os.path.join(place, "times%d.json" % i))
        text = run([program, *words], os.path.join(place, "time%d.log" % i))
        speeds.append(float(re.findall(r"Throughput: ([\d.e+]+) qps", text)[-1]) * cell["bs"])
    return dict(result, rows_per_second=statistics.median(speeds), tensorrt=".".join(map(str, version)))


def answer_of(place: str, kit: str) -> dict:
    """The cell.json in a cell's folder of results; {} if that cell did not run to its end, or is of another kit."""
    path = os.path.join(place, "cell.json")
    answer = read_json(path) if os.path.exists(path) else {}
    return answer if answer.get("kit") == kit else {}


def run_cell(cell: dict, place: str, kit: str, a) -> dict:
    """The cell.json of one cell, made now, or the one of an earlier run that did not fail."""
    before = answer_of(place, kit)
    if before and "error" not in before:
        return before
    for folder in (place, "work"):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder, 0o750)
    used = {key: sha256(cell[key]) for key in ("order", "reference", "om") if cell[key]}
    used.update({"graph": cell["graph"]["sha256"], "run.py": sha256(os.path.abspath(__file__))})
    used["input"] = of_folder(cell["input"])
    result = {"kit": kit, "cell": cell["name"], "used": used}
    result["started"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        result.update((on_gpu if cell["engine"] == "trtexec" else on_npu)(cell, "work", place, a))
    except Exception as e:  # whatever it is, the next cell is run
        result["error"] = str(e) if isinstance(e, Failed) else "%s: %s" % (type(e).__name__, e)
    shutil.rmtree("work", ignore_errors=True)
    write_json(os.path.join(place, "cell.json"), result)
    return result


def table_row(cell: dict, result: dict) -> str:
    """One row of the table."""
    text = "%-60s" % cell["name"]
    if "error" in result:
        return text + " FAILED: " + result["error"]
    text += " %4d/%d" % (result["correct"], result["total"])
    if "differ" in result:
        text += "  %d rows differ, %.2g at most" % (result["differ"], result["largest"])
    text += "  %9.1f samples/s" % (result["rows_per_second"] * cell["per_row"])
    return text + ("  (published: %s)" % ", ".join(cell["published"]) if cell["published"] else "")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", type=int, default=0, help="the number of one Ascend card, as npu-smi info has it")
    p.add_argument("--python", help="the Python that has ais_bench (found by looking)")
    p.add_argument("--rounds", type=int, default=3, help="how often each cell is timed")
    p.add_argument("--only", default="", help="run only the cells whose names contain this")
    a = p.parse_args()
    if a.rounds < 1 or a.device < 0:
        p.error("--rounds is 1 or more, --device 0 or more")
    if a.python and os.sep in a.python:
        a.python = os.path.abspath(a.python)
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    lock = open("lock", "a")  # noqa: SIM115 it is held to the end
    try:
        fcntl.flock(lock, fcntl.LOCK_EX + fcntl.LOCK_NB)
    except BlockingIOError:
        raise Failed("another run.py works in this folder; unpack the kit in another one, too") from None
    kit, content, here = sha256("kit.json"), read_json("kit.json"), gpu()
    cells = [cell for cell in content["cells"] if a.only in cell["name"]]
    if not cells:
        raise Failed("no cell's name holds %s" % a.only)
    if cells[0]["engine"] == "trtexec" and a.device:
        raise Failed("--device is for Ascend cards; choose the GPU by CUDA_VISIBLE_DEVICES")
    if cells[0]["engine"] == "atc":
        tried = [a.python] if a.python else pythons()
        a.python = next((python for python in tried if query(python, "-c", PROBE)[0] == 0), None)
        if not a.python:
            raise Failed("none of %s has ais_bench and aclruntime; say --python, source set_env.sh" % tried)
        here = facts(a.python, str(a.device))
        if unlike(content["chip"], here["npu"]):
            words = (content["chip"], here["npu"], here["npu"].replace("-", "_"))
            raise Failed("a kit for %s, npu-smi says %s: make kit CHIP=%s" % words)
    places = {c["name"]: os.path.join("result", "cells", c["name"].replace("/", ".")) for c in content["cells"]}
    results = []
    for cell in cells:
        results.append(run_cell(cell, places[cell["name"]], kit, a))
        print(table_row(cell, results[-1]), flush=True)
    with open(os.path.join("result", "npu-smi.txt"), "w") as f:
        f.write(query("npu-smi", "info")[1] or query("nvidia-smi")[1])
    host = re.sub(r"[^\w.-]", "_", platform.node()) or "host"
    machine = {"host": host, "system": platform.platform(), "python": platform.python_version()}
    write_json(os.path.join("result", "result.json"), {"kit": kit, "machine": machine, "card": here})
    name = "result-%s.tar" % host
    with tarfile.open(name + ".part", "w") as tar:
        for path in ["result/npu-smi.txt", "result/result.json"] + [p for p in places.values() if answer_of(p, kit)]:
            tar.add(path)
    os.replace(name + ".part", name)
    failed = sum("error" in result for result in results)
    print("wrote %s: %d cells, %d failed" % (name, len(results), failed))
    return int(bool(failed))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failed, OSError) as e:
        sys.exit("run.py: error: %s" % e)
    except KeyboardInterrupt:
        sys.exit("run.py: stopped; start it again, and it goes on with the same cell")
