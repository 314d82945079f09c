"""Tables, pictures, report and README blocks: pure functions of records, and a page that works in a real browser."""

import contextlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import measured
import pytest
from conftest import module, refused

from tools.make import cli
from tools.results import claims, peers, plot, published, readme, record, report, show, table

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
COST = ["holds", 791, "accuracy", 30, 5, 6, 1, "cpu", 2, "2026-11-30"]
costed = lambda *rows: cli.write(claims.COSTS, "".join(f"{','.join(map(str, r))}\n" for r in (claims.COLUMNS, *rows)))
FIGURES = """minilm_sst2,,128,310P3,,fp16,accuracy,91.5,%,https://example.org/a,abc,
minilm_sst2,,128,310P3,1,fp16,throughput,700,fps,https://example.org/a,abc,
minilm_sst2,,128,310P3,8,fp16,throughput,1600,fps,https://example.org/a,abc,
"""


@pytest.fixture(scope="module")
def benches():
    return list(record.load_records([measured.ROOT / "results/bench"], ("bench",)).values())


@pytest.fixture(scope="module")
def repo(pristine, tmp_path_factory):
    folder = measured.copy(pristine, tmp_path_factory.mktemp("report") / "repo")
    with contextlib.chdir(folder):
        for name in ("table.csv", "table.md"):
            Path("results", name).unlink()
        Path("models/minilm_sst2/published.csv").write_text(",".join(published.COLUMNS) + "\n" + FIGURES)
        yield folder


def by_path() -> dict:
    return record.load_records([Path("results/records")])


def speed():
    return next(r for r in by_path().values() if r["kind"] == "throughput")


def test_the_frontier_has_the_published_and_the_measured_of_the_newest_machine(repo):
    records, rows = list(by_path().values()), published.all_figures(measured.ROOT / "models")
    old = [r | {"machine": r["machine"] | {"cpu": "Old"}, "started": "2020-01-01T00:00:00Z", "bs": 2} for r in records]
    fast = [speed() | {name: value, "samples_per_second": 9e3} for name, value in (("isa", "AVX2"), ("certify", "0.5"))]
    points = plot.frontier([*old, *records, *fast], rows)
    cells = points.set_index(["model", "run", "figure"])
    runs = ("onnxruntime fp32, 128", "openvino bf16, 128")
    assert set(cells.loc["minilm_sst2"].index) == {(run, "measured") for run in runs}
    figures = lambda *key: tuple(cells.loc[key, ["bs", "accuracy_%", "samples_per_s"]])
    assert figures("minilm_sst2", runs[0], "measured") == (8, 90.83, pytest.approx(800, rel=0.03))
    assert figures("bert_base_cased_sst2", "buckets 64-128", "published") == (32, 92.43, 2906.4)
    assert figures("tinybert_sst2", "64", "published") == (64, 92.32, 11160.38)
    assert figures("roberta_base_sst2", "unpadded 128", "published") == (64, 94.7, 1895.0)
    roberta = {run for model, run, _ in cells.index if model == "roberta_base_sst2"}
    assert roberta == {"128", "16", "32", "64", "70", "unpadded 128"}
    assert list(points["samples_per_s"]) == sorted(points["samples_per_s"], reverse=True)
    noisy = [r | {"spread": 0.2} if "spread" in r else r for r in records]
    assert re.search(r"(?s)\| ~\d+ +\| measured.* cores, ~\d+ samples a second", readme.frontier(Path(), noisy))


def test_a_picture_is_the_same_bytes_of_a_telephones_width_and_has_dark_colours(repo):
    records, rows = list(by_path().values()), published.all_figures(measured.ROOT / "models")
    text = plot.draw(records, rows)
    assert text == plot.draw(records[::-1], rows) and text.startswith("<?xml")
    assert not re.search(r"\d{4}-\d\d-\d\dT|<dc:date>|matplotlib v", text)
    assert f"<title>{plot.caption(plot.frontier(records, rows))}</title>" in text
    assert 390 <= float(re.search(r'width="([\d.]+)pt"', text)[1]) * 96 / 72 <= 410
    assert {float(size) for size in re.findall(r"font: (?:\w+ )*([\d.]+)px", text)} <= {9.0}  # points: 12 pixels
    used = set(re.findall(r"(?:fill|stroke): (#\w{6})", text))
    assert plot.PAPER in used and plot.INK in used and used <= set(plot.DARK)
    assert all(f'[style*="fill: {light}"]{{fill:{dark}!important}}' in text for light, dark in plot.DARK.items())
    assert "nothing is known yet" in plot.draw([], [])


def test_the_peers_are_drawn_with_ours_and_the_result_is_said(benches):
    bench = peers.pictured(benches)
    points = peers.points(bench)
    assert {p["kind"] for p in points} == {"ours", "peers"}
    assert [p["speed"] for p in points] == sorted(p["speed"] for p in points)
    line = next(r for r in bench["contenders"] if (peers.name_of(r), r["shape"]) == ("OpenVINO bf16", "sorted"))
    point = next(p for p in points if p["name"] == "OpenVINO bf16")
    assert point["speed"] == line["samples_per_second"] / bench["threads"]
    share, low, high = point["interval"]
    assert share == line["accuracy"] and low < share < high
    assert f"<title>{peers.caption(bench)}</title>" in peers.draw(benches)
    assert plot.short("Intel(R) Xeon(R) Processor (family 6, model 207, stepping 2), 2 cores") == "Intel Xeon, 2 cores"
    fastest = max((p for p in points if p["kind"] == "ours"), key=lambda p: p["speed"])
    assert f"ours: {fastest['name']}, {fastest['speed']:.0f} sentences/s per core" in peers.caption(bench)
    # A share of the peak above all of it is explained.
    for share, explained in ((0.97, False), (1.05, True)):
        lines = [line | {"share_of_peak": share} for line in benches[0]["contenders"]]
        peaks = {"fp32": {"median": 2e11, "best": 3e11}}
        text = peers.section(benches[0] | {"contenders": lines, "peak_per_second": peaks})
        assert (peers.OVER in text) is explained and "to its best: fp32 0.20 to 0.30, bf16 none, int8" in text


def test_texts_of_ones_own_stand_apart_from_sst2s(repo):
    later = {"task": "sst2", "correct": 400, "total": 500, "accuracy": 0.8, "started": "2027-01-01T00:00:00Z"}
    records = list(by_path().values())
    ours = [r | later for r in records if r["kind"] == "accuracy"]
    assert sorted(table.frame([*records, *ours])["total"].dropna()) == [500, 500, 872, 872]
    seeded = {"weights": "seeded2", "correct": 9, "started": "2027-01-01T00:00:00Z"}
    others = [r | seeded for r in records if "correct" in r]
    assert readme.answer("right PRECISION=fp32 BS=8", [*records, *ours, *others]) == "792/872"
    assert plot.frontier([*records, *ours], []).equals(plot.frontier(records, []))
    cells = [line["accuracy"] for line in readme.best_rows([*records, *ours])]
    assert sorted(cells) == ["80.00 % (400/500)"] * 2 + ["90.83 % (792/872)", "91.40 % (797/872)"]
    figures = published.all_figures(measured.ROOT / "models")
    assert published.distance(records[0] | ours[0] | {"model": "tinybert_sst2", "seq": "64"}, figures) == ""
    command = "make -nB perf-table MODEL=tinybert_sst2 CHIPS=310P3 BATCHES=8 DATA=Makefile"
    assert b"published.csv" not in subprocess.check_output(command.split(), cwd=measured.ROOT)


def test_a_page_is_made_of_logs_from_elsewhere_alone_and_percentiles_need_a_hundred_requests(repo):
    assert table.row(speed())["p99_ms"] and table.row(speed() | {"requests": 99})["p99_ms"] is None
    assert "latency     99 requests: percentiles need 100" in show.text_block(speed() | {"requests": 99})
    log = {"started": None, "imported": {"file": "x", "sha256": "0" * 64}, "chip": "310P3"}
    logs = [r | log | {"bs": bs} for r in by_path().values() if r["kind"] == "accuracy" for bs in (1, 8)]
    assert len(readme.best_rows(logs)) == 2
    assert "files       x\n" in show.text_block(logs[0])


def test_a_claim_that_could_not_run_has_no_place_among_the_costs(repo):
    for row in ["<<<<<<< HEAD"], ["fp32", *COST[:3], "n/a", *COST[4:]]:
        costed(row)
        refused("results/costs.csv: no row of make claims: ", claims.markdown)
    costed(["fp32", *COST], ["bits", "cannot run here", *[""] * 9])
    assert claims.markdown().startswith("Measured 2026-11-30 on cpu, 2 cores.\n")
    refused("nothing answers that", readme.answer, "seconds bits", [])


def test_readme_blocks_and_figures_are_written_and_staleness_found(repo):
    path, end = Path("README.md"), "<!-- x -->\nkept\n<!-- /x -->\n\nend\n"
    question = "right PRECISION=fp32 BS=8"
    path.write_text(f"# x\n\n<!-- = {question} -->1/2<!-- /= --> right\n\n<!-- table -->\nold\n<!-- /table -->\n{end}")
    before = {p for p, make in readme.texts() if not p.is_file() or p.read_bytes() != make()}
    output = module("tools.results.readme").stdout
    assert path in before and output == f"wrote {', '.join(str(p) for p, _ in readme.texts() if p in before)}\n"
    assert module("tools.results.readme").stdout == "readme: READMEs, tables and pictures say what the records say\n"
    text = path.read_text()
    assert text.startswith(f"# x\n\n<!-- = {question} -->792/872<!-- /= --> right\n") and text.endswith(end)
    assert "| minilm_sst2 |" in text and "90.83 % (792/872)" in text
    chinese = path.rename("README.zh-CN.md")
    chinese.write_text("<!-- = interval PRECISION=fp32 --><!-- /= -->")
    assert "-->88.73 至 92.57 %<!--" in readme.prose(chinese, readme.records()).decode()
    costed(["bits", *COST], ["int8", *COST])
    cli.write(readme.ADAPTERS, "validation right,which\n783,five\n-,held out\n779,five\n")
    line = "| m | perf | per_tera x {} (1 to 1), at_work x 1; {}/s, recorded 1.0e+03 |\n"
    cli.write(readme.VERIFIED, line.format(0.96, "1.1e+03") + line.format(1.04, 1000) + line.format(1.06, 1060))
    cases = {"accuracy PRECISION=bf16": "91.40 %", "again within 5": "2 of 3", "again within 5 samples/s": "1 of 3",
             "adapters five": "779 to 783", "seconds bits int8": "60", "speed PRECISION=fp32 BS=8": "800"}  # fmt: skip
    assert {q: readme.answer(q, readme.records()) for q in cases} == cases
    for wrong in ("right PRECISION=fp8", "colour", "seconds none", "adapters none"):
        refused("nothing answers that", readme.answer, wrong, readme.records())


def test_each_speed_stands_with_the_batch_size_at_which_it_is_highest(repo):
    """Not with that of another column: here the clock says 32, and the processors' time 4."""
    value = lambda v: {"value": v, "low": v - 0.1, "high": v + 0.1}
    of = lambda bs, speed_, core: speed() | {
        "bs": bs, "samples_per_second": speed_, "rounds": [speed_] * 3, "spread": 0.01,
        "figures": dict.fromkeys(("per_core_second", "per_tera", "per_tera_quiet"), value(core))}  # fmt: skip
    right = next(r for r in by_path().values() if r["kind"] == "accuracy" and r["engine"] == "onnxruntime")
    (line,) = readme.best_rows([right, of(4, 160, 139.7), of(16, 201, 120.0), of(32, 250.4, 99.0)])
    assert (line["per core-second (batch)"], line["samples/s (batch)"]) == ("140 (4)", "250 (32)")


def test_a_readme_has_ten_rows_at_most_each_with_an_accuracy_of_the_newest_machine(repo):
    values = list(by_path().values())
    lines = readme.best_rows([r | {"model": f"m{i}"} for i in range(12) for r in values])
    assert len(lines) == 10 and all(line["accuracy"] for line in lines)
    old = [r | {"machine": r["machine"] | {"cpu": "Old"}, "started": "2020-01-01T00:00:00Z"} for r in values]
    assert readme.best_rows([*values, *old]) == readme.best_rows(values)
    lines = readme.best_rows([r for r in values if r["kind"] == "accuracy"])
    rows = {line["engine"]: (line["accuracy"], line["samples/s (batch)"]) for line in lines}
    assert rows == {"onnxruntime fp32": ("90.83 % (792/872)", None), "openvino bf16": ("91.40 % (797/872)", None)}


@pytest.fixture(scope="module")
def page(repo):
    done = module("tools.results.report", *by_path(), "--save_path", "build/report.html")
    assert done.returncode == 0, done.stderr
    return Path("build/report.html").read_text("utf-8")


def test_page_is_whole_the_same_every_time_and_shows_text_as_text(repo, page):
    assert report.page(by_path(), published.all_figures()) == page
    assert not re.search(r"""(src|href)\s*=\s*["']?(?!#|data:)\w""", page)
    assert "@import" not in page and "url(" not in page.replace("url(#", "")
    assert page.count("data:image/svg+xml") == 1 and page.count('<img alt="') == 1
    texts = dict(re.findall(r"<pre id=(\w+)>(.*?)</pre>", page, re.S))
    assert len(texts) == len(by_path()) and set(re.findall(r"<a href=#(\w+)>", page)) == set(texts)
    for (path, r), text in zip(by_path().items(), texts.values(), strict=True):
        assert f"<summary>{path.stem}</summary>" in page and show.text_block(r) in text
        assert f"chain       {len(r['chain'])} files, with hashes and commands, in results/records" in text
    again = "again       make accuracy MODEL=minilm_sst2 WEIGHTS=default SEQ=128 BS=8 CHIP=cpu"
    assert any(again in text for text in texts.values())
    assert re.search(r"<td>-0.67 points to 91.5 % \(310P3 fp16\); 0\.\d+ x 1600 \(310P3 fp16\)<", page)
    right = next(r for r in by_path().values() if r["kind"] == "accuracy")
    score = {"task": "stsb", "labels": ["score"], "correct": None, "accuracy": None}
    for other in ({"caveat": "seeded"}, score):  # no trained weights; a task of scores
        assert published.distance(right | other, published.all_figures()) == ""
    path, r = next(iter(by_path().items()))
    evil = r | {"source": "<script>alert(1)</script>", "model": '"><img src=x onerror=alert(1)>'}
    html = report.page({path: evil}, [])
    assert "<script>alert" not in html and "<img src=x" not in html


PROBE = """<script>{
const out = [], heads = [...document.querySelectorAll("#cells th")];
const column = name => heads.findIndex(h => h.textContent === name);
const shown = () => [...document.querySelectorAll("#cells tbody tr")].filter(r => !r.hidden);
const cells = i => shown().map(r => r.cells[i].textContent);
const speed = column("samples/s");
heads[speed].click(); out.push(cells(speed)); heads[speed].click(); out.push(cells(speed));
heads[column("configuration")].click(); out.push(cells(column("configuration")));
const box = document.querySelector("#filter");
box.value = "BF16 openvino"; box.dispatchEvent(new Event("input")); out.push(cells(column("configuration")));
box.value = ""; box.dispatchEvent(new Event("input"));
const link = document.querySelector("#cells a"); location.hash = link.getAttribute("href");
onhashchange = async () => {
  await new Promise(done => setTimeout(done, 50));
  out.push(document.querySelector(location.hash).parentElement.open);
  out.push([...document.images].every(i => i.complete && i.naturalWidth > 100));
  out.push(document.documentElement.scrollWidth <= innerWidth);
  const place = document.querySelector(".wide"), first = document.querySelector("#cells tbody td");
  place.scrollLeft = 200;
  out.push(first.getBoundingClientRect().left - place.getBoundingClientRect().left < 1);
  out.push(getComputedStyle(document.documentElement).backgroundColor);
  const pre = document.createElement("pre"); pre.id = "probe"; pre.textContent = JSON.stringify(out);
  document.body.append(pre);
};
}</script>"""


def browse(*words, home):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
               "--enable-logging=stderr", "--v=0", f"--user-data-dir={home}", *map(str, words)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium")
@pytest.mark.parametrize("width, dark", [(1280, False), (500, True)])
def test_page_in_a_browser(page, tmp_path, width, dark):
    file = tmp_path / "report.html"
    file.write_text(page.replace("</body>", PROBE + "</body>"), "utf-8")
    colours = ["--blink-settings=preferredColorScheme=0"] * dark
    size = f"--window-size={width},900"
    dom = browse("--virtual-time-budget=20000", *colours, size, "--dump-dom", file.as_uri(), home=tmp_path)
    probe = re.search(r'<pre id="probe">(.*?)</pre>', dom)
    assert probe, dom[-2000:]
    up, down, engines, filtered, opened, pictures, fits, fixed, paper = json.loads(probe[1])
    numbers = [float(v) for v in up if v != "-"]
    assert numbers == sorted(numbers) and len(numbers) == 3, up
    assert down == up[::-1]
    assert engines == [f"minilm_sst2 {name}" for name in ("onnxruntime fp32", "onnxruntime fp32", "openvino bf16")]
    assert filtered == ["minilm_sst2 openvino bf16"]
    assert opened and pictures and fits and fixed
    assert (paper == "rgb(255, 255, 255)") is not dark
    browse("--virtual-time-budget=5000", f"--print-to-pdf={tmp_path}/a.pdf", file.as_uri(), home=tmp_path)
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF") and (tmp_path / "a.pdf").stat().st_size > 20_000
