"""Words replaced by synonyms of WordNet."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from samo.errors import EnvironmentProblem
from samo.files import alone, cache_root
from samo_text.rewriting.words import Piece, how_many, in_case_of, is_negation, join_pieces, pieces_of, sample

__all__ = ["CITATION", "LICENSE", "Synonyms", "download_wordnet", "open_wordnet"]

LICENSE = "WordNet 3.0 licence (free, Princeton University)"
CITATION = "Fellbaum (1998): WordNet: An Electronic Lexical Database, MIT Press"

_PARTS_OF_SPEECH = "nvar"
_SHORTEST = 3


class Synonyms:
    """Replaces words by synonyms.

    After synonym replacement of EDA (Wei & Zou 2019), itself after Zhang, Zhao & LeCun (2015, "Character-level
    Convolutional Networks for Text Classification"). Function words and negations stay. A word is replaced only where
    it is written as WordNet lists it, so that inflections agree, by a lemma of its most frequent sense as noun, verb,
    adjective or adverb. Which of these it is in the sentence is not known: some replacements are wrong, and an article
    before them may be too (a/an).
    """

    deterministic = False

    def __init__(self, strength: float, wordnet: Any | None = None) -> None:
        """``strength`` is the share of the words to replace, in (0, 1]; ``wordnet`` an nltk reader, opened if None.

        Raises:
            EnvironmentProblem: WordNet is not on this machine.
        """
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        self.strength = strength
        self._wordnet = wordnet or open_wordnet()
        self._stop_words = ENGLISH_STOP_WORDS
        self._of = cache(self._look_up)

    def rewrite(self, texts: Sequence[str], chances: Sequence[random.Random]) -> list[str]:
        """Each text with some of its words replaced; as it is where none has a synonym."""
        return [self._rewritten(text, chance) for text, chance in zip(texts, chances, strict=True)]

    def _rewritten(self, text: str, chance: random.Random) -> str:
        pieces = pieces_of(text)
        words = [place for place, piece in enumerate(pieces) if piece.kind == "word"]
        able = [place for place in words if self._of(pieces[place].text.lower())]
        for place in sample(able, how_many(self.strength, len(words)), chance) if able else []:
            known = self._of(pieces[place].text.lower())
            chosen = known[int(chance.random() * len(known))]
            pieces[place] = Piece("word", in_case_of(chosen, pieces[place].text))
        return join_pieces(pieces)

    def _look_up(self, word: str) -> tuple[str, ...]:
        """Synonyms in the order WordNet lists them; none for function words, negations and inflected forms."""
        if len(word) < _SHORTEST or not word.isalpha() or word in self._stop_words or is_negation(word):
            return ()
        found: dict[str, None] = {}
        for part in _PARTS_OF_SPEECH:
            senses = [
                sense for sense in self._wordnet.synsets(word, part) if word in map(str.lower, sense.lemma_names())
            ]
            for name in senses[0].lemma_names() if senses else ():
                other = name.replace("_", " ")
                if other.lower() != word and not is_negation(other.split()[0]):
                    found[other] = None
        return tuple(found)


def open_wordnet() -> Any:
    """nltk's reader of WordNet, from nltk's own folders or from where :func:`download_wordnet` put it.

    Raises:
        EnvironmentProblem: it is in neither, or damaged.
    """
    import nltk.data
    from nltk.corpus.reader import WordNetCorpusReader

    class English(WordNetCorpusReader):
        def map_wn(self, version: str = "wordnet") -> None:
            """No mapping for other languages: it would be looked for in nltk's own folders only."""

    if str(_folder()) not in nltk.data.path:
        # nltk reads files below its own list of places only.
        nltk.data.path.append(str(_folder()))
    for name in ("corpora/wordnet", "corpora/wordnet.zip/wordnet/"):
        try:
            root = nltk.data.find(name)
        except LookupError:
            continue
        try:
            with warnings.catch_warnings():
                # Other languages are not asked for.
                warnings.simplefilter("ignore")
                return English(root, None)
        except Exception as error:
            raise EnvironmentProblem(
                f"WordNet in {root} cannot be read: {error}", hint="remove it, then: samo data download wordnet"
            ) from error
    raise EnvironmentProblem(
        "`augment=synonyms` needs WordNet, which is not on this machine",
        hint="samo data download wordnet (11 MB, WordNet licence); or copy corpora/wordnet into ~/nltk_data",
    )


def download_wordnet() -> Path:
    """Fetch WordNet into SAMO's cache, check it against nltk's index and unpack it; returns its folder.

    Raises:
        EnvironmentProblem: nltk's index or server cannot be reached, or what is there is damaged.
        DataError: what came is not what the index lists.
        DiskFull: no space is left.
    """
    folder = _folder() / "corpora"
    with alone(folder / "wordnet"):
        _fetch_wordnet(folder)
    open_wordnet()
    return folder / "wordnet"


def _fetch_wordnet(folder: Path) -> None:
    from nltk.downloader import Downloader

    from samo.data.download import download
    from samo.data.unzip import unpack_zip

    if not (folder / "wordnet").is_dir():
        hint = f"fetch wordnet.zip elsewhere (nltk_data, packages/corpora) and put it into {folder}"
        try:
            package = Downloader().info("wordnet")
        except (ValueError, OSError) as error:
            raise EnvironmentProblem(f"WordNet cannot be downloaded: {error}", hint=hint) from error
        packed = download(
            package.url,
            folder / "wordnet.zip",
            size=int(package.size),
            md5=package.checksum or "",
            sha256=getattr(package, "sha256_checksum", ""),
            hint=hint,
        )
        unpacked = unpack_zip(packed, folder / "wordnet.unpacked")
        # The archive holds a folder of that name.
        (unpacked / "wordnet").replace(folder / "wordnet")
        unpacked.rmdir()
        packed.unlink()


def _folder() -> Path:
    return cache_root() / "nltk_data"
