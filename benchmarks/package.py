"""Does a package run elsewhere: its requirements in a fresh environment, and its answers against `samo predict`.

    python artifacts/reports/record.py artifacts/reports/package/results.txt FILE=... FOLDER=... -- \\
        python benchmarks/package.py FILE FOLDER

FILE is an exported model, FOLDER a new one for the package and the environment. pip downloads what its index has.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from samo.deploy.package import package

KEY = "a key for this run alone"


def main(argv: list[str]) -> int:
    file, folder = Path(argv[0]).resolve(), Path(argv[1]).resolve()
    made = package(file, folder / "package")
    again = package(file, folder / "again")
    same = made.files == again.files
    print(f"package: {len(made.files) + 1} files, {made.size_mb:.2f} MB, made twice: same bytes {same}")
    python, here = folder / "venv" / "bin" / "python", made.path
    install(folder / "venv", here, "requirements.txt")
    listed = json.loads(run(python, "-m", "pip", "list", "--format", "json", folder=here))
    names = {each["name"].lower() for each in listed}
    print(f"torch, scipy or librosa installed: {bool(names & {'torch', 'scipy', 'librosa'})}")
    print(run(python, "-m", "pip", "check", folder=here).strip())
    inputs = inputs_of(here)
    began = time.perf_counter()
    answered = [json.loads(line) for line in run(python, "predict.py", *inputs, folder=here).splitlines()]
    print(f"predict.py of {len(inputs)} examples: {time.perf_counter() - began:.2f} s")
    run(python, "predict.py", "--check", folder=here)
    print("predict.py --check: ok")
    flags = [word for text in inputs for word in ("--text", text)] if "text" in answered[0] else inputs
    command = [sys.executable, "-m", "samo_cli", "predict", "--model", str(file), "--json", *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=here, check=True)
    predicted = json.loads(done.stdout)["predictions"]
    apart = max(
        abs(ours["probabilities"][label] - theirs["probabilities"][label])
        for ours, theirs in zip(answered, predicted, strict=True)
        for label in ours["probabilities"]
    )
    same = all(ours["label"] == theirs["label"] for ours, theirs in zip(answered, predicted, strict=True))
    print(f"against samo predict here: labels equal {same}, probabilities {apart:.1e} apart at most")
    install(folder / "venv", here, "requirements-serve.txt")
    print(served(folder / "venv", here, made.model))
    return 0


def inputs_of(here: Path) -> list[str]:
    """The package's examples, as predict.py takes them."""
    expected = json.loads((here / "examples" / "expected.json").read_text())
    return [f"examples/{each['file']}" if "file" in each else each["text"] for each in expected["examples"]]


def install(venv: Path, here: Path, requirements: str) -> None:
    began = time.perf_counter()
    if not venv.exists():
        run(Path(sys.executable), "-m", "venv", str(venv), folder=here)
    run(venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary",
        ":all:", "-r", requirements, folder=here)  # fmt: skip
    size = sum(path.lstat().st_size for path in venv.rglob("*") if not path.is_dir()) / 1e6
    print(f"fresh environment with {requirements}: {size:.0f} MB, {time.perf_counter() - began:.0f} s")


def served(venv: Path, here: Path, model: str) -> str:
    """Start the server as the container does, and call it as the example does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**clean(), "SAMO_API_KEY": KEY}
    command = [str(venv / "bin" / "samo"), "serve", model, "--host", "0.0.0.0", "--port", str(port)]
    began = time.perf_counter()
    server = subprocess.Popen(command, cwd=here, env=environment, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/healthz", timeout=1).close()
                break
            except OSError:
                if server.poll() is not None or time.perf_counter() - began > 60:
                    raise
                time.sleep(0.05)
        ready = time.perf_counter() - began
        call = subprocess.run(
            [str(venv / "bin" / "python"), "examples/call.py"], cwd=here, env={**environment, "SAMO_URL": url},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        label = json.loads(call.stdout)["label"]
    finally:
        server.terminate()
        status = server.wait(60)
    return (
        f"samo serve: healthy after {ready:.1f} s, examples/call.py answered '{label}', status {status} after SIGTERM"
    )


def run(program: Path, *words: str, folder: Path) -> str:
    done = subprocess.run([str(program), *words], cwd=folder, env=clean(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{program.name} {' '.join(words)}: {done.stderr or done.stdout}")
    return done.stdout


def clean() -> dict[str, str]:
    """The environment without what would show this checkout to the fresh one."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
