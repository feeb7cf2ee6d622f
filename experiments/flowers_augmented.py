"""The recipe of this name as a file, which does what `engine train flowers_augmented` does."""

import engine
from engine.recipes.flowers_augmented import config

if __name__ == "__main__":
    engine.main(config)
