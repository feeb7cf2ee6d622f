"""Classifier: a trained model with its input contract, for arrays, files and pictures."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np

from engine.augment.config import AugmentConfig
from engine.checkpoints.record import Record
from engine.config.contract import InputSpec
from engine.config.data import Layout, ResizeRule
from engine.config.decoding import ValueRange
from engine.data.arrays.stored import StoredImages
from engine.data.classes.labels import targets_for_classes
from engine.data.contract import check_inputs
from engine.data.coverage import absent_notes
from engine.data.decoded.dataset import Dataset
from engine.data.in_memory import ClassNames, as_task
from engine.data.pictures.frames import SeveralFrames
from engine.data.pictures.images import Picture, check_none
from engine.errors import InputError, Say, problem
from engine.host.console import tell, warn
from engine.inference.data_in import Evaluable, read_examples
from engine.inference.looking import Looking
from engine.inference.pictures_in import BATCH_PICTURES, STORED, as_array, batches, checked_array, contract, listed
from engine.inference.predictions import ClassCounts, Prediction, change_thresholds, make_prediction
from engine.metrics.per_class import ClassScores
from engine.metrics.sums import Scoring, make_scoring
from engine.networks.network import Tree
from engine.training.evaluate import Look, eval_batch_size


class Classifier(Looking):
    """A model to be queried, by many threads at once. Made by `engine.restore` or by a run's result."""

    def __init__(self, record: Record):
        self.record = record

    @abstractmethod
    def with_weights(self, record: Record, params: Tree, model_state: Tree) -> "Classifier":
        """The same with other arrays; shares what is compiled and the draws of test-time augmentation."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the outputs; empty for a regression."""
        return self.record.class_names

    @property
    def input_spec(self) -> InputSpec:
        """The input contract."""
        return self.record.input_spec

    def predict(
        self,
        pictures: Picture | Sequence[Picture],
        top: int = 1,
        resize: ResizeRule | None = None,
        tta: int | AugmentConfig = 0,
        value_range: ValueRange | None = None,
    ) -> list[Prediction]:
        """One Prediction a picture, with the `top` likeliest classes.

        pictures: paths, bytes, PIL images and arrays [h w c] in any mix, an array [n h w c], one of these, or a
          folder, whose images are taken in order of their names.
        resize: how pictures of another size are made to fit; by default the model's own rule, which may refuse them.
        tta: test-time augmentation. The probabilities are means over the picture as it is and so many draws of the
          augmentation the model was trained with, or TTA_DRAWS draws of another one. The same draws every time.
        value_range: what is black and what is white in arrays, like (0, 1), and in pictures of more than 8 bits.
          Without it arrays must be uint8, from 0 to 255. Values that cannot be of that range are refused.
        Raises InputError naming each picture that cannot be used.
        """
        self._check_names(top)
        return [self._prediction(row, top) for row in self.predict_proba(pictures, resize, tta, value_range)]

    def predict_proba(
        self,
        pictures: Picture | Sequence[Picture],
        resize: ResizeRule | None = None,
        tta: int | AugmentConfig = 0,
        value_range: ValueRange | None = None,
    ) -> np.ndarray:
        """float32[n k]: the probability of each class; arguments, and the error for a regression, as of `predict`."""
        self._check_names(1)
        return self._of_each(
            pictures, resize, value_range, lambda images, first: self.fitting_outputs(images, tta, first)
        )

    def finetune(self, data: Any, **settings: Any) -> Any:
        """The Result of `engine.finetune(classifier, data, …)`, which explains the settings."""
        import engine  # what trains lies in rooms above this one

        return engine.finetune(self, data, **settings)

    def top_k(self, pictures: Picture | Sequence[Picture], k: int = 5, **how: Any) -> tuple[np.ndarray, np.ndarray]:
        """(int[n k] class indices, float32[n k] probabilities), the likeliest first; arguments as of `predict_proba`.

        As `jax.lax.top_k`: of equal ones the lower index comes first. k: at most the number of classes.
        """
        self._check_names(k)
        probabilities = self.predict_proba(pictures, **how)
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
        return best, np.take_along_axis(probabilities, best, axis=1)

    def stream(
        self,
        pictures: Iterable[Picture],
        top: int = 1,
        resize: ResizeRule | None = None,
        tta: int | AugmentConfig = 0,
        value_range: ValueRange | None = None,
        say: Say = warn,
    ) -> Iterator[tuple[Picture, Prediction | InputError]]:
        """Each picture with its Prediction, or with the InputError that says why there is none, in order.

        pictures: any number of paths and the like; read on all cores, a few batches ahead, and then forgotten.
        Arguments as of `predict`; `say` gets the number of files with several frames, of which the first is read.
        """
        self._check_names(top)
        pictures = listed(pictures) if isinstance(pictures, STORED) else pictures  # a path is no series of letters
        spec, first, several = contract(self.input_spec, resize), 0, SeveralFrames()
        for batch in batches(pictures, spec, value_range, self._pictures_at_once, several):
            rows = self.fitting_outputs(batch.images, tta, first)
            for place, picture in enumerate(batch.pictures):
                yield picture, batch.problems.get(place) or self._prediction(rows[place], top)
            first += len(batch.pictures)
        for note in several.notes(first):
            say(note)

    def outputs(self, images: Any, tta: int | AugmentConfig = 0, first: int = 0) -> np.ndarray:
        """float32[n k] for an array [n …] that fits the input contract: probabilities, or a regression's outputs.

        images: or pictures as of `predict`. first: the number of the first among all images of the query, on which
          the draws of `tta` depend.
        Raises InputError for values that are not finite or cannot be of the model's range.
        """
        if isinstance(images[0] if isinstance(images, list | tuple) and images else images, STORED):
            return self._of_each(images, None, None, lambda part, begin: self.fitting_outputs(part, tta, first + begin))
        return self.fitting_outputs(checked_array(images, self.input_spec), tta, first)

    @abstractmethod
    def fitting_outputs(self, images: np.ndarray | StoredImages, tta: int | AugmentConfig, first: int) -> np.ndarray:
        """As `outputs`, of images whose values are known to fit."""

    def as_sklearn(self, **options: Any) -> Any:
        """The same as a fitted estimator for scikit-learn's metrics, calibration and the like.

        options: of `predict_proba`, for all its queries. Raises InputError if scikit-learn is not installed.
        """
        self._check_names(1)
        if self.record.task == "labels":
            rule, remedy = "one of one class a picture", "Use predict_proba."
            raise InputError(problem("as_sklearn", "a model of several labels a picture", rule, remedy))
        try:
            from engine.inference.scikit_learn import SklearnClassifier
        except ModuleNotFoundError:
            remedy = "Install it: pip install scikit-learn."
            raise InputError(problem("as_sklearn", "no scikit-learn", "it installed", remedy)) from None
        return SklearnClassifier(self, options)

    def _of_each(
        self,
        pictures: Picture | Sequence[Picture],
        resize: ResizeRule | None,
        value_range: ValueRange | None,
        ask: Callable[[np.ndarray | StoredImages, int], np.ndarray],
    ) -> np.ndarray:
        """What `ask` says of (images [n …], number of the first), for all; raises InputError naming bad pictures."""
        spec = contract(self.input_spec, resize)
        images = as_array(pictures, spec, value_range)
        if images is not None:
            return ask(images, 0)
        parts, first, problems, several = [], 0, list[InputError](), SeveralFrames()
        for batch in batches(listed(pictures), spec, value_range, self._pictures_at_once, several):
            problems += batch.problems.values()
            if not problems:
                parts.append(ask(batch.images, first))
            first += len(batch.pictures)
        check_none(problems)
        for note in several.notes(first):
            warn(note)
        return np.concatenate(parts) if parts else ask(np.zeros((0, *spec.shape), spec.dtype), 0)

    @property
    def _pictures_at_once(self) -> int:
        return eval_batch_size(self.input_spec.shape, BATCH_PICTURES)

    def _check_names(self, top: int) -> None:
        if not self.class_names:
            rule, remedy = (
                "a classifier",
                "Use outputs(pictures) of the classifier; of a Result it is result.classifier.",
            )
            raise InputError(problem("predict", "a regression model", rule, remedy))
        if not isinstance(top, int | np.integer) or top < 1:
            raise InputError(problem("top", repr(top), "a whole number of at least 1", "Say how many classes to name."))

    def evaluate(
        self,
        data: Evaluable,
        value_range: ValueRange | None = None,
        layout: Layout = "auto",
        class_names: ClassNames | None = None,
    ) -> dict[str, Any]:
        """n, loss, (for classes) accuracy and top5, and the run's own metrics over every example, each exactly once.

        data: what `engine.fit` takes: a Dataset, (images, labels), also with weights, or a path, a tfds name, a
          DataConfig or Splits, of whose splits test is used, else validation. Its classes are compared by name, in
          whatever order it has them, and may lack some of the model's; numbers are also indices into these.
        value_range, layout: of (images, labels), as of `engine.dataset`; by default as in training.
        class_names: of their labels.
        Where examples have weights, all of these are weighted means.
        skipped: how many files of the data could not be read, if there are any.
        """
        dataset = self.fitting(data, value_range, layout, class_names)
        return with_skipped(self.evaluate_fitting(dataset), dataset)

    @abstractmethod
    def evaluate_fitting(self, dataset: Dataset, look: Look | None = None) -> dict[str, Any]:
        """What `evaluate` says of data that `fitting` has made; look: gets the predictions of each batch too."""

    def evaluate_by_class(self, data: Evaluable) -> tuple[dict[str, Any], ClassScores]:
        """(what `evaluate` says, what `class_scores` says), going through the data once."""
        dataset = self.fitting(data)
        counts = ClassCounts(self.record, self.thresholds, dataset)
        metrics = self.evaluate_fitting(dataset, counts.add)
        return with_skipped(metrics, dataset), counts.scores()

    def class_scores(
        self,
        data: Evaluable,
        value_range: ValueRange | None = None,
        layout: Layout = "auto",
        class_names: ClassNames | None = None,
    ) -> ClassScores:
        """Precision, recall and F1 of each class or label, and what is taken for what; arguments as of `evaluate`."""
        return self.evaluate_by_class(self.fitting(data, value_range, layout, class_names))[1]

    def fitting(
        self,
        data: Evaluable,
        value_range: ValueRange | None = None,
        layout: Layout = "auto",
        class_names: ClassNames | None = None,
    ) -> Dataset:
        """What `evaluate` is given as a Dataset, with labels as indices into the model's classes, matched by name.

        Raises InputError, showing both sides, unless it has the model's input, its scale and no classes that it lacks.
        """
        dataset = read_examples(data, self.record, value_range, layout, class_names)
        dataset = as_task(dataset, self.record.task)
        check_inputs(dataset, self.input_spec, "the model's input")
        if self.class_names and not dataset.class_names:
            raise InputError(targets_for_classes(dataset.labels, f"labels of {dataset.name}", "a classifier"))
        if dataset.class_names and not self.class_names:
            rule = "float targets, as the model was trained on"
            raise InputError(problem(dataset.name, "class labels", rule, "Pass (images, targets) with numbers."))
        if "labels" in (dataset.task, self.record.task) and dataset.task != self.record.task:
            got, rule = ("several labels", "one class") if dataset.task == "labels" else ("one class", "several labels")
            remedy = "Give labels as the model was trained on."
            raise InputError(problem(dataset.name, f"{got} a picture", f"{rule} a picture", remedy))
        if not self.class_names and dataset.labels.shape[1:] != (self.record.num_outputs,):
            got, rule = f"targets of {dataset.labels.shape[1:]}", f"{self.record.num_outputs} an example"
            raise InputError(problem(dataset.name, got, rule, "Use targets of the model's shape."))
        fitting = dataset.in_classes(self.class_names, "the model")
        for line in absent_notes(fitting, fitting.name) if fitting is not dataset else []:
            tell(line)
        return fitting

    @property
    def scoring(self) -> Scoring:
        """The loss and the metrics that the model was trained with."""
        return make_scoring(self.record.config.train, self.record.num_outputs, self.record.task, self.class_names)

    def _prediction(self, row: np.ndarray, top: int) -> Prediction:
        return make_prediction(row, self.class_names, top, self.thresholds)

    @property
    def thresholds(self) -> np.ndarray | None:
        """float64[k]: of several labels a picture, the probability above which each counts as predicted; else None."""
        return np.array(self.scoring.thresholds) if self.record.task == "labels" else None

    def with_thresholds(self, thresholds: Mapping[str, float]) -> "Classifier":
        """The same with other thresholds of some labels; raises InputError for labels that it does not have."""
        other = copy(self)
        other.record = change_thresholds(self.record, thresholds)
        return other


def with_skipped(metrics: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """The metrics over a dataset, with the number of its files that could not be read beside n, if there are any."""
    return {**metrics, "skipped": len(dataset.skipped)} if dataset.skipped else metrics


def check_can_augment(field: str, input_shape: tuple[int, ...], dtype: str) -> None:
    """Raises InputError unless inputs are pictures, the only thing that augmentation has a meaning for."""
    if dtype != "uint8" or len(input_shape) != 3 or input_shape[-1] not in (1, 3):
        got, rule = f"{dtype} inputs {input_shape}", "uint8 images [h w 1] or [h w 3] to augment"
        raise InputError(problem(field, got, rule, "Leave augmentation out."))
