"""A run of very short epochs, each of which saves, for test_checkpoint: save_all_the_time.py RUN_DIR EPOCHS."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import engine
from engine.clock import Clock
from engine.data.dataset import Splits
from engine.loop import train
from engine.report.progress import Silent
from engine.run_directory import open_run
from tests.conftest import TINY, make_dataset

directory, epochs = Path(sys.argv[1]), int(sys.argv[2])
config = engine.RunConfig("tiny", TINY, train=engine.TrainConfig(epochs, 64))
record = open_run(directory, config, resume=True, overwrite=False)
train(config, Splits(make_dataset(), make_dataset(50, 1)), directory, Clock(), Silent(), record)
