#!/bin/bash
# One machine with four GPUs, a process for each. Started again, at most three times, when one is lost.
exec engine launch -n 4 --restarts 3 -- engine train fashion_fast --mesh data=4 --run-dir runs/fast --resume
