"""Labelled text out of what packages hold it in: small packages made by hand, the real readers."""

from __future__ import annotations

import io
import json
import lzma
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import rdata

from bothways.assets import corpora, readers
from tests.assets import packing


def test_the_sign_of_the_mean_is_the_label_and_every_rater_is_kept(tmp_path: Path) -> None:
    texts = "1_1\t0.5\tgood stuff\n1_2\t-1.5\tbad stuff\r\n2_1\t0\tjust stuff\n"
    ratings = "\ufeff2_1\t0\t1.0\t[-1, 1]\n1_1\t0.5\t0.5\t[0, 1]\n1_2\t-1.5\t0.5\t[-1, -2]\n"  # in another order
    packing.tar(
        tmp_path / "ratings.tar.gz",
        {
            "hutto_ICWSM_2014/tweets_GroundTruth.txt": texts.encode(),
            "hutto_ICWSM_2014/tweets_anonDataRatings.txt": ratings.encode(),
        },
    )
    corpora.tweets(tmp_path)
    assert readers.json_lines(tmp_path) == {
        "train": [("good stuff", "positive"), ("bad stuff", "negative")],
        "unlabelled": [("just stuff", None)],
    }
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text("utf-8").splitlines()]
    assert [row["ratings"] for row in rows] == [[0, 1], [-1, -2]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.jsonl", "unlabelled.jsonl"]


def test_data_frames_come_out_of_a_lazy_load_database_of_r(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
    database, where = b"", {}
    for name, score in (("training_data", "great"), ("testing_data", "other")):
        frame = {"review": np.array(["tasty", "as\nadvertised"]), "score": np.array([score, score])}
        rdata.write_rds(tmp_path / "one.rds", frame, compression=None)
        plain = (tmp_path / "one.rds").read_bytes()
        stored = len(plain).to_bytes(4, "big") + b"Z" + lzma.compress(plain, lzma.FORMAT_RAW, filters=filters)
        where[name] = np.array([len(database), len(stored)], dtype=np.int32)
        database += stored
    (tmp_path / "one.rds").unlink()
    (tmp_path / "database.rdb").write_bytes(database)
    rdata.write_rds(tmp_path / "database.rdx", {"variables": where})
    corpora.fine_foods(tmp_path)
    assert readers.json_lines(tmp_path) == {
        "train": [("tasty", "great"), ("as\nadvertised", "great")],
        "test": [("tasty", "other"), ("as\nadvertised", "other")],
    }


MAIL = """From someone@example.org  Thu Aug 22 13:17:22 2002
Delivered-To: the-mailbox-that-gives-it-away
Subject: An
 offer
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary="x"

--x
Content-Type: text/plain; charset="no-such-charset"
Content-Transfer-Encoding: quoted-printable

caf=E9
SPAM: 5 hits
--x
Content-Type: text/html

<p>not this one</p>
--x--
"""


def test_a_mail_is_its_subject_and_its_plain_body(tmp_path: Path) -> None:
    mails = {"spam-2": MAIL, "hard-ham-1": "Subject: Plain\n\nHello –\nyou\n", "easy-ham-1": "\n<b>no subject</b>"}
    for group, text in mails.items():
        (tmp_path / group).mkdir()
        (tmp_path / group / "1.json").write_text(json.dumps({"group": group, "text": text}), "utf-8")
    corpora.mails(tmp_path)
    assert readers.json_lines(tmp_path) == {
        "train": [("<b>no subject</b>", "ham"), ("Plain\nHello –\nyou", "ham"), ("An  offer\ncafé", "spam")]
    }
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]


def test_news_have_what_follows_their_title_apart_too(tmp_path: Path) -> None:
    long = "这是一篇足够长的报道，里面没有说它的标题是什么。"
    articles = [
        ("兰州警方打掉套路贷团伙_兰州", f"原标题：兰州警方打掉套路贷团伙\\n{long}\\n\\n 完。", "first"),
        ("兰州警方打掉套路贷团伙", f"据报道，兰州警方打掉套路贷团伙，{long}", "said within the article"),
        ("...兰州警方打掉套路贷团伙", long, "cut"),
        ("标题", long, "too short"),
        ("兰州警方打掉套路贷团伙", "兰州警方打掉套路贷团伙", "nothing else"),
    ]
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps([*zip(*articles, strict=True)]))
    corpora.inews(tmp_path)
    texts = [(f"{title}\n{content}".replace("\\n", "\n"), label) for title, content, label in articles]
    assert readers.json_lines(tmp_path) == dict.fromkeys(("selection", "test", "train"), texts)
    apart = readers.json_lines(tmp_path, text="content", label="headline")
    assert apart["test"] == [(f"{long}\n完。", "兰州警方打掉套路贷团伙")]
    assert len(readers.json_lines(tmp_path, label="title")["train"]) == 5


class Evil:
    def __reduce__(self) -> object:
        return os.system, ("echo never",)


@pytest.mark.parametrize("what", [Evil(), Path("x"), len, [1, {"a": Evil()}]])
def test_a_pickle_that_names_any_code_is_refused(what: object, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(pickle.UnpicklingError, match="should hold plain data"):
        corpora.plain_pickle(io.BytesIO(pickle.dumps(what)))
    assert "never" not in capfd.readouterr().out
    assert corpora.plain_pickle(io.BytesIO(pickle.dumps(([1], "a", {"b": 2.0})))) == ([1], "a", {"b": 2.0})
