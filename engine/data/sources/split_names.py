"""Names of splits as people write them: train, Training Set, seg_test, val2017, trainImages, …"""

import re
from collections.abc import Iterable

SPLIT_ORDER = ("train", "validation", "test")
UNLABELLED = "unlabelled"
SPLITS = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "trainval": "train",  # both, of which a share is drawn to validate with
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validating": "validation",
    "dev": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "test": "test",
    "testing": "test",
    "tst": "test",
    "holdout": "test",
}
# Folders of pictures that are there to be predicted.
_UNLABELLED_WORDS = dict.fromkeys(("pred", "predict", "unlabelled", "unlabeled"), UNLABELLED)
_ROLES = {**SPLITS, **_UNLABELLED_WORDS}
SPLIT_COLUMNS = {
    "split", "set", "subset", "partition", "usage", "dataset", "phase", "fold", "folds", "kfold", "k_fold", "cv_fold",
    "fold_id", "data_split", "dataset_split",
    "split_name", "train_test", "train_val_test", "purpose",
}  # fmt: skip
_FLAGS = {**dict.fromkeys(("1", "1.0", "true", "t", "yes", "y"), True)}
_FLAGS |= dict.fromkeys(("0", "0.0", "false", "f", "no", "n"), False)
_FILLERS = {
    "set", "sets", "data", "dataset", "split", "subset", "image", "images", "img", "imgs", "picture", "pictures",
    "photos", "pics", "files", "folder", "the",
}  # fmt: skip
_FUSED = re.compile(f"({'|'.join(sorted(_ROLES, key=len, reverse=True))})({'|'.join(sorted(_FILLERS))})")


def split_roles(names: Iterable[str]) -> dict[str, str]:
    """Which of the names are those of splits, and of which one: train, validation, test or unlabelled.

    A name counts if it is a split's word alone or with words like set and images, or if it shares what else it says
    with the name of another split, as seg_train and seg_test do (but not "bullet train").
    """
    read = {name: found for name in names if (found := _read(name)) is not None}
    sharing: dict[tuple[str, ...], set[str]] = {}
    for role, rest in read.values():
        sharing.setdefault(rest, set()).add(role)
    return {name: role for name, (role, rest) in read.items() if not rest or len(sharing[rest]) > 1}


def is_split_column(name: str) -> bool:
    """Whether a column of a table, by its name in lower case, says which split a row belongs to."""
    is_flag = name in SPLITS or re.match(r"is_(train|test|val)", name) is not None
    return is_flag or name in SPLIT_COLUMNS


def split_of_value(value: str, column: str = "") -> str | None:
    """The split that a cell names: in words, or yes and no in a column named like one (is_valid); None for none."""
    role = _only_role(column)
    if role is not None and value.lower() in _FLAGS:
        return role if _FLAGS[value.lower()] else "test" if role == "train" else "train"
    return _only_role(value)


def truth_of(cell: str) -> bool | None:
    """What a cell of 0 and 1, or yes and no, says; None for another."""
    return _FLAGS.get(cell.strip().lower())


def _only_role(text: str) -> str | None:
    found = _read(text)
    return None if found is None else found[0]


def are_folds(names: Iterable[str]) -> bool:
    """Whether all names are numbered folds of a cross-validation: fold1, Fold_2, kfold-3, cv4."""
    return all(re.fullmatch(r"(k[ _-]?)?(fold|cv)s?[ _-]?\d+", name.lower()) for name in names)


def is_ordinary_word(name: str) -> bool:
    """Whether a split's name is a word that names things too: a train beside a tram, valid beside invalid."""
    return name.lower() in ("train", "valid")


def _read(name: str) -> tuple[str, tuple[str, ...]] | None:
    """(split, the other words) of a name in which one word is that of a split."""
    spaced = re.sub(r"hold[ _-]out", "holdout", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    spaced = re.sub(r"train[ _+-]+val\b", "trainval", spaced)
    words: list[str] = []
    for word in re.findall(r"[^\W\d_]+", spaced):
        fused = _FUSED.fullmatch(word)
        words += fused.groups() if fused else [word]
    roles = [_ROLES[word] for word in words if word in _ROLES]
    if len(roles) != 1:
        return None
    return roles[0], tuple(word for word in words if word not in _ROLES and word not in _FILLERS)
