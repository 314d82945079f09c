"""The native engine against onnxruntime, on small seeded classifiers of several shapes; hostile files; the bits.

Each family of units computes: what this CPU lacks of x86's is emulated, instruction by instruction, and Arm's runs under
qemu where that and a cross compiler are. bits.c is docs/bits.md in plain C.
"""

import ctypes
import json
import math
import mmap
import os
import shutil
import signal
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor

import bert_graphs
import numpy as np
import onnx
import onnxruntime
import onnxsim
import pytest
import torch
from conftest import ROOT, module, refused
from small import checkpoint

from tools.base import input_files, onnxfile
from tools.cpu import engines
from tools.cpu.native import convert as converter
from tools.cpu.native import model as native
from tools.cpu.native.build import FLAGS
from tools.graph import export
from tools.make import chips, cpu
from tools.recipe import pth2onnx
from tools.source import tokens

FOLDER = ROOT / "tools/cpu/native"
SOURCES = sorted(p for p in FOLDER.glob("*.c") if p.name != "peak.c")
CASES = [(family, precision) for family, needs in native.FAMILIES.items() for precision in needs]
EXACT = ("amx_int8", "avx512", "avx2_vnni", "avx2", "neon")  # families whose activations are fp32: one definition


def relu_before_the_classifier(classifier):
    classifier.classifier = torch.nn.Sequential(torch.nn.ReLU(), classifier.classifier)


# heads of 8, 26 (TinyBERT), 32 (MiniLM) and 64 (BERT-base); odd paddings; one layer
MINI = {"layers": 3, "hidden": 96, "heads": 3}
SHAPES = {"head8": {}, "mini": MINI, "base": {"layers": 1, "hidden": 128, "heads": 2}}
SHAPES |= {"tiny": {"hidden": 312, "heads": 12, "change": relu_before_the_classifier}}

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is needed to build the engine")


@pytest.fixture(scope="module", autouse=True)
def library(native_library):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BERT2OM_NATIVE", str(native_library))
        yield


@pytest.fixture(scope="module")
def defined(tmp_path_factory):
    """defined(engine, batch, types=None): the logits that docs/bits.md defines."""
    path = tmp_path_factory.mktemp("bits") / "bits.so"
    flags = ["-O2", "-std=gnu11", "-ffp-contract=off", "-Wall", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, ROOT / "test/bits.c", "-o", path, "-lm"], check=True)
    one = ctypes.CDLL(str(path)).bits

    def run(engine, batch, types=None):
        logits = np.empty((len(batch), engine.arch["labels"]), np.float32)
        pointer = lambda row: native.pointer(np.array(row, np.int32))
        for row, ids, of in zip(logits, batch, types or [None] * len(batch), strict=True):
            one(ctypes.byref(engine.net), pointer(ids), of and pointer(of), len(ids), native.pointer(row))
        return logits

    return run


def computes(monkeypatch, family):
    """From now on a family's units compute, or a file is only read."""
    monkeypatch.setattr(native, "family_for", lambda precision: family)


HERE = cpu.cpu_flags()
# Of an x86 CPU with AVX2: it emulates what it lacks.
OURS = [c for c in CASES if native.FAMILIES[c[0]][c[1]] <= HERE]
RUN = [c for c in CASES if "neon" not in c[0]] if {"avx2", "fma"} <= HERE else OURS
TWO = pytest.mark.parametrize("onnx_path", ["tiny", "base"], indirect=True)


@pytest.fixture(params=OURS, ids="-".join)
def precision(request, monkeypatch):
    """A precision, and the family of this CPU that computes it from now on."""
    computes(monkeypatch, request.param[0])
    return request.param[1]


@pytest.fixture(params=RUN, ids="-".join)
def any_units(request, monkeypatch):
    """The same, emulated where it must be: slowly."""
    computes(monkeypatch, request.param[0])
    return request.param


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """exported(name, change, ...): a seeded classifier of a trained one's scale, changed, and its graph, made once."""
    cache = {}

    def get(name, change=lambda classifier: None, names=bert_graphs.NAMES, **options):
        if name not in cache:
            classifier, path = bert_graphs.bert(**options), tmp_path_factory.mktemp(name) / "model.onnx"
            dense = [w for n, w in classifier.named_parameters() if w.ndim == 2 and "embeddings" not in n]
            for weight in dense:
                weight.data.mul_(min(1, 3 / classifier.config.hidden_size**0.5))
            change(classifier)
            cache[name] = classifier, bert_graphs.export(path, classifier, names=names)
        return cache[name]

    return get


@pytest.fixture(scope="module", params=SHAPES)
def onnx_path(request, exported):
    return exported(request.param, **SHAPES[request.param])[1]


def sentences(n=40, seed=0):
    rng = np.random.default_rng(seed)
    lengths = [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, *rng.integers(3, 40, n - 10)]
    return [rng.integers(0, 100, length).tolist() for length in lengths]


def reference(path, batch):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feeds = ({"input_ids": np.array([s]), "attention_mask": np.ones((1, len(s)), np.int64)} for s in batch)
    return np.concatenate([session.run(None, f)[0] for f in feeds])


def model(path, folder, precision="fp32", **options):
    converter.convert(path, folder / "model.native", precision)
    return native.Model(folder / "model.native", **options)


NEAR = {"bf16": 0.02, "int8": 0.06, "int8-bf16": 0.06, "fp32": 1e-5}


@pytest.fixture
def hold(defined):
    def hold(logits, want, family, precision, engine, batch):
        """These are near to `want`, and of the defined bits where there are such."""
        assert np.abs(logits - want).max() < NEAR[precision] * max(1, np.abs(want).max())
        assert family not in EXACT or np.array_equal(logits, defined(engine, batch))

    return hold


def test_same_answers_as_onnxruntime_and_the_defined_bits(onnx_path, tmp_path, hold, any_units):
    batch = sentences(20)
    engine = model(onnx_path, tmp_path, any_units[1])
    want, have = reference(onnx_path, batch), engine.run(batch)
    assert want.std() > 0.05, "the reference must tell sentences apart"
    hold(have, want, *any_units, engine, batch)
    assert np.array_equal(engine.run(batch[::-1])[::-1], have)


NAMES = ["clang", *(f"clang-{n}" for n in range(14, 20)), *(f"gcc-{n}" for n in range(10, 15)), "gcc"]
PRESENT = {os.path.realpath(path): name for name in NAMES if (path := shutil.which(name))}  # each once
COMPILERS = [(c, o) for c in PRESENT.values() for o in ("-O1", "-O2", "-O3") if (c, o) != ("gcc", "-O3")]


@pytest.mark.skipif(not {"avx2", "fma"} <= HERE, reason="AVX2 is needed")
@pytest.mark.parametrize(("compiler", "level"), COMPILERS)
def test_every_compiler_at_every_level_gives_the_defined_bits(small, tmp_path, monkeypatch, defined, compiler, level):
    computes(monkeypatch, "avx2")
    monkeypatch.setenv("BERT2OM_NATIVE", str(tmp_path / "native.so"))
    sources = [FOLDER / "engine.c", FOLDER / "avx2.c"]
    flags = [level, *(f for f in FLAGS if f != "-O3"), "-w"]
    subprocess.run([compiler, *flags, *sources, "-o", tmp_path / "native.so", "-lm"], check=True)
    batch = sentences(20)
    for precision in ("fp32", "int8"):
        engine = model(small / "model.onnx", tmp_path, precision)
        assert np.array_equal(engine.run(batch), defined(engine, batch)), precision


def faint(classifier):
    classifier.classifier.weight.data.mul_(1e-38)
    classifier.classifier.bias.data.zero_()


def test_denormal_numbers_are_numbers_whatever_the_program_has_set(exported, tmp_path, precision):
    """Logits below the smallest normal number, in a program that flushes such to 0 (as torch can)."""
    torch.set_flush_denormal(False)  # a session of onnxruntime leaves it on in this thread
    engine = model(exported("faint", faint)[1], tmp_path, precision, threads=1)
    want = engine.run([[1, 2, 3]])
    if torch.set_flush_denormal(True):
        have = engine.run([[1, 2, 3]]).view(np.int32)
        torch.set_flush_denormal(False)
        assert np.array_equal(have, want.view(np.int32)) and have.all()


ARM = [shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")]


@pytest.fixture(scope="module")
def on_arm(tmp_path_factory):
    """on_arm(model, family, batch): logits of a model's file by a family of Arm's units, in emulation."""
    if not all(ARM):
        pytest.skip("apt-get install gcc-aarch64-linux-gnu qemu-user")
    program = tmp_path_factory.mktemp("arm") / "driver"
    flags = ["-O1", *(flag for flag in FLAGS if flag not in ("-O3", "-shared", "-fPIC"))]
    sources = [*SOURCES, ROOT / "test/native_driver.c"]
    subprocess.run([ARM[0], *flags, "-static", "-Wall", "-Werror", *sources, "-o", program, "-lm"], check=True)

    def run(engine, family, batch, block=64):
        rows = np.array([len(s) for s in batch], np.int32)
        ids = np.concatenate(batch).astype(np.int32)
        start = np.concatenate([[0], rows[:-1].cumsum(dtype=np.int64)])
        arrays = [np.frombuffer(engine.weights, np.uint8), engine.offsets, engine.numbers, np.zeros_like(engine.sums)]
        arrays += [ids, np.zeros_like(ids), start, rows, rows]
        request = struct.pack("<6i", family in EXACT, len(rows), block, 4, int(rows.max()), 2) + bytes(engine.net)
        request += b"".join(struct.pack("<i", a.nbytes) + a.tobytes() for a in arrays)
        done = subprocess.run([ARM[1], "-cpu", "max", program], input=request, stdout=subprocess.PIPE, check=True)
        return np.frombuffer(done.stdout, np.float32).reshape(len(rows), -1)

    return run


@pytest.mark.parametrize("on_units", [c for c in CASES if c[0].startswith("neon")], ids="-".join)
def test_arm_in_emulation(onnx_path, tmp_path, hold, on_arm, on_units, monkeypatch):
    """The same answers as onnxruntime's here, the defined bits, the same ones in other company."""
    family, precision = on_units
    batch = sentences(12)
    computes(monkeypatch, "avx2")  # which only reads the file
    engine = model(onnx_path, tmp_path, precision)
    have = on_arm(engine, family, batch)
    hold(have, reference(onnx_path, batch), family, precision, engine, batch)
    assert np.array_equal(on_arm(engine, family, batch[4:1:-1], block=96), have[4:1:-1])


def hold_in_any_company(path, batch, want, *early):
    """A file gives the sentences these bits in any order, alone, padded, and however the threads share them: where there
    are too few for equal blocks, the threads meet once a layer, and cut a sentence where its tiles end."""
    ids = np.full((len(batch), 64), 7)  # not 0: what is masked must not matter
    for row, sentence in zip(ids, batch, strict=True):
        row[: len(sentence)] = sentence
    for threads, block, group in ((2, 320, 4), (1, 32, 1), (3, 96, 2), (3, 64, 4), (8, 64, 4), (2, 2048, 8)):
        engine = native.Model(path, threads)
        engine.BLOCK, engine.GROUP = block, group
        if early:
            engine.leave_early(*early)
        assert np.array_equal(engine.run(batch[::-1])[::-1], want), (threads, block, group)
        for few in (slice(9, 10), slice(0, 9, 8), slice(0, 10, 4), slice(5, 10)):
            assert np.array_equal(engine.run(batch[few]), want[few]), (threads, block, group, few)
    assert np.array_equal(np.concatenate([engine.run([s]) for s in batch]), want)
    assert np.array_equal(engine.run((ids, [len(s) for s in batch])), want)


@TWO
def test_a_sentence_has_the_same_bits_in_any_company_and_padding(onnx_path, tmp_path, precision):
    batch = sentences()
    hold_in_any_company(tmp_path / "model.native", batch, model(onnx_path, tmp_path, precision).run(batch))


@pytest.mark.parametrize("onnx_path", ["mini"], indirect=True)
def test_sentences_leave_early_with_the_same_bits_in_any_company(onnx_path, exported, tmp_path, any_units):
    """What the heads see is each layer's [CLS] and mean; the first that is sure enough answers; nobody else notices."""
    full, layers, hidden = exported("mini")[0].bert.eval(), MINI["layers"], MINI["hidden"]
    batch, precision = sentences(), any_units[1]
    engine = model(onnx_path, tmp_path, precision, threads=2)
    plain, inputs = engine.run(batch), np.empty((len(batch), layers - 1, 2, native.sizes(engine.arch)["h"]), np.float32)
    assert np.array_equal(engine.run(batch, head_inputs=inputs), plain)
    x = inputs[..., :hidden]
    with torch.no_grad():
        for have, ids in zip(x[:12], batch[:12], strict=True):
            states = full(torch.tensor([ids]), output_hidden_states=True).hidden_states[1:-1]
            want = np.stack([np.stack([h[0, 0].numpy(), h[0].mean(0).numpy()]) for h in states])
            assert np.abs(have - want).max() < 3 * NEAR[precision] * np.abs(want).max()
    exits = np.random.default_rng(0).normal(size=(layers - 1, 2, 2 * hidden + 1)).astype(np.float32)
    scored = lambda: np.einsum("nld,lcd->nlc", x.reshape(*x.shape[:2], -1), exits[..., :-1]) + exits[..., -1]
    margin = lambda scores: np.abs(scores[..., 0] - scores[..., 1])
    exits /= np.quantile(margin(scored()), 0.6, axis=0)[:, None, None]  # some sentences leave after each layer
    scores, sure = scored(), 1.0
    margins = margin(scores)
    leaves = np.where((margins >= sure).any(1), (margins >= sure).argmax(1), layers - 1)
    engine.leave_early(exits, sure)
    engine.left[:] = 0
    want = engine.run(batch)
    assert engine.left.tolist() == np.bincount(leaves, minlength=layers).tolist() and engine.left.all()
    late, early = leaves == layers - 1, np.flatnonzero(leaves < layers - 1)
    assert np.array_equal(want[late], plain[late])
    assert np.allclose(want[early], scores[early, leaves[early]], rtol=1e-4, atol=1e-3)
    hold_in_any_company(tmp_path / "model.native", batch, want, exits, sure)


def test_a_mask_with_holes_is_refused_and_a_pad_in_a_text_is_a_token(small, monkeypatch):
    """The engine computes whole sentences: it would cut off as many tokens as are hidden."""
    ids, mask = np.array([[5, 6, 7, 8]]), np.array([[1, 0, 1, 1]])
    engine = engines.load(small / "model.native")
    refused("input attention_mask hides a token before another that counts", engine.run, [ids, mask])
    assert np.array_equal(engine.run([ids, 7 * np.array([[1, 1, 1, 0]])])[0], engine.model.run([ids[0, :3]]))
    engine.inputs = [onnxfile.Tensor(input_files.UNMASKED, np.int64, (None, None))]
    row = np.array([[5, input_files.PADDING, 7, 8, input_files.PADDING]])
    assert np.array_equal(engine.run([row])[0], engine.model.run([row[0, :4]]))


def test_a_forked_process_computes_in_memory_of_its_own(monkeypatch):
    """And a kernel without pages of 2 MB will do."""

    class Pages(mmap.mmap):
        def madvise(self, *_):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(native.mmap, "mmap", Pages)
    m = native.memory(4096)
    if not (child := os.fork()):
        m[0] = 1
        os._exit(0)
    os.waitpid(child, 0)
    assert m[0] == 0


@TWO
def test_threads_stay_but_not_in_a_forked_process_nor_for_one_model_alone(onnx_path, tmp_path, precision):
    """Models that run at the same time take turns with the threads; a fork has none, and makes its own."""
    engine = model(onnx_path, tmp_path, precision, threads=3)
    other = native.Model(tmp_path / "model.native", threads=2)
    batch = sentences()
    want = engine.run(batch)
    with ThreadPoolExecutor(4) as pool:
        for have in pool.map(lambda i: (engine, other)[i % 2].run(batch), range(24)):
            assert np.array_equal(have, want)
    if not (child := os.fork()):
        signal.alarm(60)  # a thread that is waited for and is not there
        os._exit(not np.array_equal(engine.run(batch), want))
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(engine.run(batch), want)


@pytest.mark.parametrize("labels", [1, 3])
def test_pairs_of_texts_and_other_numbers_of_labels(exported, tmp_path, defined, precision, labels):
    names, rng = ["input_ids", "token_type_ids", "attention_mask"], np.random.default_rng(0)
    _, path = exported(f"labels{labels}", names=names, labels=labels)
    ids, types, mask = rng.integers(0, 100, (5, 20)), rng.integers(0, 2, (5, 20)), np.ones((5, 20), np.int64)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    want, plain = (session.run(None, dict(zip(names, (ids, t, mask), strict=True)))[0] for t in (types, 0 * types))
    converter.convert(path, tmp_path / "pairs.native", precision, types=True)
    engine = native.Model(tmp_path / "pairs.native")
    near = NEAR[precision]
    assert np.abs(want - plain).max() > 2 * near, "types must matter"
    have = engine.run(list(ids), list(types))
    assert np.abs(have - want).max() < near
    assert engine.family not in EXACT or np.array_equal(have, defined(engine, ids.tolist(), types.tolist()))
    assert np.array_equal(engine.run((ids, [20] * 5), types), have)
    assert np.abs(engine.run(list(ids)) - plain).max() < near
    refused("token types: not one below 2", engine.run, list(ids), list(types + 1))


@pytest.mark.parametrize(("head", "form"), list(zip(native.HEADS, native.GELUS * 2, strict=True)))
def test_heads_and_forms_of_gelu_of_other_families(exported, tmp_path, hold, precision, head, form):
    """DistilBERT has a ReLU behind the pooler, ELECTRA a GELU, ALBERT the feed-forward's tanh form: fields of the header."""
    (classifier, path), batch = exported("heads"), sentences(12)
    converter.convert(path, tmp_path / "plain.native", precision)
    (tmp_path / "model.native").write_bytes(header((tmp_path / "plain.native").read_bytes(), head=head, gelu=form))
    engine = native.Model(tmp_path / "model.native")
    for layer in classifier.bert.encoder.layer:
        layer.intermediate.intermediate_act_fn = torch.nn.GELU("tanh" if form == "tanh" else "none")
    acts = {"tanh": torch.nn.Tanh(), "relu": torch.nn.ReLU(), "gelu": torch.nn.GELU()}
    classifier.bert.pooler.activation = torch.nn.Sequential(*(acts[name] for name in head.split()))
    with torch.no_grad():
        classifier.eval()  # which exporting undoes
        want = np.concatenate([classifier(torch.tensor([s])).logits.numpy() for s in batch])
    hold(engine.run(batch), want, engine.family, precision, engine, batch)


def test_a_file_of_single_texts_says_nothing_of_types_and_none_may_come(small):
    engine = native.Model(small / "model.native")
    assert {"types", "labels", "width"}.isdisjoint(parts((small / "model.native").read_bytes())[0])
    assert np.array_equal(engine.run([[1, 2, 3]], [[0, 0, 0]]), engine.run([[1, 2, 3]]))
    refused("token types: not one below 1", engine.run, [[1, 2, 3]], [[0, 0, 1]])
    assert engine.run([]).shape == (0, 2)


@TWO
def test_stays_inside_its_workspace_and_reads_nothing_old(onnx_path, tmp_path, precision, monkeypatch):
    """Memory that is not zero, and not more of it than asked for, gives the same bits and an untouched end."""
    batch, allocations = sentences(), []
    engine = model(onnx_path, tmp_path, precision)
    want = engine.run(batch)

    def dirty(size):
        allocations.append((size, mmap.mmap(-1, size + 8192)))
        allocations[-1][1][:] = b"\xff" * (size + 8192)  # not a number, in bf16 and in float32
        return allocations[-1][1]

    monkeypatch.setattr(native, "memory", dirty)
    engine.work = mmap.mmap(-1, 1)
    have = engine.run(batch)
    (size, memory), *_ = allocations
    assert memory[size:] == b"\xff" * 8192
    assert np.array_equal(have, want)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    model(bert_graphs.export(folder / "model.onnx", bert_graphs.bert()), folder)
    return folder


def parts(data):
    """The header of a model.native file, and its payload."""
    (length,) = struct.unpack("<I", data[8:12])
    return json.loads(data[12 : 12 + length]), data[native.up(12 + length, 4096) :]


def header(data, **changes):
    """A model.native file with its header changed, and its length as the file's own rule wants it."""
    arch, payload = parts(data)
    text = json.dumps(arch | changes).encode()
    head = native.MAGIC + struct.pack("<I", len(text)) + text
    return head + bytes(-len(head) % 4096) + payload


OTHER_SIZE = "bytes where the header promises"


@pytest.mark.parametrize(("damage", "says"), [
    (lambda d: b"", "not a model.native file"), (lambda d: b"PK\3\4" + d[4:], "not a model.native file"),
    (lambda d: d[:-1], OTHER_SIZE), (lambda d: d + b"\0", OTHER_SIZE),
    (lambda d: d[:8] + b"\xff\xff\xff\xff" + d[12:], "header is damaged"),
    (lambda d: d[:12] + b"[1]" + d[15:], "header is damaged"),
    (lambda d: d[:8] + struct.pack("<I", 1 << 20) + b"[" * (1 << 20), "header is damaged"),
    # of fields of the header
    ({"layers": 3}, "precisions"), ({"vocab": 1 << 40}, "vocab"), ({"hidden": -32}, "hidden"), ({"heads": 5}, "heads"),
    ({"heads": 0}, "heads"), ({"width": 5000}, "width"), ({"eps": math.nan}, "eps"), ({"positions": 1000}, OTHER_SIZE),
    ({"precisions": ["fp4", "bf16"]}, "precisions"), ({"precisions": [["bf16"], "bf16"]}, "no architecture"),
    ({"precisions": ["fp32", "bf16"]}, "precisions"), ({"layers": None}, "layers"), ({"labels": 0}, "labels"),
    ({"hidden": 4096, "positions": 4096, "vocab": 1 << 20, "heads": 64}, "bytes of weights, more"),
    ({"labels": 3}, OTHER_SIZE), ({"types": -1}, "types"), ({"head": "sigmoid"}, "head"), ({"gelu": ["erf"]}, "gelu"),
])  # fmt: skip
def test_hostile_files_are_refused_in_one_line(small, tmp_path, damage, says):
    path, data = tmp_path / "model.native", (small / "model.native").read_bytes()
    path.write_bytes(header(data, **damage) if isinstance(damage, dict) else damage(data))
    assert str(path) in refused(says, native.Model, path)


@pytest.mark.parametrize(("batch", "says"), [
    ([[1, 2], [1, 100]], "sentence 1: token id 100 is outside"),
    ([[1, -1]], "sentence 0: token id -1"),
    ([[1], []], "sentence 1: 0 of 0 tokens"),
    ([[1] * 65], "65 tokens"),
    ((np.zeros((2, 8)), [8, 9]), "sentence 1: 9 of 8"),
])  # fmt: skip
def test_input_that_would_read_beside_a_table(small, batch, says):
    refused(says, native.Model(small / "model.native").run, batch)


def sigmoid(graph):
    next(n for n in graph.node if n.op_type == "Tanh").op_type = "Sigmoid"


def not_a_number(graph):
    bias = next(t for t in graph.initializer if t.name.endswith("classifier.bias"))
    bias.raw_data = np.array([np.nan, 0], np.float32).tobytes()


@pytest.mark.parametrize(("spoil", "says"), [
    (sigmoid, "pooler: expected Tanh or Relu, found Sigmoid '"),
    (not_a_number, "classifier.bias holds a value that is not a finite number"),
])  # fmt: skip
def test_other_graphs_are_refused_by_what_differs(small, tmp_path, spoil, says):
    graph = onnx.load(small / "model.onnx")
    spoil(graph.graph)
    onnx.save(graph, tmp_path / "model.onnx")
    refused(says, converter.convert, tmp_path / "model.onnx", tmp_path / "out", "bf16")
    assert not (tmp_path / "out").exists()


def test_layers_of_both_precisions(small, tmp_path, defined):
    batch = sentences()
    converter.convert(small / "model.onnx", tmp_path / "mixed", "int8", bf16_layers=[0])
    engine = native.Model(tmp_path / "mixed")
    want, have = reference(small / "model.onnx", batch), engine.run(batch)
    int8 = model(small / "model.onnx", tmp_path, "int8").run(batch)
    assert np.abs(have - want).max() < np.abs(int8 - want).max() + 0.02 and np.abs(have - int8).max() > 0
    assert engine.family not in EXACT or np.array_equal(have, defined(engine, batch))


apart = lambda graph, path: onnx.save(graph, path, save_as_external_data=True, location="weights", size_threshold=0)


def simplified(graph, path):
    """onnxsim folds the position and type look-ups of a fixed length into one constant each."""
    graph, ok = onnxsim.simplify(graph, overwrite_input_shapes={name: [1, 64] for name in bert_graphs.NAMES})
    assert ok and not any(n.op_type == "Slice" for n in graph.graph.node)
    onnx.save(graph, path)


@pytest.mark.parametrize("save", [apart, simplified])
def test_tensors_in_another_file_and_a_simplified_graph_hold_the_same_classifier(small, tmp_path, save):
    save(onnx.load(small / "model.onnx"), tmp_path / "model.onnx")
    converter.convert(tmp_path / "model.onnx", tmp_path / "out", "fp32")
    tensors, original = (parts(path.read_bytes())[1] for path in (tmp_path / "out", small / "model.native"))
    assert tensors == original  # the header names the graph's sha256


def test_a_table_of_sixteen_types_is_no_table_of_positions(tmp_path):
    model = bert_graphs.bert(types=16)
    tables = converter.read_classifier(bert_graphs.export(tmp_path / "model.onnx", model))
    weights = {name: weight.detach().numpy() for name, weight in model.bert.embeddings.named_parameters()}
    position = weights["position_embeddings.weight"] + weights["token_type_embeddings.weight"][0]
    assert np.array_equal(tables["position"], position)
    assert np.array_equal(tables["word"], weights["word_embeddings.weight"])


def test_what_is_missing_is_said_with_what_to_do(monkeypatch, small):
    monkeypatch.setenv(cpu.MAX_ISA, "SSE41")
    says = "SSE41 leaves no unit for fp32 that the native engine knows; use ENGINE="
    refused(says, native.Model, small / "model.native")
    monkeypatch.setenv("BERT2OM_NATIVE", "none.so")
    refused("make build/lib/native.so", native.load_library)


EVERY = set().union(*(units for needs in native.FAMILIES.values() for units in needs.values()))


@pytest.mark.parametrize(("flags", "families"), [
    (set(), {}),
    (EVERY - {"amx_bf16", "amx_int8"}, {"bf16": "avx512_bf16", "int8-bf16": "avx512_bf16", "int8": "avx512", "fp32": "avx512"}),
    (chips.AVX512 | {"avx512_vnni"}, {"int8": "avx512", "fp32": "avx512"}),
    ({"avx2", "fma", "avx_vnni"}, {"int8": "avx2_vnni", "fp32": "avx2"}),
    ({"avx2", "fma"}, {"int8": "avx2", "fp32": "avx2"}),
])  # fmt: skip
def test_the_newest_units_that_are_left_compute(monkeypatch, flags, families):
    monkeypatch.setattr(native.cpu, "cpu_flags", lambda: flags)
    for precision in chips.ENGINES["native"].precisions:
        if precision in families:
            assert native.family_for(precision) == families[precision]
        else:
            refused("use ENGINE=openvino", native.family_for, precision)


# ---- A CPU without the units: with ONEDNN_MAX_CPU_ISA every precision runs within its gate, or says that it cannot
@pytest.fixture(scope="module")
def box(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("isa"))


def filled(folder, **values):
    """A small model exported, its sentences as inputs, and training sentences."""
    at, texts = checkpoint(folder, **values), (pth2onnx.SENTENCES * 24)[:24]
    (folder / "train.tsv").write_text("sentence\tlabel\n" + "".join(f"{s}\t{i % 2}\n" for i, s in enumerate(texts)))
    arrays = tokens.encode(tokens.load(at), texts, 16)
    for name, shape in (("m.onnx", (8, 16)), ("free.onnx", None)):
        export.export(export.load(at), folder / name, tuple(arrays), arrays, shape=shape)
    input_files.write_bins(folder / "input", arrays, [i % 2 for i in range(24)])
    return folder


def tool(script, words, most):
    env = {k: v for k, v in os.environ.items() if k != cpu.MAX_ISA} | {"OMP_NUM_THREADS": "1"}
    env |= {cpu.MAX_ISA: most} if most else {}
    return module(f"tools.{script}", *words, env=env, timeout=300)


def compiled(box, path, engine, precision, most):
    words = ["--onnx", box / "m.onnx", "--reference", box / "free.onnx", "--engine", engine, "--precision", precision]
    words += ["--input", box / "input", "--save_path", path]
    words += ["--calibration", box / "train.tsv", "--checkpoint", box / "checkpoint"] * precision.startswith("int8")
    return tool("cpu.compile", words, most)


@pytest.mark.parametrize(("precision", "limits"), [("fp32", ["AVX2"]), ("int8", ["", "AVX2_VNNI"])])
def test_a_hidden_size_that_is_no_multiple_of_16_and_one_file_whatever_units_make_it(tmp_path, precision, limits):
    """OpenVINO's own AVX2 kernel ends the process there, and int8 takes its statistics in AVX2 on any CPU."""
    files, model = set(), tmp_path / "model.ir"
    filled(tmp_path, hidden_size=40)
    for most in limits:
        done = compiled(tmp_path, model, "openvino", precision, most)
        if "no int8 unit" in done.stderr:
            pytest.skip("this CPU has no VNNI")
        assert done.returncode == 0 and f"gate: equal: {precision}" in done.stdout, done.stderr
        files.add(model.read_bytes())
    kinds = {node.get_type_name() for node in engines.read_ir(model).get_ops()}
    assert "ReduceMean" in kinds and "ReduceSum" not in kinds, "newer units are faster on means"
    assert len(files) == 1


ENGINES = ("onnxruntime", "openvino", "native")
LIMITED = [(e, p, "AVX2") for e in ENGINES for p in chips.ENGINES[e].precisions if p != "fp16-sim"]
LIMITED += [("openvino", "bf16", "AVX512_CORE_BF16"), ("native", "int8-bf16", "AVX512_CORE_BF16")]
LIMITED += [("native", "int8", "AVX512_CORE_VNNI"), ("native", "fp32", "AVX512_CORE"), ("native", "int8", "AVX2_VNNI")]


@pytest.mark.parametrize(("engine", "precision", "most"), LIMITED)
def test_runs_within_its_gate_or_says_that_it_cannot(box, tmp_path, monkeypatch, engine, precision, most):
    monkeypatch.setenv(cpu.MAX_ISA, most)
    path = tmp_path / chips.ENGINES[engine].file
    done = compiled(box, path, engine, precision, most)
    if chips.units(engine, precision, cpu.cpu_flags()) is None:
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and not path.exists(), done.stderr
        assert (f"{cpu.MAX_ISA}={most} leaves no" in done.stderr or "this CPU" in done.stderr) and "use" in done.stderr
        return
    assert done.returncode == 0 and f"gate: equal: {precision}, max |difference|" in done.stdout, done.stderr
    if most != "AVX2":
        return
    folders = ",".join(str(box / "input" / n) for n in ("input_ids", "attention_mask"))
    words = ["--model", path, "--input", folders, "--batchsize", 8, "--output", tmp_path, "--output_dirname", "out"]
    done = tool("cpu.runner", words, most)
    assert done.returncode == 0, done.stderr
    units = json.loads((tmp_path / "out_summary.json").read_text())["engine"]["isa"]
    flags = cpu.cpu_flags(limited=(engine, precision) not in (("onnxruntime", "fp32"), ("openvino", "fp32")))
    assert set(units) <= flags
    assert ("amx_int8" in units) == ("amx_int8" in flags)


def test_the_limit_takes_units_away_and_unknown_words_do_not(monkeypatch):
    every = "flags : avx2 avx_vnni avx512f avx512_vnni avx512_bf16 amx_tile amx_bf16 amx_int8\n"
    monkeypatch.setattr(engines.Path, "read_text", lambda self: every)
    for most, have in [
        ("", {"amx_int8", "avx512_bf16", "avx2"}), ("avx2", {"avx2"}), ("AVX512_CORE_VNNI", {"avx512_vnni", "avx512f"}),
        ("ALL", {"amx_bf16"}), ("SSE41", set()),
    ]:  # fmt: skip
        monkeypatch.setenv(cpu.MAX_ISA, most)
        flags = cpu.cpu_flags()
        assert have <= flags and (most != "avx2" or flags == {"avx2"})
        assert ("amx_bf16" in flags) == (most in ("", "ALL"))
        assert cpu.cpu_flags(limited=False) >= {"amx_bf16", "avx2"}
    assert not flags
