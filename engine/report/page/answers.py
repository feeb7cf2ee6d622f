"""Sections on what the model gets right and wrong: confusion, scores by class, mistakes, errors of a regression."""

import numpy as np

from engine.checkpoints.record import Record
from engine.errors import InputError
from engine.inference.explain import Explanation
from engine.metrics.pairs import count_pairs
from engine.metrics.per_class import ClassScores, count_confusion, find_best_thresholds, score_classes
from engine.metrics.ranking import average_precision, roc_auc
from engine.report.confusion import choose_classes
from engine.report.mistakes import mix_classes, order_mistakes, order_unsure
from engine.report.page.charts import make_chart
from engine.report.page.images import as_address, has_few_pixels
from engine.report.page.material import Answers, Material
from engine.report.page.parts import Cell, LeftOut, Matrix, Part, Pictures, Rows, Shown, Text

PER_CELL = 12  # pictures of a cell of the matrix
CELL_BYTES = 2_000_000  # of all pictures of the matrix
MOST_MISTAKES = 18
MOST_UNSURE = 9
MOST_TRIED = 3  # layers
MOST_CLASSES = 2_000  # lines of a table
MOST_OUTPUTS = 4  # of a regression that are drawn


def show_confusion(material: Material) -> list[Part]:
    """What is taken for what; a click on a number shows the pictures."""
    answers = material.need_answers("classes")
    guesses, labels, names = answers.outputs.argmax(1), answers.data.class_numbers, answers.data.class_names
    pairs = count_pairs(labels, guesses, answers.data.weights, len(names))
    shown, support = choose_classes(pairs), pairs.of_class
    pictures, num_left_out = _collect_pictures(answers, guesses, labels, shown)
    rows = []
    for i in shown:
        row, total, cells = pairs.row(int(i)), support[i], list[Cell]()
        for j in shown:
            count, key = row[j], f"{i}-{j}"
            share = count / total if total else 0
            title = f"{names[i]} taken for {names[j]}: {count:,.10g}, {share:.1%} of them"
            shade = int(np.ceil(10 * share)) if count else 0
            cells.append(Cell(f"{count:,.5g}" if count else "", shade, key if key in pictures else "", title))
        rows.append(cells)
    parts: list[Part] = []
    if len(shown) < len(names):
        parts.append(Text(f"Of {len(names):,} classes the {len(shown)} that have most to do with mistakes are shown."))
    label = f"{answers.data.name}: a row for what an example is, a column for what it is taken for"
    parts.append(Matrix(label, [names[k] for k in shown], rows, pictures))
    if pictures:
        most = f"Up to {PER_CELL} pictures of each number are in this page"
        more = f"; those of {num_left_out:,} numbers are not, to keep it small" if num_left_out else ""
        parts.append(Text(f"A click on a number shows its pictures. {most}{more}."))
    worst = score_classes(names, pairs).most_confused[:10]
    if worst:
        lines = [(name, other, f"{count:,.10g}") for name, other, count in worst]
        parts.append(Rows("The most frequent mistakes", ("is", "taken for", "how often"), lines))
    return parts


def show_classes(material: Material) -> list[Part]:
    """Precision, recall and the like of each class or label."""
    answers = material.need_answers("classes", "labels")
    scores = score_every_class(material, answers)
    is_several = answers.data.task == "labels"
    columns = ["label" if is_several else "class", "precision", "recall", "F1", "support", "ROC-AUC"]
    columns += ["average precision", *(["best threshold"] if is_several else [])]
    rows = []
    for k, name in enumerate(scores.class_names[:MOST_CLASSES]):
        is_one = answers.data.labels[:, k] > 0 if is_several else answers.data.class_numbers == k
        ranked = answers.outputs[:, k], is_one, answers.data.weights
        numbers = [scores.precision[k], scores.recall[k], scores.f1[k]]
        cells = [name, *map(_text, numbers), f"{scores.support[k]:,.10g}"]
        cells += [_text(roc_auc(*ranked)), _text(average_precision(*ranked))]
        rows.append([*cells, *([_text(scores.best_thresholds[k])] if scores.best_thresholds is not None else [])])
    note = "ROC-AUC and average precision are of each class against all others, by its probability."
    if len(scores.class_names) > MOST_CLASSES:
        note += f" The first {MOST_CLASSES:,} of {len(scores.class_names):,}."
    kind = "labels" if is_several else "classes"
    return [Rows(f"{len(scores.class_names):,} {kind} of {answers.data.name}", columns, rows, note)]


def score_every_class(material: Material, answers: Answers) -> ClassScores:
    """The scores of each class or label of the answers."""
    data, outputs = answers.data, answers.outputs
    if data.task == "classes":
        pairs = count_pairs(data.class_numbers, outputs.argmax(1), data.weights, data.num_classes)
        return score_classes(data.class_names, pairs)
    thresholds = material.classifier.thresholds
    assert thresholds is not None
    confusion = count_confusion(outputs, data.labels, data.weights, thresholds.tolist())
    return score_classes(data.class_names, confusion, find_best_thresholds(outputs, data.labels, data.weights))


def show_mistakes(material: Material) -> list[Part]:
    """Mistakes of which the model was sure, and what it was unsure of, with where it looks."""
    answers = _need_pictures(material, "classes")
    outputs, labels = answers.outputs, answers.data.class_numbers
    worst = mix_classes(order_mistakes(outputs, labels), labels)[:MOST_MISTAKES]
    unsure = order_unsure(outputs)[:MOST_UNSURE]
    parts, note = list[Part](), "There are no mistakes." if not len(worst) else ""
    for label, indices in (("Mistakes, the surest of each class first", worst), ("Least sure", unsure)):
        if len(indices):
            heat, note = find_heat(material, answers.data.images[indices])
            shown = [_show(answers, int(index), at) for index, at in zip(indices, heat, strict=True)]
            parts.append(Pictures(label, shown))
    return [*([Text(note)] if note else []), *parts]


def show_errors(material: Material) -> list[Part]:
    """Of a regression, or several labels a picture: the examples that it is furthest off on."""
    answers = material.need_answers("labels", "numbers")
    targets, outputs = answers.data.labels.astype(np.float64), answers.outputs
    errors = np.abs(outputs - targets)
    parts: list[Part] = []
    if answers.data.task == "numbers":
        for k in range(min(targets.shape[1], MOST_OUTPUTS)):
            name = f"output {k + 1}" if targets.shape[1] > 1 else "output"
            parts.append(make_chart(_scatter(targets[:, k], outputs[:, k], name), f"{name} against target", f"fit-{k}"))
    if not answers.are_pictures:
        return [*parts, Text("The examples are no pictures, so none is shown.")]
    worst = np.argsort(-errors.mean(1), kind="stable")[:MOST_MISTAKES]
    shown = []
    for index in worst:
        says = _describe(answers, outputs[index], material.classifier.thresholds)
        holds = _describe(answers, targets[index], np.array(0.5))
        image = np.asarray(answers.data.images[int(index)])
        lines = (f"says {says}", f"is {holds}", f"example {index:,}")
        shown.append(Shown(as_address(image), f"{lines[0]}, {lines[1]}", lines, True, has_few_pixels(image)))
    return [*parts, Pictures("Furthest off", shown)]


def find_heat(material: Material, images: np.ndarray) -> tuple[list[str], str]:
    """(the address of each picture with Grad-CAM over it, what that is); "" for each where the model has no maps.

    Of the last layers the first with any heat: a logit alone may fall with all maps of the last one, since softmax
    depends on differences of logits only.
    """
    network, which = material.find_one_network()
    images, found = np.asarray(images), list[Explanation]()
    try:
        for layer in [None, *find_map_layers(network.record)[1:MOST_TRIED]]:
            found = network.explain(images, layer=layer)
            if np.mean([each.heat.max() > 0 for each in found]) >= 0.5:
                break
    except InputError as error:
        return [""] * len(images), f"Without Grad-CAM: {error}"
    cold = sum(each.heat.max() <= 0 for each in found)
    if cold:
        which += f"; {cold} of {len(found)} have no heat: on the mean no map of that layer speaks for their class"
    about = f"where the network sees the class that it predicts (Grad-CAM of {found[0].layer}{which})"
    return [as_address(each.picture) for each in found], f"Beside each picture: {about}."


def find_map_layers(record: Record) -> list[str]:
    """The layers that give images of more than a pixel and are no pools, the last first."""
    model = record.config.model
    if not model.is_layered:
        return []
    rows = model.with_outputs(record.num_outputs).rows(record.input_spec.network_shape)
    return [
        row.name
        for row, layer in zip(reversed(rows), reversed(model.layers), strict=True)
        if len(row.output_shape) == 3 and row.output_shape[:2] != (1, 1)
        if not layer.keeps_values and not layer.pools_values
    ]


def _need_pictures(material: Material, task: str) -> Answers:
    answers = material.need_answers(task)
    if not answers.are_pictures:
        raise LeftOut("The examples are no pictures.")
    return answers


def _collect_pictures(
    answers: Answers, guesses: np.ndarray, labels: np.ndarray, shown: np.ndarray
) -> tuple[dict[str, list[Shown]], int]:
    """(pictures by cell of the matrix, mistakes first; how many cells have none because there is no room)."""
    if not answers.are_pictures:
        return {}, 0
    found, size, num_left_out = dict[str, list[Shown]](), 0, 0
    classes = [int(k) for k in shown]
    in_turn = [(i, j) for i in classes for j in classes if i != j] + [(i, i) for i in classes]
    of_cell = {pair: list[int]() for pair in in_turn}
    for index in np.argsort(-answers.outputs.max(1), kind="stable"):
        cell = of_cell.get((int(labels[index]), int(guesses[index])))
        if cell is not None and len(cell) < PER_CELL:
            cell.append(int(index))
    for (i, j), indices in of_cell.items():
        if not indices:
            continue
        if size > CELL_BYTES:
            num_left_out += 1
            continue
        found[f"{i}-{j}"] = pictures = [_show(answers, index) for index in indices]
        size += sum(len(each.source) for each in pictures)
    return found, num_left_out


def _show(answers: Answers, index: int, beside: str = "") -> Shown:
    image, names = np.asarray(answers.data.images[index]), answers.data.class_names
    row, label = answers.outputs[index], int(answers.data.class_numbers[index])
    guess = int(row.argmax())
    is_wrong = guess != label
    lines = [f"{names[guess]} {row[guess]:.0%}", *([f"is {names[label]} {row[label]:.0%}"] if is_wrong else [])]
    alt = f"predicted as {names[guess]}, is {names[label]}"
    return Shown(as_address(image), alt, [*lines, f"example {index:,}"], is_wrong, has_few_pixels(image), beside)


def _describe(answers: Answers, row: np.ndarray, thresholds: np.ndarray | None) -> str:
    if answers.data.task == "numbers":
        return " ".join(f"{value:.4g}" for value in row[:MOST_OUTPUTS])
    return ", ".join(answers.data.class_names[k] for k in np.flatnonzero(row > thresholds)) or "none"


def _scatter(targets: np.ndarray, outputs: np.ndarray, name: str):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 4.2), layout="constrained", dpi=130)
    axes = figure.subplots()
    ends = [min(targets.min(), outputs.min()), max(targets.max(), outputs.max())]
    axes.plot(ends, ends, color="0.5", linewidth=1, linestyle="--")
    axes.scatter(targets, outputs, s=6, alpha=0.4, linewidths=0, color="tab:blue", rasterized=True)
    axes.set(xlabel="target", ylabel=name)
    return figure


def _text(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.4f}"
