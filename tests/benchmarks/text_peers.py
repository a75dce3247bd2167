"""What other libraries do to the same texts, one row after another as they do: nlpaug, textaugment and textattack.

Their WordNet is the asset `wordnet`, their stop words none, so that they look nothing up in a list of them. nlpaug asks
a tagger, which is a download, for parts of speech before it takes a synonym: here every word is a noun without asking,
which spares it most of that time. What it has of tf-idf has counted the rows. textaugment is told how many words to
change and not which share of them, row by row. The number of AEDA's marks is its own, one to a third of the words.
textattack needs flair, which needs a transformers below 5: beside ours it is left out, and its operations here have not
been run.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from unittest import mock

from bothways import assets

Work = Callable[[list[str]], object]
P = 0.1


def found(texts: list[str]) -> dict[str, Work]:
    """Each operation of each library that can be imported, by a name that begins with the library's."""
    random.seed(0)
    peers: dict[str, Work] = {}
    makers = (("nlpaug", _nlpaug), ("nlpaug", _synonyms), ("textaugment", _textaugment), ("textattack", _textattack))
    for library, make in makers:
        try:
            made = make(texts)
        except Exception as missing:  # whatever an import of theirs runs into beside our versions
            print(f"left out: {library}: {type(missing).__name__}: {missing}", file=sys.stderr)
            continue
        peers |= {f"{library} {name}": partial(_each, work) for name, work in made.items()}
    return peers


def _each(work: Callable[[str], object], rows: list[str]) -> list[object]:
    return [work(row) for row in rows]


def _nlpaug(texts: list[str]) -> dict[str, Callable[[str], object]]:
    import nlpaug.augmenter.char as char
    import nlpaug.augmenter.word as word
    import nlpaug.model.word_stats as statistics

    counted = statistics.TfIdf()
    counted.train([text.split() for text in texts])
    with tempfile.TemporaryDirectory() as folder:
        counted.save(folder)
        informed, inserting = (
            word.TfIdfAug(model_path=folder, action=action, aug_p=P, aug_max=None)
            for action in ("substitute", "insert")
        )
    vocabulary = sorted({w for text in texts for w in text.split() if w.isalpha()})
    return {
        "delete": word.RandomWordAug(action="delete", aug_p=P, aug_max=None).augment,
        "swap": word.RandomWordAug(action="swap", aug_p=P, aug_max=None).augment,
        "substitute": word.RandomWordAug(action="substitute", aug_p=P, aug_max=None, target_words=vocabulary).augment,
        "tf-idf": informed.augment,
        "tf-idf insertion": inserting.augment,
        "keyboard": char.KeyboardAug(aug_word_p=P, aug_char_max=1, aug_word_max=None).augment,
        "ocr": char.OcrAug(aug_word_p=P, aug_char_max=1, aug_word_max=None).augment,
    }


def _synonyms(_: list[str]) -> dict[str, Callable[[str], object]]:
    import nlpaug.augmenter.word as word
    import nltk
    from nlpaug.model.word_dict import WordNet

    nltk.data.path.append(str(assets.resolve("asset:wordnet")))
    WordNet.pos_tag = staticmethod(lambda tokens: [(token, "NN") for token in tokens])
    return {"synonyms": word.SynonymAug(aug_p=P, aug_max=None).augment}


def _textaugment(_: list[str]) -> dict[str, Callable[[str], object]]:
    import nltk
    from textaugment import AEDA, EDA

    nltk.data.path.append(str(assets.resolve("asset:wordnet")))
    with mock.patch.object(nltk, "download"):  # what it would fetch is there
        eda = EDA(stop_words=[])
    aeda = AEDA()

    def times(change: Callable[[str, int], str]) -> Callable[[str], str]:
        return lambda row: change(row, max(1, round(P * len(row.split()))))

    def punctuation(row: str) -> str:
        try:
            return str(aeda.punct_insertion(row))
        except ValueError:  # of fewer than three words
            return row

    return {
        "deletion": partial(eda.random_deletion, p=P),
        "swap": times(eda.random_swap),
        "insertion": times(eda.random_insertion),
        "synonyms": times(eda.synonym_replacement),
        "AEDA": punctuation,
    }


def _textattack(_: list[str]) -> dict[str, Callable[[str], object]]:
    import nltk

    nltk.data.path.append(str(assets.resolve("asset:wordnet")))
    with mock.patch.object(nltk, "download"):
        from textattack import transformations as do
        from textattack.augmentation import Augmenter
        from textattack.constraints.pre_transformation import RepeatModification

        characters = [
            do.WordSwapNeighboringCharacterSwap(),
            do.WordSwapRandomCharacterSubstitution(),
            do.WordSwapRandomCharacterDeletion(),
            do.WordSwapRandomCharacterInsertion(),
        ]
        changes = {
            "deletion": do.WordDeletion(),
            "swap": do.WordInnerSwapRandom(),
            "insertion": do.WordInsertionRandomSynonym(),
            "synonyms": do.WordSwapWordNet(),
            "keyboard": do.WordSwapQWERTY(),
            "characters": do.CompositeTransformation(characters),
        }
    return {
        name: Augmenter(change, constraints=[RepeatModification()], pct_words_to_swap=P).augment
        for name, change in changes.items()
    }
