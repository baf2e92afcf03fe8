"""From bytes and texts to answers: queues, decoders and models, without a word of HTTP but the status of problems."""

from __future__ import annotations

import asyncio
import base64
import binascii
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np

from samo.errors import ModelFileError, nearest
from samo.modalities import MODALITIES
from samo.prediction import Decoded, ModelPredictor, Prediction
from samo.serve.batching import Batcher, Place, QueueFull
from samo.serve.decoding import Decoders, DecodingFailed, DecodingTooSlow
from samo.serve.described import defaults_of
from samo.serve.limits import Limits
from samo.serve.metrics import Metrics
from samo.serve.prediction_log import PredictionLog
from samo.serve.problems import Problem

__all__ = ["Service"]

_SECOND = 1.0
_WARM_TEXT = "warming up"


class Service:
    """The models of one server and all that stands before them.

    Attributes:
        models: by name.
        defaults: the model of each modality that answers where a request names none.
        ready: whether everything is loaded and answers.
        draining: whether the server was told to stop.
        active: requests that are being answered.
        cut_off: whether the time for those is over.
        requests: the tasks that answer them.
    """

    def __init__(
        self, models: Mapping[str, ModelPredictor], limits: Limits, log: Callable[[Metrics], PredictionLog | None]
    ) -> None:
        """``log`` makes the log of predictions, or None."""
        self.models, self.limits = dict(models), limits
        self.defaults = defaults_of(models)
        self.metrics = Metrics(models)
        self.log = log(self.metrics)
        self.ready = self.draining = False
        self.active = 0
        self.cut_off = False
        self.requests: set[asyncio.Task[Any]] = set()
        self._stopped = False
        self._kept_bytes = 0
        self._batchers = {name: self._batcher(name, model) for name, model in models.items()}
        self._decoders = {
            modality: Decoders(entry.decoder, limits, self.metrics.decoders_lost.inc)
            for modality, entry in MODALITIES.items()
            if entry.decoder and self.defaults.get(modality)
        }

    def _batcher(self, name: str, model: ModelPredictor) -> Batcher:
        # The requests say whether they want a time line; the model always makes one. The caller's own stays as it is.
        model = copy.copy(model)
        model.timeline_s = 0.0
        batcher = Batcher(
            lambda inputs: list(model.stream(inputs)),
            batch=self.limits.max_batch,
            wait_s=self.limits.batch_wait_ms / 1e3,
            queue=self.limits.max_queue,
            weigh=lambda given: _n_windows(model, given),
            observe=self.metrics.batch.labels(name).observe,
        )
        self.metrics.queue.labels(name).set_function(lambda: batcher.waiting)
        return batcher

    async def start(self) -> None:
        """Start decoders and queues, and let every model answer once, so that the first request does not wait."""
        self._stopped = False
        for batcher in self._batchers.values():
            batcher.start()
        await asyncio.gather(*(decoders.start() for decoders in self._decoders.values()))
        for name, model in self.models.items():
            rate = _rate_of(model)
            silence = np.random.default_rng(0).normal(0, 0.1, round(_SECOND * rate)) if rate else _WARM_TEXT
            with suppress(Exception):  # a model that cannot answer this may answer others
                await self._batchers[name].run(lambda model=model, rate=rate, one=silence: model.predict(one, sr=rate))
        self.ready = True

    async def stop(self) -> None:
        """Answer nothing more; the second call does nothing."""
        self.ready = False
        if self._stopped:
            return
        self._stopped = True
        await asyncio.gather(*(decoders.stop() for decoders in self._decoders.values()))
        await asyncio.gather(*(batcher.stop() for batcher in self._batchers.values()))
        if self.log:
            self.log.close()

    async def cut(self, wait_s: float) -> None:
        """Give requests that still go on 503, and wait so long for whoever sent them to take it."""
        self.cut_off = True
        requests = set(self.requests)
        for task in requests:
            task.cancel()
        if requests:
            await asyncio.wait(requests, timeout=wait_s)

    @property
    def computing(self) -> bool:
        """Whether a model's thread is at work."""
        return any(batcher.computing for batcher in self._batchers.values())

    def named(self, modality: str, name: str | None) -> tuple[str, ModelPredictor]:
        """The model that a request means.

        Raises:
            Problem: 404, there is none.
        """
        name = name or self.defaults[modality]
        if name is None:
            raise Problem(404, f"no model for {modality} is served here", hint=f"models: {', '.join(self.models)}")
        valid = [other for other, model in self.models.items() if model.facts.modality == modality]
        if name not in valid:
            hint = nearest(name, valid) + f"models for {modality}: {', '.join(valid) or 'none'}"
            raise Problem(404, f"there is no model '{name[:100]}' for {modality}", hint=hint)
        return name, self.models[name]

    @contextmanager
    def keeping(self, n_bytes: int) -> Iterator[None]:
        """Count what is kept in memory for strangers.

        Raises:
            Problem: 429, too much is kept already.
        """
        if self._kept_bytes + n_bytes > self.limits.max_memory_mb * 1e6:
            raise busy(1)
        self._kept_bytes += n_bytes
        try:
            yield
        finally:
            self._kept_bytes -= n_bytes

    def _keeping_clip(self, clip: Decoded, n_others: int) -> AbstractContextManager[None]:
        """Count a clip of a request that keeps ``n_others`` bytes besides.

        Raises:
            Problem: 413, there would be no room if it were the only request; 429, there is none now.
        """
        if clip.waveform.nbytes + n_others > self.limits.max_memory_mb * 1e6:
            most = f"{self.limits.max_memory_mb:g} MB"
            raise Problem(413, f"decoded, this takes more memory than the {most} there are", hint="send less at once")
        return self.keeping(clip.waveform.nbytes)

    async def audio(
        self, name: str | None, audio: bytes, *, timeline: bool | None = None, spectrogram: bool = False
    ) -> tuple[str, dict[str, Any]]:
        """The answer to the bytes of one file, as plain values, and the name of the model that gave it.

        Args:
            name: of the model; None: the default.
            audio: the bytes.
            timeline: whether every window's answer is given; None: of recordings that get them elsewhere too.
            spectrogram: whether what the network sees of the first window is given.

        Raises:
            Problem: there is no answer.
        """
        name, model = self.named("audio", name)
        with self._deadline(), self._place(name, 1) as place:
            async with asyncio.timeout(self.limits.answer_timeout):
                clip = await self._decoded(audio, model)
                with self._keeping_clip(clip, len(audio)):
                    (prediction,) = await self._answers(place, [clip])
                    prediction = self._checked(prediction)
                    picture = await self._spectrogram(name, model, clip) if spectrogram else None
        answer = self._answered(name, model, prediction, clip, timeline)
        return name, answer | ({"spectrogram": picture} if spectrogram else {})

    async def clips(self, name: str | None, clips: Sequence[tuple[str, str]]) -> tuple[str, list[dict[str, Any]]]:
        """The answers to several clips, (name, base64) each; one that has none has a ``message``.

        Raises:
            Problem: there is no answer at all.
        """
        name, model = self.named("audio", name)
        self.require_few(len(clips))
        answers: list[dict[str, Any]] = [{} for _ in clips]
        with self._deadline(), self._place(name, len(clips)) as place, ExitStack() as kept:
            async with asyncio.timeout(self.limits.answer_timeout):
                found = await self._decoded_texts([text for _, text in clips], model, kept)
                good = [(k, clip) for k, clip in enumerate(found) if isinstance(clip, Decoded)]
                # Each by itself, so that one which the model refuses is refused alone; they still meet in a batch.
                answered = await asyncio.gather(
                    *(self._answers(place, [clip]) for _, clip in good), return_exceptions=True
                )
        for k, problem in enumerate(found):
            if isinstance(problem, Problem):
                answers[k] = {"message": _sentence(problem)}
        for (k, clip), outcome in zip(good, answered, strict=True):
            try:
                if isinstance(outcome, BaseException):
                    raise outcome
                answers[k] = self._answered(name, model, self._checked(outcome[0]), clip)
            except Problem as problem:
                answers[k] = {"message": _sentence(problem)}
        return name, [{"name": own} | answer for (own, _), answer in zip(clips, answers, strict=True)]

    async def texts(self, name: str | None, texts: Sequence[str]) -> tuple[str, list[dict[str, Any]]]:
        """The answers to texts in their order.

        Raises:
            Problem: there is no answer.
        """
        name, model = self.named("text", name)
        self.require_few(len(texts))
        longest = max(map(len, texts), default=0)
        if longest > self.limits.max_chars:
            raise Problem(422, f"a text has {longest} characters; at most {self.limits.max_chars} are taken")
        with self._deadline(), self._place(name, len(texts)) as place:
            async with asyncio.timeout(self.limits.answer_timeout):
                predictions = [self._checked(each) for each in await self._answers(place, texts)]
                n_tokens = await self._batchers[name].run(_n_tokens, model, texts) if self.log else []
        for k, prediction in enumerate(predictions):
            self.metrics.answered(name, prediction)
            if self.log:
                self.log.text(name, model, prediction, n_tokens[k])
        return name, [prediction.to_json() for prediction in predictions]

    async def _answers(self, place: Place, inputs: Sequence[Any]) -> list[Prediction]:
        """What the model answers.

        Raises:
            Problem: it cannot be computed on these inputs.
        """
        try:
            return await place.answers(inputs)
        except ModelFileError as error:
            # Of an exported file: sums that leave the finite numbers, as absurd samples make them.
            raise Problem(422, "the model cannot be computed on this input") from error

    def require_few(self, n: int) -> None:
        """Refuse a request of too many inputs.

        Raises:
            Problem: 413.
        """
        if n > self.limits.max_items:
            raise Problem(413, f"{n} inputs in one request; at most {self.limits.max_items} are taken")

    @contextmanager
    def _place(self, name: str, n: int) -> Iterator[Place]:
        try:
            with self._batchers[name].place(n) as place:
                yield place
        except QueueFull as error:
            raise busy(error.retry_after_s) from error

    @contextmanager
    def _deadline(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise Problem(
                504, f"no answer within {self.limits.answer_timeout:g} s", hint="try again, or send less"
            ) from error

    async def _decoded(self, audio: bytes, model: ModelPredictor) -> Decoded:
        try:
            return await self._decoders["audio"].decode(audio, _rate_of(model) or 0)
        except DecodingFailed as error:
            self.metrics.unreadable.inc()
            raise Problem(422, error.message, hint=error.hint) from error
        except DecodingTooSlow as error:
            raise Problem(504, f"the clip was not decoded within {self.limits.decode_timeout:g} s") from error

    async def _decoded_texts(
        self, texts: Sequence[str], model: ModelPredictor, kept: ExitStack
    ) -> list[Decoded | Problem]:
        """Clips in base64, as many at once as there are decoders; each is counted before the next is begun.

        Args:
            texts: the clips.
            model: whose rate they get.
            kept: is left when the clips are needed no longer.

        Raises:
            Problem: 413 or 429, there is no room for them.
        """
        found: list[Decoded | Problem] = [Problem(500, "not decoded")] * len(texts)
        todo, n_bytes, refused = iter(enumerate(texts)), sum(map(len, texts)), None

        async def decode_some() -> None:
            nonlocal n_bytes, refused
            for k, text in todo:
                clip = await self._decoded_text(text, model)
                if refused:
                    return
                found[k] = clip
                if isinstance(clip, Decoded):
                    try:
                        kept.enter_context(self._keeping_clip(clip, n_bytes))
                    except Problem as problem:
                        # The others end their clips: a decoder that is left in the middle must be replaced.
                        refused = problem
                        found.clear()
                        return
                    n_bytes += clip.waveform.nbytes

        await asyncio.gather(*(decode_some() for _ in range(self.limits.decoders)))
        if refused:
            raise refused
        return found

    async def _decoded_text(self, text: str, model: ModelPredictor) -> Decoded | Problem:
        try:
            # Many encoders break lines.
            audio = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            return Problem(422, "its audio is not base64")
        try:
            return await self._decoded(audio, model)
        except Problem as problem:
            return problem

    def _checked(self, prediction: Prediction) -> Prediction:
        """A prediction that can be sent.

        Raises:
            Problem: the clip cannot be read, or the network gives no numbers for it.
        """
        if prediction.error:
            raise Problem(422, prediction.error)
        answers = [*prediction.answers.values(), *(a for w in prediction.timeline for a in w.answers.values())]
        if not all(math.isfinite(share) for answer in answers for share in answer.probabilities.values()):
            raise Problem(422, "the model gives no finite numbers for this input")
        return prediction

    def _answered(
        self, name: str, model: ModelPredictor, prediction: Prediction, clip: Decoded, timeline: bool | None = None
    ) -> dict[str, Any]:
        self.metrics.answered(name, prediction)
        if self.log:
            self.log.audio(name, model, prediction, clip)
        if not (clip.duration_s > type(model).timeline_s if timeline is None else timeline):
            prediction = replace(prediction, timeline=())
        return {"duration_s": round(clip.duration_s, 3), **prediction.to_json()}

    async def _spectrogram(self, name: str, model: Any, clip: Decoded) -> dict[str, Any] | None:
        """What the network sees of the first window, in 8 bits; None where it sees none."""
        values = await self._batchers[name].run(model.spectrogram, clip.waveform, clip.sr)
        return None if values is None else picture_of(values, model.window_s)


def picture_of(values: np.ndarray, window_s: float) -> dict[str, Any]:
    """(bands, frames) floats as base64 of 0 to 255 between ``min`` and ``max``, row by row, the lowest band first."""
    finite = np.where(np.isfinite(values), values, 0.0).astype(np.float32)
    lowest, highest = float(finite.min()), float(finite.max())
    scaled = (finite - lowest) * (255.0 / max(highest - lowest, 1e-12))
    return {
        "bands": values.shape[0],
        "frames": values.shape[1],
        "window_s": window_s,
        "values": base64.b64encode(np.round(scaled).astype(np.uint8).tobytes()).decode(),
        "min": lowest,
        "max": highest,
    }


def busy(retry_after_s: int) -> Problem:
    """The problem of too many requests at once."""
    return Problem(
        429,
        "too many requests at once",
        hint=f"try again in {retry_after_s} s",
        headers={"Retry-After": str(retry_after_s)},
    )


def _rate_of(model: Any) -> int | None:
    """The sampling rate in Hz that a model of sound takes."""
    return model.sr if model.facts.modality == "audio" else None


def _n_windows(model: Any, given: Any) -> int:
    """Windows that the network hears of a clip at most: silence at its ends is left out."""
    if not isinstance(given, Decoded):
        return 1
    return math.ceil(len(given.waveform) / model.window) * len(getattr(model, "views", (None,)))


def _n_tokens(model: Any, texts: Sequence[str]) -> list[int | None]:
    if not hasattr(model, "tokens"):
        return [None] * len(texts)
    return [len(row) for row in model.tokens.encode(list(texts))]


def _sentence(problem: Problem) -> str:
    return problem.detail + (f" (hint: {problem.hint})" if problem.hint else "")
