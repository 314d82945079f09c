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

from tools import cli
from tools.results import peers, plot, published, readme, record, report, table

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
    """Labels and points of every line that `which` draws."""
    from matplotlib import pyplot

    seen = []

    def look(figure, *_, **__):
        for ax in figure.axes:
            seen.extend((h[1], h[0]) for h in zip(*ax.get_legend_handles_labels(), strict=True))
            seen.extend(("text", t.get_text()) for t in ax.texts)

    monkeypatch.setattr(pyplot.Figure, "savefig", look)
    plot.draw(which, records, rows, io.BytesIO(), "svg")
    return dict(seen)


def test_throughput_shows_the_measured_and_the_published(repo, monkeypatch):
    lines = drawn(monkeypatch, "throughput", list(kept().values()), published.read())
    assert set(lines) == {"cpu onnxruntime fp32", "cpu openvino bf16", "published: 310P3 fp16"}
    ours = lines["cpu onnxruntime fp32"].get_xydata()
    assert ours[:, 0].tolist() == [1, 8]
    assert ours[1, 1] == pytest.approx(200, rel=0.03)
    assert lines["published: 310P3 fp16"].get_xydata().tolist() == [[1, 700], [8, 1600]]


def test_accuracy_needs_both_figures_and_no_seeded_weights(repo, monkeypatch):
    records = list(kept().values())
    lines = drawn(monkeypatch, "accuracy", records, published.read())
    assert {"cpu onnxruntime fp32", "cpu openvino bf16"} < set(lines)
    seeded = [r | ({"caveat": "seeded"} if r["kind"] == "accuracy" else {}) for r in records]
    assert set(drawn(monkeypatch, "accuracy", seeded, [])) == {"text"}


# ---- README


def test_readme_block_is_written_and_staleness_found(repo):
    path = Path("README.md")
    path.write_text(f"# x\n\n{readme.START}\nold\n{readme.END}\n\nend\n")
    check = run("tools.results.readme", "--check")
    assert check.returncode == 1 and "README.md: not what results/records give" in check.stderr
    assert run("tools.results.readme", "--write").returncode == 0
    assert run("tools.results.readme", "--check").returncode == 0
    text = path.read_text()
    assert text.startswith("# x\n") and text.endswith("\n\nend\n")
    assert "| minilm_sst2 | default" in text and "792" in text
    assert run("tools.results.readme", "--write").stdout == "readme: nothing to change\n"
    path.write_text(text.replace("792", "793"))
    assert run("tools.results.readme", "--check").returncode == 1
    path.unlink()


def test_a_stale_table_is_found(repo):
    made = table.of(table.committed())
    Path("results/table.csv").write_text(table.text(made, ".csv"))
    assert readme.stale() == []
    Path("results/table.csv").write_text(table.text(made, ".csv").replace("792", "793"))
    assert readme.stale() == [Path("results/table.csv")]
    Path("results/table.csv").unlink()


@pytest.mark.parametrize("text", ["no markers\n", f"{readme.END}\n{readme.START}\n", readme.START * 2 + readme.END])
def test_readme_without_its_markers_is_an_error(tmp_path, text):
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(cli.UserError, match="needs one <!-- table -->"):
        readme.spliced(path, "x")


def test_the_committed_readme_tables_and_pictures_are_fresh(monkeypatch):
    """What CI holds the repository to."""
    monkeypatch.chdir(measured.ROOT)
    if not any(Path(f).is_file() for f in readme.FILES):
        pytest.skip("no README yet")
    done = run("tools.results.readme", "--check")
    assert done.returncode == 0, done.stderr
    benches = peers.newest([cli.read_json(p) for p in Path("results/bench").glob("*.json")])
    if Path("results/report.html").is_file():
        text = Path("results/report.html").read_text("utf-8")
        assert text == report.page(kept(), published.read(), benches)
        assert ("<h2>Against the peers</h2>" in text) == bool(benches)
    if benches:
        assert Path("results/bench.md").read_text("utf-8") == "\n".join(map(peers.table, benches))
    for path in sorted(Path("results").glob("*.svg")):
        made = io.BytesIO()
        if path.stem == "bench":
            peers.draw(benches, made, "svg")
        else:
            plot.draw(path.stem, list(kept().values()), published.read(), made, "svg")
        assert path.read_bytes() == made.getvalue(), f"{path} is stale: make report"


# ---- the page


@pytest.fixture(scope="module")
def page(repo):
    done = run("tools.results.report", *kept(), "--save_path", "results/report.html")
    assert done.returncode == 0, done.stderr
    return Path("results/report.html").read_text("utf-8")


def test_page_is_whole_and_the_same_every_time(repo, page):
    assert report.page(kept(), published.read()) == page
    assert not re.search(r"""(src|href)\s*=\s*["']?(?!#|data:)\w""", page)
    assert "@import" not in page and "url(" not in page.replace("url(#", "")
    assert page.count("data:image/svg+xml") == 3
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
    assert numbers == sorted(numbers) and len(numbers) == 3
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
