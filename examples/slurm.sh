#!/bin/bash
# Slurm: four nodes, one process on each with its eight GPUs. Requeued after preemption, at the end of its time and when a
# node is lost; it then resumes from the last checkpoint.
#   sbatch examples/slurm.sh
#SBATCH --job-name=engine
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

# JAX gives a process one GPU under Slurm; this gives it all of its node.
export JAX_LOCAL_DEVICE_IDS=0,1,2,3,4,5,6,7
# JAX's coordination service is not reached through a proxy.
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY

srun --kill-on-bad-exit=1 --wait=60 \
    engine train fashion_fast --distributed auto --mesh data=32 --run-dir "$SCRATCH/runs/fast" --resume
code=$?
# 143: stopped by a signal, all is saved. 75: a process was lost. 137: killed. Anything else is a mistake, not to be repeated.
case $code in
    143 | 75 | 137) scontrol requeue "$SLURM_JOB_ID" ;;
esac
exit $code
