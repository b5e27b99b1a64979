"""Headless Chromium by its own protocol over a pipe: no driver, no library, no port.

`--remote-debugging-pipe` reads JSON messages that end in NUL on descriptor 3 and writes them on 4.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BINARY = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",  # it has none as root; the pages are our own
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
PATIENCE = 60.0
"""Seconds that one answer may take."""


class Chromium:
    """A browser that runs; pages are opened in it one after the other."""

    def __init__(self, write: int, read: int) -> None:
        """Speak over these two descriptors."""
        self._write, self._read = write, read
        self._held = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str = "", **arguments: Any) -> dict[str, Any]:
        """Ask, and wait for the answer; events that come before it are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": arguments}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(PATIENCE)
            if answer is None:
                raise TimeoutError(f"{method}: no answer in {PATIENCE:.0f} s")
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def settle(self, seconds: float = 0.2) -> None:
        """Keep the events that come until none has come for a while."""
        while (event := self._next(seconds)) is not None:
            self.events.append(event)

    def wait(self, method: str) -> None:
        """Keep events until one of this name has come."""
        until = time.monotonic() + PATIENCE
        while not any(event.get("method") == method for event in self.events):
            event = self._next(until - time.monotonic())
            if event is None:
                raise TimeoutError(f"{method}: it did not come in {PATIENCE:.0f} s")
            self.events.append(event)

    def _next(self, seconds: float) -> dict[str, Any] | None:
        while b"\0" not in self._held:
            ready, _, _ = select.select([self._read], [], [], max(seconds, 0))
            if not ready:
                return None
            chunk = os.read(self._read, 1 << 20)
            if not chunk:
                raise EOFError("Chromium has ended")
            self._held += chunk
        message, _, self._held = self._held.partition(b"\0")
        return json.loads(message)


class Page:
    """One page in a tab of its own."""

    def __init__(
        self, browser: Chromium, url: str, *, scripts: bool = True, width: int = 1280, dark: bool = False
    ) -> None:
        """Open the address, and wait until the page is loaded."""
        self.browser = browser
        self.browser.events.clear()
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.target = target
        for domain in ("Page", "Runtime", "Network", "Log", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.look(width, dark=dark)
        self.call("Page.navigate", url=url)
        browser.wait("Page.loadEventFired")
        browser.settle()

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Ask something of this page."""
        return self.browser.call(method, self.session, **arguments)

    def look(self, width: int, *, height: int = 900, dark: bool = False, media: str = "") -> None:
        """Set the size of the window, and the colours or the medium that the reader prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def run(self, script: str) -> Any:
        """Evaluate JavaScript, as the developer's console would, and give its value."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", "exception"))
        return answer["result"].get("value")

    def shot(self, path: Path, *, whole: bool = False) -> None:
        """Save a picture of the window or of the whole page."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def pdf(self, path: Path) -> None:
        """Print the page to a file."""
        answer = self.call("Page.printToPDF", printBackground=False, paperWidth=8.27, paperHeight=11.69)
        path.write_bytes(base64.b64decode(answer["data"]))

    def seen(self, *methods: str) -> list[dict[str, Any]]:
        """Give the events of these names, since the page was opened."""
        self.browser.settle()
        return [event["params"] for event in self.browser.events if event.get("method") in methods]

    def requests(self) -> list[str]:
        """Give every address that was asked for but the page's own."""
        urls = [event["request"]["url"] for event in self.seen("Network.requestWillBeSent")]
        return urls[1:]

    def complaints(self) -> list[str]:
        """Give what the console says: errors, warnings, refusals of the policy, exceptions, dialogs."""
        return [
            json.dumps(event)
            for event in self.seen(
                "Runtime.consoleAPICalled",
                "Runtime.exceptionThrown",
                "Log.entryAdded",
                "Page.javascriptDialogOpening",
            )
        ]

    def close(self) -> None:
        """Close the tab."""
        self.browser.call("Target.closeTarget", targetId=self.target)


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Chromium]:
    """Run the browser with a profile of its own."""
    if BINARY is None:
        raise FileNotFoundError("no Chromium in PATH")
    their_read, our_write = os.pipe()
    our_read, their_write = os.pipe()
    # The shell moves them to 3 and 4; numbers of two digits cannot collide with those.
    passed = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (their_read, their_write)]
    process = subprocess.Popen(
        [
            *("bash", "-c", 'exec 3<&"$0" 4>&"$1" "${@:2}"', *map(str, passed)),
            *(BINARY, *FLAGS, f"--user-data-dir={profile}", "about:blank"),
        ],
        pass_fds=passed,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    for each in (their_read, their_write, *passed):
        os.close(each)
    try:
        yield Chromium(our_write, our_read)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(our_write)
        os.close(our_read)
