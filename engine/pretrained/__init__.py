"""Weights from elsewhere: what can be imported, files of other libraries, and which array of them goes where."""

import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    """`engine.pretrained` is this room, and what users call: `engine.pretrained("resnet50")`."""

    def __call__(self, *given: Any, **named: Any) -> Any:
        from engine.pretrained.load import pretrained

        return pretrained(*given, **named)


sys.modules[__name__].__class__ = _Callable
