"""Headless Chromium driven through its debugging pipe, with the standard library alone."""

import base64
import json
import os
import shlex
import shutil
import subprocess

import pytest


PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
KEYS = {"Tab": 9, "Enter": 13, "ArrowDown": 40, "End": 35}


class Browser:
    """
    One page in a browser of its own.

    Args:
        profile (`Path`):
            Folder for the browser's own files.
        width (`int`), height (`int`):
            Of the window, in CSS pixels.
        dark (`bool`):
            What the page is told that the reader prefers.
    """

    def __init__(self, profile, width=1280, height=900, dark=False):
        if PROGRAM is None:
            pytest.skip("no chromium is installed (Debian: apt-get install chromium)")
        (read, self._to), (self._from, write) = os.pipe(), os.pipe()
        command = [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        command += [f"--user-data-dir={profile}", "--hide-scrollbars", "--remote-debugging-pipe", "about:blank"]
        # The browser reads commands from file descriptor 3 and answers on 4.
        line = f"exec {shlex.join(command)} 3<&{read} 4>&{write}"
        self._process = subprocess.Popen(
            ["bash", "-c", line], pass_fds=(read, write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(read)
        os.close(write)
        self._number, self._rest, self._session = 0, b"", None
        (target,) = [x for x in self.call("Target.getTargets")["targetInfos"] if x["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.media("dark" if dark else "light")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def call(self, method, **parameters):
        """Send a command of the protocol and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self):
        while b"\0" not in self._rest:
            chunk = os.read(self._from, 1 << 16)
            assert chunk, "the browser has ended"
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def media(self, scheme, kind="screen"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=kind, features=features)

    def open(self, path):
        self.call("Page.navigate", url=path.as_uri())
        while self.run("document.readyState") != "complete" or self.run("location.protocol") != "file:":
            pass
        return self

    def run(self, script):
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key, shift=False):
        code = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": 8 if shift else 0}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def picture(self, path, selector=None, height=None):
        """Save what an element, or the window, looks like."""
        clip = {}
        if selector:
            script = "(e => {const r = e.getBoundingClientRect(); return [0, r.y + scrollY, innerWidth, r.height]})"
            x, y, w, h = self.run(f"{script}(document.querySelector({json.dumps(selector)}))")
            box = {"x": x, "y": y, "width": w, "height": min(h, height or h), "scale": 1}
            clip = {"clip": box, "captureBeyondViewport": True}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **clip)["data"]))

    def print(self, path):
        self.media("light", "print")
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"]))
