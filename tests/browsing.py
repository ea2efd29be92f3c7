"""Pages as tests see them: their text and tags, and what a browser makes of them."""

import os
import re
import shutil
from html.parser import HTMLParser

import pytest
from selenium import webdriver


class Reader(HTMLParser):
    """Collects what a page holds and what it asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "srcset", "action", "data", "poster"):
                self.references.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.text += data


def chromium() -> webdriver.Chrome:
    """A browser without a window. Skips the test if there is none, but in CI fails it."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        reason = "needs chromium and chromedriver (Debian: apt-get install chromium-driver)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "--headless=new",
        "--no-sandbox",  # which root in a container has none of
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--hide-scrollbars",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def visit(browser: webdriver.Chrome, url: str, width: int, scheme: str) -> None:
    browser.get_log("browser"), browser.get_log("performance")
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(url)


def requests(browser: webdriver.Chrome) -> list[str]:
    """What the page asked for, itself included."""
    return re.findall(
        r'"Network\.requestWillBeSent".*?"request":\{.*?"url":"(.*?)"',
        " ".join(entry["message"] for entry in browser.get_log("performance")),
    )
