"""What a config's source names, as records by split."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from bothways.assets import asset, resolve
from bothways.assets.packages import offline
from bothways.data.reading import Columns, Record, names, records
from bothways.errors import UserError, one_line

_HUB_SPLITS = {"train": "train", "validation": "selection", "dev": "selection", "test": "test"}


def parts(source: str, columns: Columns) -> dict[str, Iterator[Record]]:
    """The records of `train` and, where the source has its own, of `selection`, `test` and `unlabelled`.

    Raises `UserError` for a source that cannot be had; a file is opened when its records are first asked for.
    """
    if source.startswith("asset:"):
        return _asset(source, columns)
    if source.startswith("hf:"):
        return _hub(source, columns)
    return {"train": records(resolve(source), columns)}


def _asset(source: str, columns: Columns) -> dict[str, Iterator[Record]]:
    item = asset(source.removeprefix("asset:"))
    if item.read is None:
        raise UserError(f"asset {item.name!r} is a {item.kind}, not labelled text: see `bothways assets list`")
    if item.pair and (columns.text, columns.pair) != item.pair:
        text, pair = item.pair
        raise UserError(f"asset {item.name!r} has pairs of texts: set data.text to {text} and data.pair to {pair}")
    if columns.pair is not None and not item.pair:
        raise UserError(f"asset {item.name!r} has single texts: leave data.pair out")
    asked: dict[str, str | int] = {}
    texts = item.pair[:1] if item.pair else ("text", *item.texts)
    for what, named, there in (("text", columns.text, texts), ("label", columns.label, ("label", *item.targets))):
        if named not in (*there, None):
            raise UserError(f"asset {item.name!r} has no column {named!r} for data.{what}, only {', '.join(there)}")
        if named is not None and named != there[0]:
            asked[what] = named
    rows = item.read(resolve(source), **asked)
    return {
        split: ((number, list(row)) for number, row in enumerate(rows[split], 1))
        for split in ("train", "selection", "test", "unlabelled")
        if split in rows
    }


def _hub(source: str, columns: Columns) -> dict[str, Iterator[Record]]:
    """`hf:org/name@revision` or `hf:org/name/subset@revision`, through the datasets library (no code of the hub's)."""
    where, _, revision = source.removeprefix("hf:").partition("@")
    name, subset = "/".join(where.split("/")[:2]), "/".join(where.split("/")[2:])
    try:
        found = hub_dataset(name, subset or None, revision or None)
    except Exception as error:  # the library has a dozen kinds; each means the same to the user
        raise UserError(
            f"{source} cannot be had: {one_line(error)}; check the name, the network and HF_HUB_OFFLINE, "
            "or export it to a parquet file and give its path"
        ) from error
    if "train" not in found:
        raise UserError(f"{source} has no split 'train', only {', '.join(sorted(found))}")
    return {
        _HUB_SPLITS[split]: _hub_records(source, rows, columns)
        for split, rows in found.items()
        if split in _HUB_SPLITS and not _unlabelled(rows, columns)
    }


def hub_dataset(name: str, subset: str | None, revision: str | None) -> dict[str, Any]:
    """Split name → `datasets.Dataset`."""
    from datasets import DownloadConfig, load_dataset  # a second to import, and only these sources need it

    return dict(
        load_dataset(name, subset, revision=revision, download_config=DownloadConfig(local_files_only=offline()))
    )


def _unlabelled(rows: Any, columns: Columns) -> bool:
    """Some hub datasets hide the labels of their test split behind -1."""
    if columns.label not in rows.column_names or not hasattr(rows.features[columns.label], "dtype"):
        return False  # labels of several parts
    return rows.num_rows > 0 and set(rows.unique(columns.label)) == {-1}


def _hub_records(source: str, rows: Any, columns: Columns) -> Iterator[Record]:
    named = names(source, columns)
    for name in named:
        if name not in rows.column_names:
            raise UserError(f"{source}: no column {name!r}, only {', '.join(rows.column_names)}")
    feature = rows.features[named[-1]]
    classes = getattr(getattr(feature, "feature", feature), "names", None)  # a ClassLabel, or lists of them: integers
    batches = (zip(*(batch[name] for name in named), strict=True) for batch in rows.iter(batch_size=1000))
    for number, values in enumerate(chain.from_iterable(batches), 1):
        *texts, label = values
        if classes is not None and isinstance(label, list):
            label = [classes[one] if one >= 0 else "" for one in label]
        elif classes is not None and label is not None:
            label = classes[label] if label >= 0 else None
        yield number, [*texts, label]
