"""The block of text that `make accuracy` and `make perf` end with, of a record.

python -m tools.results.show build/minilm_sst2/default/seq128/bs8/cpu-onnxruntime-fp32/accuracy.json

accuracy    90.71 %  (791/872), 95 % interval 88.60 to 92.46 %
model       minilm_sst2 (weights: default), batch 8, sequence 128
chip        cpu: AMD EPYC, 2 cores
engine      onnxruntime 1.31.1 fp32
padding     0.0 % of rows on 872 sentences
files       build/minilm_sst2/default/seq128/bs8/cpu-onnxruntime-fp32/
"""

from pathlib import Path
from statistics import median

from tools.cpu.native import certificate
from tools.make import cli
from tools.results import figures
from tools.results import record as records


def text_block(record: dict) -> str:
    """The block that `make accuracy` and `make perf` end with."""
    info, cpu = record["engine_info"] or {}, record["machine"]
    spec = f"model       {record['model']} (weights: {record['weights']}), batch {record['bs']}"
    on = f": {cpu['cpu']}, {cpu['cores']} cores" if record["chip"] == "cpu" else ""
    parts = lambda run: (run["node"], *(f"{k} {run[k]}" for k in ("job", "device") if run.get(k) is not None))
    where = lambda run: ", ".join(parts(run))
    lines = [
        *([records.DEMONSTRATION] if record["standin"] else []),
        *(accuracy_lines if record["kind"] == "accuracy" else speed_lines)(record),
        *([f"certified   {certificate.in_words(info)}"] if "claimed" in info else []),
        *([f"ran         {'; '.join(map(where, record['launched']))}"] if "launched" in record else []),
        f"{spec}, sequence {records.rows_in_words(record['seq'])}",
        f"chip        {record['chip']}{on}",
        f"engine      {record['engine']} {info.get('version', '')} {record['precision']}{wider_layers(info, record)}",
        f"padding     {padding(record)}",
        f"files       {record['imported']['file'] if record.get('imported') else f'build/{records.leaf_of(record)}/'}",
    ]
    return "\n".join(lines) + "\n"


def accuracy_lines(record: dict):
    """The accuracy of a record, the task's other metrics and the hash of the logits, as lines."""
    caveat = f"  [{record['caveat']}]" if record["caveat"] else ""
    if record["correct"] is not None:
        low, high = (100 * v for v in record["interval95"])
        right = f"{100 * record['accuracy']:.2f} %  ({record['correct']}/{record['total']})"
        yield f"accuracy    {right}, 95 % interval {low:.2f} to {high:.2f} %{caveat}"
    for name, metric in record.get("metrics", {}).items():
        if name != "accuracy":
            yield f"{name:11} {metric_in_words(metric)} of {record['total']} rows{caveat}"
    if "task" in record:
        yield f"task        {record['task']}: {', '.join(record['labels'])}"
    if "logits_sha256" in record:
        yield f"bits        sha256 of the logits {record['logits_sha256']}, on any processor: docs/bits.md"
    yield from record.get("rehearsal", [])


def speed_lines(record: dict):
    """The throughput of a record, its figures and its latency, as lines."""
    rounds, latency = record["rounds"], record["latency_ms"]
    each = ", ".join(f"{v:.1f}" for v in rounds)
    yield f"throughput  {record['samples_per_second']:.1f} samples/s, median of {len(rounds)} rounds ({each})"
    yield f"timed       {record['timed']}"
    if record.get("devices", 1) > 1:
        each = ", ".join(f"{name}: {median(speed):.1f}" for name, speed in record["per_device"].items())
        yield f"devices     {record['devices']}, the sum of {each} samples/s; published figures are of one"
    for name, figure in (record.get("figures") or {}).items():
        if figure and name in figures.NAMES:
            yield f"{'':<11} {figures.interval(figure)} {figures.NAMES[name]}, 95 % interval of this run"
    if why := records.no_percentiles(record):
        yield f"latency     {why}"
    elif None not in (latency["p50"], latency["p99"]):
        count = record["requests"] or "an unknown number of"
        yield f"latency     {latency['p50']:.2f} ms median, {latency['p99']:.2f} ms p99 of {count} requests"
    if why := records.noise(record):
        yield f"noisy       {why}: differences below that mean nothing"


def metric_in_words(metric: dict) -> str:
    """`0.8721, 95 % interval 0.8310 to 0.9044 (bootstrap)` of a metric."""
    if metric["value"] is None:
        return metric["method"]
    return "{value:.4f}, 95 % interval {0:.4f} to {1:.4f} ({method})".format(*metric["interval95"], **metric)


def padding(record: dict) -> str:
    """What the rows of a record held, in words."""
    if record["padded_rows"] is None:
        return "unknown"
    count = record.get("total") or record.get("sentences", records.SST2)
    packed = f", {record['sentences_per_row']:.2f} sentences a row" if "sentences_per_row" in record else ""
    return f"{100 * record['padded_rows']:.1f} % of rows on {count} sentences{packed}"


def wider_layers(info: dict, record: dict) -> str:
    """` in 5 of 6 layers, the others bf16`, where not all layers have the record's precision."""
    layers = (info.get("layers") or "").split()
    precision = record["precision"].removesuffix("-bf16")  # int8-bf16: what its activations are
    others = sorted({*layers} - {precision})
    return f" in {layers.count(precision)} of {len(layers)} layers, the others {', '.join(others)}" if others else ""


def main():
    p = cli.parser(__doc__)
    p.add_argument("record", type=Path)
    p.add_argument("--save_path", type=Path, help="where the text goes (the screen if not given)")
    args = p.parse_args()
    text = text_block(records.read_record(args.record))
    if not args.save_path:
        return print(text, end="")
    cli.write(args.save_path, text)
    return print(f"wrote {args.save_path}")


if __name__ == "__main__":
    cli.run(main)
