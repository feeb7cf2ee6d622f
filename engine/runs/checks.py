"""What config, data and devices of a run must have in common."""

import hashlib
from math import lcm

import jax
import numpy as np

from engine.checkpoints.record import Record
from engine.config import RunConfig, mesh_shape
from engine.data.decoded.dataset import Splits, names_text
from engine.devices.mesh import check_mesh
from engine.devices.precision import check_precision
from engine.errors import InputError, problem
from engine.inference.classifier import check_can_augment
from engine.metrics.combination import fit
from engine.metrics.own_order import check_order
from engine.records.custom import Custom


def check_run(config: RunConfig, splits: Splits) -> None:
    """Raises InputError if this device cannot train what the config describes on this data."""
    if config.train.members > 1:
        _check_can_combine(config, splits)
    check_mesh(config.plan.mesh)
    _check_goes_together(config, splits)
    check_precision(config.train.precision, jax.devices()[0])


def check_parameter_order(config: RunConfig) -> None:
    """Raises InputError for a loss or metric of the user's own whose parameters are in the order of Keras."""
    own = [("train.loss", config.train.loss), *(("train.metrics", each) for each in config.train.metrics)]
    for field, each in own:
        if isinstance(each, Custom):
            check_order(field, each.load(field))


def check_same_data(record: Record, splits: Splits) -> None:
    """Raises InputError unless a run is resumed on the data that it was started with."""
    if record.data_fingerprint != splits.train.fingerprint:
        stored, given = record.data_fingerprint[:12], splits.train.fingerprint[:12]
        rule = f"the data the run was started with ({stored})"
        raise InputError(problem("data", f"content {given}", rule, "Restore that data, or start another run."))
    if record.validation_fingerprint and record.validation_fingerprint != validation_fingerprint(splits):
        rule = "the one the run was started with, which its best step and patience were judged by"
        remedy = "Restore that data, or start another run."
        raise InputError(problem("data", "another validation split", rule, remedy))
    if record.class_names != splits.train.class_names:
        got, rule = names_text(splits.train.class_names), names_text(record.class_names)
        raise InputError(problem("data", f"classes {got}", f"{rule}, as the run was started", "Restore them."))


def validation_fingerprint(splits: Splits) -> str:
    """That of what is validated on: of a dataset's content, or of the fold of each example; empty if there is none."""
    if splits.folds is not None:
        return hashlib.sha256(splits.folds.astype("<i4").tobytes()).hexdigest()[:32]
    return "" if splits.validation is None else splits.validation.fingerprint


def _check_goes_together(config: RunConfig, splits: Splits) -> None:
    train, least = splits.train, splits.least_trained
    size, is_all = config.train.batch_size, config.augment.pairs_examples and least % 2
    if size > least + is_all:
        beside = " beside the largest fold" if least < len(train) else ""
        rule = f"at most {least}, the training examples of {train.name}{beside}"
        raise InputError(problem("train.batch_size", size, rule, _smaller_batch(config, least + is_all)))
    if config.train.patience is not None and not splits.are_validated:
        rule, remedy = "validation data to judge by", "Set --data.validation-fraction."
        raise InputError(problem("train.patience", config.train.patience, rule, remedy))
    if config.optim.schedule == "plateau" and not splits.are_validated:
        rule, remedy = "validation data to judge by", "Set --data.validation-fraction."
        raise InputError(problem("optim.schedule", "plateau", rule, remedy))
    _check_counts(splits)
    if config.augment.is_active:
        check_can_augment("augment", train.input_shape, train.images.dtype.name)


def _smaller_batch(config: RunConfig, most: int) -> str:
    """What to give in place of a batch size above `most`: a multiple of its parts, of two where pairs are mixed."""
    of_pairs = 2 if config.augment.pairs_examples else 1
    unit = lcm(config.train.accumulate, of_pairs)
    if most < unit:
        return f"Give {most - most % of_pairs}, and leave out train.accumulate."
    return f"Give {most - most % unit}, or a smaller multiple of {unit}." if unit > 1 else f"Give {most} or fewer."


def check_average(config: RunConfig, mesh: str | None) -> None:
    """Raises InputError for averages over devices where there is one."""
    every, devices = config.train.average_every, mesh_shape(mesh)[1]
    if every > 1 and devices == 1:
        rule = "1 without several devices along data, of which each would train by itself"
        raise InputError(problem("train.average_every", every, rule, "Set --mesh data=2 or so, or leave it out."))


def _check_counts(splits: Splits) -> None:
    """Raises InputError where every example of a part that is trained or validated on has a weight of 0."""
    weights, folds = splits.train.weights, splits.folds
    validation = None if splits.validation is None else splits.validation.weights
    parts = [("the training data", weights), ("the validation data", validation)]
    if weights is not None and folds is not None:
        parts += [(f"fold {k}", weights[folds == k]) for k in np.unique(folds)]
        parts += [(f"all folds but {k}", weights[folds != k]) for k in np.unique(folds)]
    for name, own in parts:
        if own is not None and not own.any():
            rule = "some above 0, or there is no mean"
            raise InputError(problem("weights", f"0 for every example of {name}", rule, "Leave out these examples."))


def _check_can_combine(config: RunConfig, splits: Splits) -> None:
    """Raises InputError for a combination that the data cannot give."""
    if config.ensemble.select_best and splits.validation is None:
        rule = "validation data to compare members by"
        raise InputError(problem("ensemble.select_best", "no validation data", rule, "Set data.validation_fraction."))
    method, has_temperature = config.ensemble.combine, config.ensemble.temperature
    if not splits.train.class_names and (method != "mean" or has_temperature):
        got, rule = f"{method}{' and a temperature' * has_temperature}", "the mean alone, of a regression"
        raise InputError(problem("ensemble.combine", got, rule, "Leave it out."))
    if not splits.are_validated:
        fit(method, None, None, has_temperature, np.ones(config.train.members, bool))
