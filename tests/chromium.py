"""A headless Chromium that is driven as a person would, where this machine has one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest

DRIVER = shutil.which("chromedriver")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def start_browser(width: int = 1440, height: int = 900) -> Any:
    """A selenium driver, or a skip that says what is not there."""
    if DRIVER is None or CHROMIUM is None:
        pytest.skip("no Chromium and chromedriver on this machine")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage",
                 "disable-background-networking", "no-first-run",
                 f"window-size={width},{height}"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    return webdriver.Chrome(options=options, service=service)


def wait_for(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `what` returns, as soon as it is true; its last value after a time."""
    end = time.monotonic() + seconds
    while not (got := what()) and time.monotonic() < end:
        time.sleep(0.02)
    return got


def type_keys(browser: Any, keys: str) -> None:
    """Into what has the focus, as soon as it lasts: a page may put another in its place."""
    from selenium.common.exceptions import (
        ElementNotInteractableException,
        StaleElementReferenceException,
    )

    def is_typed() -> bool:
        try:
            browser.switch_to.active_element.send_keys(keys)
        except (ElementNotInteractableException, StaleElementReferenceException):
            return False
        return True

    assert wait_for(is_typed)
