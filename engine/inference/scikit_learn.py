"""A Classifier as scikit-learn's tools take one: `classifier.as_sklearn()`. Only that imports this module."""

import re
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from engine.errors import InputError, problem


class SklearnClassifier(ClassifierMixin, BaseEstimator):
    """A `Classifier` as a fitted estimator; `X` is what `Classifier.predict` takes, labels are of `classes_`."""

    def __init__(self, classifier: Any, options: dict[str, Any] | None = None):
        self.classifier, self.options = classifier, options

    @property
    def classes_(self) -> np.ndarray:
        """The class names, sorted, as metrics expect the columns; numbers if all of them are whole numbers."""
        return np.sort(self._labels)

    @property
    def _labels(self) -> np.ndarray:
        """The classes in the order of the classifier's outputs."""
        names = self.classifier.class_names
        are_plain = all(re.fullmatch(r"0|[1-9]\d{0,17}", name, re.ASCII) for name in names)
        return np.array(names).astype(np.int64) if are_plain else np.array(names)

    def fit(self, X: Any, y: Any = None) -> "SklearnClassifier":
        """Raises InputError: the model is trained."""
        rule, remedy = "none: the model is trained", "Wrap it in sklearn.frozen.FrozenEstimator."
        raise InputError(problem("fit", "a call", rule, remedy))

    def predict_proba(self, X: Any) -> np.ndarray:
        """float32[n k], in the order of `classes_`."""
        try:
            found = self.classifier.predict_proba(X, **(self.options or {}))
        except InputError as error:
            if re.search(r"(resize|value_range)=", error.remedy or ""):
                advice = "Give these options to as_sklearn: as_sklearn(resize=…, value_range=…)."
                raise InputError(*error.problems, advice) from None
            raise
        return found[:, np.argsort(self._labels)]

    def predict(self, X: Any) -> np.ndarray:
        """[n]: the likeliest of `classes_` for each."""
        return self.classes_[self.predict_proba(X).argmax(-1)]

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_clone__(self) -> "SklearnClassifier":
        return self  # nothing about it changes
