"""The page on files of others says what the table of limits says."""

from __future__ import annotations

import re
from pathlib import Path

from nn_meter import limits

PAGE = Path(__file__).parents[1] / "docs" / "hardening.md"


def test_the_page_says_every_limit_and_no_other() -> None:
    told = dict(re.findall(r"^\| ([a-z][^|]*) \| ([0-9,]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    stated = {each.what: f"{each.most:,}" for each in vars(limits).values() if isinstance(each, limits.Limit)}
    assert told == stated
    text = PAGE.read_text(encoding="utf-8")
    assert f"{limits.UNPACKED_RATIO} times its size ({limits.UNPACKED_SMALL_BYTES >> 20} MiB are never" in text
    assert f"{limits.DOWNLOAD_BYTES_PER_S // 1024} kB a second" in text
