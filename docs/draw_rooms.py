"""python docs/draw_rooms.py: who imports whom in engine/, read from the code, written into docs/architecture.md.

A room is a package of engine/, or a module that lies directly in it; imports inside functions count, those for type
checkers alone do not. The floor of a room is one above the highest room that it imports. `--check` only compares the
page with the code; another directory as argument is measured and printed, as for the figures of earlier layouts.
"""

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parent
ENGINE = DOCS.parent / "engine"
PAGE = DOCS / "architecture.md"
BEGIN, END = "<!-- rooms: made by docs/draw_rooms.py -->\n", "<!-- end of rooms -->\n"


def read_modules(root: Path) -> dict[str, Path]:
    """Dotted name below the package → file; packages by their own name."""
    names = {path.relative_to(root).with_suffix(""): path for path in sorted(root.rglob("*.py"))}
    parts = {name.parts[:-1] if name.name == "__init__" else name.parts: path for name, path in names.items()}
    return {".".join(name): path for name, path in parts.items() if name}


def read_imports(path: Path, modules: dict[str, Path]) -> set[str]:
    """The modules of the package that a file imports when it is loaded or run."""
    found = set()
    for node in _executed(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "engine":
            base = (node.module or "").removeprefix("engine").lstrip(".")
            names = {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
            found |= {name if name in modules else base for name in names}
        elif isinstance(node, ast.Import):
            names = {alias.name for alias in node.names if alias.name.startswith("engine.")}
            found |= {name.removeprefix("engine.") for name in names}
    return found - {""}


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below one but those under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield child
            yield from _executed(child)


def read_arrows(root: Path) -> dict[str, set[str]]:
    """Room → the other rooms that it imports."""
    modules = read_modules(root)
    arrows: dict[str, set[str]] = {room_of(name): set() for name in modules}
    for name, path in modules.items():
        arrows[room_of(name)] |= {room_of(other) for other in read_imports(path, modules)} - {room_of(name)}
    return arrows


def room_of(module: str) -> str:
    """The room in which a module lies."""
    return module.split(".")[0]


def find_floors(arrows: dict[str, set[str]]) -> dict[str, int]:
    """Room → floor, from 1 for those that import none. Raises ValueError naming the rooms of a circle."""
    floors: dict[str, int] = {}
    while len(floors) < len(arrows):
        ready = {room for room, below in arrows.items() if room not in floors and below <= set(floors)}
        if not ready:
            raise ValueError(f"circle among {sorted(set(arrows) - set(floors))}")
        floors |= {room: 1 + max((floors[other] for other in arrows[room]), default=0) for room in ready}
    return floors


def describe(root: Path) -> str:
    """The rooms as a table in Markdown, from the highest floor down, below a line of counts."""
    arrows = read_arrows(root)
    floors, duties = find_floors(arrows), {room: _duty(root, room) for room in arrows}
    count = sum(map(len, arrows.values()))
    lines = [f"{len(arrows)} rooms on {max(floors.values())} floors, {count} arrows, no circle.", ""]
    lines += ["| floor | room | what it is for | imports |", "| --- | --- | --- | --- |"]
    for room in sorted(arrows, key=lambda room: (-floors[room], room)):
        below = ", ".join(sorted(arrows[room], key=lambda other: (-floors[other], other)))
        lines.append(f"| {floors[room]} | `{room}` | {duties[room]} | {below} |")
    return "\n".join(lines) + "\n"


def _duty(root: Path, room: str) -> str:
    path = root / room / "__init__.py" if (root / room).is_dir() else root / f"{room}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0].replace("|", "\\|")


def main() -> int:
    """Writes the page, or with --check says whether it is up to date; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", nargs="?", type=Path, help="another engine/ to measure")
    parser.add_argument("--check", action="store_true", help="only compare the page with the code")
    options = parser.parse_args()
    if options.root:
        print(describe(options.root))
        return 0
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    made = f"{before}{BEGIN}\n{describe(ENGINE)}\n{END}{after}"
    if options.check:
        return int(made != page)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
