"""Take the picture of the page: light on a desk, dark on a telephone, side by side.

python artifacts/reports/page-picture/take.py docs/images/page.png
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

# Which of the demo corpus's clips is shown, under RAVDESS's names: an angry voice.
CLIP = "03-01-05-01-01-01-02.*"
DESK, TELEPHONE, HEIGHT, GAP = 1000, 340, 940, 24
PAPER = "#cfd6d4"


def clip_of(run: Path) -> Path:
    """A clip of the run's corpus."""
    (found,) = Path(json.loads((run / "config.json").read_text())["data_root"]).rglob(CLIP)
    return found


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def picture(address: str, clip: Path, width: int, scheme: str) -> Image.Image:
    """The answered page, ``width`` pixels wide."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        size = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        colours = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": colours})
        driver.get(address)
        wait = WebDriverWait(driver, 60)
        wait.until(lambda _: driver.find_element(By.ID, "about").is_displayed())
        driver.find_element(By.ID, "file").send_keys(str(clip))
        wait.until(lambda _: driver.execute_script("return document.body.dataset.state") == "answered")
        time.sleep(1)
        cut = {"x": 0, "y": 0, "width": width, "height": HEIGHT, "scale": 1}
        taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": cut})
        return Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")
    finally:
        driver.quit()


def main(target: Path) -> None:
    """Serve, take both, put them side by side."""
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    server = subprocess.Popen(
        [sys.executable, "-m", "samo_cli", "serve", "demo-voice", "demo-text", "--port", str(port)]
    )
    try:
        for _ in range(600):
            try:
                urlopen(f"{address}readyz").close()
                break
            except OSError:
                time.sleep(0.2)
        clip = clip_of(Path(os.environ.get("SAMO_ARTIFACTS", "artifacts"), "runs", "demo-voice"))
        desk = picture(address, clip, DESK, "light")
        telephone = picture(address, clip, TELEPHONE, "dark")
    finally:
        server.terminate()
        server.wait(60)
    both = Image.new("RGB", (DESK + TELEPHONE + 3 * GAP, HEIGHT + 2 * GAP), PAPER)
    both.paste(desk, (GAP, GAP))
    both.paste(telephone, (DESK + 2 * GAP, GAP))
    target.parent.mkdir(parents=True, exist_ok=True)
    both.quantize(96, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
