"""Pickles of torch.save, rebuilt as plain containers and descriptions of tensors. Nothing in them is imported or run.

A pickle is a program for a stack machine, which may call any function. This interpreter knows only the operations
that build containers, and a table of names that stand for inert values. Work and memory are linear in the bytes read.
Operations: the standard library's `pickletools`, which documents each.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from engine.errors import InputError, problem
from engine.importers.torch_values import KNOWN, Damaged, Global, Inert, Storage, Tensor, put, storage_of

MOST_BYTES = 64 * 2**20
MOST_OPERATIONS = 4_000_000
LONGEST_NUMBER = 400  # characters of a number written as text, bytes of one in binary
WHOLE_MODEL = "torch.load runs code for a whole model: load it where it was made, and save model.state_dict()."

_MARK = object()


def read_pickle(file: IO[bytes], path: Path, storages: dict[str, Storage] | None = None) -> Any:
    """The value of the pickle at the file's position, which is then behind it. `storages` gets all that it names.

    Raises InputError if it names anything but KNOWN, and Damaged if it is no pickle.
    """
    try:
        return _Machine(file, path, {} if storages is None else storages).run()
    except (IndexError, TypeError, struct.error, RecursionError) as error:  # a stack that has run empty, and the like
        raise Damaged(f"a pickle that does not add up ({type(error).__name__})") from None


class _Machine:
    def __init__(self, file: IO[bytes], path: Path, storages: dict[str, Storage]):
        self.file, self.path, self.storages, self.left = file, path, storages, MOST_BYTES
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MOST_OPERATIONS):
            code = self.read(1)
            if code == b".":
                return self.stack.pop()
            operation = OPERATIONS.get(code)
            if operation is None:
                raise Damaged(f"an operation {code!r} that state dicts have not")
            operation(self)
        raise Damaged(f"a pickle of more than {MOST_OPERATIONS:,} operations")

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise Damaged(f"a pickle of more than {MOST_BYTES:,} bytes")

    def read(self, count: int) -> bytes:
        self.spend(count)
        found = self.file.read(count)
        if len(found) < count:
            raise Damaged("a pickle that is cut short")
        return found

    def number(self, form: str) -> int:
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def line(self) -> bytes:
        found = self.file.readline(min(self.left, 2**16))
        self.left -= len(found)
        if not found.endswith(b"\n"):
            raise Damaged("a pickle that is cut short")
        return found[:-1]

    def text(self, form: str) -> str:
        return self.read(self.number(form)).decode("utf-8", "backslashreplace")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                found = self.stack[at + 1 :]
                del self.stack[at:]
                return found
        raise Damaged("a pickle without a mark")

    def find(self, module: Any, name: Any) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):  # others may be written out to terabytes
            raise Damaged("a name that is no text")
        whole = f"{module}.{name}"
        if whole not in KNOWN:
            remedy = "Do not open it with torch.load: it may run anything. " + WHOLE_MODEL
            rule = "a state dict: tensors in plain containers"
            raise InputError(problem(str(self.path), f"a pickle that calls {whole[:200]}", rule, remedy))
        return Global(whole, KNOWN[whole])

    def reduce(self) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Global) or not isinstance(arguments, tuple):
            raise Damaged("a call of something that is no name")
        self.spend(sum(len(value) for value in arguments if isinstance(value, (list, tuple))))  # which calls copy
        self.push(called.call(*arguments))

    def persistent(self, value: Any) -> None:
        storage = storage_of(value)
        if storage is None:
            raise Damaged("a reference to something other than a tensor's numbers")
        if self.storages.setdefault(storage.key, storage) != storage:
            raise Damaged(f"numbers {storage.key[:50]!r} described in two ways")
        self.push(storage)

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise Damaged("a pickle that takes what it has not kept")
        self.push(self.memo[index])

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=False):
                put(target, key, value)
        elif not isinstance(target, Inert):
            raise Damaged("items of something that is no dict")

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            raise Damaged("values added to something that is no list")

    def build(self) -> None:
        self.stack.pop()  # attributes, such as the _metadata of a state dict
        if not isinstance(self.stack[-1], (dict, Inert, Tensor)):
            raise Damaged("attributes of something that has none")


def _whole(text: bytes) -> int | bool:
    if len(text) > LONGEST_NUMBER:
        raise Damaged(f"a number of {len(text):,} digits")
    try:
        return {b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text.rstrip(b"L"))
    except ValueError:
        raise Damaged("a number that is none") from None


def _long(machine: _Machine, form: str) -> None:
    count = machine.number(form)
    if not 0 <= count <= LONGEST_NUMBER:
        raise Damaged(f"a number of {count:,} bytes")
    machine.push(int.from_bytes(machine.read(count), "little", signed=True))


def _frame(machine: _Machine) -> None:
    machine.read(8)


def _protocol(machine: _Machine) -> None:
    if machine.number("<B") > 5:
        raise Damaged("a pickle of a protocol above 5")


def _append(machine: _Machine) -> None:
    value = machine.stack.pop()
    machine.extend([value])


def _set_item(machine: _Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.set_items([key, value])


def _tuple(count: int) -> Callable[[_Machine], None]:
    def make(machine: _Machine) -> None:
        if len(machine.stack) < count:
            raise Damaged("a stack that has run empty")
        values = tuple(machine.stack[len(machine.stack) - count :])
        del machine.stack[len(machine.stack) - count :]
        machine.push(values)

    return make


def _dict(machine: _Machine) -> None:
    items = machine.pop_mark()
    machine.push({})
    machine.set_items(items)


def _global(machine: _Machine) -> None:
    module, name = machine.line(), machine.line()
    machine.push(machine.find(module.decode("utf-8", "backslashreplace"), name.decode("utf-8", "backslashreplace")))


def _stack_global(machine: _Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.push(machine.find(module, name))


def _float(machine: _Machine) -> None:
    machine.push(struct.unpack(">d", machine.read(8))[0])


OPERATIONS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": _protocol, b"\x95": _frame,
    b"N": lambda m: m.push(None), b"\x88": lambda m: m.push(True), b"\x89": lambda m: m.push(False),
    b"I": lambda m: m.push(_whole(m.line())), b"L": lambda m: m.push(_whole(m.line())),
    b"J": lambda m: m.push(m.number("<i")), b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")), b"\x8a": lambda m: _long(m, "<B"), b"\x8b": lambda m: _long(m, "<i"),
    b"G": _float,
    b"X": lambda m: m.push(m.text("<I")), b"\x8c": lambda m: m.push(m.text("<B")),
    b"\x8d": lambda m: m.push(m.text("<Q")), b"V": lambda m: m.push(m.line().decode("utf-8", "backslashreplace")),
    b"U": lambda m: m.push(m.text("<B")), b"T": lambda m: m.push(m.text("<I")),
    b"B": lambda m: m.push(m.read(m.number("<I"))), b"C": lambda m: m.push(m.read(m.number("<B"))),
    b"\x8e": lambda m: m.push(m.read(m.number("<Q"))),
    b"(": lambda m: m.push(_MARK), b"0": lambda m: m.stack.pop(), b"1": lambda m: m.pop_mark(),
    b"2": lambda m: m.push(m.stack[-1]),
    b")": lambda m: m.push(()), b"\x85": _tuple(1), b"\x86": _tuple(2), b"\x87": _tuple(3),
    b"t": lambda m: m.push(tuple(m.pop_mark())), b"]": lambda m: m.push([]), b"l": lambda m: m.push(m.pop_mark()),
    b"}": lambda m: m.push({}), b"d": _dict, b"\x8f": lambda m: m.push(Inert()),
    b"a": _append, b"e": lambda m: m.extend(m.pop_mark()), b"\x90": lambda m: m.extend(m.pop_mark()),
    b"s": _set_item, b"u": lambda m: m.set_items(m.pop_mark()),
    b"c": _global, b"\x93": _stack_global, b"R": _Machine.reduce, b"\x81": _Machine.reduce, b"b": _Machine.build,
    b"Q": lambda m: m.persistent(m.stack.pop()),
    b"q": lambda m: m.put(m.number("<B")), b"r": lambda m: m.put(m.number("<I")), b"\x94": lambda m: m.put(len(m.memo)),
    b"p": lambda m: m.put(_whole(m.line())), b"h": lambda m: m.get(m.number("<B")),
    b"j": lambda m: m.get(m.number("<I")), b"g": lambda m: m.get(_whole(m.line())),
}  # fmt: skip
