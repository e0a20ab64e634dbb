"""Measures the page of `scd-play` in a headless browser: frames per second, and from the hand to the picture.

    python recipes/play/measure_page.py scd_world/PushT-v0 [picture.png]

The page gets what a hand would send it: a pointer that drags over the picture in circles, 60 times a second
(from within the page: a driver outside would take more of the machine than what is measured). Rates are what
the page itself shows, so they hold from the pointer's event over the model's step to the drawn picture. With
a second argument, it lets the scripted pusher act, and keeps the page as a picture. Needs chromium and
chromedriver.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

SCD_PLAY = "import sys; sys.argv[0] = 'scd-play'; from scd_world.cli.commands import play; play()"
SECONDS = 10.0  # of each measurement, the first third of it to warm up
DRAG = """
const picture = document.querySelector(".picture"), box = picture.getBoundingClientRect();
const event = (kind, angle) => new PointerEvent(kind, {
  bubbles: true, pointerId: 1, isPrimary: true,
  clientX: box.left + box.width * (0.5 + 0.25 * Math.cos(angle)),
  clientY: box.top + box.height * (0.5 + 0.25 * Math.sin(angle)),
});
picture.dispatchEvent(event("pointerdown", 0));
const moving = setInterval(() => picture.dispatchEvent(event("pointermove", performance.now() / 500)), 16);
window.letGo = () => { clearInterval(moving); picture.dispatchEvent(event("pointerup", 0)); };
"""


@contextmanager
def served(*settings: str) -> Iterator[str]:
    """Runs scd-play; gives its address."""
    command = [sys.executable, "-c", SCD_PLAY, "port=0", *settings]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield re.findall(r"http://\S+", process.stdout.readline())[0]
    finally:
        process.terminate()
        process.wait()


@contextmanager
def browser(width: int = 1280, height: int = 1210) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--hide-scrollbars", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium") or ""
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def measure(driver: webdriver.Chrome, seconds: float) -> tuple[float, float]:
    """Drags over the picture; gives frames per second and milliseconds from hand to picture, medians."""
    driver.execute_script(DRAG)
    rates, latencies = [], []
    began = time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        time.sleep(0.5)
        if passed > seconds / 3:
            for name, found in (("pace", rates), ("latency", latencies)):
                text = driver.find_element(By.ID, name).text
                found += [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)[:1]]
    driver.execute_script("window.letGo()")
    return statistics.median(rates), statistics.median(latencies)


def main(world: str, picture: str | None = None) -> None:
    with served(f"world={world}", "policy=scripted_pusht" if picture else "policy=random_walk") as address:
        with browser() as driver:
            driver.get(address)
            driver.implicitly_wait(5)
            driver.find_element(By.CSS_SELECTOR, ".picture canvas")
            time.sleep(1)
            has_simulator = driver.find_element(By.ID, "compare").is_enabled()
            for beside in (True, False) if has_simulator else (False,):
                if driver.find_element(By.ID, "compare").is_selected() != beside:
                    driver.find_element(By.ID, "compare").click()
                for speed in ("1 ×", "fastest"):
                    Select(driver.find_element(By.ID, "speed")).select_by_visible_text(speed)
                    rate, latency = measure(driver, SECONDS)
                    print(
                        f"{world}, simulator {'beside it' if beside else 'off'}, speed {speed}: "
                        f"{rate:.1f} frames/s, hand to picture {latency:.0f} ms",
                        flush=True,
                    )
                    driver.find_element(By.ID, "again").click()
        if picture:
            with browser() as driver:
                keep_picture(driver, address, picture)


def keep_picture(driver: webdriver.Chrome, address: str, file: str) -> None:
    """Lets the policy push for a while, makes a save point on the way, and takes the page's picture."""
    driver.get(address)
    driver.implicitly_wait(5)
    driver.find_element(By.CSS_SELECTOR, ".picture canvas")
    for name, until in (("by-policy", 0), ("play", 40), ("bookmark", 56), ("bookmark", 64)):
        driver.find_element(By.ID, name).click()
        while int(driver.find_element(By.ID, "clock").text.split()[-1]) < until:
            time.sleep(0.05)
    driver.save_screenshot(file)


if __name__ == "__main__":
    main(*sys.argv[1:])
