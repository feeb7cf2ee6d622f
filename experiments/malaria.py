"""The recipe of this name as a file, which does what `engine train malaria` does."""

import engine
from engine.recipes.malaria import config

if __name__ == "__main__":
    engine.main(config)
