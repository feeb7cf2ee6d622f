"""The recipe of this name as a file, which does what `engine train convnet_no_pool` does."""

import engine
from engine.recipes.convnet_no_pool import config

if __name__ == "__main__":
    engine.main(config)
