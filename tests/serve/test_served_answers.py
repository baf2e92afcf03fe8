"""Routes and what they answer."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stub_models import SR, Ears, Reader, tone

import samo.serve.app
from samo.errors import EnvironmentProblem, ModelFileError
from samo.serve.limits import Limits
from samo.serve.prediction_log import PredictionLog

WAV = {"Content-Type": "audio/wav"}
JSON = {"Content-Type": "application/json"}


def posted(client: Any, path: str = "/v1/predict/audio", body: bytes = b"", kind: str = "audio/wav") -> Any:
    return client.post(path, content=body, headers={"Content-Type": kind})


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """The problem of a response that is one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert list(found) == ["type", "title", "status", "detail", "code", "hint"]
    assert (found["type"], found["status"], found["code"]) == ("about:blank", status, code)
    assert found["detail"]
    assert "--" not in found["detail"] + found["hint"]
    assert "`" not in found["detail"] + found["hint"]
    return found


# Answers


@pytest.mark.parametrize("kind", ["audio/wav", "audio/x-whatever; codecs=1", "application/octet-stream"])
def test_a_clip(both: Any, kind: str) -> None:
    answer = posted(both, body=tone(0.75, 0.5), kind=kind).json()
    share = pytest.approx(0.75, abs=2e-3)
    assert (answer["model"], answer["duration_s"], answer["label"], answer["abstained"]) == ("ears", 0.5, "loud", False)
    assert answer["probabilities"] == {"quiet": pytest.approx(0.25, abs=2e-3), "loud": share}
    assert answer["tasks"]["emotion"]["labels"] == ["loud"]
    assert answer["warnings"] == []
    assert not {"path", "timeline", "spectrogram"} & set(answer)


def test_a_clip_at_another_rate_and_in_another_format(both: Any) -> None:
    answer = posted(both, body=tone(0.75, 0.5, 44100, "FLAC")).json()
    assert answer["label"] == "loud"
    assert answer["duration_s"] == 0.5


def test_a_time_line_when_wanted(both: Any, serve: Any) -> None:
    answer = posted(both, "/v1/predict/audio?timeline=1", tone(0.75, 0.5)).json()
    (window,) = answer["timeline"]
    assert (window["start_s"], window["end_s"], window["label"]) == (0.0, 0.5, "loud")
    # As elsewhere, recordings over 10 s have one unless it is not wanted.
    client, long = serve(Ears()), tone(0.75, 11)
    assert len(posted(client, body=long).json()["timeline"]) == 1
    assert "timeline" not in posted(client, "/v1/predict/audio?timeline=0", long).json()


def test_the_spectrogram_when_wanted(both: Any) -> None:
    picture = posted(both, "/v1/predict/audio?spectrogram=1", tone()).json()["spectrogram"]
    assert base64.b64decode(picture.pop("values")) == bytes([0, 64, 128, 128, 128, 255])
    assert picture == {"bands": 2, "frames": 3, "window_s": 0.5, "min": -1.0, "max": 3.0}


def test_the_callers_model_stays_as_it_is(serve: Any) -> None:
    ears = Ears()
    client = serve(ears)
    assert ears.timeline_s == 10.0
    assert ears.predict(np.ones(SR, np.float32), sr=SR).timeline == ()
    assert len(posted(client, "/v1/predict/audio?timeline=1", tone()).json()["timeline"]) == 1


def test_a_batch_counts_windows(serve: Any) -> None:
    """A clip of 3 s is six windows of half a second: two of those are too many for 11."""
    ears = Ears()
    client = serve(ears, limits=Limits(max_batch=11, batch_wait_ms=1000, decoders=2))
    ears.sizes.clear()
    clips = [{"audio": base64.b64encode(tone(0.1, seconds)).decode()} for seconds in (3.0, 3.0)]
    assert len(client.post("/v1/predict/audio/batch", json={"clips": clips}).json()["predictions"]) == 2
    assert ears.sizes == [1, 1]
    clips[1]["audio"] = base64.b64encode(tone(0.1, 2.5)).decode()
    assert len(client.post("/v1/predict/audio/batch", json={"clips": clips}).json()["predictions"]) == 2
    assert ears.sizes == [1, 1, 2]


def test_base64_may_have_lines(both: Any) -> None:
    audio = base64.encodebytes(tone(0.75)).decode().replace("\n", "\r\n")
    assert audio.count("\n") > 1
    (answer,) = both.post("/v1/predict/audio/batch", json={"clips": [{"audio": audio}]}).json()["predictions"]
    assert answer["label"] == "loud"


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/models", "/docs", "/static/page.js"])
def test_heads_of_what_can_be_got(both: Any, path: str) -> None:
    whole, head = both.get(path), both.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content)) != "0"
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert both.head("/predict").status_code == 405


def test_a_network_that_sees_no_spectrogram(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ears, "spectrogram", lambda *_: None)
    assert posted(serve(Ears()), "/v1/predict/audio?spectrogram=1", tone()).json()["spectrogram"] is None


def test_several_clips(both: Any) -> None:
    clips = [
        {"name": "a.wav", "audio": base64.b64encode(tone(0.75)).decode()},
        {"name": "b.wav", "audio": base64.b64encode(b"junk").decode()},
        {"name": "c.wav", "audio": "no base64!"},
        {"name": "d.wav", "audio": base64.b64encode(tone(0.1)).decode()},
        {"name": "e.wav", "audio": base64.b64encode(tone(0.25)).decode()},
    ]
    answer = both.post("/v1/predict/audio/batch", json={"clips": clips}).json()
    assert answer["model"] == "ears"
    a, b, c, d, e = answer["predictions"]
    assert [each["name"] for each in (a, b, c, d, e)] == ["a.wav", "b.wav", "c.wav", "d.wav", "e.wav"]
    assert (a["label"], d["label"]) == ("loud", "quiet")
    assert b["message"].startswith("is not in an audio format SAMO can read (hint: SAMO reads WAV")
    assert c == {"name": "c.wav", "message": "its audio is not base64"}
    assert e == {"name": "e.wav", "message": "the model gives no finite numbers for this input"}
    assert both.post("/v1/predict/audio/batch", json={"clips": []}).json()["predictions"] == []


@pytest.mark.parametrize("path", ["/predict", "/v1/predict/text"])
def test_texts(both: Any, path: str) -> None:
    one = both.post(path, json={"text": "a long sentence"}).json()
    assert (one["model"], one["text"], one["label"]) == ("reader", "a long sentence", "long")
    assert one["probabilities"] == {"short": 0.25, "long": 0.75}
    assert one["tasks"]["case"]["labels"] == ["lower"]
    several = both.post(path, json={"text": ["a long sentence", "", "NO"], "model": "reader"}).json()
    assert several["model"] == "reader"
    assert several["predictions"][0] == {key: value for key, value in one.items() if key != "model"}
    assert [each["abstained"] for each in several["predictions"]] == [False, True, False]
    assert several["predictions"][1]["warnings"] == ["empty"]
    assert both.post(path, json={"text": []}).json() == {"model": "reader", "predictions": []}


def test_models_by_name_and_by_default(serve: Any) -> None:
    client = serve(Ears("first"), Ears("second"), Reader())
    assert posted(client, body=tone()).json()["model"] == "first"
    assert posted(client, "/v1/predict/audio?model=second", tone()).json()["model"] == "second"
    found = client.get("/v1/models").json()
    assert [model["name"] for model in found["models"]] == ["first", "second", "reader"]
    assert found["default"] == {"audio": "first", "text": "reader"}
    hint = problem(posted(client, "/v1/predict/audio?model=secnd", tone()), 404, "run")["hint"]
    assert hint == "did you mean 'second'? models for audio: first, second"
    problem(posted(client, "/v1/predict/audio?model=reader", tone()), 404, "run")


def test_what_models_say_of_themselves(both: Any) -> None:
    ears, reader = both.get("/v1/models").json()["models"]
    assert ears == {
        "name": "ears", "modality": "audio", "network": "stub", "dataset": "made", "synthetic": False, "leaky": False,
        "trained": "2026-11-26", "licence": "", "scores": [],
        "tasks": [{"name": "emotion", "labels": ["quiet", "loud"], "multi_label": False}],
        "temperature": {"emotion": 1.0}, "thresholds": {}, "abstention": {}, "reading": {"sr": SR, "window": SR // 2},
        "card": "",
    }  # fmt: skip
    assert reader["thresholds"] == {"mood": {"short": 0.5, "long": 0.5}}
    assert reader["reading"] == {"max_tokens": 7}


def test_the_card_of_a_run(serve: Any, tmp_path: Path) -> None:
    (tmp_path / "MODEL_CARD.md").write_text("# Card\n\nFrom (/home/me/clips).")
    model = Reader()
    model.facts = type(model.facts)("reader", "text", folder=str(tmp_path))
    assert serve(model).get("/v1/models").json()["models"][0]["card"] == "# Card\n\nFrom (clips)."


def test_the_card_that_a_file_carries(serve: Any) -> None:
    ears = Ears()
    ears.card = "# Carried\n\nFrom (/home/me/clips)."
    (row,) = serve(ears).get("/v1/models").json()["models"]
    assert row["card"] == "# Carried\n\nFrom (clips)."


def test_no_model_of_a_modality(serve: Any) -> None:
    client = serve(Reader())
    assert "no model for audio" in problem(posted(client, body=tone()), 404, "run")["detail"]
    assert client.get("/v1/models").json()["default"] == {"audio": None, "text": "reader"}


# Refusals


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "is empty (0 bytes)"),
        (b"junk", "is not in an audio format SAMO can read"),
        (tone(seconds=4.5), "lasts 4.5 s, longer than the 4 s that are taken"),
        (tone(0.25), "the model gives no finite numbers for this input"),
    ],
)
def test_clips_that_cannot_be_read(both: Any, body: bytes, says: str) -> None:
    assert problem(posted(both, body=body), 422, "data")["detail"] == says


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "the body is no JSON"),
        (b"\xff", 400, ""),
        (b"[" * 100_000, 400, ""),
        (b"[]", 422, "body: input should be an object"),
        (b"{}", 422, "body.text: field required"),
        (b'{"text": 3}', 422, "body.text: input should be a valid string or a valid list"),
        (b'{"text": ["x", 3]}', 422, "body.text.1: input should be a valid string"),
        (b'{"text": ["x", "\\ud800"]}', 422, "body.text.1: a text holds half of a character"),
        (b'{"text": "x", "[a]": 1}', 422, "body.[a]: extra inputs are not permitted"),
        (b'{"text": "x", "txet": "y"}', 422, "body.txet: extra inputs are not permitted"),
        (b'{"text": "\\ud800"}', 422, "body.text: a text holds half of a character"),
        (b'{"text": "x", "model": "ears"}', 404, "there is no model 'ears' for text"),
    ],
)
def test_bodies_that_are_no_requests(both: Any, body: bytes, status: int, says: str) -> None:
    code = {400: "settings", 404: "run", 422: "data"}[status]
    assert problem(posted(both, "/predict", body, "application/json"), status, code)["detail"].startswith(says)


def test_limits_of_texts(serve: Any) -> None:
    client = serve(Reader(), limits=Limits(max_chars=10, max_items=2))
    assert client.post("/predict", json={"text": "x" * 10}).status_code == 200
    detail = problem(client.post("/predict", json={"text": "x" * 11}), 422, "data")["detail"]
    assert detail == "a text has 11 characters; at most 10 are taken"
    assert client.post("/predict", json={"text": ["a", "b"]}).status_code == 200
    problem(client.post("/predict", json={"text": ["a", "b", "c"]}), 413, "data")
    problem(client.post("/v1/predict/audio/batch", json={"clips": [{"audio": ""}]}), 404, "run")


def test_bodies_of_many_wrong_items_take_no_time(serve: Any) -> None:
    """Of 2 MB each; one error an item once took 23 s, in which nobody got an answer."""
    client = serve(Ears(), Reader(), limits=Limits(decoders=1))
    batch, keys = "/v1/predict/audio/batch", b", ".join(b'"k%d": 1' % k for k in range(150_000))
    bodies = [
        ("/predict", b'{"text": [' + b"1," * 999_999 + b"1]}", 413, "1000000 inputs in one request"),
        ("/predict", b'{"text": [1, 1]}', 422, "body.text"),
        ("/predict", b'{"text": "x", ' + keys + b"}", 422, "body.k0: extra inputs are not permitted"),
        (batch, b'{"clips": [' + b"{}," * 599_999 + b"{}]}", 413, "600000 inputs in one request"),
        (batch, b'{"clips": [{"audio": "", ' + keys + b"}]}", 422, "body.clips.0.k0: extra inputs"),
    ]
    for path, body, status, says in bodies:
        began = time.process_time()
        assert problem(posted(client, path, body, "application/json"), status, "data")["detail"].startswith(says)
        assert time.process_time() - began < 2.0, says


def test_one_error_is_told_of_many(both: Any) -> None:
    from pydantic import ValidationError

    from samo.serve.schemas import ClipBatch, Texts

    wrong = {f"k{k}": 1 for k in range(50)}
    for schema, given in ((Texts, {"text": "x", **wrong}), (ClipBatch, {"clips": [wrong] * 50})):
        with pytest.raises(ValidationError) as failed:
            schema.model_validate(given)
        assert failed.value.error_count() <= 2
    with pytest.raises(ValidationError) as failed:
        Texts.model_validate({"text": [1] * 50})
    assert failed.value.error_count() == 2  # no text, and no list of texts


def test_a_full_queue(serve: Any) -> None:
    client = serve(Reader(), limits=Limits(max_queue=2, max_items=2))
    batcher = client.app.state.service._batchers["reader"]
    with batcher.place(1):
        response = client.post("/predict", json={"text": ["a", "b"]})
        problem(response, 429, "environment")
        assert response.headers["retry-after"] == "1"
        assert client.post("/predict", json={"text": ["a"]}).status_code == 200
    assert client.post("/predict", json={"text": ["a", "b"]}).status_code == 200


def test_too_much_in_memory(serve: Any) -> None:
    client = serve(Reader(), limits=Limits(max_memory_mb=1, max_body_mb=1))
    with client.app.state.service.keeping(999_990):
        problem(client.post("/predict", json={"text": "more than ten bytes"}), 429, "environment")
    assert client.post("/predict", json={"text": "more than ten bytes"}).status_code == 200


def test_a_batch_is_counted_clip_by_clip(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All clips were decoded first, and counted afterwards: 64 of 300 s take 1.2 GB."""
    # 100 s at 8000 Hz in 4 bytes each: 3.2 MB a clip.
    client = serve(Ears(), limits=Limits(max_memory_mb=10, max_body_mb=10, decoders=2))
    service = client.app.state.service
    decode, lengths = service._decoders["audio"].decode, []

    async def noted(audio: bytes, sr: int) -> Any:
        clip = await decode(audio, sr)
        lengths.append(clip.waveform.nbytes)
        return clip

    monkeypatch.setattr(service._decoders["audio"], "decode", noted)
    long = {"audio": base64.b64encode(tone(0.0, 100, kind="FLAC")).decode()}

    def requested(n: int) -> Any:
        lengths.clear()
        return client.post("/v1/predict/audio/batch", json={"clips": [long] * n})

    assert [each["label"] for each in requested(2).json()["predictions"]] == ["quiet", "quiet"]
    detail = problem(requested(20), 413, "data")["detail"]
    assert detail == "decoded, this takes more memory than the 10 MB there are"
    # Three have room; then the one that has none, and the one that the other decoder is at.
    assert 4 <= len(lengths) <= 5
    assert set(lengths) == {3_200_000}
    with service.keeping(5_000_000):
        assert problem(requested(2), 429, "environment")["hint"] == "try again in 1 s"
    assert service._kept_bytes == 0
    assert client.app.state.service.metrics.decoders_lost._value.get() == 0


def test_a_clip_that_has_no_room_at_all(serve: Any) -> None:
    client = serve(Ears(), limits=Limits(max_memory_mb=1, max_body_mb=1, decoders=1))
    problem(posted(client, body=tone(0.0, 50, kind="FLAC")), 413, "data")
    assert posted(client, body=tone(0.0, 10, kind="FLAC")).status_code == 200
    assert client.app.state.service._kept_bytes == 0


def test_no_answer_in_time(serve: Any) -> None:
    model = Reader()
    client = serve(model, limits=Limits(answer_timeout=0.3))
    model.gate.clear()
    assert (
        problem(client.post("/predict", json={"text": "x"}), 504, "environment")["detail"] == "no answer within 0.3 s"
    )
    model.gate.set()
    assert client.post("/predict", json={"text": "x"}).status_code == 200


def test_a_model_that_cannot_be_computed_on_an_input(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exported file complains where its sums leave the finite numbers: that is the input's fault."""
    whole = Ears.answer

    def answer(self: Ears, given: Any) -> Any:
        if given.peak > 0.8:
            raise ModelFileError("cannot use /secret/x.onnx: its logits are not finite")
        return whole(self, given)

    client = serve(Ears())
    monkeypatch.setattr(Ears, "answer", answer)
    detail = problem(posted(client, body=tone(0.9)), 422, "data")["detail"]
    assert detail == "the model cannot be computed on this input"
    clips = [{"audio": base64.b64encode(tone(peak)).decode()} for peak in (0.1, 0.9)]
    good, bad = client.post("/v1/predict/audio/batch", json={"clips": clips}).json()["predictions"]
    assert (good["label"], bad["message"]) == ("quiet", detail)


def test_a_bug_is_no_traceback(serve: Any) -> None:
    model = Reader()
    model.poison = 6
    client = serve(model)
    response = client.post("/predict", json={"text": "poison"})
    assert problem(response, 500, "error")["detail"] == "something went wrong here"
    assert client.post("/predict", json={"text": "good"}).status_code == 200


# Facts and pages


def test_state(both: Any) -> None:
    assert both.get("/healthz").json() == {"status": "ok"}
    assert both.get("/readyz").json() == {"status": "ready"}
    service = both.app.state.service
    service.ready = False
    assert (both.get("/readyz").status_code, both.get("/readyz").json()) == (503, {"status": "loading"})
    service.ready = True


def test_draining_refuses_new_work_and_says_so(serve: Any) -> None:
    client = serve(Reader())
    client.app.state.service.draining = True
    response = client.post("/predict", json={"text": "x"})
    problem(response, 503, "environment")
    assert response.headers["connection"] == "close"
    assert (client.get("/readyz").status_code, client.get("/readyz").json()) == (503, {"status": "stopping"})
    assert client.get("/healthz").status_code == 200


def test_what_is_not_there(both: Any) -> None:
    problem(both.get("/nothing"), 404, "run")
    response = both.delete("/predict")
    problem(response, 405, "settings")
    assert response.headers["allow"] == "POST"


def test_the_reference_loads_nothing_from_elsewhere(both: Any) -> None:
    page = both.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for path in both.get("/openapi.json").json()["paths"]:
        assert f"<code>{path}</code>" in page.text
    assert "<script" not in page.text
    assert "//" not in page.text.replace("<!doctype", "")
    assert both.get("/docs.css").headers["content-type"].startswith("text/css")
    # Names of the interface are text, not markup.
    assert "curl --data-binary @clip.wav -H &#x27;Content-Type: audio/wav&#x27;" in page.text


def test_the_page_is_there_with_its_files(tmp_path: Path, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samo.serve.app, "_STATIC", tmp_path)
    (tmp_path / "index.html").write_text("<!doctype html>page")
    (tmp_path / "page.js").write_text("let x = 1")
    client = serve(Reader())
    assert client.get("/").text == "<!doctype html>page"
    assert client.get("/static/page.js").headers["content-type"].startswith("text/javascript")
    problem(client.get("/static/../app.py"), 404, "run")
    problem(client.get("/static/%2e%2e/app.py"), 404, "run")


def test_counters(serve: Any) -> None:
    client = serve(Reader())
    client.post("/predict", json={"text": ["a long sentence", "", "no"]})
    client.post("/predict", json={"text": 3})
    client.get("/somewhere")
    lines = client.get("/metrics").text.splitlines()
    for line in (
        'samo_requests_total{route="/predict",status="200"} 1.0',
        'samo_requests_total{route="/predict",status="422"} 1.0',
        'samo_requests_total{route="other",status="404"} 1.0',
        'samo_request_seconds_count{route="/predict"} 2.0',
        'samo_answers_total{label="long",model="reader",task="mood"} 1.0',
        'samo_answers_total{label="short",model="reader",task="mood"} 2.0',
        'samo_answers_total{label="lower",model="reader",task="case"} 3.0',
        'samo_abstentions_total{model="reader",task="mood"} 1.0',
        'samo_batch_size_sum{model="reader"} 3.0',
        'samo_batch_size_count{model="reader"} 1.0',
        'samo_queue_length{model="reader"} 0.0',
        'samo_model_info{dataset="made",modality="text",model="reader",network="stub",trained="2026-11-26"} 1.0',
    ):
        assert line in lines, line
    # Applications do not share their counters.
    assert "samo_answers_total{" not in serve(Reader()).get("/metrics").text


def test_requests_are_gathered(serve: Any) -> None:
    """Three clips that come at once go through the model at once."""
    model = Ears()
    client = serve(model, limits=Limits(batch_wait_ms=5000, decoders=2))
    model.sizes.clear()
    clips = [{"audio": base64.b64encode(tone(peak)).decode()} for peak in (0.1, 0.6, 0.9)]
    answer = client.post("/v1/predict/audio/batch", json={"clips": clips}).json()
    assert [each["label"] for each in answer["predictions"]] == ["quiet", "loud", "loud"]
    assert model.sizes == [3]


# What is written down


def test_the_log_of_answers(serve: Any, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"from": "before"}\n')
    client = serve(Ears(), Reader(), log=path)
    posted(client, body=tone(0.5, 0.5))
    posted(client, body=b"junk")
    client.post("/predict", json={"text": ["SECRET WORDS", ""]})
    assert "SECRET" not in path.read_text()
    first, clip, text, empty = map(json.loads, path.read_text().splitlines())
    assert first == {"from": "before"}
    assert clip.pop("time").endswith("Z")
    assert clip == {
        "schema": 1, "model": "ears", "modality": "audio",
        "tasks": {"emotion": {"label": "quiet", "labels": ["quiet"], "confidence": pytest.approx(0.5, abs=1e-3),
                              "abstained": False}},
        "duration_s": 0.5, "peak_dbfs": pytest.approx(20 * np.log10(0.5), abs=0.05),
        "level_dbfs": pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.05), "warnings": [],
    }  # fmt: skip
    assert (text["n_chars"], text["n_tokens"], text["modality"]) == (12, 2, "text")
    # p of the label that holds times 1 - p of the one that does not.
    assert text["tasks"]["mood"] == {"label": "long", "labels": ["long"], "confidence": 0.36, "abstained": False}
    assert text["tasks"]["case"]["confidence"] == 1.0
    assert empty["tasks"]["mood"]["abstained"] is True
    assert empty["warnings"] == ["empty"]


def test_silence_has_a_level_in_the_log(serve: Any, tmp_path: Path) -> None:
    posted(serve(Ears(), log=tmp_path / "x"), body=tone(0.0))
    assert json.loads((tmp_path / "x").read_text())["peak_dbfs"] == -200.0


def test_texts_in_the_log_when_wanted(serve: Any, tmp_path: Path) -> None:
    client = serve(Reader(), log=tmp_path / "x", log_inputs=True)
    client.post("/predict", json={"text": "zwölf\n"})
    assert json.loads((tmp_path / "x").read_text())["text"] == "zwölf\n"


def test_a_line_cut_short_by_a_full_disk_breaks_no_other(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"cut": ')
    client = serve(Reader(), log=path)
    whole, room = os.write, [200, 0, 1000]

    def write(file: int, data: bytes) -> int:
        return whole(file, data[: room.pop(0)] if b'"schema"' in data else data)

    monkeypatch.setattr(os, "write", write)
    for _ in range(3):
        assert client.post("/predict", json={"text": "x"}).status_code == 200
    cut, first, last = path.read_text().splitlines()
    assert (cut, len(first)) == ('{"cut": ', 199)
    assert json.loads(last)["model"] == "reader"
    assert "samo_unlogged_total 2.0" in client.get("/metrics").text


def test_a_log_is_a_file_for_its_owner(serve: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for reader in (None, os.O_RDONLY | os.O_NONBLOCK):
        file = None if reader is None else os.open(tmp_path / "pipe", reader)
        with pytest.raises(EnvironmentProblem, match=r"cannot write .*pipe: "):
            PredictionLog(tmp_path / "pipe")
        if file is not None:
            os.close(file)
    PredictionLog(tmp_path / "log").close()
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_log_that_cannot_be_written_costs_no_answer(serve: Any) -> None:
    client = serve(Reader(), log=Path("/dev/full"))
    assert client.post("/predict", json={"text": "x"}).status_code == 200
    assert "samo_unlogged_total 1.0" in client.get("/metrics").text
