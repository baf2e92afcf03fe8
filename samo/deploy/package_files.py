"""The files of a deployment package that are text: what runs it, and what is said of it.

Names that come from a run (its name, its corpus, its labels) stand in Markdown only, escaped. What Docker, Compose, a
shell or Python reads holds no more of them than a slug of letters, digits and hyphens.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from samo.printable import printable

__all__ = ["Facts", "markdown", "slug_of", "text_files"]

PORT = 8000
_USER = 10001
_LONGEST_SLUG = 60


@dataclass(frozen=True)
class Facts:
    """What the files say of the model.

    Attributes:
        slug: its name in file names, and under which it is served.
        name: its name as it is.
        modality: ``audio`` or ``text``.
        description: lines on what it answers, on what it was trained and how good it is.
        dataset: what it was trained on.
        licence: of these data; empty where unknown.
        citation: of these data; may be empty.
        terms: what the licence means for the weights.
        synthetic: whether the data were generated.
        card: the run's model card; empty where it has none.
        first: the first example, as a file below ``examples`` or a text.
        samo: version.
        python: major and minor version, as ``3.11``.
    """

    slug: str
    name: str
    modality: str
    description: tuple[str, ...]
    dataset: str
    licence: str
    citation: str
    terms: tuple[str, ...]
    synthetic: bool
    card: str
    first: str
    samo: str
    python: str = f"{sys.version_info.major}.{sys.version_info.minor}"

    @property
    def model(self) -> str:
        """The model's file."""
        return f"{self.slug}.onnx"


def slug_of(name: str) -> str:
    """A name as lower-case letters, digits and single hyphens, which mean nothing to a shell, to YAML or to Docker."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_LONGEST_SLUG].strip("-")
    return slug or "model"


def markdown(text: str) -> str:
    """A name from data or settings as one line that Markdown takes for plain words."""
    return re.sub(r"([\\`*_|<>\[\]#!&~])", r"\\\1", printable(" ".join(text.split())))


def text_files(facts: Facts) -> dict[str, str]:
    """All of them by their place in the package."""
    return {
        "predict.py": _PREDICT.replace("MODEL_FILE", facts.model).replace("INPUTS", _INPUTS[facts.modality]),
        "MODEL_CARD.md": facts.card or _without_card(facts),
        "LICENSE.md": _licence(facts),
        "README.md": _readme(facts),
        "Dockerfile": _dockerfile(facts),
        ".dockerignore": "*\n" + "".join(f"!{name}\n" for name in (*_BUILT, *_shipped(facts))),
        "compose.yaml": _compose(facts),
        "examples/call.sh": _call_sh(facts),
        "examples/call.py": _call_py(facts),
    }


_INPUTS = {"audio": "CLIP", "text": "TEXT"}
_BUILT = ("requirements.txt", "requirements-serve.txt", "wheels")

_PREDICT = '''\
"""One line of JSON for each INPUTS: python predict.py INPUTS ...

    python predict.py --check     compare this installation's answers to examples/ with those of examples/expected.json
"""

import json
import sys
from pathlib import Path

import samo

HERE = Path(__file__).resolve().parent
MODEL = HERE / "MODEL_FILE"


def check(model) -> int:
    """How many examples are answered otherwise than where this package was made."""
    expected = json.loads((HERE / "examples" / "expected.json").read_text(encoding="utf-8"))
    different = 0
    for example in expected["examples"]:
        given = example["text"] if "text" in example else HERE / "examples" / example["file"]
        answer = model.predict(given).to_json()
        if "message" in answer:
            sys.exit(f"{given}: {answer['message']}")
        far = max(
            abs(probability - answer["tasks"][task]["probabilities"][label])
            for task, wanted in example["tasks"].items()
            for label, probability in wanted["probabilities"].items()
        )
        good = answer["label"] == example["label"] and far <= expected["tolerance"]
        different += not good
        name = example.get("file", example.get("text"))
        print(f"{'ok' if good else 'DIFFERENT'}: {name}: {answer['label'] or 'no label'}, {far:.4f} apart at most")
    return different


def main(inputs: list[str]) -> int:
    """The exit status: 0, or 1 where an input could not be read or an example is answered otherwise."""
    if not inputs or inputs[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    model = samo.load(MODEL)
    if inputs == ["--check"]:
        return 1 if check(model) else 0
    failed = False
    for prediction in model.stream(inputs):
        print(json.dumps(prediction.to_json(), ensure_ascii=False))
        failed = failed or bool(prediction.error)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
'''

_HEALTH = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{PORT}/healthz', timeout=3)"


def _shipped(facts: Facts) -> tuple[str, ...]:
    return (facts.model, "MODEL_CARD.md", "LICENSE.md")


def _dockerfile(facts: Facts) -> str:
    base = f"python:{facts.python}-slim-bookworm"
    return f"""\
# Two stages: what installs packages is not in the image that answers.
FROM {base} AS build
WORKDIR /build
COPY {" ".join(_BUILT[:2])} ./
COPY {_BUILT[2]} ./{_BUILT[2]}
RUN python -m venv --without-pip /opt/samo \\
    && python -m pip --python /opt/samo/bin/python install --no-cache-dir --only-binary :all: -r requirements-serve.txt

FROM {base}
RUN python -m pip uninstall --yes --quiet setuptools wheel pip \\
    && groupadd --gid {_USER} samo \\
    && useradd --uid {_USER} --gid {_USER} --no-create-home --shell /usr/sbin/nologin samo
COPY --from=build /opt/samo /opt/samo
WORKDIR /app
COPY {" ".join(_shipped(facts))} ./
ENV PATH=/opt/samo/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp SAMO_CACHE=/tmp/samo
USER {_USER}:{_USER}
EXPOSE {PORT}
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \\
    CMD ["python", "-c", "{_HEALTH}"]
# Without SAMO_API_KEY in the environment it does not start: whoever reaches the port could use it.
ENTRYPOINT ["samo", "serve", "{facts.model}", "--host", "0.0.0.0", "--port", "{PORT}"]
"""


def _compose(facts: Facts) -> str:
    return f"""\
name: {facts.slug}
services:
  samo:
    build: .
    image: "samo-{facts.slug}:{facts.samo}"
    environment:
      SAMO_API_KEY: "${{SAMO_API_KEY:?set it to a key of at least 16 characters, such as openssl rand -hex 16 prints}}"
    ports:
      - "127.0.0.1:{PORT}:{PORT}"
    read_only: true
    tmpfs:
      - "/tmp:size=256m,mode=1777"
    cap_drop:
      - ALL
    security_opt:
      - "no-new-privileges:true"
    pids_limit: 256
    mem_limit: 4g
    init: true
    stop_grace_period: 40s
    restart: unless-stopped
    healthcheck:
      test: ["CMD", "python", "-c", "{_HEALTH}"]
      interval: 30s
      timeout: 5s
      start_period: 30s
      retries: 3
"""


def _call_sh(facts: Facts) -> str:
    if facts.modality == "audio":
        body = f"""-H "Content-Type: audio/wav" --data-binary "@$here/{facts.first}" \\
    "http://127.0.0.1:{PORT}/v1/predict/audio\""""
    else:
        body = f"""-H "Content-Type: application/json" -d '{{"text": "Thank you so much, this made my day!"}}' \\
    "http://127.0.0.1:{PORT}/v1/predict/text\""""
    return f"""\
#!/bin/sh
# Ask the server of this package, whose key is in SAMO_API_KEY.
set -eu
here=$(dirname "$0")
curl --fail-with-body --silent --show-error -H "Authorization: Bearer $SAMO_API_KEY" \\
    {body}
"""


def _call_py(facts: Facts) -> str:
    if facts.modality == "audio":
        route, kind = "audio", "audio/wav"
        body = f'(Path(__file__).resolve().parent / "{facts.first}").read_bytes()'
        imports = "import json\nimport os\nimport urllib.request\nfrom pathlib import Path"
    else:
        route, kind = "text", "application/json"
        body = 'json.dumps({"text": "Thank you so much, this made my day!"}).encode()'
        imports = "import json\nimport os\nimport urllib.request"
    return f'''\
"""Ask the server of this package, whose key is in SAMO_API_KEY; needs nothing but Python."""

{imports}

request = urllib.request.Request(
    os.environ.get("SAMO_URL", "http://127.0.0.1:{PORT}") + "/v1/predict/{route}",
    data={body},
    headers={{"Authorization": "Bearer " + os.environ["SAMO_API_KEY"], "Content-Type": "{kind}"}},
)
with urllib.request.urlopen(request, timeout=30) as response:
    print(json.dumps(json.load(response), indent=2))
'''


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _without_card(facts: Facts) -> str:
    return f"""\
# {markdown(facts.name)}

{_lines([markdown(line) for line in facts.description])}

**The run had no model card when it was exported**, so nothing here says how good it is on people it has not heard.
Evaluate it (`samo evaluate`), then make this package again.
"""


def _licence(facts: Facts) -> str:
    citation = f"\nTo be named: {markdown(facts.citation)}\n" if facts.citation else ""
    synthetic = " They are synthetic: generated, not taken from people." if facts.synthetic else ""
    return f"""\
# Licences

## The software
SAMO is under the MIT licence; its text is in the wheel. Every package of the requirements files has its own licence.

## The data
The model learned from {markdown(facts.dataset) or "data that it does not name"}.{synthetic} \
Licence: {markdown(facts.licence) or "unknown"}.
{citation}
## The weights
{_lines(facts.terms)}
- Where training began from published weights, as the card says, their licence holds as well.

This is no legal advice.

## The examples
Everything in `examples/` was made by SAMO or written for it: CC0-1.0.
"""


def _readme(facts: Facts) -> str:
    word = "clip" if facts.modality == "audio" else "text"
    shown = f"examples/{facts.first}" if facts.modality == "audio" else '"Thank you so much!"'
    return f"""\
# {markdown(facts.name)}

A model that names the emotion of a {word}, with all that is needed to run it. It was packaged by SAMO {facts.samo}.

{_lines([markdown(line) for line in facts.description])}

## Run it with Python {facts.python}

```sh
python{facts.python} -m venv .venv
.venv/bin/python -m pip install -r requirements.txt
.venv/bin/python predict.py {shown}
```

Call pip in this folder: the requirements name the wheel of SAMO in `wheels/`. `predict.py --check` says whether this
machine answers the examples as the one did where the package was made. For the server: `pip install -r
requirements-serve.txt`, then `samo serve {facts.model}`.

## Run it with Docker

```sh
export SAMO_API_KEY=$(openssl rand -hex 16)
docker compose up --build --wait
sh examples/call.sh
```

The page is at http://127.0.0.1:{PORT}/, the interface at /docs. The port is bound to this machine: put a proxy that
speaks TLS before it to let others in. The base image is named by its version; `docker buildx imagetools inspect
python:{facts.python}-slim-bookworm` shows the digest to pin it to.

## What is here

| file | what |
|---|---|
| `{facts.model}` | the model: network, features, labels, temperatures and thresholds in one ONNX file |
| `MODEL_CARD.md` | on what it was trained, how good it is, for what it is not meant |
| `LICENSE.md` | licence of the data, and what it means for the weights |
| `predict.py` | prediction from the command line |
| `requirements.txt`, `requirements-serve.txt` | exact versions for prediction, and for the server; no torch |
| `wheels/` | SAMO itself |
| `examples/` | inputs, the answers to expect, a call in shell and in Python |
| `Dockerfile`, `.dockerignore`, `compose.yaml` | the server in a container: own user, read-only, no privileges |
| `samo-package.json` | the digests of all these files |

## Limits

- It names what an expression resembles in the data it learned from. It cannot know what a person feels.
- People, languages, settings and devices that are not in these data are answered too, and may be answered wrongly.
- Make no decisions about people with it. In the European Union, Article 5(1)(f) of the AI Act (Regulation (EU)
  2024/1689) forbids inferring emotions of people at work and in education from biometric data such as a voice, except
  for medical or safety reasons; elsewhere Article 50(3) asks you to tell people that such a system watches them.
- Read `MODEL_CARD.md` before you rely on it, and `LICENSE.md` before you pass it on.
"""
