"""The recipe of this name as a file, which does what `engine train fashion_fast` does."""

import engine
from engine.recipes.fashion_fast import config

if __name__ == "__main__":
    engine.main(config)
