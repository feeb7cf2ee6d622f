"""The recipe of this name as a file, which does what `engine train vgg_features` does."""

import engine
from engine.recipes.vgg_features import config

if __name__ == "__main__":
    engine.main(config)
