"""The devices that a run trains on, their arithmetic, and the programs compiled for them."""
