"""The page in a real browser: what the server sends is on the screen to the bit, what a hand does arrives."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import uvicorn
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from scd_world.play.config import PlayConfig
from scd_world.play.pictures import from_png
from scd_world.play.play import listen
from scd_world.play.server import PlayServer

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no browser: apt-get install chromium chromium-driver"
    ),
]
READ_CANVAS = """
const canvas = document.querySelectorAll("canvas")[arguments[0]];
const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
return [canvas.height, canvas.width, ...data];
"""


@pytest.fixture
def server(world, shelf) -> PlayServer:
    settings = {"horizon": 1000, "success_threshold": 1.0}
    return PlayServer(world, "a/world", settings, shelf, recording=True)


@pytest.fixture
def address(server) -> Iterator[str]:
    listening = listen(PlayConfig(world="w", port=0))
    running = uvicorn.Server(uvicorn.Config(server.app(), log_level="warning"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    running.should_exit = True
    thread.join(10)


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = CHROMIUM
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def canvas(browser: webdriver.Chrome, index: int) -> np.ndarray:
    height, width, *data = browser.execute_script(READ_CANVAS, index)
    return np.array(data, np.uint8).reshape(height, width, 4)[..., :3]


def wait_until(browser: webdriver.Chrome, condition: Callable[[], object], seconds: float = 10) -> None:
    WebDriverWait(browser, seconds, poll_frequency=0.05).until(lambda _: condition())


def test_a_person_drives_in_a_browser(server, address, browser, shelf):
    def click(name: str) -> None:
        browser.find_element(By.ID, name).click()

    def text(name: str) -> str:
        return browser.find_element(By.ID, name).text

    browser.get(address)
    wait_until(browser, lambda: "step 0" in text("clock"))
    (player,) = server.players.values()
    session = player.session

    def as_sent() -> bool:
        sent = [from_png(picture) for picture in session.moment.pictures]
        return all(np.array_equal(canvas(browser, i), picture) for i, picture in enumerate(sent))

    wait_until(browser, as_sent)
    click("one")
    wait_until(browser, lambda: "step 1" in text("clock"))
    wait_until(browser, as_sent)

    # the pointer: the whole picture is the range of two numbers, and pressing begins to play
    Select(browser.find_element(By.ID, "speed")).select_by_visible_text("fastest")
    picture = browser.find_elements(By.CSS_SELECTOR, ".picture")[0]
    quarter = picture.size["width"] // 4, picture.size["height"] // 4
    ActionChains(browser).move_to_element_with_offset(picture, *quarter).click_and_hold().perform()
    wait_until(browser, lambda: len(session.tape) > 5)
    assert session.moment.action == pytest.approx([0.5, -0.5], abs=0.05)
    ActionChains(browser).move_to_element_with_offset(picture, -quarter[0], 0).perform()
    wait_until(browser, lambda: np.allclose(session.moment.action, [-0.5, 0], atol=0.05))
    ActionChains(browser).release().perform()
    wait_until(browser, lambda: np.array_equal(session.moment.action, [0, 0]))  # no position: back to rest
    assert "ms" in text("latency")

    # keys, and no key that is lost while it is held
    ActionChains(browser).key_down("d").perform()  # no third number to move
    ActionChains(browser).key_down("\ue014").perform()
    wait_until(browser, lambda: np.array_equal(session.moment.action, [1, 0]))
    ActionChains(browser).key_up("\ue014").key_up("d").perform()
    wait_until(browser, lambda: np.array_equal(session.moment.action, [0, 0]))
    ActionChains(browser).send_keys(" ").perform()
    wait_until(browser, lambda: text("play") == "Play")
    played = len(session.tape)
    ActionChains(browser).send_keys("b").perform()
    wait_until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#saves button"))

    # another start by its thumbnail: what was played is kept
    browser.execute_script("document.querySelector('#starts button[data-episode=\"5\"]').click()")
    wait_until(browser, lambda: session.tape.address.episode == 5 and "step 0" in text("clock"))
    assert [len(tape) for tape in shelf.taken] == [played]
    wait_until(browser, as_sent)

    # a reload in the middle finds the same episode again
    click("one")
    wait_until(browser, lambda: "step 1" in text("clock"))
    browser.refresh()
    wait_until(browser, lambda: "step 1" in text("clock"))
    assert list(server.players.values()) == [player]
    assert browser.find_elements(By.CSS_SELECTOR, "#saves button")
    wait_until(browser, as_sent)

    # a telephone: nothing lies beside the screen
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    time.sleep(0.2)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    wrong = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert wrong == []
