"""``samo stream``."""

from __future__ import annotations

import json as json_text
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from samo.errors import DataError, Interrupted, SettingsError, counted
from samo.printable import json_escaped
from samo_cli.options import Artifacts, Device, Precision, Threads

if TYPE_CHECKING:
    import numpy as np

    from samo.tasks import LabelSpace
    from samo_audio.live import Moment
    from samo_audio.predictor import AudioPredictor
    from samo_audio.sources import Source

__all__ = ["stream"]

_MOST_SECONDS = 1e9


def stream(
    source: Annotated[
        str, typer.Argument(metavar="[FILE]", help="A recording; - is stdin; the microphone when left out.")
    ] = "",
    run: Annotated[
        str, typer.Option(metavar="RUN", help="Name or folder of a run on speech; the newest when left out.")
    ] = "",
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="NAME|FILE.onnx", help="In place of --run: samo-speech, which comes with SAMO, or an exported file."
        ),
    ] = None,
    hop: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="From one window to the next; a window is as long as the model's."),
    ] = 0.5,
    smoothing: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="After so long a window weighs 37 % in the smoothed answer; 0 shows the latest window alone.",
        ),
    ] = 3.0,
    voice_activity: Annotated[
        bool,
        typer.Option(
            "--voice-activity/--no-voice-activity",
            help="Leave windows without speech unanswered, or answer every one that is not silent.",
        ),
    ] = True,
    seconds: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="Stop after so much sound; 0 = at its end, or Ctrl-C.")
    ] = 0.0,
    pace: Annotated[
        Literal["", "real", "fast"],
        typer.Option(
            metavar="real|fast",
            help="Of a file and stdin: as it would be heard, or as fast as it comes. [a file: real; stdin: fast]",
            show_default=False,
        ),
    ] = "",
    format: Annotated[
        Literal["wav", "s16le", "f32le"],
        typer.Option(metavar="wav|s16le|f32le", help="Of stdin: a WAV, or raw samples, which need --sr."),
    ] = "wav",
    sr: Annotated[int, typer.Option(min=0, metavar="HZ", help="Rate of raw samples.", show_default=False)] = 0,
    channels: Annotated[int, typer.Option(min=1, metavar="INTEGER", help="Channels of raw samples.")] = 1,
    device_mic: Annotated[
        str, typer.Option(metavar="NUMBER|NAME", help="Which microphone; the system's own choice when left out.")
    ] = "",
    list_devices: Annotated[bool, typer.Option("--list-devices", help="List the microphones and leave.")] = False,
    artifacts: Artifacts = "",
    device: Device = "auto",
    precision: Precision = "float32",
    threads: Threads = 0,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a window, one a line, on stdout and nothing else.")
    ] = False,
) -> None:
    """Name the emotion of what a microphone hears, window by window, with bars that follow.

    The first answer comes after one window of the model. Windows in which nobody speaks are "no speech" and change
    nothing. Ctrl-C ends it with a summary.
    """
    if run and model:
        raise SettingsError("--run and --model exclude each other")
    if list_devices:
        _list()
        return
    if seconds > _MOST_SECONDS:
        raise SettingsError(f"--seconds {seconds:g}: seconds from 0 to {_MOST_SECONDS:g}; 0 is until its end")
    _refuse_useless(source, pace=pace, format=format, sr=sr, channels=channels, device_mic=device_mic)
    with ExitStack() as opened:
        # What cannot be heard is told before torch is imported; a microphone that waited for it would lose sound.
        sound = _sound(source, format, sr, channels)
        predictor = _model(run, model, artifacts, device=device, precision=precision, threads=threads)
        from samo_audio.live import live
        from samo_audio.sources import at_pace, microphone
        from samo_cli.render import note

        sound = sound or opened.enter_context(microphone(device_mic))
        real = (pace or ("fast" if source in ("", "-") else "real")) == "real"
        blocks = at_pace(sound) if real else sound.blocks
        taken = _Taken(sound)
        moments = live(
            predictor,
            _until(blocks, sound.sr, seconds),
            sound.sr,
            hop_s=hop,
            smoothing_s=smoothing,
            voice=voice_activity,
        )
        note(f"model {predictor.facts.name}, windows of {predictor.window_s:g} s from {sound.name} ({sound.sr} Hz)")
        stopped = _follow(moments, taken, predictor.space, json)
        for line in taken.summary():
            note(line)
        if stopped:
            raise Interrupted(f"after {taken.end_s:.1f} s")


def _follow(moments: Iterable[Moment], taken: _Taken, space: LabelSpace, json: bool) -> bool:
    """Count and show each window as it comes; whether Ctrl-C came before the last."""
    from samo_cli.render.live import live_view

    with live_view(space, shown=not json) as show:
        try:
            for moment in moments:
                taken.take(moment)
                if json:
                    _print(moment, taken.sound)
                else:
                    show(moment, taken.sound.lost_s)
        except KeyboardInterrupt:
            return True
    return False


@dataclass
class _Taken:
    """What a stream came to."""

    sound: Source
    n: int = 0
    spoken: int = 0
    end_s: float = 0.0
    labels: Counter[str] = field(default_factory=Counter)

    def take(self, moment: Moment) -> None:
        """Count a window."""
        self.n, self.end_s = self.n + 1, moment.end_s
        if moment.speech:
            self.spoken += 1
            answer = next(iter(moment.answers.values()))
            self.labels[answer.label or "none"] += 1

    def summary(self) -> Iterator[str]:
        """Lines for people."""
        yield f"{self.end_s:.1f} s heard: {counted(self.n, 'window')}, {self.spoken} of them with speech"
        if self.spoken:
            shares = ", ".join(f"{label} {n / self.spoken:.0%}" for label, n in self.labels.most_common())
            yield f"answers to these: {shares}"
        if self.sound.overruns:
            yield (
                f"{counted(self.sound.overruns, 'overrun')}: {self.sound.lost_s:.1f} s or more were lost, the model is "
                "slower than the sound comes; a longer `hop` asks less of it"
            )


def _list() -> None:
    from samo_audio.sources import microphones
    from samo_cli.render import note, show_table

    found = microphones()
    if not found:
        note("there is no microphone")
        return
    rows = [(str(number), name, str(channels), str(sr)) for number, name, channels, sr in found]
    show_table(("number", "microphone", "channels", "Hz"), rows, numbers=("number", "channels", "Hz"))


def _refuse_useless(source: str, *, pace: str, format: str, sr: int, channels: int, device_mic: str) -> None:
    """Refuse flags that would do nothing.

    Raises:
        SettingsError: names the flag.
    """
    if source and device_mic:
        raise SettingsError("--device-mic names a microphone; leave FILE out")
    if not source and pace:
        raise SettingsError("--pace is for a file or stdin; a microphone has its own")
    if source != "-" and (format != "wav" or sr or channels != 1):
        raise SettingsError("--format, --sr and --channels say what comes from stdin", hint="write - in place of FILE")


def _sound(source: str, format: Literal["wav", "s16le", "f32le"], sr: int, channels: int) -> Source | None:
    """A file or stdin; None where it is a microphone, which is there."""
    from samo_audio.sources import file_source, pipe_source, require_microphone

    if not source:
        require_microphone()
        return None
    if source != "-":
        return file_source(Path(source))
    # Python has none where it was closed before: samo stream - <&-
    if sys.stdin is None:
        raise DataError("stdin is closed", hint="pipe sound into it, or name a file")
    return pipe_source(sys.stdin.buffer, format, sr, channels)


def _model(run: str, model: Path | None, artifacts: str, **how: Any) -> AudioPredictor:
    """The model.

    Raises:
        SettingsError: it is none of speech.
    """
    from samo.runs.artifacts import artifacts_root, find_model
    from samo.runs.load import load, load_exported
    from samo.runs.released import model_file

    file = model_file(model, run, artifacts_root(artifacts))
    if file:
        from samo.prediction.exported import ExportedModel

        exported = ExportedModel.open(file)
        _require_speech(exported.modality, str(file))
        return cast("AudioPredictor", load_exported(exported, **how))
    found = find_model(artifacts_root(artifacts), run)
    _require_speech(found.modality, f"run '{found.name}'")
    return cast("AudioPredictor", load(found, **how))


def _require_speech(modality: str, name: str) -> None:
    from samo.runs.released import other_model

    if modality != "audio":
        raise SettingsError(f"{name} was trained on text; a stream needs a model of speech", hint=other_model("audio"))


def _until(blocks: Iterable[np.ndarray], sr: int, seconds: float) -> Iterator[np.ndarray]:
    """Blocks until so many seconds were heard; 0: all."""
    left = round(seconds * sr)
    for block in blocks:
        yield block[..., :left] if seconds else block
        left -= block.shape[-1]
        if seconds and left <= 0:
            return


def _print(moment: Moment, sound: Source) -> None:
    line = json_text.dumps({**moment.to_json(), "lost_s": round(sound.lost_s, 3)}, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(json_escaped(line) + "\n")
    sys.stdout.flush()
