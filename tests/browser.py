"""A person at a browser: opens a page, presses what it names, reads what it shows."""

import os
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TypeVar

from PIL import Image
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
)
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

# Debian's name, Ubuntu's and Google's own. The driver must be of the browser's version.
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")

# Seconds until a page must show what it should, on a machine that does other things, too.
PATIENCE = 60

# A page may draw anew, or move, what is being looked at or pressed: that is looked for again.
_PASSING = (ElementClickInterceptedException, ElementNotInteractableException, StaleElementReferenceException)

_FLAGS = (
    "--headless",
    "--no-sandbox",  # which the browser needs of root
    "--disable-dev-shm-usage",  # a container's /dev/shm is small
    "--disable-gpu",
    "--hide-scrollbars",
    # Nothing of its own on the network.
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A camera that shows a test pattern, and leave to use it.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    # A mouse, as a person has: without one the charts' tool bars lie over the lines.
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
)

# The row of a table as it is seen: each text to the right of an element's first line at its height, from left to right.
# Not at the whole element's: a long name is broken into two lines, and the values stand beside the first.
_READ_ROW = """
const [heading, table] = arguments, {top, bottom, right} = heading.getClientRects()[0], middle = (top + bottom) / 2;
return [...table.querySelectorAll("*")]
  .filter((element) => !element.children.length && element.textContent.trim())
  .map((element) => ({rect: element.getBoundingClientRect(), text: element.textContent.trim()}))
  .filter(({rect}) => rect.top <= middle && middle <= rect.bottom && rect.left >= right)
  .sort((one, other) => one.rect.left - other.rect.left)
  .map(({text}) => text);
"""

# MLflow draws each run's line twice: smoothed, and faintly as it was measured.
_LIST_LINES = """
const list = (chart) => [...chart.querySelectorAll(".js-line")].filter((line) => +line.style.strokeOpacity === 1);
return arguments[0].map((chart) => list(chart).map((line) => line.style.stroke));
"""

# Half a box further, from the end to the top again, then a pixel: the column of names in MLflow's table follows each
# movement only at the next one, and would stand beside other rows' values.
_SCROLL = """
const [box, finish] = arguments, settle = (then) => requestAnimationFrame(() => requestAnimationFrame(then));
const end = box.scrollHeight - box.clientHeight;
box.scrollTop = box.scrollTop < end - 1 ? box.scrollTop + box.clientHeight / 2 : 0;
settle(() => {
  box.scrollTop += box.scrollTop < end ? 1 : -1;
  settle(finish);
});
"""

Seen = TypeVar("Seen")


def _find_text(text: str) -> str:
    """The XPath of the innermost element that says exactly this."""
    return f'//*[normalize-space()="{text}" and not(*[normalize-space()="{text}"])]'


class Browser:
    """A headless Chromium with a profile of its own, which shows one page."""

    def __init__(self, folder: Path, pictures_dir: Path | None = None) -> None:
        """`folder` takes its profile and charts of failures; `pictures_dir` the charts for people, if any."""
        options = ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*_FLAGS, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(flag)
        # A driver that is named keeps Selenium from looking for one on the network.
        self.driver = Chrome(options=options, service=Service(CHROMEDRIVER, env={**os.environ, "HOME": str(folder)}))
        self.folder = folder
        self.pictures_dir = pictures_dir
        self.resize(1400, 1000)

    def close(self) -> None:
        """End the browser and its driver."""
        self.driver.quit()

    def resize(self, width: int, height: int) -> None:
        """Make the page this large, in pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def open(self, address: str) -> None:
        """Load a page anew, also where only what follows the # differs."""
        self.driver.get("about:blank")
        self.driver.get(address)

    def wait(self, look: Callable[[], Seen], what: str) -> Seen:
        """What `look` finds, as soon as that is something."""
        waiting = WebDriverWait(self.driver, PATIENCE, 0.2, ignored_exceptions=_PASSING)
        return waiting.until(lambda _: look(), f"not seen within {PATIENCE} s: {what}")

    def find_all(self, xpath: str) -> list[WebElement]:
        """The elements that can be seen now."""
        return [element for element in self.driver.find_elements(By.XPATH, xpath) if element.is_displayed()]

    def see(self, xpath: str) -> WebElement:
        """The first element that can be seen, as soon as there is one."""
        return self.wait(lambda: next(iter(self.find_all(xpath)), None), xpath)

    def see_text(self, text: str) -> WebElement:
        """The element that says exactly this."""
        return self.see(_find_text(text))

    def read_all(self, xpath: str) -> list[str]:
        """The texts of the elements that can be seen, as soon as there are any."""
        return self.wait(lambda: [element.text for element in self.find_all(xpath)], xpath)

    def press(self, name: str) -> None:
        """Press the button or the link of this name, once it can be pressed."""
        named = f'[normalize-space()="{name}" or @aria-label="{name}"]'
        self.press_at(f"//button{named} | //a{named} | //*[@role='button' or @role='tab']{named}")

    def press_at(self, xpath: str) -> None:
        """The same, for what has no name to be seen."""

        def press() -> bool:
            element = next((found for found in self.find_all(xpath) if found.is_enabled()), None)
            if element:
                element.click()
            return element is not None

        self.wait(press, xpath)

    def press_text(self, text: str) -> None:
        """The same, for what is neither a button nor a link."""
        self.press_at(_find_text(text))

    def type_at(self, xpath: str, text: str) -> None:
        """Type into the first field that can be seen."""
        self.wait(lambda: [field.send_keys(text) for field in self.find_all(xpath)[:1]], xpath)

    def scroll_to(self, xpath: str) -> None:
        """Move the page until an element is at its top."""
        self.driver.execute_script("arguments[0].scrollIntoView()", self.see(xpath))

    def scroll_within(self, box: str, xpath: str) -> None:
        """Scroll a box, which holds only the rows in sight, until it has an element and can show it."""
        self.scroll_to(box)

        def look() -> bool:
            is_seen = bool(self.find_all(xpath))
            if not is_seen:
                self.driver.execute_async_script(_SCROLL, self.see(box))
            return is_seen

        self.wait(look, xpath)

    def list_lines(self) -> list[list[str]]:
        """The colour of each line, by chart."""
        charts = self.find_all("//*[contains(@class, 'js-plotly-plot')]")
        return self.driver.execute_script(_LIST_LINES, charts)

    def read_row(self, heading: str, table: str) -> list[str]:
        """The texts to the right of a heading in the row of a table, as soon as there are any."""
        return self.wait(
            lambda: self.driver.execute_script(_READ_ROW, self.see(heading), self.see(table)), f"row of {heading}"
        )

    def take_failure(self, name: str) -> Path:
        """A chart of the page as it is now, for whoever looks into a failed test."""
        path = self.folder / f"{name}.png"
        self.driver.save_screenshot(str(path))
        return path

    def take_picture(self, name: str) -> None:
        """A chart of the page for people, where they asked for charts; 256 colours, for it lies in git."""
        if self.pictures_dir:
            self.pictures_dir.mkdir(parents=True, exist_ok=True)
            picture = Image.open(BytesIO(self.driver.get_screenshot_as_png())).convert("RGB").quantize()
            picture.save(self.pictures_dir / f"{name}.png", optimize=True)
