"""The page in headless Chromium: it answers as `samo predict` does, and is safe, usable by keys and narrow enough."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from conftest import BEFORE, HOSTILE, found

if TYPE_CHECKING:
    from browser_page import Page, Served
    from selenium.webdriver import Chrome

    from samo.prediction import ModelPredictor

pytestmark = pytest.mark.slow

CLIP = BEFORE / "clips" / "angry" / "spk0_0.flac"
LONG = BEFORE / "long.flac"
AUDIO, TEXT = "/v1/predict/audio", "/v1/predict/text"
SENTENCE = "so happy and glad today"


def assert_shown(shares: dict[str, tuple[float, str]], probabilities: dict[str, float]) -> None:
    """The page's numbers are these, the most probable first, as sent to 1e-6 and as printed to the last digit."""
    assert list(shares) == sorted(probabilities, key=lambda label: -probabilities[label])
    for label, share in probabilities.items():
        assert shares[label][0] == pytest.approx(share, abs=1e-6)
        assert shares[label][1] == f"{100 * share:.1f} %"


def sent_clip(server: Served) -> tuple[np.ndarray, int]:
    """The recording that the page sent."""
    samples, rate = soundfile.read(io.BytesIO(server.sent(AUDIO)))
    return samples, rate


def test_an_uploaded_clip_gets_the_answer_of_predict(
    page: Page, server: Served, models: dict[str, ModelPredictor], predicted: Any
) -> None:
    then = predicted(CLIP)
    page.upload(CLIP)
    page.answered()
    assert server.sent(AUDIO) == CLIP.read_bytes()
    assert page.one(".label").text == then["label"]
    assert page.one(".sure").text == f"{100 * then['probabilities'][then['label']]:.1f} % sure"
    assert_shown(page.shares(), then["probabilities"])
    assert page.one(".file .name").text == CLIP.name
    assert not page.all("#timeline button")
    # Drawn: the spectrogram has more than one colour, the waveform more than none.
    colours = """
      const { width, height } = arguments[0];
      const { data } = arguments[0].getContext("2d").getImageData(0, 0, width, height);
      return new Set(new Uint32Array(data.buffer)).size;
    """
    assert page.run(colours, page.one(".wave canvas")) > 1
    if hasattr(models["speech"], "spectrogram"):
        assert page.run(colours, page.one(".spectrogram canvas")) > 20
    assert page.problems() == []


def test_the_spectrogram_stands_upright(page: Page) -> None:
    """Of two bands the lower one is drawn below, of two frames the first on the left; loud is not quiet."""
    script = """
      const [done] = arguments;
      import("./static/spectrogram.js").then(({ spectrogramView }) => {
        // Lower band: loud, quiet; higher band: quiet, quiet.
        const values = btoa(String.fromCharCode(255, 0, 0, 0));
        const view = spectrogramView({ bands: 2, frames: 2, window_s: 3, values }, 3);
        document.querySelector("main").prepend(view);
        const canvas = view.querySelector("canvas");
        new ResizeObserver(() => requestAnimationFrame(() => {
          const ink = canvas.getContext("2d");
          const at = (x, y) => [...ink.getImageData(x, y, 1, 1).data.slice(0, 3)];
          const [right, bottom] = [canvas.width - 2, canvas.height - 2];
          done([at(1, 1), at(right, 1), at(1, bottom), at(right, bottom)]);
        })).observe(canvas);
      });
    """
    above, above_right, below, below_right = page.driver.execute_async_script(script)
    # The colours `quiet` and `loud` of the light scheme.
    assert above == above_right == below_right == [0xF3, 0xF6, 0xF5]
    assert below == [0x06, 0x30, 0x2D]


def test_a_long_recording_gets_a_time_line_that_plays(page: Page, predicted: Any) -> None:
    then = predicted(LONG)
    page.upload(LONG)
    page.answered()
    assert_shown(page.shares(), then["probabilities"])
    windows = then["timeline"]
    assert len(windows) == 24
    assert "24 windows" in page["timeline"].text
    expected = []
    for label, run in groupby(windows, key=lambda window: window["label"]):
        own = list(run)
        share = np.mean([window["probabilities"][label] for window in own])
        expected.append((label, f"{100 * share:.1f} %", own[0]["start_s"]))
    buttons = page.all("#timeline button")
    assert [(b.text.splitlines()[1], b.text.splitlines()[2]) for b in buttons] == [each[:2] for each in expected]
    assert len(page.all("#timeline .mark")) == 24
    buttons[-1].click()
    page.wait(lambda: buttons[-1].get_attribute("aria-current") == "true")
    page.wait(lambda: page.one(".play").get_attribute("aria-label") == "Pause")
    at = float(page.run("return document.querySelector('.wave input').value"))
    assert at == pytest.approx(expected[-1][2], abs=0.5)


def test_the_microphone_gets_the_answer_of_predict(
    page: Page, server: Served, models: dict[str, ModelPredictor], microphone: Path
) -> None:
    assert_heard(page, server, models["speech"], microphone, seconds=1.2)


def assert_heard(page: Page, server: Served, model: ModelPredictor, microphone: Path, seconds: float) -> None:
    """What is recorded is answered as those bytes are, and as that stretch of what the microphone hears.

    When a recording begins is nobody's to say, so the stretch is found by its sound. The browser's microphone resamples
    once (to 44.1 kHz), its steps are of 16 bits: both change probabilities by less than 0.01. On a machine that is too
    busy its sound has gaps; then it is recorded again.
    """
    import soxr

    samples, native = soundfile.read(microphone)
    for _ in range(12):
        page.record(seconds)
        page.answered()
        recorded, rate = sent_clip(server)
        assert len(recorded) > 0.5 * seconds * rate
        assert_shown(page.shares(), model.predict(recorded, sr=rate).probabilities)
        # Before the microphone's first sound there is none.
        recorded = recorded[np.flatnonzero(recorded)[0] :]
        heard = soxr.resample(samples, native, rate)
        # It plays over and over.
        stretch = alike(np.concatenate([heard, heard]), recorded)
        if np.dot(stretch, recorded) / np.linalg.norm(stretch) / np.linalg.norm(recorded) > 0.99:
            break
    else:
        raise AssertionError("what was recorded is not what the microphone heard")
    here, there = model.predict(recorded, sr=rate), model.predict(stretch, sr=rate)
    assert here.label == there.label
    for label, share in there.probabilities.items():
        assert here.probabilities[label] == pytest.approx(share, abs=0.01)


def alike(heard: np.ndarray, recorded: np.ndarray) -> np.ndarray:
    """The stretch of what was heard that is most like a recording."""
    size = 1 << (len(heard) + len(recorded) - 1).bit_length()
    likeness = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(recorded, size)))
    begin = int(np.argmax(likeness[: len(heard) - len(recorded)]))
    return heard[begin : begin + len(recorded)]


@pytest.mark.real
def test_a_real_clip_from_the_microphone(
    ravdess_root: Path, server: Served, models: dict[str, ModelPredictor], tmp_path: Path
) -> None:
    from browser_page import Page, started

    programs = found("chromium", "chromium-browser"), found("chromedriver")
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, *soundfile.read(ravdess_root / "Actor_01" / "03-01-05-02-01-01-01.wav"), subtype="PCM_16")
    driver = started(*programs, clip)
    try:
        assert_heard(Page(driver, server.address).open().ready(), server, models["speech"], clip, seconds=2.5)
    finally:
        driver.quit()


def test_a_form_that_only_the_browser_reads_is_sent_as_wav(
    page: Page, server: Served, models: dict[str, ModelPredictor]
) -> None:
    """A telephone's WebM, dropped on the page."""
    script = """
      const done = arguments[0];
      const context = new AudioContext();
      const tone = new OscillatorNode(context, { frequency: 440 });
      const out = context.createMediaStreamDestination();
      tone.connect(out);
      tone.start();
      const recorder = new MediaRecorder(out.stream, { mimeType: "audio/webm;codecs=opus" });
      recorder.ondataavailable = ({ data }) => {
        const carried = new DataTransfer();
        carried.items.add(new File([data], "memo.webm", { type: "audio/webm" }));
        const at = document.getElementById("voice");
        for (const kind of ["dragenter", "dragover", "drop"]) {
          at.dispatchEvent(new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
        }
        done();
      };
      recorder.start();
      setTimeout(() => recorder.stop(), 900);
    """
    # Browsers make no sound before somebody touches the page.
    page["voice"].click()
    page.driver.execute_async_script(script)
    page.answered()
    samples, rate = sent_clip(server)
    assert rate == 48000
    assert 0.5 < len(samples) / rate < 1.5
    pitch = np.argmax(np.abs(np.fft.rfft(samples * np.hanning(len(samples))))) * rate / len(samples)
    assert pitch == pytest.approx(440, abs=3)
    assert_shown(page.shares(), models["speech"].predict(samples, sr=rate).probabilities)
    assert page.one(".file .name").text == "memo.webm"


def test_pcm_comes_out_of_the_browser_bit_by_bit(page: Page, tmp_path: Path) -> None:
    """Decoded in the browser and encoded again, every 16-bit value is what it was."""
    script = """
      const [done] = arguments;
      const values = new Int16Array(65536).map((_, i) => i - 32768);
      const samples = Float32Array.from(values, (value) => value / 32768);
      Promise.all([import("./static/wav.js")]).then(async ([{ wavOf }]) => {
        const bytes = new Uint8Array(await wavOf(samples, 16000).arrayBuffer());
        done([...bytes]);
      });
    """
    path = tmp_path / "all.wav"
    path.write_bytes(bytes(page.driver.execute_async_script(script)))
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == 16000
    np.testing.assert_array_equal(samples, np.arange(-32768, 32768))


def test_a_file_too_large_for_the_server_is_sent_smaller(page: Page, server: Served, tmp_path: Path) -> None:
    """22 MB of noise in 57 s of stereo; at the model's 8 kHz and in mono it is 1 MB."""
    noise = np.random.default_rng(0).normal(0, 0.1, (48000 * 57, 2)).astype(np.float32)
    path = tmp_path / "large.wav"
    soundfile.write(path, noise, 48000, subtype="FLOAT")
    assert path.stat().st_size > 20e6
    page.upload(path)
    page.answered()
    samples, rate = sent_clip(server)
    assert (rate, samples.ndim) == (8000, 1)
    assert len(samples) == pytest.approx(57 * 8000, abs=2)
    assert "sent as mono sound at 8,000 Hz" in page.one("#answers .notice").text


def test_a_text_gets_the_answer_of_predict(page: Page, server: Served, predicted: Any) -> None:
    then = predicted("--text", SENTENCE, run="text")
    page.ask(SENTENCE)
    page.answered()
    assert json.loads(server.sent(TEXT)) == {"model": "text", "text": SENTENCE}
    assert set(then["tasks"]) == {"mood", "topic"}
    for task, answer in then["tasks"].items():
        assert_shown(page.shares(task), answer["probabilities"])
        assert page.one(f".answer[data-task={task}] .label").text == (", ".join(answer["labels"]) or "none")
    assert page.one(".quoted").text == SENTENCE
    # Both tasks may have several labels: every bar shows from where on its label counts.
    assert len(page.all(".bars .tick")) == 5


def test_not_sure_is_what_predict_calls_so(page: Page, predicted: Any) -> None:
    then = predicted(CLIP, run="unsure")
    assert then["abstained"]
    page.choose("unsure")
    page.upload(CLIP)
    page.answered()
    assert page.one(".label").text == "not sure"
    closest = f"Closest is {then['label']}, {100 * then['probabilities'][then['label']]:.1f} %."
    assert page.one(".sure").text == f"{closest} This model answers from a confidence of 97.0 % on."
    assert_shown(page.shares(), then["probabilities"])
    assert not page.all(".bars .given")
    # Another model is asked the same clip at once.
    page.choose("speech")
    page.wait(lambda: page.state == "answered" and page.one(".label").text != "not sure")
    assert page.one(".label").text == predicted(CLIP)["label"]


def test_silence_is_no_answer(page: Page, predicted: Any, tmp_path: Path) -> None:
    path = tmp_path / "silence.wav"
    soundfile.write(path, np.zeros(16000), 8000)
    assert predicted(path)["warnings"] == ["silent"]
    page.upload(path)
    page.answered()
    assert page.one(".label").text == "not sure"
    assert page.one(".sure").text == "There is nothing to tell an answer by: it is silent."


def test_names_and_labels_are_text(page: Page, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(5)>.flac"
    (tmp_path / name).write_bytes(LONG.read_bytes())
    page.choose("hostile")
    page.upload(tmp_path / name)
    page.answered()
    assert page.one(".file .name").text == name
    assert set(page.shares()) == set(HOSTILE)
    assert page.one(".answer").get_attribute("data-task") == "<b>emotion</b>"
    assert "<script>alert(2)</script>" in page.one("details").get_attribute("textContent")
    forbidden = page.one("#facts .plain").text
    assert "No decisions about people <b>, [link](javascript:alert(3)) <img src=x onerror=alert(4)>" in forbidden
    assert page.one("#facts .plain code").text == "people"
    cells = [cell.get_attribute("textContent") for cell in page.all("#facts td")]
    assert cells == ["a | b", "20"]
    # Not one element was made of all this, and no script ran.
    assert [image.get_attribute("src").rpartition("/")[2] for image in page.all("img")] == ["icon.svg"]
    assert page.all("main script, main b, main u, main i, #facts a") == []
    assert page.problems() == []


def test_no_script_but_the_servers_own_runs(page: Page) -> None:
    """Were the policy not there, this would run; and the browser would not complain."""
    page.run(
        "const s = document.createElement('script'); s.textContent = 'window.ran = true'; document.body.append(s);"
        "document.body.setAttribute('onclick', 'window.ran = true'); document.body.click()"
    )
    assert page.run("return window.ran ?? null") is None
    assert any("Content Security Policy" in problem for problem in page.problems())


def test_everything_comes_from_the_server(page: Page, server: Served) -> None:
    page.upload(CLIP)
    page.answered()
    page.record(0.4)
    page.answered()
    page.ask(SENTENCE)
    page.answered()
    requested = page.requests()
    assert any(address.startswith(f"{server.address}static/") for address in requested)
    assert any(AUDIO in address for address in requested)
    own = (server.address, f"blob:{server.address}", "data:")
    assert [address for address in requested if not address.startswith(own)] == []
    assert page.problems() == []


def test_all_of_it_works_with_keys_alone(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    page.tab_to(page["record"])
    assert page.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press(Keys.SPACE)
    page.wait(lambda: page.state == "recording")
    page.wait(lambda: page["clock"].is_displayed())
    page.press(Keys.ESCAPE)
    page.wait(lambda: page.state != "recording")
    assert not page["result"].is_displayed()
    page.press(Keys.ENTER)
    page.wait(lambda: page.state == "recording")
    page.wait(lambda: page.run("return document.getElementById('clock').textContent") >= "0:01")
    page.press(Keys.ENTER)
    page.answered()
    page.tab_to(page.one(".play"))
    page.press(Keys.SPACE)
    page.wait(lambda: page.one(".play").get_attribute("aria-label") == "Pause")
    page.tab_to(page.one("input[name=modality][value=audio]"))
    page.press(Keys.ARROW_RIGHT)
    page.tab_to(page["text"])
    page.press(SENTENCE)
    page.run("document.getElementById('status').textContent = ''; document.body.dataset.state = ''")
    webdriver_keys(page, Keys.CONTROL, Keys.ENTER)
    page.answered()
    assert page["status"].get_attribute("role") == "status"
    assert page["status"].get_attribute("textContent").startswith("Answer: mood: ")


def webdriver_keys(page: Page, held: str, key: str) -> None:
    """A key while another is held."""
    from selenium.webdriver import ActionChains

    ActionChains(page.driver).key_down(held).send_keys(key).key_up(held).perform()


def test_everything_that_can_be_used_has_a_name(page: Page) -> None:
    page.upload(LONG)
    page.answered()
    page.one("summary").click() if page.all("summary") else None
    used = [
        each
        for each in page.all("button, input, select, textarea, a, canvas[role=img], [tabindex='0']")
        if each.is_displayed()
    ]
    assert len(used) > 8
    assert [each.get_attribute("outerHTML")[:80] for each in used if not each.accessible_name] == []
    assert page.run("return document.documentElement.lang") == "en"
    headings = page.run("return [...document.querySelectorAll('h1, h2, h3')].map((h) => Number(h.tagName[1]))")
    assert headings[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))


def test_a_telephone_has_no_sideways_scroll(browser: Chrome, server: Served, tmp_path: Path) -> None:
    from browser_page import Page

    page = Page(browser, server.address).open(320, touch=True).ready()
    assert page.overflow == 0
    long_name = tmp_path / f"{'a-recording-with-a-very-long-name' * 4}.flac"
    long_name.write_bytes(LONG.read_bytes())
    page.choose("hostile")
    assert page.overflow == 0
    page.upload(long_name)
    page.answered()
    assert page.overflow == 0
    page.one("summary").click()
    assert page.overflow == 0
    page.choose("speech")
    page["record"].click()
    page.wait(lambda: page.state == "recording")
    assert page.overflow == 0
    page["record"].click()
    page.answered()
    page.ask("word" * 200)
    page.answered()
    assert page.overflow == 0
    # Fingers need 44 pixels (WCAG 2.5.5).
    assert all(button.size["height"] >= 44 for button in page.all("button") if button.is_displayed())


def test_what_cannot_be_read_is_said_in_words(page: Page, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF\0\0\0\0WAVEnothing")
    page.upload(broken)
    what, hint = page.refused()
    assert "SAMO can read" in what or "WAV" in what
    assert hint
    assert page["problem"].get_attribute("role") == "alert"
    assert not page["result"].is_displayed()
    empty = tmp_path / "empty.wav"
    empty.touch()
    page.upload(empty)
    page.wait(lambda: page["problem"].text.splitlines()[0] == "“empty.wav” is empty.")
    # The next good one makes it go.
    page.upload(CLIP)
    page.answered()
    assert page["problem"].text == ""


@pytest.fixture
def locked(models: dict[str, ModelPredictor]) -> Iterator[Served]:
    """A server that wants a key."""
    from browser_page import serving

    from samo.serve.app import make_app

    with serving(make_app({"text": models["text"]}, keys=["a-key-of-enough-letters"])) as served:
        yield served


def test_a_key_is_asked_for_and_kept_for_this_tab(browser: Chrome, locked: Served) -> None:
    from browser_page import Page

    page = Page(browser, locked.address).open(320)
    page.wait(lambda: page["key-value"].is_displayed())
    assert page.overflow == 0
    page["key-value"].send_keys("ключ-от-сервера\n")
    page.wait(lambda: "only unaccented letters" in page["key-help"].text)
    page["key-value"].clear()
    page["key-value"].send_keys("wrong\n")
    page.wait(lambda: "not accepted" in page["key-help"].text)
    assert page.run("return Object.entries(sessionStorage)") == []
    page["key-value"].send_keys("a-key-of-enough-letters\n")
    page.ready()
    page["text"].send_keys(SENTENCE)
    page["send"].click()
    page.answered()
    assert page.run("return Object.entries(sessionStorage)") == [["samo-key", "a-key-of-enough-letters"]]
    assert page.run("return localStorage.length") == 0
    page.driver.get(locked.address)
    page.ready()
