"""What a state dict of torch is made of, as inert values: nothing here imports or computes anything."""

from collections.abc import Callable
from typing import Any, NamedTuple

STORAGES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?",
}  # fmt: skip


class Storage(NamedTuple):
    """Numbers that lie elsewhere in the file: under which key, of which dtype (or `bfloat16`), how many."""

    key: str
    dtype: str
    num_values: int


class Tensor(NamedTuple):
    """A view of a storage; offset and strides are counted in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Inert:
    """Stands for a value that nobody needs: a device, an optimizer's arguments."""


class Global(NamedTuple):
    """A name in the pickle, and what stands for it."""

    name: str
    call: Callable[..., Any]


class Damaged(ValueError):
    """The pickle is cut short or not one; or it exceeds a limit."""


def put(target: dict[Any, Any], key: Any, value: Any) -> None:
    """Sets an item of a dict; those whose key is no name of a weight are left out."""
    if not isinstance(key, (str, int, float, bytes, type(None))):
        if isinstance(key, (tuple, Inert, Storage, Tensor)):
            return  # of an optimizer, say: no name of a weight
        raise Damaged("a key that can change")
    target[key] = value


def storage_of(value: Any) -> Storage | None:
    """What a persistent id stands for: ("storage", its type, key, device, number of values, no view of another)."""
    if type(value) is not tuple or len(value) not in (5, 6) or (len(value) == 6 and value[5] is not None):
        return None
    tag, kind, key, _, count = value[:5]
    name = kind.name.removeprefix("torch.") if isinstance(kind, Global) else None
    if tag != "storage" or name not in STORAGES or not isinstance(key, str) or type(count) is not int:
        return None
    return Storage(key, STORAGES[name], count) if 0 <= count < 2**62 else None


def _rebuild_tensor(storage: Any = None, offset: Any = 0, shape: Any = (), strides: Any = (), *rest: Any) -> Tensor:
    whole = (offset, *shape, *strides) if isinstance(shape, tuple) and isinstance(strides, tuple) else (None,)
    if not isinstance(storage, Storage) or not all(type(n) is int and 0 <= n < 2**62 for n in whole):
        raise Damaged("a tensor that is not one")
    if len(shape) != len(strides):
        raise Damaged(f"a tensor of {len(shape)} axes and {len(strides)} strides")
    return Tensor(storage, offset, shape, strides)


def _first(value: Any = None, *rest: Any) -> Any:
    return value


def _mapping(items: Any = (), *rest: Any) -> dict[Any, Any]:
    if not isinstance(items, list):
        return {}
    made: dict[Any, Any] = {}
    for pair in items:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise Damaged("a mapping of something other than pairs")
        put(made, *pair)
    return made


def _inert(*arguments: Any) -> Inert:
    return Inert()


KNOWN: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _mapping,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.Size": lambda size=(), *rest: tuple(size) if isinstance(size, (list, tuple)) else Inert(),
    **dict.fromkeys((f"torch.{name}" for name in STORAGES), _inert),
    # of training checkpoints, beside the weights
    **dict.fromkeys(
        ("torch.device", "argparse.Namespace", "collections.defaultdict", "collections.Counter", "builtins.set",
         "__builtin__.set", "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
         "_codecs.encode", "torch.float32", "torch.float16", "torch.bfloat16"),
        _inert,
    ),
}  # fmt: skip
"""What a name in the pickle stands for. All others are refused."""
