"""The recipe of this name as a file, which does what `engine train convnet_dropout` does."""

import engine
from engine.recipes.convnet_dropout import config

if __name__ == "__main__":
    engine.main(config)
