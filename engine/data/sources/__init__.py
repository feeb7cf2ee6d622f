"""Where data comes from: folders, tables, files of arrays, tfds."""
