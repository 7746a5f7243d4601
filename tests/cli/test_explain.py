"""``nn-meter explain``: the partition, why neighbours did not fuse, what the total rests on."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "small_net.onnx"


def test_reasons_are_grouped(run: Callable[..., object], golden: Callable[[str, str], None]) -> None:
    golden("explain.txt", run("explain", "--predictor", "tiny_cpu", EXAMPLE).out)


def test_verbose_lists_each_pair(run: Callable[..., object], golden: Callable[[str, str], None]) -> None:
    golden("explain_verbose.txt", run("explain", "-v", "--predictor", "tiny_cpu", EXAMPLE).out)


def test_json_holds_what_did_not_fuse(run: Callable[..., object]) -> None:
    document = json.loads(run("explain", "--json", "--predictor", "tiny_cpu", EXAMPLE).out)
    reasons = {each["reason"] for each in document["unfused"]}
    assert "rule BF_conv_dwconv says no" in reasons
    assert "rule BF_conv_add is undecided" in reasons


def test_html_needs_nothing_else(run: Callable[..., object], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = run("explain", "--html", page, "--predictor", "tiny_cpu", "--predictor", "tiny_npu", EXAMPLE)
    assert (result.code, result.out) == (0, "")
    assert result.err.endswith(f"nn-meter: wrote {page}, one file that any browser opens\n")
    opened: list[str] = []

    class Page(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert not {"src", "href"} & {key for key, _ in attrs}
            if tag != "meta":
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Page().feed(page.read_text(encoding="utf-8"))
    assert opened == []
    assert "tiny_npu 2.0" in page.read_text(encoding="utf-8")
