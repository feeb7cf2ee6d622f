"""The recipe of this name as a file, which does what `engine train convnet_wide` does."""

import engine
from engine.recipes.convnet_wide import config

if __name__ == "__main__":
    engine.main(config)
