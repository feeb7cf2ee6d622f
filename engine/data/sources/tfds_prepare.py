"""`python -m engine.data.sources.tfds_prepare NAME DATA_DIR [MANUAL_DIR]`: downloads and prepares a tfds builder.

In a process of its own, because tfds needs TensorFlow to extract archives; nothing else does but exporting for it.
"""

import sys


def prepare(name: str, data_dir: str, manual_dir: str | None = None) -> None:
    """Prepares a tfds builder as ArrayRecord files below data_dir, from the files in manual_dir if they are there."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual_dir))


if __name__ == "__main__":
    prepare(*sys.argv[1:])
