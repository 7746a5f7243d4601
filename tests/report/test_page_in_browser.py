"""A walk through the page in headless Chromium: clicks, sorting, search, saving, and nothing on the console."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import browser
import pytest
from predictions import EVIL, chain, kernel, network

import nn_meter
from nn_meter.kernels.partition import Unfused
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.parts import Roofline
from nn_meter.predictors.prediction import Prediction
from nn_meter.report import html

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(browser.found() is None, reason=f"none of {', '.join(browser.NAMES)} is installed"),
]
ROOT = Path(__file__).parents[2]
LAYERS = ".layers tbody tr"
SHIPPED = ("zen4cpu_onnxruntime132", "xeoncpu_onnxruntime132")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    with browser.opened(tmp_path_factory.mktemp("chromium") / "profile") as page:
        yield page


@pytest.fixture
def page(chromium: browser.Page, tmp_path: Path) -> Iterator[browser.Page]:
    """The page of a network of twenty kernels by two predictors, the second slower by a half."""
    shown(chromium, tmp_path, network(), network(1.5, "other"))
    yield chromium
    assert chromium.errors == []


def shown(
    page: browser.Page, folder: Path, *predictions: Prediction, bundles: tuple[Bundle, ...] = (), width: int = 1400,
    dark: bool = False,
) -> None:  # fmt: skip
    file = folder / "page.html"
    file.write_text(html.page(predictions, bundles), encoding="utf-8")
    page.errors.clear()
    page.open(file.as_uri(), width, dark)
    page.wait("document.querySelector('main').children.length > 0")


def order(page: browser.Page) -> list[int]:
    """The table's kernels, by their numbers."""
    return [int(text) for text in page.texts(f"{LAYERS} td:first-child")]


def test_the_answer_stands_above(page: browser.Page) -> None:
    assert page.texts("#answer h1") == ["net.onnx"]
    assert page.texts(".number") == ["210.0"]
    assert page.texts(".between") == ["90 % of such models between 189.0 and 252.0 ms"]
    assert page.texts(".band.careful li") == ["1.4% of the time is extrapolated, not predicted (1 of 21 kernels)"]


def test_heads_sort(page: browser.Page) -> None:
    assert order(page) == [*range(20, 0, -1)]  # by time at first, the longest above
    page.click("th[data-column=ms] button")
    assert order(page) == [*range(1, 21)]
    page.click("th[data-column=status] button")
    assert order(page)[0] == 3  # extrapolated comes before predicted
    page.click("th[data-column=layer] button")
    page.click("th[data-column=layer] button")
    assert page.texts(f"{LAYERS} .text")[0] == "stages.1.conv9"


def test_equal_layers_are_one_row_that_opens(chromium: browser.Page, tmp_path: Path) -> None:
    alike = tuple(kernel(f"blocks.{n}/blocks.{n}.fc", 2.0) for n in range(60))
    shown(chromium, tmp_path, chain((*alike, kernel("head", 30.0))))
    rows = "[...document.querySelectorAll('.layers tbody tr')].map((row) => [1, 5].map((n) => row.cells[n].innerText))"
    assert [[name.strip(), time] for name, time in chromium.value(rows)] == [
        ["blocks.*.fc×60", "120.0"], ["head", "30.00"],
    ]  # fmt: skip
    assert chromium.texts("#layers .found") == ["61 of 61 kernels in 2 rows, 150.0 ms, 100.0 %"]
    chromium.click(".layers tr.fold")
    assert len(chromium.value(rows)) == 62
    chromium.click(".layers tr.fold")
    assert len(chromium.value(rows)) == 2
    chromium.click("#executed [data-kernel='1']")  # opens the row that it is in
    assert chromium.value("document.querySelector('.layers tr.marked').dataset.kernel") == "1"
    chromium.type("#layers input", "fc")
    assert chromium.texts("#layers .found") == ["60 of 61 kernels in 1 row, 120.0 ms, 80.0 %"]
    chromium.choose("[data-filter=rows]", "")
    assert order(chromium) == [*range(1, 61)]
    assert chromium.errors == []


def test_search_and_filters_leave_what_matches(page: browser.Page) -> None:
    page.type("#layers input", "stages.1 conv")
    assert order(page) == [*range(20, 10, -1)]
    assert page.texts(".found")[0] == "10 of 20 kernels, 155.0 ms, 73.8 %"
    page.type("#layers input", "")
    assert len(order(page)) == 20
    page.choose("[data-filter=status]", "extrapolated")
    assert order(page) == [3]


def test_a_click_anywhere_shows_the_kernel_everywhere(page: browser.Page) -> None:
    places = ("#executed [data-kernel='{}']", ".icicle [data-kernel='{}']", LAYERS + "[data-kernel='{}']")
    for number, place in zip((5, 14, 2), places, strict=True):
        page.click(place.format(number))
        for other in places:
            assert page.value(f"document.querySelector(\"{other.format(number)}\").classList.contains('marked')")
        assert page.value("document.querySelectorAll('.marked[data-kernel]').length") == 3
        assert page.texts(".detail h3") == [f"stages.{number // 10}.conv{number % 10}"]
    assert "cin 4096 is outside the trained range 1..2048" in page.texts(".detail")[0]
    assert "1.0 doublings outside" in page.texts(".detail")[0]


def test_a_hidden_row_comes_back_when_its_kernel_is_chosen(page: browser.Page) -> None:
    page.type("#layers input", "stages.1")
    page.click("#executed [data-kernel='0']")
    assert len(order(page)) == 20
    found = "document.querySelector('#layers {}').getBoundingClientRect()"
    box, row = found.format(".scroll"), found.format("tr.marked")
    assert page.value(f"{row}.top >= {box}.top && {row}.bottom <= {box}.bottom")


def test_modules_can_be_looked_into(page: browser.Page) -> None:
    assert page.texts(".icicle .module")[:1] == ["stages.0"]
    page.click(".icicle .module[title^='stages.1\\a']")
    assert page.texts(".icicle button")[0] == "stages.1"
    assert "stages.1: 155.0 ms, 73.8 % of the total" in page.texts(".way")[0]
    page.click(".way button")
    assert page.texts(".icicle button")[0] == "net.onnx"
    page.choose("#icicle-by", "kind")
    assert page.texts(".icicle .module") == ["conv"]


def test_rails_carry_every_value(page: browser.Page) -> None:
    assert page.value("document.querySelectorAll('#executed path').length") == 19 + 9
    assert page.value("document.querySelectorAll('#executed circle').length") == 20
    assert page.value("document.querySelectorAll('#executed .operators.fused').length") == 20
    assert page.texts("#executed [data-kernel='0'] .operators span") == ["Conv", "Relu"]


def test_a_name_is_copied(page: browser.Page) -> None:
    page.ask("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    page.value("window.setTimeout = () => 0")  # else the sign goes after a second, whether it was seen or not
    page.click(f"{LAYERS} button.copy")
    page.wait("document.querySelector('.copy.done') !== null")
    assert page.value("navigator.clipboard.readText()") == "/stages.1/stages.1.conv9/Conv"


def test_what_is_shown_is_saved(page: browser.Page, tmp_path: Path) -> None:
    page.saved.clear()
    page.downloads(tmp_path)
    page.type("#layers input", "stages.0")
    page.click("#csv")
    page.await_download()
    rows = [*csv.DictReader((tmp_path / "net.onnx_some_cpu.csv").read_text(encoding="utf-8").splitlines())]
    assert [float(row["latency_ms"]) for row in rows] == [*range(10, 0, -1)]
    assert rows[0]["nodes"] == "/stages.0/stages.0.conv9/Conv /stages.0/stages.0.conv9/Relu_0"


def test_two_predictors_are_compared_layer_by_layer(page: browser.Page) -> None:
    rows = page.value(
        "[...document.querySelectorAll('.compare tbody tr')].map((row) => [...row.cells].map((cell) => cell.innerText))"
    )
    assert page.texts("#compare [data-side='0'] option") == ["some_cpu 1.0", "other 1.0"]  # of one model
    assert rows[0] == ["total", "", "210.0", "315.0", "+105.0", "", "1.50×"]
    assert rows[1] == ["stages.1.conv9", "Conv-Relu", "20.00", "30.00", "+10.00", "", "1.50×"]
    assert len(rows) == 21
    page.choose("#compare [data-side='1']", "0")
    assert page.texts(".compare tbody tr:first-child td")[-1] == "1.00×"
    page.choose("#compare [aria-label=by]", "module")
    assert len(page.texts(".compare tbody tr")) == 21  # a module has two levels here


def test_another_prediction_is_shown_on_a_click(page: browser.Page) -> None:
    page.click("tr[data-place='1'] button")
    assert page.texts(".number") == ["315.0"]
    assert page.texts("#overview tr.marked td:nth-child(2)") == ["other 1.0"]


def test_variants_are_aligned_where_they_share_names(chromium: browser.Page, tmp_path: Path) -> None:
    one = chain((kernel("a", 1.0), kernel("b", 2.0)))
    other = chain((kernel("a", 1.0), kernel("c", 4.0)), model="wider.onnx")
    shown(chromium, tmp_path, one, other)
    ratios = chromium.texts(".compare tbody td:last-child")
    assert chromium.texts("#compare [data-side='0'] option") == [one.model, "wider.onnx"]  # by one predictor
    assert sorted(ratios) == sorted(["1.67×", "1.00×", "only first", "only second"])
    assert chromium.errors == []


def test_models_that_share_no_layers_are_compared_by_kind(chromium: browser.Page, tmp_path: Path) -> None:
    one = chain((kernel("a", 1.0), kernel("b", 2.0)))
    other = chain((kernel("c", 1.0), kernel("d", 5.0, kind="fc")), model="other.onnx")
    shown(chromium, tmp_path, one, other)
    assert chromium.value("document.querySelector('#compare [aria-label=by]').value") == "kind"
    assert chromium.texts(".compare tbody td:first-child") == ["total", "fc", "conv"]
    chromium.choose("#compare [aria-label=by]", "layer")
    assert chromium.texts(".compare tbody td:first-child") == ["total", "d", "b", "a", "c"]


def test_ratios_of_a_hundredth_are_told_apart(chromium: browser.Page, tmp_path: Path) -> None:
    slow, fast = (chain(tuple(kernel(name, ms) for name, ms in rows)) for rows in (
        (("a", 20.0), ("b", 10.0)), (("a", 0.092), ("b", 0.011))))  # fmt: skip
    shown(chromium, tmp_path, slow, replace(fast, predictor="other"))
    assert chromium.texts(".compare tbody td:last-child") == ["0.0034×", "0.0046×", "0.0011×"]


def test_of_many_reasons_the_dearest_are_shown_first(chromium: browser.Page, tmp_path: Path) -> None:
    kernels = tuple(kernel(str(n), 1.0 + n) for n in range(12))
    unfused = tuple(Unfused(str(n), str(n + 1), f"reason {n}", (n, n + 1), 0.0) for n in range(11))
    shown(chromium, tmp_path, replace(chain(kernels), unfused=unfused))
    visible = "[...document.querySelectorAll('#missed tbody tr')].filter((row) => row.offsetHeight).length"
    assert (chromium.value(visible), chromium.texts("#missed .rest")) == (8, ["3 more reasons"])
    chromium.click("#missed .rest")
    assert (chromium.value(visible), chromium.texts("#missed .rest")) == (11, [])


def test_kernels_that_runtimes_cut_differently_stand_in_one_row(chromium: browser.Page, tmp_path: Path) -> None:
    both, conv = kernel("a", 3.0), kernel("a", 2.0, nodes=1)
    relu = replace(conv, latency_ms=1.5, kernel=replace(conv.kernel, nodes=("/a/Relu_0",), label="Relu"))
    shown(chromium, tmp_path, chain((both,)), chain((conv, relu), predictor="other"))
    shown_row = chromium.texts(".compare tbody tr:nth-child(2) td")
    assert shown_row == ["a", "Conv-Relu, Relu", "3.000", "3.500", "+0.5000", "", "1.17×"]


def test_what_fusion_missed_is_no_more_than_the_second_kernel_takes(
    chromium: browser.Page, tmp_path: Path, tiny: Bundle
) -> None:
    kernels = (kernel("a", 2.0), kernel("b", 2.0), kernel("c", 1.0))
    unfused = tuple(Unfused("a", "c", "no rule", (place, 2), 4096.0) for place in (0, 1))
    known = replace(tiny, name="some_cpu", fallback=Roofline(1e12, 4.096e6, 0.5))
    shown(chromium, tmp_path, replace(chain(kernels), unfused=unfused), bundles=(known,))
    assert chromium.texts("#missed td.n") == ["2", "1.000", "1.000"]
    assert chromium.errors == []


def test_names_do_nothing(chromium: browser.Page, tmp_path: Path) -> None:
    evil = kernel(EVIL, 1.0, label=EVIL, kind=EVIL, notes=(EVIL,))
    shown(chromium, tmp_path, *(chain((evil, kernel("b", 1.0)), model=EVIL, predictor=EVIL, notes=(EVIL,)),) * 2)
    chromium.click("#executed [data-kernel='0']")
    assert chromium.value("window.evil") is None
    assert chromium.value("document.querySelectorAll('main script, main img').length") == 0
    assert chromium.texts("#answer h1")[0].startswith("</script><script>window.evil = 1")
    assert chromium.errors == []


def test_a_thousand_kernels_are_shown_and_sorted(chromium: browser.Page, tmp_path: Path) -> None:
    kernels = tuple(kernel(f"layers.{n // 10}/layers.{n // 10}.block{n % 10}", 1.0 + n % 7) for n in range(1000))
    shown(chromium, tmp_path, chain(kernels))
    chromium.choose("[data-filter=rows]", "")
    chromium.click("th[data-column=layer] button")
    assert order(chromium) == [*range(1, 1001)]
    chromium.click("#executed [data-kernel='999']")
    assert chromium.texts(".detail h3") == ["layers.99.block9"]
    assert chromium.errors == []


def test_a_page_without_any_answer_says_why(chromium: browser.Page, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(html.page([], failed=[("bad.onnx", "no model")]), encoding="utf-8")
    chromium.errors.clear()
    chromium.open((tmp_path / "page.html").as_uri())
    chromium.wait("document.querySelector('#failed') !== null")
    assert chromium.texts("#failed li") == ["bad.onnx: no model"]
    assert chromium.errors == []


@pytest.mark.parametrize("width", [420, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_the_window(chromium: browser.Page, tmp_path: Path, width: int, dark: bool) -> None:
    example = ROOT / "examples" / "small_net.onnx"
    answers = [nn_meter.load_latency_predictor(name).explain(example) for name in SHIPPED]
    shown(chromium, tmp_path, *answers, network(), width=width, dark=dark)
    assert chromium.value("document.documentElement.scrollWidth") == width
    ink = "rgb(228, 233, 240)" if dark else "rgb(27, 36, 48)"
    assert chromium.value("getComputedStyle(document.body).color") == ink
    assert chromium.errors == []


def test_on_paper_stand_the_facts_without_the_tools(page: browser.Page) -> None:
    page.shape(1000, media="print")
    there = "(name) => getComputedStyle(document.querySelector(name)).display !== 'none'"
    names = [".tools", "#executed", ".paper", ".layers", ".band"]
    assert page.value(f"{names}.map({there})") == [False, False, True, True, True]


@pytest.mark.skipif(not os.environ.get("NN_METER_ACCEPT"), reason="NN_METER_ACCEPT=1 takes docs' pictures anew")
@pytest.mark.parametrize(("name", "width", "dark"), [("wide", 1400, False), ("narrow", 420, True)])
def test_pictures(chromium: browser.Page, tmp_path: Path, name: str, width: int, dark: bool) -> None:
    predictors = [nn_meter.load_latency_predictor(each) for each in SHIPPED]
    answers = [each.explain(ROOT / "tests" / "corpus" / "models" / "convnext.onnx") for each in predictors]
    (tmp_path / "page.html").write_text(html.page(answers, (each.bundle for each in predictors)), encoding="utf-8")
    chromium.open((tmp_path / "page.html").as_uri(), width, dark, height=1400)
    chromium.wait("document.querySelector('main').children.length > 0")
    chromium.click("#executed [data-kernel='8']")
    chromium.value("scrollTo(0, 0)")
    chromium.picture(ROOT / "docs" / f"page_{name}.webp")
