"""Descriptions of prepared tfds data name the classes of their features, which tfds imports: here it does not.

The import itself is guarded and not its spelling in the file, which JSON and protocol buffers leave a hundred ways to
write, nor is the file looked at before, which could be exchanged until tfds reads it.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from threading import RLock
from typing import Any

from engine.errors import InputError, problem

_LOCK = RLock()  # the guard is tfds's own for a moment, for all threads


@contextlib.contextmanager
def no_foreign_features(file: Path) -> Iterator[None]:
    """Lets tfds make features of its own classes, and of those that are imported already, and of no others.

    file: what describes them, for errors. Raises InputError naming a class that would have been imported.
    """
    # Those of tfds are registered when this is imported.
    from tensorflow_datasets.core.features import feature

    library: Any = feature
    if not (hasattr(library, "importlib") and "cls_from_name" in vars(library.FeatureConnector)):
        got, rule = "a version of tensorflow-datasets that imports features in another way", "one that can be guarded"
        raise InputError(problem(str(file), got, rule, "Install tensorflow-datasets 4.9."))
    refused: list[str] = []

    def known(cls: Any, name: str) -> Any:
        if name not in cls._registered_features:
            refused.append(name)
            raise ValueError(name)
        return cls._registered_features[name]

    with _LOCK:
        before = library.importlib, vars(library.FeatureConnector)["cls_from_name"]
        library.importlib, library.FeatureConnector.cls_from_name = None, classmethod(known)
        try:
            yield
        except Exception:
            if refused:
                rule = "features of tensorflow_datasets only, because opening others runs their code"
                remedy = "Use data that you trust, prepared with such features."
                raise InputError(problem(str(file), repr(refused[0][:200]), rule, remedy)) from None
            raise
        finally:
            library.importlib, library.FeatureConnector.cls_from_name = before
