"""Take the picture of README.md: two parts of a report, side by side, as a page of their own in Chromium.

python artifacts/reports/readme-picture/take.py RUN/report.html docs/images/report.png
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

WIDTH, HEIGHT, SCALE = 1360, 1500, 1.3
# Left what stands before "Confusion", without its figures; right that section as far as its first figure.
LAYOUT = """
<style>
body { max-width: none; width: 1360px; margin: 0; padding: 1rem; display: grid; gap: 2rem;
  grid-template-columns: 5fr 6fr; font-size: 14px; }
h2 { margin-top: 1.4rem; }
.right h2 { margin-top: .5rem; }
.left figure, .right figure ~ * { display: none; }
</style>
"""


def main(page: Path, target: Path) -> None:
    """Rearrange the page, let the browser draw it, cut what is empty below."""
    text = page.read_text(encoding="utf-8")
    head, body = text.split("<body>", 1)
    top = body[: body.index("<main>")]
    sections = re.findall(r"<section.*?</section>", body, re.DOTALL)
    confusion = next(section for section in sections if "<h2>Confusion</h2>" in section)
    before = body[body.index("<main>") + len("<main>") : body.index(confusion)]
    head = head.replace("</head>", LAYOUT + "</head>")
    arranged = f"{head}<body><div class=left>{top}{before}</div><div class=right>{confusion}</div>"
    with tempfile.TemporaryDirectory() as folder:
        file, shot = Path(folder) / "page.html", Path(folder) / "shot.png"
        file.write_text(arranged, encoding="utf-8")
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--screenshot={shot}"]
        size = [f"--window-size={WIDTH},{HEIGHT}", f"--force-device-scale-factor={SCALE}"]
        subprocess.run([str(shutil.which("chromium")), *flags, *size, file.as_uri()], check=True)
        drawn = Image.open(shot).convert("RGB")
    paper = Image.new("RGB", drawn.size, drawn.getpixel((2, 2)))
    used = ImageChops.difference(drawn, paper).getbbox()
    drawn.crop((0, 0, drawn.width, min(drawn.height, used[3] + 16))).quantize(128).save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
