"""The recipe of this name as a file, which does what `engine train cats_dogs` does."""

import engine
from engine.recipes.cats_dogs import config

if __name__ == "__main__":
    engine.main(config)
