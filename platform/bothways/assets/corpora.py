"""From the members of a package to labelled text, a JSON object a line, which `readers.json_lines` reads."""

from __future__ import annotations

import email
import email.policy
import json
import lzma
import pickle
import shutil
import tarfile
import warnings
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from bothways.assets.converters import needs

Row = dict[str, Any]
_R_XZ = b"Z"  # how R marks, behind four bytes of length, that a serialised object is raw LZMA2


def write(folder: Path, split: str, rows: Iterable[Row]) -> None:
    """`text`, `label` (null in the split `unlabelled`), and whatever else a source says of a row."""
    with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def vader(domain: str, folder: Path) -> None:
    """Texts that people have rated from -4 to 4. The label is the sign of their mean; those of mean 0 are unlabelled.

    `ratings`: what each of them said. Of some tweets the archive has two means: that of the ratings it lists counts.
    """
    archive = folder / "ratings.tar.gz"
    with tarfile.open(archive) as opened:
        texts, ratings = (_table(opened, f"hutto_ICWSM_2014/{domain}_{part}.txt") for part in _VADER_FILES)
    rated = {number: json.loads(line[-1]) for number, *line in ratings}
    rows = [{"text": text, "label": _sign(rated[number]), "ratings": rated[number]} for number, _, text in texts]
    write(folder, "train", (row for row in rows if row["label"]))
    write(folder, "unlabelled", (row for row in rows if not row["label"]))
    archive.unlink()


_VADER_FILES = ("GroundTruth", "anonDataRatings")


def _table(archive: tarfile.TarFile, name: str) -> list[list[str]]:
    member = archive.extractfile(name)
    assert member is not None, name
    lines = member.read().decode("utf-8-sig").replace("\r", "").split("\n")
    return [line.split("\t") for line in lines if line]


def _sign(ratings: list[int]) -> str | None:
    total = sum(ratings)
    return None if total == 0 else "positive" if total > 0 else "negative"


def fine_foods(folder: Path) -> None:
    """Two data frames out of R's lazy-load database: `database.rdx` says where in `database.rdb` each object lies."""
    with needs("rdata"):
        import rdata

    where = rdata.read_rds(folder / "database.rdx")["variables"]
    data = (folder / "database.rdb").read_bytes()
    for split, name in (("train", "training_data"), ("test", "testing_data")):
        start, size = map(int, where[name])
        frame = _r_object(data[start : start + size])
        columns = (frame["review"], frame["score"])
        write(folder, split, ({"text": text, "label": label} for text, label in zip(*columns, strict=True)))
    for member in ("database.rdx", "database.rdb"):
        (folder / member).unlink()


def _r_object(stored: bytes) -> Any:
    from rdata.conversion import convert
    from rdata.parser import parse_data

    if stored[4:5] != _R_XZ:
        raise ValueError("an R object that is not compressed by xz")
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a tibble becomes a data frame: that is what is wanted
        return convert(parse_data(lzma.decompress(stored[5:], format=lzma.FORMAT_RAW, filters=filters)))


def mails(folder: Path) -> None:
    """Subject and body of mails, a file each, in folders named after the kind of mail.

    The other headers are left out: they tell which mailbox a mail was collected from. So are the lines into which a
    spam filter has written what it found.
    """
    files = sorted(folder.glob("*/*.json"))
    write(folder, "train", map(_mail, files))
    for kind in {file.parent for file in files}:
        shutil.rmtree(kind)


def _mail(file: Path) -> Row:
    stored = json.loads(file.read_text("utf-8"))
    text = stored["text"]
    text = text.partition("\n")[2] if text.startswith("From ") else text  # the mark between the mails of a mailbox
    mail = email.message_from_string(text, policy=email.policy.compat32)
    subject = str(mail["subject"] or "").replace("\n", " ").strip()
    parts = [part for part in mail.walk() if part.get_content_maintype() == "text"]
    plain = [part for part in parts if part.get_content_subtype() == "plain"] or parts
    lines = "\n".join(map(_payload, plain)).split("\n")
    body = "\n".join(line for line in lines if not line.startswith("SPAM:")).strip()
    label = "spam" if stored["group"].startswith("spam") else "ham"
    return {"text": f"{subject}\n{body}".strip(), "label": label, "group": stored["group"]}


def _payload(part: Any) -> str:
    """A part's text, decoded as it says; what cannot be decoded stays as it is."""
    if part["content-transfer-encoding"] is None:
        return str(part.get_payload())
    data = part.get_payload(decode=True) or b""
    try:
        return str(data.decode(part.get_content_charset("utf-8"), "replace"))
    except LookupError:  # a charset that nobody knows
        return str(data.decode("latin-1"))


class _PlainData(pickle.Unpickler):
    """Numbers, strings and containers of them; whatever names a class or a function is refused."""

    def find_class(self, module: str, name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(f"{module}.{name} in a file that should hold plain data")


def plain_pickle(file: BinaryIO) -> Any:
    """Raises `pickle.UnpicklingError` for a pickle that asks for any code."""
    return _PlainData(file).load()


def inews(folder: Path) -> None:
    """News articles, each split a pickle of titles, contents and class numbers. The text is the article's title and
    its content, whose line breaks were stored as backslash and n.

    `headline`: the title without the name of a topic or site behind it, where it is whole. `content`: that without
    lines that are the headline, where some is left and does not say it.
    """
    for split, name in (("train", "train"), ("selection", "dev"), ("test", "test")):
        file = folder / f"{name}.pkl"
        with file.open("rb") as opened:
            rows = zip(*plain_pickle(opened), strict=True)
        write(folder, split, (_article(*(str(value).replace("\\n", "\n") for value in row)) for row in rows))
        file.unlink()


def _article(title: str, content: str, label: str) -> Row:
    row = {"text": f"{title}\n{content}", "label": label, "title": title}
    headline = title.partition("_")[0].strip()
    if len(headline) < _HEADLINE or headline.startswith(_CUT) or headline.endswith(_CUT):
        return row
    row["headline"] = headline
    lines = (line.strip() for line in content.split("\n"))
    body = "\n".join(line for line in lines if line and not _says(line, headline))
    if len(body) >= _BODY and headline not in body:
        row["content"] = body
    return row


def _says(line: str, headline: str) -> bool:
    """Whether a line is the headline, or `原标题：` and the headline."""
    return headline in line and len(line) <= len(headline) + _AROUND


_CUT = ("...", "…")  # titles as search engines shorten them
_HEADLINE, _BODY, _AROUND = 6, 20, 12  # characters


movie, amazon, nyt, tweets = (
    partial(vader, domain)
    for domain in ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets", "tweets")
)
