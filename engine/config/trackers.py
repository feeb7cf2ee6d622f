"""What a run may be logged to, by name."""

from typing import Literal

TrackerName = Literal["tensorboard", "wandb", "mlflow"]
