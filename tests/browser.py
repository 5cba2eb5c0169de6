"""Debian's chromium, driven by selenium: found, installed where this process may do so, or named as missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def chromium() -> str:
    """Path of chromium, with chromedriver beside it; on Debian as root it is installed where it is missing. Skips the
    test, by name, where it cannot be had."""
    if not _both_here() and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for line in (
            ["apt-get", "update"],
            ["apt-get", "install", "-y", "--no-install-recommends", "chromium", "chromium-driver"],
        ):
            subprocess.run(line, env=environment, capture_output=True, check=False, timeout=600)
    if not _both_here():
        pytest.skip("chromium and chromedriver are not here and could not be installed (apt-get install chromium)")
    found = shutil.which("chromium")
    assert found
    return found


def _both_here() -> bool:
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


@contextmanager
def browser(downloads: Path, width: int = 1300, height: int = 900) -> Iterator[Any]:
    """A headless browser that keeps its log and saves downloads into a folder."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--lang=en"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={width},{height}")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.set_script_timeout(60)
        yield driver
    finally:
        driver.quit()
