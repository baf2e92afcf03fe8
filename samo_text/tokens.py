"""From text to token ids, tokenised once and cached: subwords of a pretrained encoder, or hashed words."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol
from zipfile import BadZipFile

import numpy as np
from pydantic import Field

from samo.data.padding import packed, padded, parts_of
from samo.errors import ModelFileError, SettingsError, plural
from samo.files import cache_root, caching, parse_json, write_json
from samo.prediction.readings import INPUTS, named
from samo.stored import Stored, Text, validated
from samo_text.texts import clean

if TYPE_CHECKING:
    from samo_text.config import TextConfig

__all__ = [
    "PLACEHOLDERS",
    "EncoderTokens",
    "FileTokens",
    "HashTokens",
    "SeveralTokens",
    "TokenLists",
    "Tokens",
    "about_cut",
    "exported_tokens",
    "open_tokens",
    "token_lists",
]

# GoEmotions masks names and religions so (Demszky et al. 2020, section 3.2); each becomes one token.
PLACEHOLDERS = ("[NAME]", "[RELIGION]")

# A text of a megabyte costs no more than one of so many characters a token; tokens are a tenth as long on average.
_CHARACTERS_PER_TOKEN = 64
_CHUNK = 2048
_CACHE_VERSION = 1
_WORDS = re.compile(r"\[[A-Z]+\]|\w+(?:['\u2019]\w+)*|[^\w\s]")
_HASH_BITS = (1 << 62) - 1
# Of an ensemble whose members read unlike tokens.
_SEVERAL = "several_tokens.json"


class Tokens(Protocol):
    """How a text becomes ids.

    Attributes:
        pad_id: what short rows of a batch are filled with; masked everywhere.
        digest: SHA-256 of everything the ids depend on.
    """

    @property
    def pad_id(self) -> int:
        """What short rows of a batch are filled with; masked everywhere."""

    @property
    def digest(self) -> str:
        """SHA-256 of everything the ids depend on."""

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """(T_i,) int64 ids of each text, special tokens included, cut at the longest length; never empty."""

    def n_tokens(self, ids: np.ndarray) -> int:
        """How many tokens ``encode`` made of a text; of several models' tokens those of the one that reads most."""

    def cut_at(self, text: str, ids: np.ndarray | None = None) -> int | None:
        """After how many tokens the rest of a text is left out; None where all of it is read.

        Args:
            text: any text.
            ids: what ``encode`` made of it, where that is known: a text of few tokens is not looked at.
        """

    def save(self, folder: Path) -> None:
        """Write what :func:`open_tokens` needs to make the same ids again; nothing when settings are enough."""

    def to_json(self) -> dict[str, Any]:
        """What :func:`exported_tokens` needs to make the same ids again.

        Raises:
            SettingsError: only its own library can make them.
        """


class HashTokens:
    """Lower-cased words and punctuation marks, each its own 62-bit hash: no vocabulary is learned, so none can leak.

    A model folds the hashes into a table of its own size (feature hashing, Weinberger et al. 2009).
    """

    pad_id = 0

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens

    @property
    def digest(self) -> str:
        """The pattern and the longest length decide everything."""
        return hashlib.sha256(f"hash-1:{_WORDS.pattern}:{self.max_tokens}".encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """(T_i,) int64 in [1, 2**62); a text without a word or mark is one token of its own."""
        return [np.array([word_hash(word) for word in self._words(text)], dtype=np.int64) for text in texts]

    def n_tokens(self, ids: np.ndarray) -> int:
        """As many as there are ids."""
        return len(ids)

    def cut_at(self, text: str, ids: np.ndarray | None = None) -> int | None:
        """The most words and marks that are read, of a text that has more."""
        if ids is not None and len(ids) < self.max_tokens:
            return None
        return self.max_tokens if len(_WORDS.findall(clean(text))) > self.max_tokens else None

    def save(self, folder: Path) -> None:
        """Nothing: the settings are enough."""

    def to_json(self) -> dict[str, Any]:
        """Their kind."""
        return {"kind": "hash"}

    def _words(self, text: str) -> list[str]:
        found = _WORDS.findall(readable(text, self.max_tokens))[: self.max_tokens]
        return [word if word in PLACEHOLDERS else word.lower() for word in found] or [""]


@lru_cache(maxsize=1 << 18)
def word_hash(word: str) -> int:
    """62-bit hash of a word, the same on every machine, never 0 (which pads)."""
    return (int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little") & _HASH_BITS) or 1


class EncoderTokens:
    """Subwords of a pretrained encoder, with ``[NAME]`` and ``[RELIGION]`` as tokens of their own."""

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        """``tokenizer`` is a ``transformers`` tokenizer; the placeholders are added where they are missing."""
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        tokenizer.add_tokens([word for word in PLACEHOLDERS if word not in tokenizer.get_vocab()], special_tokens=True)

    @classmethod
    def load(cls, place: str, max_tokens: int) -> EncoderTokens:
        """Read the tokenizer of an encoder.

        Args:
            place: a folder, or a name on the Hugging Face hub.
            max_tokens: longest text in tokens.

        Raises:
            ModelFileError: a folder without a usable tokenizer.
            EnvironmentProblem: a name that is neither on this machine nor reachable.
        """
        from transformers import AutoTokenizer

        from samo.encoders.hub import NO_CODE, offline, reading, source_of

        with reading(place, "tokenizer"):
            return cls(
                AutoTokenizer.from_pretrained(source_of(place), local_files_only=offline(place), **NO_CODE), max_tokens
            )

    @property
    def pad_id(self) -> int:
        """The tokenizer's own padding, or 0 for one that has none: masked either way."""
        return int(self.tokenizer.pad_token_id or 0)

    def __len__(self) -> int:
        """Size of the vocabulary, added tokens included."""
        return len(self.tokenizer)

    @cached_property
    def digest(self) -> str:
        """Vocabulary, rules, the side that is cut, the longest length and who applies them."""
        if self.tokenizer.is_fast:
            facts = json.loads(self.tokenizer.backend_tokenizer.to_str())
            # How the last call cut and padded stays behind in the tokenizer.
            rules = {name: fact for name, fact in facts.items() if name not in ("truncation", "padding")}
        else:
            options = {name: str(value) for name, value in sorted(self.tokenizer.init_kwargs.items())}
            # Where it was read from is no rule of it.
            rules = {name: value for name, value in options.items() if not name.endswith(("_file", "name_or_path"))}
            rules |= {"class": type(self.tokenizer).__name__, "vocabulary": sorted(self.tokenizer.get_vocab().items())}
        facts = [rules, self.tokenizer.truncation_side, self.max_tokens, version("tokenizers"), version("transformers")]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """(T_i,) int64 ids with the encoder's special tokens."""
        found: list[np.ndarray] = []
        for start in range(0, len(texts), _CHUNK):
            part = [readable(text, self.max_tokens) for text in texts[start : start + _CHUNK]]
            ids = self.tokenizer(part, truncation=True, max_length=self.max_tokens)["input_ids"]
            # A tokenizer without special tokens makes nothing of an empty text.
            found += [np.array(row or [self.pad_id], dtype=np.int64) for row in ids]
        return found

    def n_tokens(self, ids: np.ndarray) -> int:
        """As many as there are ids."""
        return len(ids)

    def cut_at(self, text: str, ids: np.ndarray | None = None) -> int | None:
        """The most subwords that are read, special tokens included, of a text that has more."""
        if ids is not None and len(ids) < self.max_tokens:
            return None
        if len(clean(text)) > self.max_tokens * _CHARACTERS_PER_TOKEN:
            return self.max_tokens
        found = self.tokenizer(readable(text, self.max_tokens), verbose=False)["input_ids"]
        return self.max_tokens if len(found) > self.max_tokens else None

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files."""
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)

    def to_json(self) -> dict[str, Any]:
        """The text of ``tokenizer.json``, and the side that is cut.

        Raises:
            SettingsError: the tokenizer is one of Python, which only ``transformers`` can run.
        """
        if not self.tokenizer.is_fast:
            raise SettingsError(
                f"the tokenizer {type(self.tokenizer).__name__} cannot be exported: it has no tokenizer.json",
                hint="take an encoder with a fast tokenizer",
            )
        side = self.tokenizer.truncation_side
        return {"kind": "tokenizers", "tokenizer": self.tokenizer.backend_tokenizer.to_str(), "truncation_side": side}


class SeveralTokens:
    """What several models read of each text, packed into one row; see :func:`samo.data.padding.packed`."""

    pad_id = 0

    def __init__(self, parts: tuple[HashTokens | EncoderTokens | FileTokens, ...]) -> None:
        self.parts = parts

    @classmethod
    def load(cls, folder: Path) -> SeveralTokens:
        """Read what :meth:`save` wrote.

        Raises:
            ModelFileError: it is damaged.
        """
        path = folder / _SEVERAL
        try:
            stored = validated(_StoredSeveral, parse_json(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise ModelFileError(f"cannot read {path}: {error}") from error
        return cls(
            tuple(
                HashTokens(part.max_tokens)
                if part.kind == "hash"
                else EncoderTokens.load(str(_part_folder(folder, place)), part.max_tokens)
                for place, part in enumerate(stored.parts)
            )
        )

    @property
    def digest(self) -> str:
        """Those of the parts."""
        return hashlib.sha256(":".join(["several", *(part.digest for part in self.parts)]).encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """(T_i,) int64 of each text: the lengths of its parts, then their ids."""
        return [packed(row) for row in zip(*(part.encode(texts) for part in self.parts), strict=True)]

    def n_tokens(self, ids: np.ndarray) -> int:
        """Those of the longest part."""
        return int(ids[: len(self.parts)].max())

    def cut_at(self, text: str, ids: np.ndarray | None = None) -> int | None:
        """The smallest longest length of the parts that leave the rest out."""
        n = len(self.parts)
        own = [None] * n if ids is None else parts_of(ids, n)
        found = (part.cut_at(text, each) for part, each in zip(self.parts, own, strict=True))
        return min((most for most in found if most is not None), default=None)

    def save(self, folder: Path) -> None:
        """Write the kinds of the parts, and the files of encoders' tokenizers."""
        for place, part in enumerate(self.parts):
            part.save(_part_folder(folder, place))
        kinds = ["hash" if isinstance(part, HashTokens) else "encoder" for part in self.parts]
        parts = [{"kind": kind, "max_tokens": part.max_tokens} for kind, part in zip(kinds, self.parts, strict=True)]
        write_json(folder / _SEVERAL, {"parts": parts})

    def to_json(self) -> dict[str, Any]:
        """Nothing: an exported file has a reading of its own for each part.

        Raises:
            SettingsError: always.
        """
        raise SettingsError("these tokens are several models'")

    def feeds(self, inputs: np.ndarray, lengths: np.ndarray) -> Iterator[Mapping[str, np.ndarray]]:
        """What an exported network is given of (B, T) rows of :meth:`encode`: each part alone, 0 behind its rows."""
        rows = [parts_of(row, len(self.parts)) for row in inputs]
        batches = [padded(part) for part in zip(*rows, strict=True)]
        yield {
            named(name, k): each
            for k, batch in enumerate(batches)
            for name, each in zip(INPUTS["text"], batch, strict=True)
        }


class _StoredPart(Stored):
    kind: Literal["hash", "encoder"]
    max_tokens: Annotated[int, Field(strict=True, ge=1)]


class _StoredSeveral(Stored):
    parts: Annotated[tuple[_StoredPart, ...], Field(min_length=1)]


def _part_folder(folder: Path, place: int) -> Path:
    return folder / f"tokens-{place}"


class FileTokens:
    """Subwords by the text of a ``tokenizer.json``: those of :class:`EncoderTokens`, without ``transformers``."""

    def __init__(self, text: str, max_tokens: int, pad_id: int, truncation_side: str = "right") -> None:
        """Read the tokenizer.

        Raises:
            ValueError: it is none, or leaves no room beside its special tokens.
        """
        from tokenizers import Tokenizer

        self.max_tokens, self.pad_id = max_tokens, pad_id
        self._text = text
        try:
            self._tokenizer: Any = Tokenizer.from_str(text)
            special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
            if max_tokens <= special:
                raise ValueError(f"{max_tokens} tokens leave no room beside {special} special ones")
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(max_tokens, direction=truncation_side)
        except (KeyboardInterrupt, SystemExit, MemoryError, ValueError):
            raise
        # A panic of the library is no Exception.
        except BaseException as error:
            raise ValueError(f"its tokenizer cannot be read: {' '.join(str(error).split())[:200]}") from error

    @cached_property
    def digest(self) -> str:
        """Vocabulary, rules, the longest length and who applies them."""
        return hashlib.sha256(json.dumps([self._text, self.max_tokens, version("tokenizers")]).encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """(T_i,) int64 ids with the encoder's special tokens."""
        found: list[np.ndarray] = []
        for start in range(0, len(texts), _CHUNK):
            part = [readable(text, self.max_tokens) for text in texts[start : start + _CHUNK]]
            rows = (encoding.ids for encoding in self._tokenizer.encode_batch(part))
            found += [np.array(row or [self.pad_id], dtype=np.int64) for row in rows]
        return found

    def n_tokens(self, ids: np.ndarray) -> int:
        """As many as there are ids."""
        return len(ids)

    def cut_at(self, text: str, ids: np.ndarray | None = None) -> int | None:
        """The most subwords that are read, special tokens included, of a text that has more."""
        if ids is not None and len(ids) < self.max_tokens:
            return None
        if len(clean(text)) > self.max_tokens * _CHARACTERS_PER_TOKEN:
            return self.max_tokens
        return self.max_tokens if self._tokenizer.encode(readable(text, self.max_tokens)).overflowing else None

    def save(self, folder: Path) -> None:
        """Nothing: the file it came from is enough."""

    def to_json(self) -> dict[str, Any]:
        """What it was read from."""
        side = self._tokenizer.truncation["direction"]
        return {"kind": "tokenizers", "tokenizer": self._text, "truncation_side": side}


def readable(text: str, max_tokens: int) -> str:
    """The text as a tokenizer can take it: clean, NFC, and no longer than so many tokens can be."""
    return unicodedata.normalize("NFC", clean(text)[: max_tokens * _CHARACTERS_PER_TOKEN])


def open_tokens(config: TextConfig, assets: Path | None = None) -> Tokens:
    """The tokens of the configured model; an encoder's from ``assets`` where a run kept them there.

    Raises:
        SettingsError: tokens longer than the encoder can take.
        ModelFileError, EnvironmentProblem: see :meth:`EncoderTokens.load`.
    """
    longest = config.tokens.max_tokens
    if assets is not None and (assets / _SEVERAL).is_file():
        return SeveralTokens.load(assets)
    if not config.model.encoder:
        return HashTokens(longest)
    kept = assets is not None and (assets / "tokenizer_config.json").is_file()
    tokens = EncoderTokens.load(str(assets) if kept else config.model.encoder, longest)
    special = tokens.tokenizer.num_special_tokens_to_add()
    if longest <= special:
        raise SettingsError(f"`max_tokens={longest}` leaves no room beside {special} special tokens")
    return tokens


class _StoredTokens(Stored):
    kind: Literal["hash", "tokenizers"]
    tokenizer: Text = ""
    truncation_side: Literal["right", "left"] = "right"


def exported_tokens(data: object, max_tokens: int, pad_id: int, place: str) -> HashTokens | FileTokens:
    """The tokens of an exported file.

    Args:
        data: what ``to_json`` of the exported tokens gave.
        max_tokens: longest text in tokens.
        pad_id: what short rows of a batch are filled with.
        place: the file, for the error.

    Raises:
        ModelFileError: it is something else, or no tokenizer.
    """
    try:
        stored = validated(_StoredTokens, data)
        if stored.kind == "hash":
            return HashTokens(max_tokens)
        return FileTokens(stored.tokenizer, max_tokens, pad_id, stored.truncation_side)
    except ValueError as error:
        raise ModelFileError(f"cannot use {place}: {error}") from error


class TokenLists:
    """The ids of N texts, one behind the other.

    Attributes:
        lengths: (N,) int64 tokens by row.
    """

    def __init__(self, flat: np.ndarray, lengths: np.ndarray) -> None:
        self.lengths = lengths
        self._flat = flat
        self._starts = np.cumsum(lengths) - lengths

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.lengths)

    def row(self, row: int) -> np.ndarray:
        """(T,) int64 ids of a row; a view."""
        start = self._starts[row]
        return self._flat[start : start + self.lengths[row]]

    def followed_by(self, other: TokenLists) -> TokenLists:
        """These texts and then those."""
        return TokenLists(np.concatenate([self._flat, other._flat]), np.concatenate([self.lengths, other.lengths]))

    @classmethod
    def of(cls, lists: Sequence[np.ndarray]) -> TokenLists:
        """Join lists of ids."""
        return cls(np.concatenate(lists), np.array([len(ids) for ids in lists], dtype=np.int64))


def about_cut(tokens: Tokens, texts: Sequence[str], lists: TokenLists | None = None) -> list[str]:
    """A line on how many texts lose their ends.

    Args:
        tokens: what cuts them.
        texts: N texts.
        lists: their ids, where they are known: texts of few tokens are not looked at.
    """
    rows = [None] * len(texts) if lists is None else [lists.row(row) for row in range(len(lists))]
    found = [tokens.cut_at(text, row) for text, row in zip(texts, rows, strict=True)]
    cut = [most for most in found if most is not None]
    if not cut:
        return []
    what, longest = plural("texts is", len(cut), "texts are"), " or ".join(map(str, sorted(set(cut))))
    return [f"{len(cut):,} of {len(texts):,} {what} longer than {longest} tokens: the rest is cut off (`max_tokens`)"]


def token_lists(
    tokens: Tokens, texts: Sequence[str], on_progress: Callable[[int, int], None] | None = None
) -> TokenLists:
    """The ids of all texts, from the cache where these texts were tokenised so before."""
    known = hashlib.sha256(f"{_CACHE_VERSION}:{tokens.digest}:{len(texts)}".encode())
    for text in texts:
        known.update(hashlib.sha256(text.encode(errors="surrogatepass")).digest())
    path = cache_root() / "tokens" / f"{known.hexdigest()}.npz"
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as stored:
                return TokenLists(stored["ids"], stored["lengths"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            path.unlink(missing_ok=True)  # damaged: made again below
    ids: list[np.ndarray] = []
    for start in range(0, len(texts), _CHUNK):
        ids += tokens.encode(texts[start : start + _CHUNK])
        if on_progress:
            on_progress(len(ids), len(texts))
    lists = TokenLists.of(ids)
    with caching(path) as temporary:
        np.savez(temporary, ids=lists._flat, lengths=lists.lengths)
    return lists
