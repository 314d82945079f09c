"""Stand-in for `python3 -m ais_bench`: options, file rules, batching, outputs, summary and screen as there.

FAKE_AIS_BENCH=2023 plays Ascend/tools ais_bench 0.0.2 (June 2023), 2024 that of msit (June 2024), 2025 (default) the
official line of February 2024 to December 2025 (gitee ascend/tools 1ff4acca), 2026 a fork of that with typer's command
line, tables on the screen and P99 for the 99th percentile. Devices run one after another here, and the second of two
that want one folder loses the race for it, as it may in 2025. Summaries carry "standin": true. FAKE_AIS_SETUPTOOLS=82
leaves pkg_resources out, which the 2024 one needs; those from 2024 on also say at each start which back end they lack.
"""

import argparse
import io
import itertools
import json
import os
import re
import stat
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import aclruntime
import numpy as np

YEAR = int(os.environ.get("FAKE_AIS_BENCH", "2025"))
NEW = YEAR >= 2024  # has rules for paths
LIMITS = {"loop": 100000, "batchsize": 4096, "warmup_count": 10000}  # of 2025
DATA = (".npy", ".NPY", ".bin", ".BIN")
PAD = "padding_infer_fake_file"
SUFFIX = {"NPY": "npy", "BIN": "bin", "TXT": "txt"}


def info(text):
    aclruntime.say(f"[INFO] {text}")


def progress(done, total):
    """tqdm's bar, on the other stream and without an end of line: what is said next stands on the same line."""
    if NEW:
        sys.stderr.write(f"\rInference array Processing: {100 * done // total:3}%| {done}/{total}")
        sys.stderr.flush()


def fail(text):
    aclruntime.say(f"[ERROR] {text}")
    raise RuntimeError(text)


def flag(v):
    on, off = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")
    if v.lower() not in on + off:
        raise argparse.ArgumentTypeError("Boolean value expected true, 1, false, 0 with case insensitive.")
    return v.lower() in on


def at_least(low):
    def integer(v):
        if int(v) < low:
            raise argparse.ArgumentTypeError(f"{v} is an invalid value")
        return int(v)

    return integer


def devices(v):
    if any(not 0 <= int(i) <= 255 for i in v.split(",")):
        raise argparse.ArgumentTypeError(f"device:{v} is invalid. valid value range is [0, 255]")
    return [int(i) for i in v.split(",")]


def safe_path(path, write=False):
    """The path rules; raises what the real one logs. 2025 looks at the whole path, and lets others not even read an
    output folder that is there already."""
    name = os.path.normpath(Path.cwd() / path) if YEAR >= 2025 else str(path)
    if re.search(r"[^_A-Za-z0-9/.-]", name):
        said = "path" if YEAR >= 2025 else f"path:{name}"
        fail(f"{said} contains illegal char, legal chars include A-Z a-z 0-9 _ - / .")
    if len(name) > 4096 or any(len(p) > 255 for p in name.split("/")):
        fail("file total path's length out of range (4096), please check the file(or directory) path")
    if not Path(name).exists():
        if write:
            return
        fail(f"path: {name} not exist, please check if file or dir is exist")
    if Path(name).is_symlink():
        fail(f"path :{name} is a soft link, not supported, please import file(or directory) directly")
    st = Path(name).stat()
    if st.st_uid != os.geteuid() and st.st_gid not in os.getgroups():
        fail(f"current user isn't path:{name}'s owner or ownergroup, make sure current user belong to file(or directory)'s"
             " owner or ownergroup")  # fmt: skip
    private = write and YEAR >= 2025
    if st.st_mode & (stat.S_IWGRP | stat.S_IWOTH | (stat.S_IROTH | stat.S_IXOTH if private else 0)):
        limit = "0o750(rwxr-x---)" if private else "0o755(rwxr-xr-x)"
        fail(f"The file {name} is group writable, or is others writable, as {'export' if write else 'import'} file(or"
             f" directory), permission should not be over {limit}")  # fmt: skip
    if not os.access(name, os.W_OK if write else os.R_OK) or not write and not st.st_mode & stat.S_IRUSR:
        fail(f"Current user doesn't have {'write' if write else 'read'} permission to the file {name}")


def checked(kind, write=False):
    def check(value):
        if NEW:
            try:
                for path in value.split(","):
                    safe_path(path, write)
                if kind == "om" and not value.endswith(".om"):
                    fail(f"path:{value}, file type not in ['om']")
            except RuntimeError:
                if YEAR >= 2025:
                    at = "\033[1;32m FAQ/security_error \033[0m"
                    aclruntime.say(f"[\033[1;32mSOLUTION\033[0m] visit {at} for detailed solution")
                raise argparse.ArgumentTypeError(f"{kind} path:{value} is illegal. Please check.") from None
            if YEAR >= 2025 and write and value and Path(value).exists() and not Path(value).is_dir():
                raise argparse.ArgumentTypeError("output path is not a directory")
        return value

    return check


ALSO = {"--model": ["--om-model", "-om"], "--output_dirname": ["-od"], "--dymDims": ["--dym-dims", "-dd"],
        "--batchsize": ["--batch-size"], "--warmup_count": ["-wcount"]}  # fmt: skip


class Parser(argparse.ArgumentParser):
    """2024 takes hyphens beside underscores, and shorter spellings. 2026 spells its options with hyphens, its switches
    without a value, and draws boxes around its errors."""

    def add_argument(self, *names, **how):
        if YEAR == 2024:
            names = dict.fromkeys([*names, *(n.replace("_", "-") for n in names), *ALSO.get(names[0], [])])
        if YEAR >= 2026:
            names = [n.replace("_", "-") for n in names]
            how = {"action": "store_true"} if how.get("type") is flag else how
        super().add_argument(*names, **how)

    def error(self, message):
        if YEAR >= 2026:
            said = re.sub("unrecognized arguments: ([^ ]+).*", r"No such option: \1", message)
            print(f"╭─ Error {'─' * 40}╮\n│ {said:<46} │\n╰{'─' * 48}╯", file=sys.stderr)
            sys.exit(2)
        super().error(message)


def options():
    p = Parser(prog="__main__.py", allow_abbrev=YEAR < 2026)
    p.add_argument("--model", "-m", required=True, type=checked("om"))
    p.add_argument("--input", "-i", type=checked("input"))
    p.add_argument("--output", "-o", type=checked("output", True))
    p.add_argument("--output_dirname", type=checked("output", True))
    p.add_argument("--outfmt", default="BIN", choices=list(SUFFIX))
    p.add_argument("--loop", "-l", type=at_least(1), default=1)
    p.add_argument("--device", "-d", type=devices, default=[0])
    p.add_argument("--dymDims")
    p.add_argument("--batchsize", type=at_least(1))
    p.add_argument("--warmup_count", type=at_least(0), default=1)
    for name in ["auto_set_dymdims_mode", *(["divide_input"] if NEW else [])]:
        p.add_argument(f"--{name}", type=flag, default=False)
    a = p.parse_args()
    for name, most in LIMITS.items() if YEAR >= 2025 else ():
        if (getattr(a, name) or 0) > most:
            raise ValueError(f"--{name}: {getattr(a, name)} is over {most}")
    if a.output is None and a.output_dirname is not None:
        fail("parameter --output_dirname cann't be used alone. Please use it together with --output!")
    if NEW and (a.output_dirname or "").startswith("/"):
        raise ValueError("--output_dirname do not support abs path!")
    return a


def natural(name):
    return [int(t) if t.isdigit() else t.lower() for t in re.split("([0-9]+)", name)]


def list_folder(folder):
    names = [f"{folder}/{f.name}" for f in Path(folder).iterdir()]
    if NEW:
        for name in names:
            safe_path(name)
    files = [n for n in names if n.endswith(DATA) and not Path(n).is_dir()]
    if not files:
        fail(f"{folder} of input args not find valid file,valid file format:[*.npy *.NPY *.bin *.BIN]")
    return sorted(sorted(files), key=natural)


def content(path):
    return np.load(path) if path.lower().endswith(".npy") else np.fromfile(path, np.int8)


def columns(a, session):
    """One list of files per model input, from folders."""
    words, count = a.input.split(","), len(session.inputs)
    if not Path(words[0]).is_dir():
        fail(f"Invalid args. {words[0]}  of --input is invalid")
    if len(words) != count:
        fail(f"Invalid args. args input dir num:{len(words)} not equal to model inputs num:{count}")
    for w in words:
        if not Path(w).is_dir():
            fail(f"Invalid args. {w} of input args is not a real dir path")
    return [list_folder(w) for w in words]


def batches(files, session, one_each):
    """[[files of one batch] per input] per run; a last short batch is filled with the padding name."""
    if len(files) != len(session.inputs):
        fail(f"fileslist:{len(files)} intensor:{len(session.inputs)} not match")
    size, tensor = content(files[0][0]).nbytes, session.sizes()[0]
    if not one_each and (size == 0 or tensor % size):
        fail(f"arg0 tensorsize: {tensor} filesize: {size} not match")
    per = 1 if one_each else tensor // size
    runs = -(-len(files[0]) // per)
    info(f"get filesperbatch files0 size:{size} tensor0size:{tensor} filesperbatch:{per} runcount:{runs}")
    starts = range(0, runs * per, per)
    return [[(column + [PAD] * per)[start : start + per] for column in files] for start in starts]


def arrays(batch, session, one_each):
    """Each input's bytes; padding repeats the first file of the same batch."""
    out = []
    for names, size in zip(batch, session.sizes(), strict=True):
        parts = [content(names[0] if n == PAD else n) for n in names]
        out.append(np.concatenate(parts))
        if len(parts) > 1 and not one_each and out[-1].nbytes != size:
            fail(f"ndata size:{out[-1].nbytes} not match {size}")
    return out


def save(path, data):
    if path.endswith("npy"):
        np.save(made := io.BytesIO(), data)
        write(path, made.getvalue())
    elif path.endswith("txt"):
        form = "%f" if data.dtype.kind == "f" else "%d"
        rows = data.reshape(-1, data.shape[-1])
        write(path, "".join("".join(form % v + " " for v in row) + "\n" for row in rows).encode())
    else:
        write(path, data.tobytes())


def write(path, data):
    """The file anew, with the mode that the year gives."""
    if not NEW:
        return Path(path).write_bytes(data)
    Path(path).unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "wb") as f:
        f.write(data)


def make_output(folder, output):
    """The folder of outputs, as each year makes it."""
    if YEAR >= 2025:
        if Path(folder).exists():
            return safe_path(folder)
        for path in reversed([p for p in (Path(folder), *Path(folder).parents) if not p.exists()]):
            path.mkdir(0o750)
    else:
        Path(folder).mkdir(0o750 if NEW else 0o755, parents=True, exist_ok=True)
        if NEW:
            Path(output).chmod(0o750)


def stats(values):
    of = {"min": np.min, "max": np.max, "mean": np.mean, "median": np.median}
    of["percentile(99%)"] = lambda values: np.percentile(values, 99)
    return {name: float(one(values)) if values else 0.0 for name, one in of.items()} | {"count": len(values)}


def device_run(a, device, folder, files=None):
    """All of the work for one device; returns its throughput."""
    session = aclruntime.Session(a.model, device)
    if a.dymDims:
        session.set_dynamic_dims(a.dymDims)
    batchsize = a.batchsize
    if batchsize is None:
        batchsize = session.full_dims()[0][0] if a.dymDims else session.inputs[0][2][0]
        info(f"try get model batchsize:{batchsize}")
    if folder:
        make_output(folder, a.output)
        info(f"output path:{folder}")
    one_each, filesinfo, seen = a.auto_set_dymdims_mode, {}, []
    runs = [None] if a.input is None else batches(files or columns(a, session), session, one_each)

    def once(batch):
        if batch is None:
            return session.run([np.zeros(n, np.uint8) for n in session.sizes()])
        data = arrays(batch, session, one_each)
        if one_each:
            pairs = zip(session.inputs, data, strict=True)
            session.set_dynamic_dims(";".join(f"{n}:{','.join(map(str, d.shape))}" for (n, _, _), d in pairs))
            seen.append(data[0].shape[0])
        return session.run(data)

    for _ in range(a.warmup_count):
        once(runs[0])
    session.loop = a.loop
    session.exec_ms = []
    seen.clear()
    info(f"warm up {a.warmup_count} done")
    for i, batch in enumerate(runs):
        progress(i, len(runs))
        outputs = once(batch)
        names = list(zip(*batch, strict=True)) if batch else [("pure_infer_data",) * len(session.inputs)]
        for k, out in enumerate(outputs if folder else []):
            if len(out) % len(names) and len(names) > 1:
                fail(f"save out files error array shape:{out.shape} files_count_perbatch:{len(names)}")
            for j, part in enumerate(np.array_split(out, len(names))):
                if names[j][0] == PAD:
                    continue
                stem = Path(names[j][0]).name.split(".")[0]
                path = f"{folder}/{stem}_{k}.{SUFFIX[a.outfmt]}"
                entry = filesinfo.setdefault(i * len(names) + j, {"infiles": list(names[j]), "outfiles": []})
                entry["outfiles"].append(path)
                save(path, part)
    progress(len(runs), len(runs))
    print(file=sys.stderr, flush=True)
    compute = stats(session.exec_ms)
    batchsize = sum(seen) / len(seen) if seen else batchsize
    throughput = 1000 * batchsize / compute["mean"] if compute["mean"] else 0
    if YEAR >= 2026:
        compute["P99"] = compute.pop("percentile(99%)")
        names = ("min", "max", "mean", "median", "P99")
        print(f"│ Metric                │ {' │ '.join(names)} │")
        print(f"│ NPU_compute_time (ms) │ {' │ '.join(f'{compute[name]:.4f}' for name in names)} │", flush=True)
    else:
        info("NPU_compute_time (ms): " + ", ".join(f"{k} = {v}" for k, v in compute.items() if k != "count"))
    word = "Throughput" if YEAR >= 2026 else "throughput"
    info(f"{word} 1000*batchsize.mean({batchsize})/NPU_compute_time.mean({compute['mean']}): {throughput}")
    if folder:
        summary = {"filesinfo": filesinfo, "args": sys.argv, "NPU_compute_time": compute}
        summary |= {"npu_compute_time_list": session.exec_ms, "throughput": throughput, "standin": True}
        write(f"{folder}_summary.json", json.dumps(summary).encode())
    return throughput


def shares(a, count):
    """Each device's files, input by input; 2023 rounds up, 2024 spreads the rest over the first devices."""
    columns_ = columns(a, aclruntime.Session(a.model, 0))
    n = len(columns_[0])
    at = [n // count * k + min(k, n % count) if NEW else -(-n // count) * k for k in range(count + 1)]
    return [[c[start:end] for c in columns_] for start, end in itertools.pairwise(at)]


def many(a, folder):
    info(f"multidevice:{a.device} run begin")
    split = a.input is not None and (a.divide_input if NEW else True)
    files = shares(a, len(a.device)) if split else [None] * len(a.device)
    done, total = 0, []
    raced = YEAR >= 2025 and folder and not Path(folder).exists()  # all devices see that it is not there, one makes it
    for i, device in enumerate(a.device):
        own = folder and f"{folder}/device{device}" + (f"_{i}" if NEW else "")
        try:
            if raced and i:
                raise RuntimeError(f"can not make dir: {os.path.normpath(Path.cwd() / folder)}")
            start = time.time()
            t = device_run(a, device, own, files[i])
            line = f"i:{i} device_{device} throughput:{t} start_time:{start} end_time:{time.time()}"
            info(line) if NEW else print(line)
            total.append(t)
            done += 2
        except RuntimeError as e:
            aclruntime.say(f"[ERROR] subprocess run failed error_callback:{e}")
    result = 0 if done == 2 * len(a.device) else 1
    info(f"multidevice run end qsize:{done} result:{result}")
    info(f"summary throughput:{sum(total)}")
    return result


def main():
    a = options()
    if YEAR == 2024 and os.environ.get("FAKE_AIS_SETUPTOOLS") == "82":
        aclruntime.say("[WARNING] can't find aclruntime, please visit gitee ait to install ais_bench(benchmark)")
        raise UnboundLocalError("local variable 'aclruntime_version' referenced before assignment")
    if NEW:
        info("import ais_bench.infer.backends.backend_trtexec error: No module named 'attrs'")
    name = a.output_dirname or time.strftime("%Y_%m_%d-%H_%M_%S")
    folder = f"{a.output}/{name}" if a.output else None
    if len(a.device) > 1:
        return many(a, folder)
    device_run(a, a.device[0], folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
