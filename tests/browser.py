"""A real Chromium without a window, for the tests of pages."""

import base64
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium with its chromedriver here (Debian: chromium, chromium-driver)"
)
OPTIONS = [
    f"--{option}"
    for option in (
        *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
        *("disable-background-networking", "disable-component-update", "force-prefers-reduced-motion"),
    )
]


@contextmanager
def chromium():
    """A driver of it, with a profile of its own, which is gone afterwards."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for option in (*OPTIONS, f"--user-data-dir={profile}"):
            options.add_argument(option)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        try:
            yield driver
        finally:
            driver.quit()


def look(driver, *, width=1280, height=900, scheme="light"):
    """Set the size of the window and the colour scheme that the reader prefers."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )


def keep(driver, folder, name):
    """Take a picture of the whole page: into the test's folder, or where PAGE_PICTURES says."""
    folder = Path(os.environ.get("PAGE_PICTURES") or folder)
    folder.mkdir(parents=True, exist_ok=True)
    shown = "for (const part of document.querySelectorAll('section')) part.style.contentVisibility = 'visible'; "
    height = driver.execute_script(shown + "return Math.min(document.documentElement.scrollHeight, 6000)")
    width = driver.execute_script("return document.documentElement.clientWidth")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    path = folder / f"{name}.png"
    path.write_bytes(base64.b64decode(taken["data"]))
    return path


def complaints(driver):
    """What the browser's console holds: errors, and whatever the page's policy forbade."""
    return [entry["message"] for entry in driver.get_log("browser")]
