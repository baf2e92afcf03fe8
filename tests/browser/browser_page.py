"""The page in a browser, and the server behind it, as tests see them."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

__all__ = ["Kept", "Page", "Served", "serving", "started"]

PATIENCE_S = 20


class Kept:
    """ASGI middleware that keeps the last body sent to each path."""

    def __init__(self, app: Any) -> None:
        self.app, self.bodies = app, dict[str, bytes]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass all on."""
        if scope["type"] == "http":
            self.bodies[scope["path"]] = b""

        async def kept() -> Any:
            message = await receive()
            if message["type"] == "http.request":
                self.bodies[scope["path"]] += message.get("body", b"")
            return message

        await self.app(scope, kept if scope["type"] == "http" else receive, send)


class Served:
    """A server at a free port of loopback, in a thread."""

    def __init__(self, address: str, kept: Kept) -> None:
        self.address, self._kept = address, kept

    def sent(self, path: str) -> bytes:
        """The last body that came for a path."""
        return self._kept.bodies[path]


@contextmanager
def serving(app: Any) -> Iterator[Served]:
    """Serve an application until the block ends."""
    kept = Kept(app)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(kept, log_config=None, access_log=False, ws="none", lifespan="on"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        assert server.started
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}/", kept)
        server.should_exit = True
        thread.join(PATIENCE_S)


def started(chromium: str, chromedriver: str, microphone: Path) -> webdriver.Chrome:
    """Headless Chromium whose microphone is a WAV file, over and over."""
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
        "--window-size=1200,900", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(chromedriver))


class Page:
    """What a person does and sees."""

    def __init__(self, driver: webdriver.Chrome, address: str) -> None:
        self.driver, self.address = driver, address

    def open(self, width: int = 1200, *, touch: bool = False) -> Page:
        """Load it anew, with nothing kept from before."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": touch}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(self.address)
        self.driver.execute_script("sessionStorage.clear()")
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(self.address)
        return self

    def ready(self) -> Page:
        """Wait for the models."""
        self.wait(lambda: self["about"].is_displayed())
        return self

    def __getitem__(self, id_: str) -> WebElement:
        return self.driver.find_element(By.ID, id_)

    def all(self, selector: str) -> list[WebElement]:
        """Elements by selector of CSS."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """The only one."""
        (found,) = self.all(selector)
        return found

    def run(self, script: str, *arguments: object) -> Any:
        """What a script returns; a promise is waited for."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, true: Callable[[], Any], seconds: float = PATIENCE_S) -> None:
        """Wait until something is true."""
        WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(lambda _: true())

    @property
    def state(self) -> str:
        """Of the page: answered, problem, recording ..."""
        return str(self.run("return document.body.dataset.state ?? ''"))

    def answered(self) -> Page:
        """Wait for an answer."""
        self.wait(lambda: self.state in ("answered", "problem"))
        assert self.state == "answered", self["problem"].text
        return self

    def refused(self) -> list[str]:
        """Wait for a problem; its lines."""
        self.wait(lambda: self.state in ("answered", "problem"))
        assert self.state == "problem"
        return self["problem"].text.splitlines()

    def choose(self, model: str) -> None:
        """A model by name, of either modality."""
        for kind in ("audio", "text"):
            self.show(kind)
            if model in [option.text for option in Select(self["model"]).options]:
                Select(self["model"]).select_by_visible_text(model)
                return
        raise AssertionError(f"no model {model}")

    def show(self, modality: str) -> None:
        """Voice or text."""
        self.run("arguments[0].click()", self.one(f"input[name=modality][value={modality}]"))

    def upload(self, path: Path) -> None:
        """Choose a file."""
        self["file"].send_keys(str(path))

    def ask(self, text: str) -> None:
        """Type a text and send it."""
        self.show("text")
        self["text"].clear()
        self["text"].send_keys(text)
        self["send"].click()

    def record(self, seconds: float) -> None:
        """Press record, wait until so much was recorded, press again."""
        self["record"].click()
        self.wait(lambda: self.state == "recording")
        time.sleep(seconds)
        self["record"].click()

    def press(self, *keys: str) -> None:
        """Keys for whatever has the focus."""
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def tab_to(self, element: WebElement) -> None:
        """Press Tab until an element has the focus."""
        for _ in range(60):
            if self.driver.switch_to.active_element == element:
                return
            self.press(Keys.TAB)
        raise AssertionError("Tab does not lead there")

    def shares(self, task: str = "") -> dict[str, tuple[float, str]]:
        """By label the probability as sent and as printed; of the only task, or of one by name."""
        bars = """
          const row = (li) => [".name", "data"].map((part) => li.querySelector(part));
          const read = ([name, data]) => [name.firstChild.data, data.value, data.textContent];
          const of = (answer) => [...answer.querySelectorAll(".bars li")].map((li) => read(row(li)));
          return [...document.querySelectorAll(".answer")].map((answer) => [answer.dataset.task, of(answer)]);
        """
        found = {name: {label: (float(value), shown) for label, value, shown in rows} for name, rows in self.run(bars)}
        if task:
            return found[task]
        (only,) = found.values()
        return only

    def problems(self) -> list[str]:
        """What the browser complains of: violations of the policy and errors of scripts among it."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[str]:
        """Addresses of all requests since the page was opened."""
        events = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    @property
    def overflow(self) -> int:
        """By how many pixels the page is wider than the screen."""
        return int(self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth"))
