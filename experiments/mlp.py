"""The recipe of this name as a file, which does what `engine train mlp` does."""

import engine
from engine.recipes.mlp import config

if __name__ == "__main__":
    engine.main(config)
