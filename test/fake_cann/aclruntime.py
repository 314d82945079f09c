"""Stand-in for aclruntime: opens an .om of the stand-in atc, runs the ONNX inside it on the CPU, in fp32.

It checks what the real one checks (sizes, gears), in its words; times are the CPU's.
"""

import sys
import time
from pathlib import Path

import standin

standin.only_in_tests("aclruntime")

import numpy as np  # noqa: E402

from tools.ascend import om  # noqa: E402


def say(text):
    print(text, flush=True)


class Session:
    """One loaded model. inputs: [(name, numpy dtype, dims with -1 where a gear decides)]."""

    def __init__(self, path, device=0):
        import onnxruntime

        say(f"[INFO] {standin.MARK}: no card, the CPU")
        say(f"[INFO] acl init success\n[INFO] open device {device} success")
        try:
            model = om.read_om(path)
            part = next(p for p in model["partitions"] if p["type"] == "WEIGHTS_DATA")
            graph = Path(path).read_bytes()[part["offset"] :][: part["bytes"]]
            if model["atc_version"] != standin.MARK:
                raise RuntimeError("this .om was made by a real atc; the stand-in cannot run it")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            self.session = onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])
        except Exception as e:
            say(f"[ERROR] load model from file failed, model file is {path}")
            raise RuntimeError(str(e)) from None
        say(f"[INFO] load model {path} success\n[INFO] create model description success")
        self.inputs = [(t["name"], np.dtype(t["dtype"]), t["dims"]) for t in model["inputs"]]
        self.outputs = [t["name"] for t in model["outputs"]]
        self.gears, self.dims = model["gears"], None
        self.exec_ms, self.loop = [], 1

    def filled(self, gear):
        """Dims of every input, a gear's numbers where it decides."""
        free = iter(gear)
        return [[next(free) if d == -1 else d for d in dims] for _, _, dims in self.inputs]

    def full_dims(self):
        """Dims of every input: as set, else as compiled with the largest gear."""
        return self.dims or self.filled(map(max, zip(*self.gears or (), strict=True)))

    def sizes(self):
        return [int(np.prod(d)) * t.itemsize for d, (_, t, _) in zip(self.full_dims(), self.inputs, strict=True)]

    def set_dynamic_dims(self, spec):
        """spec: "input_ids:8,64;attention_mask:8,64"; must be one of the gears."""
        if not self.gears:
            say("the dynamic_dims parameter is not specified for model conversion")
            raise RuntimeError("set dynamic dims failed")
        asked = {n: [int(x) for x in d.split(",")] for n, _, d in (i.rpartition(":") for i in spec.split(";"))}
        dims = [asked.get(name, []) for name, _, _ in self.inputs]
        flat = [x for d in dims for x in d]
        gears = [[x for d in self.filled(gear) for x in d] for gear in self.gears]
        if flat not in gears:
            count = len(gears[0])
            wrong = f"the dymDims parameter is not correct i:0 dysize:{len(flat)} dimcount:{count}"
            say(f"[ERROR] {wrong if len(flat) != count else 'the dynamic_dims parameter is not correct'}")
            say(f"[ERROR] model has {len(gears)} gear of dims")
            for i, gear in enumerate(gears):
                say(f"[ERROR] dims[{i}]:" + "".join(f"[{n}]" for n in gear))
            say("[ERROR] check dynamic dims failed, please set correct dymDims paramenter")
            raise RuntimeError("set dynamic dims failed")
        self.dims = dims

    def run(self, buffers):
        """buffers: one array of any dtype per input; returns the outputs. Runs `loop` times, timing each."""
        if self.gears and self.dims is None:
            say(f"[WARN] check failed dym gearcount:{len(self.gears)} but dymtype:0 not set")
            raise RuntimeError("set inputs data failed")
        for i, (b, size) in enumerate(zip(buffers, self.sizes(), strict=True)):
            if b.nbytes != size:
                name = self.inputs[i][0]
                say(f"[ERROR] Check i:{i} name:{name} in size:{b.nbytes} needsize:{size} not match")
                say("[ERROR] Check InVector failed ret:1")
                raise RuntimeError("run failed")
        shapes = zip(self.inputs, self.full_dims(), buffers, strict=True)
        feeds = {n: np.frombuffer(b.tobytes(), t).reshape(d) for (n, t, _), d, b in shapes}
        for i in range(self.loop):
            start = time.perf_counter()
            out = self.session.run(self.outputs, feeds)
            self.exec_ms.append(1000 * (time.perf_counter() - start))
            if self.loop > 1:
                sys.stdout.write(f"\rloop inference exec: ({i + 1}/{self.loop})")
        if self.loop > 1:
            sys.stdout.write("\n")
        return out
