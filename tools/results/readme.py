"""Write what is committed of results/, and the tables, pictures and figures of READMEs and docs, as the records have them.

    python -m tools.results.readme      (or: make report)

    wrote results/table.csv, results/table.md, README.md

Between `<!-- NAME -->` and `<!-- /NAME -->` stands what `block` makes for that name; a figure in prose stands between
`<!-- = QUESTION -->` and `<!-- /= -->`, and `answer` has the questions. `make audit` compares.
"""

import csv
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.make import cli, parameters
from tools.results import claims, peers, plot, published, record, table

FIGURE = re.compile(r"(<!-- = ([^>]*?) -->)(.*?)(<!-- /= -->)", re.S)
BLOCK = re.compile(r"(<!-- (\w+) -->\n)(.*?)(<!-- /\2 -->)", re.S)
FILES = ("README.md", "README.zh-CN.md")
VERIFIED, ADAPTERS = Path("results/verify.md"), Path("results/adapters.csv")
AGAIN = re.compile(r"^\| .*\| perf .*per_tera x ([\d.]+) \(.*; ([\d.e+]+)/s, recorded ([\d.e+]+)", re.M)
HEADS = {
    "model": "模型",
    "engine": "引擎",
    "accuracy": "精度",
    "per core-second (batch)": "每核·秒样本数（batch）",
    "samples/s (batch)": "每秒样本数（batch）",
    "own lengths, samples/s": "真实长度，每秒样本数",
}  # what a README in Chinese calls the columns


def records() -> list[dict]:
    """The committed records."""
    return list(record.load_records(["results/records"]).values())


def benches() -> list[dict]:
    """The committed records of `make bench`."""
    return list(record.load_records(["results/bench"], ("bench",)).values())


def best_rows(records: list[dict]) -> list[dict]:
    """At most ten rows {column of HEADS: text}, one for each model, engine and precision of the newest machine that has an
    accuracy; the fastest first. The batch size behind a speed is the one at which it is highest; `~` marks a noisy speed."""
    groups: dict[tuple, list] = {}
    for r in (r for r in plot.current(records) if r["weights"] != parameters.SEEDED):
        model = r["model"] + f", {r['weights']}" * (r["weights"] != "default") + ", own texts" * record.own_texts(r)
        label = plot.engine(r) + " PACK=1" * bool(parameters.seq_values(r["seq"])["PACK"])
        groups.setdefault((model, label), []).append(r)
    lines, newest = [], lambda some: max(some, key=lambda r: r["started"] or "", default=None)
    per_core = lambda r: ((r.get("figures") or {}).get("per_core_second") or {"value": 0})["value"]
    for (model, label), group in groups.items():
        right = newest(r for r in group if r["kind"] == "accuracy")
        if right is None or right["caveat"]:
            continue
        speeds = [r for r in group if r["kind"] == "throughput"]
        real = newest(r for r in speeds if r["seq"].startswith("real"))
        padded = [r for r in speeds if not r["seq"].startswith("real")]
        wall = max(padded, key=lambda r: r["samples_per_second"], default=None)
        core = max(filter(per_core, padded), key=per_core, default=None)
        cell = lambda r, column, batch=True: r and table.words(r)[column] + f" ({r['bs']})" * batch
        cells = (model, label, cell(right, "accuracy", False), cell(core, "per core-second"), cell(wall, "samples/s"),
                 cell(real, "samples/s", False))  # fmt: skip
        lines.append((model, -per_core(core) if core else 0, dict(zip(HEADS, cells, strict=True))))
    return [cells for *_, cells in sorted(lines, key=lambda line: line[:2])][:10]


def best_table(path: Path, records: list[dict]) -> str:
    """The table of a README, in its language."""
    import pandas as pd

    if not (lines := best_rows(records)):
        return "No measurement of an accuracy is committed yet."
    cells = pd.DataFrame(lines, dtype=object).dropna(axis="columns", how="all")
    return table.render(cells.rename(columns=HEADS if "zh" in path.name else {}), ".md")


def frontier(path: Path, records: list[dict]) -> str:
    """The table and the picture of accuracy against speed, published and measured."""
    points = plot.frontier(records, published.all_figures())
    shown = points["noisy"] + points["samples_per_s"].map("{:.10g}".format)
    heads = {"run": "what ran", "bs": "batch", "accuracy_%": "accuracy, %", "samples_per_s": "samples/s"}
    cells = points.assign(samples_per_s=shown).drop(columns="noisy").convert_dtypes().rename(columns=heads)
    return f"{table.render(cells, '.md')}\n![{plot.caption(points)}](../results/frontier.svg)"


def picture(path: Path, records: list[dict]) -> str:
    """results/bench.svg, with its result as alternative text."""
    bench = Path("results/bench.svg").is_file() and peers.pictured(benches())
    return f"![{peers.caption(bench, 'zh' in path.name)}](results/bench.svg)" if bench else ""


CHINESE = {
    "MODEL": "`models/` 下的文件夹",
    "WEIGHTS": "`default`：模型自己的来源；`seeded`：随机权重，只测速度；或权重文件夹、zip",
    "SEQ": "一个长度；分档，如 `64,128`；或 `real`：每句按真实长度（cpu）；为空时由模型决定",
    "PACK": "`1`：多个句子共用一行 `SEQ` 个 token，结果不变",
    "BS": "batch size（native 引擎、`SEQ=real` 时由引擎自定）",
    "CHIP": "`cpu`、`T4`，或昇腾芯片型号，如 `310P3`（也可写 `710`）",
    "ENGINE": "cpu：`onnxruntime openvino native torch_cpu`；昇腾：`atc torch_npu`；T4：`trtexec torch_cuda`；为空时自动选择",
    "PRECISION": "数值精度。cpu：`fp32 bf16 int8 int8-bf16 fp16-sim`；昇腾：`fp16 mix`；T4：`fp16 fp32`",
    "ISA": "只使用不高于该级别的 CPU 指令集（oneDNN 的名称，如 `AVX2`）",
    "THRESHOLD": "一条文本可有多个标签时，每个标签的 sigmoid 阈值",
    "CERTIFY": "native、`SEQ=real`：答案与完整模型不同的比例上限（%），如 `0.5`；句子可提前退出（[docs/certify.md](docs/certify.md)）",
}


def parameter_table(path: Path, records: list[dict]) -> str:
    """make's parameters with their defaults and what each is: in a README those that a path has, on their own page all."""
    rows, chinese = (parameters.PLACED if path.name in FILES else parameters.ROWS), "zh" in path.name
    only = lambda row: f" (only {', '.join(row.targets)})" if row.targets and path.name not in FILES else ""
    says = lambda row: CHINESE.get(row.name, row.help) if chinese else row.help + only(row)
    cells = (f"| `{row.name}={row.default}` | {says(row)} |" for row in rows)
    return "\n".join(["| 参数 | 说明 |" if chinese else "| parameter | what it is |", "|:--|:--|", *cells])


BLOCKS = {"table": best_table, "picture": picture, "parameters": parameter_table, "frontier": frontier,
          "claims": lambda path, records: claims.markdown()}  # fmt: skip


def block(name: str, path: Path, records: list[dict]) -> str | None:
    """What stands between <!-- NAME -->: what BLOCKS makes, or else what lies in results/ under that name; None for neither."""
    import pandas as pd

    if name in BLOCKS:
        return BLOCKS[name](path, records)
    sheet, page = Path("results", f"{name}.csv"), Path("results", f"{name}.md")
    if sheet.is_file():
        return table.render(pd.read_csv(sheet, dtype=str), ".md")
    return page.read_text("utf-8") if page.is_file() else None


FIELDS = {
    "accuracy": lambda r: f"{100 * r['accuracy']:.2f} %",
    "right": lambda r: f"{r['correct']}/{r['total']}",
    "interval": lambda r: "{:.2f} to {:.2f} %".format(*(100 * share for share in r["interval95"])),
    "cpu": lambda r: r["machine"]["cpu"],
    "speed": lambda r: f"{r['samples_per_second']:.0f}",
}


def answer(question: str, records: list[dict]) -> str:
    """What belongs after `<!-- = QUESTION -->`, from the newest record or results/verify.md.

    FIELD NAME=value ...    of the newest record of the model's own weights on SST-2 with these parameters; FIELD: accuracy (90.71 %), right (791/872),
                            interval, cpu, speed (samples/s)
    seconds setup bits      what these claims took, by results/costs.csv (`64`)
    again within 5          how many speeds that `make verify` made again came within 5 % per operation of the peak (`68 of 78`);
                            again within 5 samples/s: as they are
    lead                    what the claim `peers` would come to in the bench of the picture
    adapters five           the sentences that adapters of results/adapters.csv get right: the five, or those made later

    Raises UserError where nothing answers.
    """
    field, *words = question.split()
    seconds = {name: int(row["seconds"]) for name, row in claims.costs().items() if row["seconds"]}
    if field == "seconds" and words and {*words} <= seconds.keys():
        return str(sum(seconds[word] for word in words))
    if field == "lead" and (bench := peers.pictured(benches())):
        return f"{claims.lead(bench['contenders']):.2f}"
    if field == "adapters":
        rows = csv.DictReader(ADAPTERS.read_text("utf-8").splitlines())
        right = sorted(int(row["validation right"]) for row in rows if [row["which"]] == words)
        if right:
            return f"{right[0]} to {right[-1]}"
    if field == "again":
        found = [map(float, m) for m in AGAIN.findall(VERIFIED.read_text("utf-8") if VERIFIED.is_file() else "")]
        ratios = [now / then if words[2:] else per_tera for per_tera, now, then in found]
        return f"{sum(abs(ratio - 1) <= float(words[1]) / 100 for ratio in ratios)} of {len(ratios)}"
    kind = "throughput" if field in ("cpu", "speed") else "accuracy"
    sound = lambda r: r["kind"] == kind and r["started"] and (field == "cpu" or record.of_the_model(r))
    fitting = [r for r in records if field in FIELDS and sound(r) and parameters.agrees(r, words)]
    if not fitting:
        raise cli.UserError(f"<!-- = {question} -->: nothing answers that; see `answer` in tools/results/readme.py")
    return FIELDS[field](max(fitting, key=lambda r: r["started"]))


def prose(path: Path, records: list[dict]) -> bytes:
    """A README, or a page of docs/, with its tables and each of its figures as they are now. Raises UserError where nothing
    gives one."""
    fill = lambda m: m[0] if (new := block(m[2], path, records)) is None else f"{m[1]}\n{new.strip()}\n\n{m[4]}"
    chinese = lambda figure: figure.replace(" to ", " 至 ").replace(" of ", "/") if "zh" in path.name else figure
    try:
        text = BLOCK.sub(fill, path.read_text("utf-8"))
        return FIGURE.sub(lambda m: m[1] + chinese(answer(m[2], records)) + m[4], text).encode()
    except cli.UserError as e:
        raise cli.UserError(f"{path}: {e}") from None


def texts() -> Iterator[tuple[Path, Callable[[], bytes]]]:
    """What belongs into results/, the READMEs and docs/*.md, each with what makes it of the records; of texts, those that are
    here. The pictures come first: a README shows one that is there."""
    values, runs, folder = records(), benches(), Path("results")
    whole = functools.cache(lambda: table.from_names(table.committed()))
    yield folder / "table.csv", lambda: table.render(whole(), ".csv").encode()
    yield folder / "table.md", lambda: table.render(whole(), ".md").encode()
    yield folder / "frontier.svg", lambda: plot.draw(values, published.all_figures()).encode()
    if runs:
        yield folder / "bench.md", lambda: peers.page(runs).encode()
        yield folder / "bench.svg", lambda: peers.draw(runs).encode()
    for path in filter(Path.is_file, (*map(Path, FILES), *sorted(Path("docs").glob("*.md")))):
        yield path, functools.partial(prose, path, values)


def main():
    cli.parser(__doc__).parse_args()
    names = []
    for path, make in texts():
        data = make()
        if not path.is_file() or path.read_bytes() != data:
            names.append(str(path))
            cli.write(path, data)
    print(f"wrote {', '.join(names)}" if names else "readme: READMEs, tables and pictures say what the records say")


if __name__ == "__main__":
    cli.run(main)
