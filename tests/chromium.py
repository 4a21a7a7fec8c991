"""A page in headless Chromium, over the pipe of its debugging protocol."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


class Tab:
    """One tab. What it complains about, from scripts to its security policy, is in `errors`."""

    def __init__(self, reads, writes):
        self._reads, self._writes, self._number, self._session = reads, writes, 0, None
        self._rest = b""
        self.errors = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, page, width, dark=False):
        """Show a file in a window of a width, in light or dark."""
        self.errors = []
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=Path(page).resolve().as_uri())
        self._until("Page.loadEventFired")

    def evaluate(self, expression):
        """The value of an expression, awaited where it is a promise."""
        found = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def screenshot(self, file):
        """Keep a picture of the whole page."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        Path(file).write_bytes(base64.b64decode(found["data"]))

    def call(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._writes.write(json.dumps(message).encode() + b"\0")
        self._writes.flush()
        while True:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, found["error"]
                return found["result"]

    def _until(self, event):
        while self._next().get("method") != event:
            pass

    def _next(self):
        # Messages end in a zero byte, and some are as long as a page with its pictures.
        parts = []
        while b"\0" not in self._rest:
            parts.append(self._rest)
            self._rest = self._reads.read1(1 << 16)
            assert self._rest, "Chromium ended."
        end, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(b"".join([*parts, end]))
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(params["exceptionDetails"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.errors.append(params["args"])
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.errors.append(params["entry"])
        return message


@contextlib.contextmanager
def chromium(profile):
    """A tab of a Chromium of its own, whose profile stands in a folder."""
    from_us, to_us = os.pipe(), os.pipe()
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *(f"--user-data-dir={profile}", "--remote-debugging-pipe", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update"),
    ]
    redirected = f'exec "$@" 3<&{from_us[0]} 4>&{to_us[1]}'
    process = subprocess.Popen(
        ["bash", "-c", redirected, "bash", *command],
        pass_fds=(from_us[0], to_us[1]),
        stderr=subprocess.DEVNULL,
    )
    os.close(from_us[0])
    os.close(to_us[1])
    with os.fdopen(to_us[0], "rb") as reads, os.fdopen(from_us[1], "wb") as writes:
        try:
            yield Tab(reads, writes)
        finally:
            process.kill()
            process.wait()
