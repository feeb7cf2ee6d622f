"""What is in a photograph, by a network trained on ImageNet: ResNet50, 25,636,712 parameters, if no other is named.

    python -m experiments.imagenet_classify dog.jpg                                      # downloads the weights once
    python -m experiments.imagenet_classify dog.jpg --weights resnet50_weights_tf_dim_ordering_tf_kernels.h5
    python -m experiments.imagenet_classify dog.jpg --name efficientnet_lite0 --weights efficientnet_lite0.pth

The weights become a run in runs/NAME, once. Elsewhere, for a photograph of a Samoyed: Samoyed 0.956, white wolf 0.019,
Pomeranian 0.009; that picture and these weights are not at hand here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from engine.commands.process import errors_as_lines, set_up_process
from engine.host.console import show, tell


@dataclass(frozen=True)
class Options:
    """Options of this experiment."""

    photograph: tyro.conf.Positional[Path]
    """The picture."""
    name: str = "resnet50"
    """A network that `engine families` lists."""
    weights: str | None = None
    """File of its weights, or hf:OWNER/NAME; None: the published ones, downloaded into the cache."""
    runs: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs")
    """Where the run is kept."""
    top: int = 3
    """How many classes to name."""


def classify(options: Options) -> list[str]:
    """Lines of the likeliest classes; imports the weights where there is no run of them yet."""
    import engine
    from engine.importers.load import save_run
    from engine.report.predictions import prediction_lines

    run = options.runs / options.name
    if not run.exists():
        classifier = engine.pretrained(options.name, options.weights, say=tell)
        save_run(classifier, run)
    else:
        classifier = engine.restore(run)
    return prediction_lines(classifier.predict(options.photograph, top=options.top)[0])


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the experiment with the options of the command line."""
    with errors_as_lines():
        options = tyro.cli(Options, args=arguments, description="Name what is in a photograph.")
        set_up_process()
        show(*classify(options))


if __name__ == "__main__":
    main()
