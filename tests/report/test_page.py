"""The page's text: facts as JSON, nothing that a name could do, small."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace

import pytest
from predictions import EVIL, chain, kernel, network

from nn_meter.kernels.partition import Unfused
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.parts import Roofline
from nn_meter.report import html


def facts(page: str) -> dict[str, object]:
    """The facts in a page, as a browser would read them: up to the first end of a script."""
    [told] = re.findall(r'<script type="application/json" id="data">(.*?)</script', page, re.DOTALL)
    return json.loads(told)


def test_the_facts_are_there() -> None:
    page = facts(html.page([network(), network(2.0, "other")], failed=[("bad.onnx", "no model")]))
    first, second = page["predictions"]
    texts = page["texts"]
    assert (texts[first["model"]], texts[second["predictor"]]) == ("net.onnx", "other")
    assert (first["ms"], second["ms"]) == (210.0, 420.0)
    assert first["interval"] == [189.0, 252.0]
    assert [each[5] for each in first["kernels"]] == [float(place + 1) for place in range(20)]
    assert texts[first["kernels"][12][0]] == "stages.1.conv2"
    assert [texts[level] for level in first["kernels"][12][-2]] == ["stages.1", "conv2"]
    assert [texts[first["folds"][each[-1]]] for each in first["kernels"][1:3]] == ["stages.*.conv*", "stages.0.conv2"]
    assert page["failed"] == [["bad.onnx", "no model"]]


def test_a_name_has_no_effect_wherever_it_stands() -> None:
    evil = kernel(EVIL, 1.0, label=EVIL, kind=EVIL, notes=(EVIL,))
    whole = chain((evil, kernel("b", 1.0)), model=EVIL, predictor=EVIL, device=EVIL, runtime=EVIL, notes=(EVIL,))
    whole = replace(whole, unfused=(Unfused(EVIL, EVIL, EVIL, (0, 1)),))
    page = html.page([whole], failed=[(EVIL, EVIL)])
    assert len(re.findall("</?script", page)) == 4  # ours: the facts, and what shows them
    assert "<img" not in page
    assert not set("\x1b\u202e") & set(page)
    told = facts(page)
    [shown] = {text for text in told["texts"] if text.startswith("</script>")} & {told["failed"][0][0]}
    assert shown == EVIL.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")


def test_a_thousand_kernels_stay_under_a_megabyte() -> None:
    layers = (f"model.layers.{n // 10}/model.layers.{n // 10}.block{n % 10}.attention.projection" for n in range(1000))
    kernels = tuple(kernel(name, 1.0 + 1 / (n + 3), nodes=4) for n, name in enumerate(layers))
    page = html.page([chain(kernels), chain(kernels, predictor="other")])
    assert len(page.encode()) < 1_000_000


def test_numbers_have_six_digits_and_texts_stand_once() -> None:
    page = html.document([chain((kernel("a", 1 / 3), kernel("b", 2 / 3)))])
    assert "0.333333," in page
    assert page.count("Conv-Relu") == 1


def test_the_page_may_run_its_own_script_alone() -> None:
    page = html.page([network()])
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)[-1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not re.search(r'(src|href)="|url\(|@import|https?://(?!www\.w3\.org/2000/svg)', page)


def test_without_a_script_the_totals_are_told() -> None:
    [told] = re.findall("<noscript>(.*?)</noscript>", html.page([network()]))
    assert "net.onnx on some_cpu 1.0: 210.0 ms (median), 90 % of such models between 189.0 and 252.0 ms" in told


def test_nothing_predicted_is_a_page_too() -> None:
    assert facts(html.page([], failed=[("bad.onnx", "no model")]))["predictions"] == []


def test_what_two_kernels_cost_more_than_one_is_told_where_the_device_is_known(tiny: Bundle) -> None:
    prediction = network()
    assert facts(html.page([prediction]))["predictions"][0]["unfused"][0][-1] is None
    known = replace(tiny, name="some_cpu", fallback=Roofline(1e12, 4.096e6, 0.5))
    told = facts(html.page([prediction], [known]))["predictions"][0]["unfused"][0]
    assert told[3:5] == [0, 1]
    assert told[5] == pytest.approx(1.5)  # 4096 bytes at 4.096 MB/s, and half a millisecond for the call
