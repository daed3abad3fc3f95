#!/bin/bash
# One run on several machines of a Slurm cluster, by torchrun: sbatch slurm.sh interactions.parquet /shared/runs/mine
# --out must be a folder that all machines share, with rsir installed on each in the same place (here: a virtual
# environment that is active when the job is submitted). Two minutes before the time is up every process saves and ends, and
# the job asks for itself again; it goes on from what was saved.
#SBATCH --job-name=rsir
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
data=$1 out=$2

processes=2 # a machine; each computes with its share of the CPUs. On GPUs: as many as a machine has, and --gpu below
most_restarts=20
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / processes))

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
resume=()
[ -e "$out/manifest.json" ] && resume=(--resume)
srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "$processes" --max-restarts 3 \
    --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" --rdzv-backend c10d --rdzv-endpoint "$first:29400" \
    -m rsir.recurse --data "$data" --out "$out" "${resume[@]}"
status=$?

if [ $status -ne 0 ] && [ -e "$out/manifest.json" ] && [ "${SLURM_RESTART_COUNT:-0}" -lt $most_restarts ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
