"""Tables, pictures, report and README blocks: pure functions of records, and a page that works in a real browser."""

import base64
import contextlib
import gzip
import hashlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import measured
import pytest

from tools.make import cli
from tools.results import peers, plot, published, readme, record, report, show, store, table

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FIGURES = """minilm_sst2,,128,310P3,,fp16,accuracy,91.5,%,https://example.org/a,abc,
minilm_sst2,,128,310P3,1,fp16,throughput,700,fps,https://example.org/a,abc,
minilm_sst2,,128,310P3,8,fp16,throughput,1600,fps,https://example.org/a,abc,
"""


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    folder = measured.tree(tmp_path_factory.mktemp("report") / "repo")
    with pytest.MonkeyPatch.context() as m:
        m.chdir(folder)
        measured.weights()
        fast, slow = "cpu-openvino-bf16", "cpu-onnxruntime-fp32"
        made = [measured.accuracy(8, slow), measured.perf(8, slow, 40), measured.perf(1, slow, 7),
                measured.accuracy(8, fast, 75, 20), measured.perf(8, fast, 9)]  # fmt: skip
        measured.promote(*made)
        Path("models/minilm_sst2/published.csv").write_text(",".join(published.COLUMNS) + "\n" + FIGURES)
        yield folder


def kept() -> dict:
    return record.load([Path("results/records")])


def run(*words):
    return subprocess.run([sys.executable, "-m", *map(str, words)], capture_output=True, text=True)


# ---- pictures


@pytest.mark.parametrize("which", list(plot.PLOTS))
@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_pictures_are_the_same_bytes_every_time(repo, tmp_path, which, suffix):
    records, times = list(kept()), []
    for order, name in ((records, "a"), (records[::-1], "b")):
        made = tmp_path / name / f"{which}.{suffix}"
        done = run("tools.results.plot", which, *order, "--save_path", made)
        assert done.returncode == 0, done.stderr
        times.append(made.read_bytes())
    assert times[0] == times[1]
    start = {"svg": b"<?xml", "png": b"\x89PNG"}[suffix]
    assert times[0].startswith(start)
    if suffix == "svg":
        assert not re.search(rb"\d{4}-\d\d-\d\dT|<dc:date>|matplotlib v", times[0])


def drawn(monkeypatch, which, records, rows):
    """{axes' title: {label: (points, colour)}} of every line that `which` draws, each named at its end."""
    from matplotlib import pyplot

    seen = {}

    def look(figure, *_, **__):
        for ax in (ax for ax in figure.axes if ax.axison):
            lines = zip(*ax.get_legend_handles_labels(), strict=True)
            first = lambda handle: handle.lines[0] if hasattr(handle, "lines") else handle
            seen[ax.get_title("left")] = {
                name: (first(h).get_xydata().tolist(), first(h).get_color()) for h, name in lines
            }
            assert {t.get_text() for t in ax.texts} == set(seen[ax.get_title("left")])

    with monkeypatch.context() as m:
        m.setattr(pyplot.Figure, "savefig", look)
        with contextlib.suppress(AttributeError):  # there is no .svg to colour
            plot.draw(which, records, rows, io.BytesIO(), "svg")
    return seen


def speed():
    return next(r for r in kept().values() if r["kind"] == "throughput")


def test_throughput_shows_the_measured_and_the_published_in_one_panel(repo, monkeypatch):
    [(title, lines)] = drawn(monkeypatch, "throughput", list(kept().values()), published.read()).items()
    assert title == "minilm_sst2, 128 tokens\nsamples a second; grey: published"
    assert set(lines) == {"onnxruntime fp32", "openvino bf16", "310P3 fp16"}
    points, _ = lines["onnxruntime fp32"]
    assert [x for x, _ in points] == [1, 8]
    assert points[1][1] == pytest.approx(200, rel=0.03)
    assert lines["310P3 fp16"] == ([[1, 700], [8, 1600]], plot.GREY)


def test_an_engine_has_one_colour_in_all_panels_by_its_name_of_today(repo, monkeypatch):
    made = [speed() | {"model": m, "engine": e, "precision": p} for m, e, p in [
        ("a", "onnxruntime", "fp32"), ("b", "native", "bf16"), ("b", "onnxruntime", "fp32"), ("c", "packed", "bf16"),
        ("d", "openvino", "int8")]]  # fmt: skip
    panels = list(drawn(monkeypatch, "throughput", made, []).values())
    colours = {(name, colour) for lines in panels for name, (_, colour) in lines.items()}
    assert len(colours) == len({name for name, _ in colours}) == len({colour for _, colour in colours}) == 3
    assert "native bf16" in panels[2]


def test_a_picture_is_of_the_newest_machine_and_says_so(repo):
    older = speed() | {"machine": speed()["machine"] | {"cpu": "One"}, "started": "2020-01-01T00:00:00Z"}
    newer = speed() | {"machine": speed()["machine"] | {"cpu": "Another"}, "samples_per_second": 77.0}
    made = io.BytesIO()
    plot.draw("throughput", [newer, older], [], made, "svg")
    text = made.getvalue().decode()
    assert "Another, " in text and "One, " not in text
    assert "<title>Most samples a second: minilm_sst2: onnxruntime fp32 77 samples a second at batch" in text


def test_a_picture_is_of_a_telephones_width_and_has_dark_colours(repo):
    made = io.BytesIO()
    plot.draw("throughput", list(kept().values()), published.read(), made, "svg")
    text = made.getvalue().decode()
    assert 390 <= float(re.search(r'width="([\d.]+)pt"', text)[1]) * 96 / 72 <= 410
    assert {float(size) for size in re.findall(r"font: (?:\w+ )*([\d.]+)px", text)} <= {9.0}  # points: 12 pixels
    used = set(re.findall(r"(?:fill|stroke): (#\w{6})", text))
    assert plot.PAPER in used and plot.INK in used and used <= set(plot.DARK)
    assert all(f'[style*="fill: {light}"]{{fill:{dark}!important}}' in text for light, dark in plot.DARK.items())


def test_names_at_the_lines_ends_do_not_lie_over_each_other(repo):
    from matplotlib import pyplot

    figure, ax = pyplot.subplots()
    for name, y in (("a", 0.5), ("b", 0.501), ("c", 0.502)):
        ax.plot([1, 2], [y, y], label=name)
    ax.set_ylim(0, 1)
    plot.name_lines(ax)
    figure.canvas.draw()
    boxes = sorted((t.get_window_extent().y0, t.get_window_extent().y1) for t in ax.texts)
    assert all(low >= high for (_, high), (low, _) in zip(boxes, boxes[1:], strict=False))
    pyplot.close(figure)


def test_latency_needs_a_hundred_requests(repo, monkeypatch):
    [lines] = drawn(monkeypatch, "latency", [speed()], []).values()
    assert len(lines) == 1
    assert drawn(monkeypatch, "latency", [speed() | {"requests": 99}], []) == {}
    assert table.row(speed() | {"requests": 99})["p99_ms"] is None
    assert "latency     99 requests: percentiles need 100" in show.show(speed() | {"requests": 99})


def test_the_peers_are_drawn_with_ours_and_the_published_and_the_result_is_said():
    benches = list(record.load([measured.ROOT / "results/bench"], ("bench",)).values())
    rows = published.read(measured.ROOT / "models")
    bench = peers.pictured(benches)
    points = peers.points(bench, rows)
    assert {p["kind"] for p in points} == {"ours", "peers", "published"}
    assert [p["speed"] for p in points] == sorted(p["speed"] for p in points)
    lines = {peers.name_of(line): line for line in bench["contenders"] if line["shape"] == "sorted"}
    point = next(p for p in points if p["name"] == "OpenVINO bf16")
    assert point["speed"] == lines["OpenVINO bf16"]["samples_per_second"] / bench["threads"]
    share, low, high = point["interval"]
    assert share == lines["OpenVINO bf16"]["accuracy"] and low < share < high
    made = io.BytesIO()
    peers.draw(benches, rows, made, "svg")
    assert f"<title>{peers.said(bench, points)}</title>" in made.getvalue().decode()
    fastest = max((p for p in points if p["kind"] == "ours"), key=lambda p: p["speed"])
    assert f"ours: {fastest['name']}, {fastest['speed']:.0f} sentences per core-second" in peers.said(bench, points)


def test_a_share_of_the_peak_above_all_of_it_is_explained():
    bench = next(iter(record.load([measured.ROOT / "results/bench"], ("bench",)).values()))
    for share, explained in ((0.97, False), (1.05, True)):
        lines = [line | {"share_of_peak": share} for line in bench["contenders"]]
        assert (peers.OVER in peers.table(bench | {"contenders": lines})) is explained


# ---- README


def test_readme_block_is_written_and_staleness_found(repo):
    path = Path("README.md")
    path.write_text("# x\n\n<!-- table -->\nold\n<!-- /table -->\n\nend\n")
    check = run("tools.results.readme", "--check")
    assert check.returncode == 1 and "README.md: not what results/records give" in check.stderr
    assert run("tools.results.readme", "--write").returncode == 0
    assert run("tools.results.readme", "--check").returncode == 0
    text = path.read_text()
    assert text.startswith("# x\n") and text.endswith("\n\nend\n")
    assert "| minilm_sst2 |" in text and "(792/872)" in text
    assert run("tools.results.readme", "--write").stdout == "readme: nothing to change\n"
    path.write_text(text.replace("792", "793"))
    assert run("tools.results.readme", "--check").returncode == 1
    path.unlink()


def test_readme_rows_of_accuracies_alone(repo):
    lines = readme.rows([r for r in kept().values() if r["kind"] == "accuracy"])
    assert [(line["engine"], line["accuracy"]) for line in lines] == [
        ("onnxruntime fp32", "90.83 % (792/872)"), ("openvino bf16", "91.40 % (797/872)")]  # fmt: skip
    assert {line["samples/s (batch)"] for line in lines} == {None}


def test_each_speed_stands_with_the_batch_size_at_which_it_is_highest(repo):
    """Not with that of another column: here the clock says 32, and the processors' time 4."""
    value = lambda v: {"value": v, "low": v - 0.1, "high": v + 0.1}
    of = lambda bs, speed_, core: speed() | {
        "bs": bs, "samples_per_second": speed_, "rounds": [speed_] * 3, "spread": 0.01,
        "figures": dict.fromkeys(("per_core_second", "per_tera", "per_tera_quiet"), value(core))}  # fmt: skip
    right = next(r for r in kept().values() if r["kind"] == "accuracy" and r["engine"] == "onnxruntime")
    (line,) = readme.rows([right, of(4, 160, 139.7), of(16, 201, 120.0), of(32, 250.4, 99.0)])
    assert (line["per core-second (batch)"], line["samples/s (batch)"]) == ("140 (4)", "250 (32)")


def test_a_readme_has_ten_rows_at_most_each_with_an_accuracy_of_the_newest_machine(repo):
    records = [r | {"model": f"m{i}"} for i in range(12) for r in kept().values()]
    lines = readme.rows(records)
    assert len(lines) == 10 and all(line["accuracy"] for line in lines)
    old = [r | {"machine": r["machine"] | {"cpu": "Old"}, "started": "2020-01-01T00:00:00Z"} for r in kept().values()]
    assert readme.rows([*kept().values(), *old]) == readme.rows(list(kept().values()))


def test_another_hours_speed_stands_beside_the_recorded_one(repo, tmp_path):
    path = tmp_path / "verify.md"
    path.write_text("| record | kind |\n| tiny default 64 8 cpu onnxruntime fp32 | perf     | holds | per_tera x 0.938 (0.93 to 0.94) |\n"
                    "| tiny default 64 8 cpu onnxruntime fp32 | accuracy | holds | 1/2 |\n")  # fmt: skip
    assert readme.again(path) == {"tiny default 64 8 cpu onnxruntime fp32": 0.938}
    assert readme.again(tmp_path / "none.md") == {}


def test_a_figure_in_prose_is_the_records(repo):
    path = Path("README.md")
    text = "<!-- = {} -->{}<!-- /= -->, {}{}\n{}\n"
    question = "right PRECISION=fp32 BS=8"
    path.write_text(text.format(question, "1/2", "<!-- table -->", "", "<!-- /table -->"))
    assert readme.stale() == [path]
    assert f"<!-- = {question} -->792/872<!-- /= -->" in readme.texts()[path]
    Path("costs.csv").write_text("make,seconds\nfp32,12\n")
    cases = {"accuracy PRECISION=bf16": "91.40 %", "interval PRECISION=fp32": "88.73 to 92.57 %",
             "costs.csv fp32 seconds": "12"}  # fmt: skip
    assert {q: readme.answer(q) for q in cases} == cases
    for wrong in ("right PRECISION=fp8", "colour", "costs.csv fp64 seconds"):
        with pytest.raises(cli.UserError, match="nothing answers that"):
            readme.answer(wrong)
    path.unlink()


def test_a_stale_table_is_found(repo):
    made = table.of(table.committed())
    Path("results/table.csv").write_text(table.text(made, ".csv"))
    assert readme.stale() == []
    Path("results/table.csv").write_text(table.text(made, ".csv").replace("792", "793"))
    assert readme.stale() == [Path("results/table.csv")]
    Path("results/table.csv").unlink()


@pytest.mark.parametrize(
    "text", ["no markers\n", "<!-- /table -->\n<!-- table -->\n", "<!-- table -->" * 2 + "<!-- /table -->"]
)
def test_readme_without_its_markers_is_an_error(tmp_path, text):
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(cli.UserError, match="needs one <!-- table -->"):
        readme.spliced(path, path.read_text(), "x")


def test_the_committed_readme_tables_and_pictures_are_fresh(monkeypatch):
    """What CI holds the repository to."""
    monkeypatch.chdir(measured.ROOT)
    if not any(Path(f).is_file() for f in readme.FILES):
        pytest.skip("no README yet")
    done = run("tools.results.readme", "--check")
    assert done.returncode == 0, done.stderr
    names = subprocess.run(["git", "ls-files", "results"], capture_output=True, text=True, check=True).stdout.split()
    assert not [n for n in names if n.endswith((".html", ".png"))]  # made again by make report


# ---- the page


@pytest.fixture(scope="module")
def page(repo):
    done = run("tools.results.report", *kept(), "--save_path", "build/report.html")
    assert done.returncode == 0, done.stderr
    return Path("build/report.html").read_text("utf-8")


def behind(page: str) -> dict:
    """What the page's gzip holds."""
    packed = re.search(r'<script type="application/gzip" id=behind>(.*?)</script>', page)[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_page_is_whole_and_the_same_every_time(repo, page):
    assert report.page(kept(), published.read()) == page
    assert not re.search(r"""(src|href)\s*=\s*["']?(?!#|data:)\w""", page)
    assert "@import" not in page and "url(" not in page.replace("url(#", "")
    assert page.count("data:image/svg+xml") == 2 and page.count('<img alt="') == 2
    facts = behind(page)
    for path, r in kept().items():
        assert f'id="{report.ident(path)}"' in page
        chain = [facts["links"][number] for number in facts["records"][report.ident(path)]["chain"]]
        assert {name: sha256 for name, sha256, _ in chain} == {
            name: link["sha256"] for name, link in r["chain"].items()
        }
        assert [words for *_, words in chain] == [
            [*map(shlex.join, v.get("commands", []))] for v in r["chain"].values()
        ]
    again = {record_["again"] for record_ in facts["records"].values()}
    assert any(
        words.startswith("make accuracy MODEL=minilm_sst2 WEIGHTS=default SEQ=128 BS=8 CHIP=cpu") for words in again
    )
    assert "-0.67 points to 91.5 % (310P3 fp16)" in page


def test_page_shows_text_as_text(repo):
    path, r = next(iter(kept().items()))
    evil = r | {"source": "<script>alert(1)</script>", "model": '"><img src=x onerror=alert(1)>'}
    made = report.page({path: evil}, [])
    assert "<script>alert" not in made and "<img src=x" not in made


def test_a_thousand_records_are_two_megabytes(repo):
    """Each with artefacts of its own, whose hashes no gzip shortens by more than half."""
    fresh = lambda i, name, link: link | {"sha256": hashlib.sha256(f"{i}{name}".encode()).hexdigest()}
    records = {}
    for i in range(1000):
        path, r = list(kept().items())[i % 5]
        above, own = store.shared(r)
        chain = above | {name: fresh(i, name, link) for name, link in own.items()}
        records[path.with_stem(f"{i}-{path.stem}")] = r | {"chain": chain, "bs": 1 + i % 999}
    assert len(report.page(records, published.read())) < 2e6


PROBE = """<script>{
const out = [], heads = [...document.querySelectorAll("#cells th button")];
const column = name => heads.findIndex(h => h.textContent === name);
const shown = () => [...document.querySelectorAll("#cells tbody tr")].filter(r => !r.hidden);
const cells = i => shown().map(r => r.cells[i].textContent);
const speed = column("samples/s");
heads[speed].click(); out.push(cells(speed)); heads[speed].click(); out.push(cells(speed));
heads[column("configuration")].click(); out.push(cells(column("configuration")));
const box = document.querySelector("#filter");
box.value = "BF16 openvino"; box.dispatchEvent(new Event("input")); out.push(cells(column("configuration")));
out.push(document.querySelector("#count").textContent);
box.value = ""; box.dispatchEvent(new Event("input"));
const link = document.querySelector("#cells a"); location.hash = link.getAttribute("href");
onhashchange = async () => {
  await behind; await new Promise(done => setTimeout(done, 50));
  const found = document.querySelector(location.hash);
  out.push([found.open, found.textContent.includes("sha256")]);
  out.push([...document.images].every(i => i.complete && i.naturalWidth > 100));
  out.push(document.documentElement.scrollWidth <= innerWidth);
  const place = document.querySelector(".wide"), first = document.querySelector("#cells tbody td");
  place.scrollLeft = 200;
  out.push(first.getBoundingClientRect().left - place.getBoundingClientRect().left < 1);
  out.push(getComputedStyle(document.body).backgroundColor);
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
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom)
    assert found, dom[-2000:]
    up, down, engines, filtered, count, opened, pictures, fits, fixed, paper = json.loads(found[1])
    numbers = [float(v) for v in up if v != "-"]
    assert numbers == sorted(numbers) and len(numbers) == 3, up
    assert down == up[::-1]
    assert engines == [f"minilm_sst2 {name}" for name in ("onnxruntime fp32", "onnxruntime fp32", "openvino bf16")]
    assert (filtered, count) == (["minilm_sst2 openvino bf16"], "1 of 3")
    assert opened == [True, True]
    assert pictures and fits and fixed
    assert paper == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium")
def test_a_console_error_would_be_seen(page, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(page.replace("</body>", "<script>missing()</script></body>"), "utf-8")
    with pytest.raises(AssertionError, match="missing is not defined"):
        browse("--virtual-time-budget=5000", "--dump-dom", file.as_uri(), home=tmp_path)


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium")
def test_page_prints(page, tmp_path):
    file, pdf = tmp_path / "report.html", tmp_path / "report.pdf"
    file.write_text(page, "utf-8")
    browse("--virtual-time-budget=5000", f"--print-to-pdf={pdf}", file.as_uri(), home=tmp_path)
    assert pdf.read_bytes().startswith(b"%PDF") and pdf.stat().st_size > 20_000
