"""One clip from a cold start: a run beside its exported file, in turn; and whether threads that wait may spin.

    samo export my-run -o my-run.onnx
    python benchmarks/cold_start.py --run my-run --model my-run.onnx clip.wav

Times depend on the machine and on who else uses it; the ratio less so, since both run in the same minute.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time

import numpy as np

from samo.prediction.exported import INPUTS, ExportedModel

SAMO = [sys.executable, "-m", "samo_cli", "predict"]


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip")
    parser.add_argument("--run", required=True)
    parser.add_argument("--model", required=True, help="the file exported of the run")
    parser.add_argument("--repeat", type=int, default=7)
    args = parser.parse_args()
    ways = {"run": ["--run", args.run], "file": ["--model", args.model]}
    seen: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for turn in range(args.repeat + 1):
        for way, given in ways.items():
            took = timed([*SAMO, *given, args.clip])
            if turn:  # the first is a warm-up
                seen[way].append(took)
    for way, took in seen.items():
        wall, cpu = (statistics.median(column) for column in zip(*took, strict=True))
        print(f"{way:5} {wall:6.2f} s, {cpu:5.2f} s of CPU (median of {args.repeat})")
    ratios = [a[0] / b[0] for a, b in zip(seen["run"], seen["file"], strict=True)]
    print(f"the file answers {statistics.median(ratios):.1f} times sooner")
    for spinning in ("1", "0"):
        wall, cpu = batches(ExportedModel.open(args.model), spinning)
        how = "spin" if spinning == "1" else "sleep"
        print(f"32 inputs, threads that wait {how}: {wall:6.3f} s, {cpu:6.3f} s of CPU")


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds and CPU seconds of a whole process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def batches(model: ExportedModel, spinning: str, repeat: int = 5) -> tuple[float, float]:
    """Median seconds and CPU seconds of a batch of 32 windows, with half as long between them as one takes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    session = onnxruntime.InferenceSession(model.content, options, providers=["CPUExecutionProvider"])
    first, second = INPUTS[model.modality]
    width = model.audio_reading.window if model.modality == "audio" else model.text_reading.max_tokens
    inputs = np.ones((32, width), np.float32 if model.modality == "audio" else np.int64)
    took = []
    for _ in range(repeat + 1):
        started, used = time.perf_counter(), time.process_time()
        session.run(["logits"], {first: inputs, second: np.full(32, width)})
        wall = time.perf_counter() - started
        time.sleep(wall / 2)
        took.append((wall, time.process_time() - used))
    wall, cpu = (statistics.median(column) for column in zip(*took[1:], strict=True))
    return wall, cpu


if __name__ == "__main__":
    main()
