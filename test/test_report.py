"""Tables, pictures, report and README blocks: pure functions of records, and a page that works in a real browser."""

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import measured
import pytest

from tools.make import cli
from tools.results import plot, published, readme, record, report, show, table

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
    """{axes' title: {label: (points, colour)}} of every line that `which` draws, and what is written beside it."""
    from matplotlib import pyplot

    seen = {}

    def look(figure, *_, **__):
        for ax in figure.axes:
            lines = zip(*ax.get_legend_handles_labels(), strict=True)
            first = lambda handle: handle.lines[0] if hasattr(handle, "lines") else handle
            seen[ax.get_title()] = {name: (first(h).get_xydata().tolist(), first(h).get_color()) for h, name in lines}
            assert [t.get_text() for t in ax.texts if ax.axison and t.get_text() not in seen[ax.get_title()]] == []

    monkeypatch.setattr(pyplot.Figure, "savefig", look)
    plot.draw(which, records, rows, io.BytesIO(), "svg")
    return seen


def test_throughput_shows_the_measured_and_the_published_apart(repo, monkeypatch):
    panels = drawn(monkeypatch, "throughput", list(kept().values()), published.read())
    measured_, others = panels.values()
    assert [title.split(": ")[1] for title in panels] == ["measured here", "published by others"]
    assert set(measured_) == {"onnxruntime fp32", "openvino bf16"} and set(others) == {"310P3 fp16"}
    points, _ = measured_["onnxruntime fp32"]
    assert [x for x, _ in points] == [1, 8]
    assert points[1][1] == pytest.approx(200, rel=0.03)
    assert others["310P3 fp16"][0] == [[1, 700], [8, 1600]]


def test_an_engine_has_one_colour_in_all_panels_by_its_name_of_today(repo, monkeypatch):
    speed = next(r for r in kept().values() if r["kind"] == "throughput")
    made = [speed | {"model": m, "engine": e, "precision": p} for m, e, p in [
        ("a", "onnxruntime", "fp32"), ("b", "native", "bf16"), ("b", "onnxruntime", "fp32"), ("c", "packed", "bf16"),
        ("c", "other", "fp8"), ("d", "other", "fp8")]]  # fmt: skip
    panels = list(drawn(monkeypatch, "throughput", made, []).values())
    colours = {(name, colour) for lines in panels for name, (_, colour) in lines.items()}
    assert len(colours) == len({name for name, _ in colours}) == len({colour for _, colour in colours}) == 3
    assert "native bf16" in panels[2]


def test_two_machines_differ_by_their_kind_of_line_and_are_named(repo, monkeypatch):
    speed = next(r for r in kept().values() if r["kind"] == "throughput")
    made = [speed | {"machine": speed["machine"] | {"cpu": cpu}} for cpu in ("One", "Another")]
    [lines] = drawn(monkeypatch, "throughput", made, []).values()
    assert list(lines) == [f"onnxruntime fp32, {cpu}, {speed['machine']['cores']} cores" for cpu in ("Another", "One")]


def test_names_at_the_lines_ends_do_not_lie_over_each_other(repo, monkeypatch):
    from matplotlib import pyplot

    figure, ax = pyplot.subplots()
    ax.set_ylim(0, 1)
    plot.name_lines(ax, [(0.5, "a", "black"), (0.501, "b", "black"), (0.502, "c", "black")])
    figure.canvas.draw()
    boxes = sorted((t.get_window_extent().y0, t.get_window_extent().y1) for t in ax.texts)
    assert all(low >= high for (_, high), (low, _) in zip(boxes, boxes[1:], strict=False))
    pyplot.close(figure)


def test_latency_needs_a_hundred_requests(repo, monkeypatch):
    speed = next(r for r in kept().values() if r["kind"] == "throughput")
    [lines] = drawn(monkeypatch, "latency", [speed], []).values()
    assert len(lines) == 1
    [lines] = drawn(monkeypatch, "latency", [speed | {"requests": 99}], []).values()
    assert lines == {}
    assert table.row(speed | {"requests": 99})["p99_ms"] is None
    assert "latency     99 requests: percentiles need 100" in show.show(speed | {"requests": 99})


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


def test_readme_block_of_accuracies_alone(repo):
    lines = readme.short(table.frame([r for r in kept().values() if r["kind"] == "accuracy"]))
    assert list(lines) == ["model", "engine", "processor", "accuracy"] and len(lines) == 2


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


def test_page_is_whole_and_the_same_every_time(repo, page):
    assert report.page(kept(), published.read()) == page
    assert not re.search(r"""(src|href)\s*=\s*["']?(?!#|data:)\w""", page)
    assert "@import" not in page and "url(" not in page.replace("url(#", "")
    assert page.count("data:image/svg+xml") == 2
    for path, r in kept().items():
        assert f'id="{report.ident(path)}"' in page
        for link in r["chain"].values():
            assert link["sha256"] in page
    assert "make accuracy MODEL=minilm_sst2 WEIGHTS=default SEQ=128 BS=8 CHIP=cpu" in page
    assert "-0.67 points to 91.5 % (310P3 fp16)" in page


def test_page_shows_text_as_text(repo):
    path, r = next(iter(kept().items()))
    evil = r | {"source": "<script>alert(1)</script>", "model": '"><img src=x onerror=alert(1)>'}
    made = report.page({path: evil}, [])
    assert "<script>alert" not in made and "<img src=x" not in made


PROBE = """<script>{
const out = [], heads = [...document.querySelectorAll("#cells th button")];
const column = name => heads.findIndex(h => h.textContent === name);
const shown = () => [...document.querySelectorAll("#cells tbody tr")].filter(r => !r.hidden);
const cells = i => shown().map(r => r.cells[i].textContent);
const speed = column("samples_per_s");
heads[speed].click(); out.push(cells(speed)); heads[speed].click(); out.push(cells(speed));
heads[column("engine")].click(); out.push(cells(column("engine")));
const box = document.querySelector("#filter");
box.value = "BF16 openvino"; box.dispatchEvent(new Event("input")); out.push(cells(column("precision")));
out.push(document.querySelector("#count").textContent);
box.value = ""; box.dispatchEvent(new Event("input"));
const link = document.querySelector("#cells a"); location.hash = link.getAttribute("href");
onhashchange = () => {
  const found = document.querySelector(location.hash);
  out.push([found.open, found.textContent.includes("sha256")]);
  out.push([...document.images].every(i => i.complete && i.naturalWidth > 100));
  out.push(document.documentElement.scrollWidth <= innerWidth);
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
@pytest.mark.parametrize("width", [1280, 500])
def test_page_in_a_browser(page, tmp_path, width):
    file = tmp_path / "report.html"
    file.write_text(page.replace("</body>", PROBE + "</body>"), "utf-8")
    dom = browse(
        "--virtual-time-budget=20000", f"--window-size={width},900", "--dump-dom", file.as_uri(), home=tmp_path
    )
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom)
    assert found, dom[-2000:]
    up, down, engines, filtered, count, opened, pictures, fits = json.loads(found[1])
    numbers = [float(v) for v in up]
    assert numbers == sorted(numbers) and len(numbers) == 3, up
    assert down == up[::-1]
    assert engines == ["onnxruntime", "onnxruntime", "openvino"]
    assert (filtered, count) == (["bf16"], "1 of 3")
    assert opened == [True, True]
    assert pictures and fits


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
