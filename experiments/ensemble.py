"""The recipe of this name as a file, which does what `engine train ensemble` does."""

import engine
from engine.recipes.ensemble import config

if __name__ == "__main__":
    engine.main(config)
