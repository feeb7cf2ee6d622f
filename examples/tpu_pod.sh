#!/bin/bash
# A TPU pod slice: the same command on every worker; JAX finds the others by the slice's own metadata. v5litepod-32 has eight
# hosts of four chips.
#   examples/tpu_pod.sh NAME ZONE BUCKET
set -euo pipefail
name=$1 zone=$2 bucket=$3
# The run's directory is where process 0 writes; mount a bucket, or copy it away afterwards.
gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --command "
    engine train fashion_fast --distributed auto --mesh data=32 --run-dir '$bucket/runs/fast' --resume"
