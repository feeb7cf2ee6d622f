"""Image files by their folders → splits and classes, as people lay them out, or why they are not recognised."""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.data.classes.names import composed
from engine.data.decoded.dataset import names_text
from engine.data.pictures.images import SUFFIXES
from engine.data.sources.split_names import SPLIT_ORDER, UNLABELLED, are_folds, is_ordinary_word, split_roles
from engine.data.sources.walk import ImageFile, is_folder, is_hidden
from engine.errors import InputError, problem
from engine.text import counted, one_line

LAYOUT = "one folder a class, like {name}/cat/1.jpg and {name}/dog/2.jpg, or these below {name}/train and {name}/test"

NUMBER_AT_END = r"[\W_]*\d+\W*\Z"
# The class is what stands before the number in a name. In one line for any shell, with nothing that one would act on.
MAKE_TABLE = (
    "python -c \"import csv, pathlib, re; t = open('labels.csv', 'w', newline='', encoding='utf-8'); "
    "csv.writer(t).writerows("
    "[('path', 'label'), *((f.name, re.sub(r'" + NUMBER_AT_END + "', '', f.stem)) "
    "for f in sorted(pathlib.Path('.').iterdir()) if f.suffix in %s and f.name[0] != '.')]); t.close()\""
)

# Files by class, in the order they are read in.
Classes = dict[str, list[ImageFile]]
Tell = Callable[[str], None]


@dataclass
class Layout:
    """What the folders stand for: files by split and class, the folder of each, and those of splits without classes."""

    splits: dict[str, Classes] = field(default_factory=dict)
    unlabelled: dict[str, Path] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)


def lay_out(root: Path, files: list[ImageFile], tell: Tell, tell_empty: Tell | None = None) -> Layout:
    """The splits and classes that the names of the files below `root` stand for.

    tell_empty: gets reports of folders without images, in place of `tell`.
    Raises InputError where folders would be taken for classes that are splits, or hold the same classes once more.
    """
    tops = _by_folder(files, 0)
    roles = split_roles(tops)
    others = [top for top in tops if top and top not in roles]
    if roles and not others:
        return _divided(root, tops, roles, tell, tell_empty or tell)
    kept = {top: role for top, role in roles.items() if not _is_class_of_that_name(top, tops)}
    divided = {top: role for top, role in kept.items() if role != UNLABELLED and _has_classes(top, tops)}
    if len(set(divided.values())) > 1:
        for top in others:
            tell(f"{root / top}: left out {counted(len(tops.pop(top)), 'image')} beside the folders of splits")
        return _divided(root, tops, roles, tell, tell_empty or tell)
    if divided:
        raise InputError(_split_beside_classes(root, next(iter(divided)), others))
    for top in kept:
        _tell_unlabelled(root / top, tops.pop(top), tell)
    classes = _classes(root, tops, 0, tell, tell_empty or tell)
    _check_several(root, classes, 0)
    _tell_of_splits(root, tuple(classes), tell)
    unlabelled = {_role_or_test(role): root / top for top, role in kept.items()}
    return Layout({"train": classes}, unlabelled, {"train": root})


def layout_problem(folder: Path, got: str, loose: Sequence[ImageFile] = ()) -> str:
    """The wording for a folder that is laid out in no way that is known; loose: pictures right in it."""
    endings = " ".join(sorted(SUFFIXES))
    rule, remedy = LAYOUT.format(name=name_of(folder)), f"Sort the files ({endings}) so."
    tables = sorted(path for place in (folder, folder.parent) for path in place.glob("*.csv"))
    if tables:
        remedy = f"If {one_line(tables[0].name)} names their classes, set --data.path {tables[0]}. Or sort them so."
    elif classes := _classes_in_names(loose):
        suffixes = tuple(sorted({Path(file.name).suffix for file in loose}))
        remedy = (
            f"If their names start with their classes ({names_text(classes)}), "
            f"run in that folder: {MAKE_TABLE % (suffixes,)} Then set --data.path {folder / 'labels.csv'}."
        )
    return problem("data.path", f"{folder} with {got}", rule, remedy)


def _classes_in_names(loose: Sequence[ImageFile]) -> tuple[str, ...]:
    """What stands before the numbers in names like cat.0.jpg and dog_1.jpg; nothing if that is no class of most."""
    stems = [Path(file.name).stem for file in loose]
    counts = Counter(re.sub(NUMBER_AT_END, "", stem) for stem in stems if re.search(NUMBER_AT_END, stem))
    several = tuple(sorted(name for name, count in counts.items() if name and count > 1))
    are_most = sum(counts[name] for name in several) > 0.9 * len(stems)
    return several if are_most and 1 < len(several) <= len(stems) / 2 else ()


def name_of(path: Path) -> str:
    """What reports call the data at a path: its last part, with � for what is no text."""
    name = Path(os.path.abspath(path)).name or "root"
    return "".join(letter if letter.isprintable() else "�" for letter in name)


def _by_folder(files: list[ImageFile], depth: int) -> Classes:
    """The files by the part of their names at a depth, in order; "" for those that lie there in no folder."""
    found: Classes = {}
    for file in files:
        parts = file.name.split("/", depth + 1)
        found.setdefault(parts[depth] if len(parts) > depth + 1 else "", []).append(file)
    return dict(sorted(found.items()))


def _has_classes(top: str, tops: Classes) -> bool:
    """Whether the pictures of a folder lie in several folders in it, or in one named like another beside it."""
    names = set(_by_folder(tops[top], _inner_depth(tops[top]))) - {""}
    return len(names) > 1 or not names.isdisjoint(tops)


def _inner_depth(files: list[ImageFile]) -> int:
    """How deep the classes of a split's folder lie: below it, and below folders of its name in it (train/train)."""
    depth = 1
    while len(below := _by_folder(files, depth)) == 1 and _is_same_split(next(iter(below)), files[0].name, depth):
        depth += 1
    return depth


def _is_same_split(folder: str, name: str, depth: int) -> bool:
    above = name.split("/")[depth - 1]
    roles = split_roles([folder, above])
    return folder.lower() == above.lower() or (len(roles) == 2 and roles[folder] == roles[above])


def _is_class_of_that_name(top: str, tops: Classes) -> bool:
    """Whether a folder named like a split is a class: the word names things too, and its pictures lie right in it."""
    return is_ordinary_word(top) and "" in _by_folder(tops[top], 1)


def _role_or_test(role: str) -> str:
    return "test" if role == UNLABELLED else role


def _divided(root: Path, tops: Classes, roles: dict[str, str], tell: Tell, tell_empty: Tell) -> Layout:
    """Files by split and class, for folders that are all named like splits."""
    layout, loose, read_as = Layout(), tops.pop("", []), list[str]()
    order = (*SPLIT_ORDER, UNLABELLED)
    for top in sorted(tops, key=lambda top: (order.index(roles[top]), top)):
        split, files, depth = roles[top], tops[top], _inner_depth(tops[top])
        folder, classes = root.joinpath(*files[0].name.split("/")[:depth]), _by_folder(files, depth)
        if split != "train" and len(tops) > 1 and _is_unlabelled(split, classes, layout):
            _tell_unlabelled(folder, files, tell)
            layout.unlabelled.setdefault(_role_or_test(split), folder)
        elif split in layout.splits or split == UNLABELLED:
            raise InputError(_two_folders(root, split, [other for other in tops if roles[other] == split]))
        else:
            layout.splits[split], layout.folders[split] = _classes(folder, classes, depth, tell, tell_empty), folder
            place = folder.relative_to(root).as_posix()
            read_as += [] if _is_evident(place.lower(), split) else [f"{place} as {split}"]
    if not layout.splits:
        raise InputError(layout_problem(root, "no class folders"))
    if "train" in layout.splits:
        _check_several(root, layout.splits["train"], 1)
    if read_as:
        tell(f"{root}: read {', '.join(read_as)}")
    _tell_of_loose(root, loose, tell)
    return layout


def _is_evident(name: str, split: str) -> bool:
    return split.startswith(name) or ("/" not in name and name.startswith(split))


def _is_unlabelled(split: str, classes: Classes, layout: Layout) -> bool:
    """Whether no classes are in a split's folder: pictures alone, or a single folder that is no class of training."""
    names = set(classes) - {""}
    if split == UNLABELLED or not names:
        return True
    known = set(layout.splits.get("train", ()))
    return len(names) == 1 and len(known) > 1 and not names & known


def _two_folders(root: Path, split: str, folders: list[str]) -> str:
    both, rule = " and ".join(folders), f"one folder for the {split} split"
    if split == UNLABELLED:
        both, rule = f"{both} alone", "folders of classes to train on"
    return problem("data.path", f"{both} in {root}", rule, "Rename or remove the other.")


def _split_beside_classes(root: Path, split: str, others: list[str]) -> str:
    got = f"{root} with {split}, which holds folders of its own, beside {names_text(tuple(others))}"
    remedy = "Move the others into folders named train, validation or test."
    if split_roles([split]).get(split) == "train":
        remedy = f"Set --data.path {root / split}, or move the others into folders named train, validation or test."
    return problem("data.path", got, "either splits or classes in it", remedy)


def _classes(folder: Path, found: Classes, depth: int, tell: Tell, tell_empty: Tell) -> Classes:
    """The class folders among what was found in a folder; reports what else is there."""
    loose = found.pop("", [])
    if not found:
        got = f"{len(loose):,} images and no folders of them" if loose else "no images"
        raise InputError(layout_problem(folder, got, loose))
    _check_no_splits_within(folder, found, depth)
    _check_no_folds(folder, found, depth)
    kept = _without_copy(folder, found, depth, tell)
    _tell_of_loose(folder, loose, tell)
    with os.scandir(folder) as entries:
        folders = {composed(entry.name) for entry in entries if not is_hidden(entry.name) and is_folder(entry)}
    if empty := tuple(sorted(folders - set(found))):
        tell_empty(f"{folder}: no images in {names_text(empty)}, left out")
    return kept


def _without_copy(folder: Path, classes: Classes, depth: int, tell: Tell) -> Classes:
    """The classes without a folder that holds the same ones once more, as Kaggle's archives of malaria cells do."""
    for name, files in classes.items():
        inside, others = _by_folder(files, depth + 1), {k: v for k, v in classes.items() if k != name}
        if len(inside) < 2 or not set(inside) <= set(others):
            continue
        below = len("/".join(files[0].name.split("/")[: depth + 1])) + 1
        outside = {(_below(file, depth), file.size_bytes) for files in others.values() for file in files}
        if {(file.name[below:], file.size_bytes) for file in files} <= outside:
            tell(
                f"{folder / name}: left out {counted(len(files), 'image')}, "
                f"a copy of {names_text(tuple(inside))} beside it"
            )
            return others
        got = f"{folder} with {names_text(tuple(inside))}, and folders of these names in {name} with other images"
        remedy = f"Set --data.path {folder / name}, or move one of the two elsewhere."
        raise InputError(problem("data.path", got, "each class once", remedy))
    return classes


def _below(file: ImageFile, depth: int) -> str:
    return file.name.split("/", depth)[depth]


def _check_no_splits_within(folder: Path, classes: Classes, depth: int) -> None:
    """Raises InputError where each class is divided into splits, which would all be trained on."""
    inside = [_by_folder(files, depth + 1) for files in classes.values()]
    names = set().union(*inside)
    if "" in names or len(set(split_roles(names).values())) < 2 or len(split_roles(names)) < len(names):
        return
    first, among = next(iter(classes)), "in each of " if len(classes) > 1 else "in "
    got = f"{folder} with {names_text(tuple(sorted(names)))} {among}{names_text(tuple(classes))}"
    split = sorted(names)[-1]
    remedy = f"Move {folder / first / split} to {folder / split / first}, and so on."
    # What lies in one folder alone is a whole dataset, and so is what has class folders of its own.
    if len(classes) == 1 or any(file.name.count("/") > depth + 2 for files in classes.values() for file in files):
        other = ", or another of them" if len(classes) > 1 else ""
        remedy = f"Set --data.path {folder / first}{other}."
    raise InputError(problem("data.path", got, "the splits above the classes", remedy))


def _check_no_folds(folder: Path, classes: Classes, depth: int) -> None:
    """Raises InputError for the folds of a cross-validation with the same classes in each, which are no classes."""
    if len(classes) < 2 or not are_folds(classes):
        return
    inside = [set(_by_folder(files, depth + 1)) - {""} for files in classes.values()]
    if any(len(names) < 2 for names in inside):
        return
    got = f"{folder} with {names_text(tuple(classes))}, and {names_text(tuple(sorted(inside[0])))} in each"
    rule, remedy = "folders of classes, or of train, validation and test", "Put the folds to train on into one train."
    raise InputError(problem("data.path", got, rule, remedy))


def _tell_unlabelled(folder: Path, files: list[ImageFile], tell: Tell) -> None:
    tell(f"{folder}: left out {counted(len(files), 'image')} in no class folders, so that there is no such split")


def _tell_of_loose(folder: Path, loose: list[ImageFile], tell: Tell) -> None:
    if loose:
        first = one_line(loose[0].name)
        tell(f"{folder}: left out {counted(len(loose), 'image')} beside the class folders, {first} first")


def _tell_of_splits(root: Path, classes: Collection[str], tell: Tell) -> None:
    splits = tuple(split_roles(classes))
    if splits:
        others = names_text(tuple(name for name in classes if name not in splits))
        tell(f"{root}: {names_text(splits)} are taken for classes and not for splits, because of {others} beside them")


def _check_several(root: Path, classes: Classes, depth: int) -> None:
    """Raises InputError for a single class, of which nothing can be learnt."""
    if len(classes) > 1:
        return
    ((name, files),) = classes.items()
    folder = root / files[0].name.split("/")[0] / name if depth else root / name
    has_folders = any(file.name.count("/") > depth + 1 for file in files)
    remedy = f"If the classes are in there, set --data.path {folder}." if has_folders else "Add other classes."
    raise InputError(problem("data.path", f"{root} with 1 class folder, {name}", "at least 2", remedy))
