"""Chromium without a window, driven as a person would: what is clicked is under the mouse, what is typed goes by keys.

It speaks the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/) through a pair of pipes.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waiting import LONG_S, until

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def found() -> str | None:
    """The browser's path, ``None`` where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab. ``errors`` are what its console complained of, and scripts that failed."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._number, self._rest, self._session = 0, b"", ""
        self.errors: list[str] = []
        self.saved: list[str] = []
        self._loaded = False
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> Any:
        """What the browser answers to a command of the protocol; what it tells meanwhile is noted."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": params}
        if self._session and not method.startswith(("Target.", "Browser.")):
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            told = self._told()
            if told.get("id") == self._number:
                assert "error" not in told, f"{method}: {told['error']}"
                return told["result"]
            self._note(told)

    def open(self, address: str, width: int = 1400, dark: bool = False, height: int = 900) -> None:
        """Show an address in a window of that size."""
        self.shape(width, dark, height=height)
        self._loaded = False
        self.ask("Page.navigate", url=address)
        while not self._loaded:  # until then the page before may answer
            self._note(self._told())
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def shape(self, width: int, dark: bool = False, media: str = "screen", height: int = 900) -> None:
        """The window's width, and whether the person likes it dark."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is worth there."""
        told = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until an expression is true."""
        until(lambda: self.value(expression))

    def texts(self, selector: str) -> list[str]:
        """The texts of what a selector finds, as they are shown."""
        return list(self.value(f"[...document.querySelectorAll({json.dumps(selector)})].map((each) => each.innerText)"))

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of an element, which is brought into view first and must be on top there."""
        find = f"document.querySelector({json.dumps(selector)})"
        x, y, top = self.value(
            f"(() => {{ const e = {find}; e.scrollIntoView({{ block: 'center', inline: 'center' }});"
            "const b = e.getBoundingClientRect(); const x = b.x + b.width / 2; const y = b.y + b.height / 2;"
            "const top = document.elementFromPoint(x, y); return [x, y, e === top || e.contains(top)]; })()"
        )
        assert top, f"something else lies over {selector}"
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector: str, text: str) -> None:
        """Put ``text`` into a field, in place of what it held."""
        self.click(selector)
        self.value(f"document.querySelector({json.dumps(selector)}).select()")
        if text:
            self.ask("Input.insertText", text=text)
            return
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key="Delete", code="Delete", windowsVirtualKeyCode=46)

    def choose(self, selector: str, value: str) -> None:
        """Choose an option; the list itself is the system's and cannot be clicked."""
        self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.value = {json.dumps(value)};"
            "e.dispatchEvent(new Event('change', { bubbles: true })); })()"
        )

    def downloads(self, folder: Path) -> None:
        """Where files go that the page saves; ``saved`` tells of them when they are whole."""
        self.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True)

    def await_download(self) -> None:
        """Until a file is whole."""
        until(lambda: self.value("1") and self.saved)

    def picture(self, path: Path) -> None:
        """Save what is seen, as WebP."""
        told = self.ask("Page.captureScreenshot", format="webp", quality=70)
        path.write_bytes(base64.b64decode(told["data"]))

    def _told(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._answers], [], [], LONG_S)[0], "the browser says nothing"
            more = os.read(self._answers, 1 << 20)
            assert more, "the browser has ended"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        told: dict[str, Any] = json.loads(line)
        return told

    def _note(self, told: dict[str, Any]) -> None:
        params = told.get("params", {})
        match told.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.errors.append(json.dumps(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.errors.append(json.dumps(params["entry"]))
            case "Page.loadEventFired":
                self._loaded = True
            case "Browser.downloadProgress" if params["state"] == "completed":
                self.saved.append(params["guid"])


@contextmanager
def opened(profile: Path) -> Iterator[Page]:
    """A browser with one page, whose own files lie in the folder ``profile``; ended at the end."""
    path = found()
    assert path is not None, "there is no Chromium here"
    theirs_in, commands = os.pipe()
    answers, theirs_out = os.pipe()
    # it reads from 3 and writes to 4; numbers far from these, so that neither is put over the other
    high_in, high_out = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in (theirs_in, theirs_out))
    options = [
        "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run", "--disable-gpu",
        "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb",
    ]  # fmt: skip
    with (profile.parent / "chromium.log").open("wb") as log:
        browser = subprocess.Popen(
            [path, *options],
            preexec_fn=lambda: (os.dup2(high_in, 3), os.dup2(high_out, 4)),
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    for end in (theirs_in, theirs_out, high_in, high_out):
        os.close(end)
    try:
        page = Page(commands, answers)
        yield page
        page.ask("Browser.close")
    finally:
        for end in (commands, answers):
            os.close(end)
        try:
            browser.wait(20)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()
