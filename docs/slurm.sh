#!/usr/bin/env bash
# Train a W&B sweep on a cluster: each job of the array is a node whose GPUs ask W&B for points until none is left.
#
#   sbatch --array=1-4 docs/slurm.sh ENTITY/PROJECT/ID [--per-gpu 2 | --cpus 8]
#
# Two minutes before the time limit, the node's runs write a checkpoint and return to the sweep's queue, and the job
# returns to Slurm's queue. `scancel --batch --signal=TERM JOB` ends a job for good. Adapt the lines of #SBATCH, and
# submit it from the folder that holds .venv, data and runs.
#SBATCH --job-name=sweep
#SBATCH --nodes=1
#SBATCH --ntasks=1
# remove the next line for --cpus
#SBATCH --gres=gpu:4
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -eu
cd "$SLURM_SUBMIT_DIR"
source .venv/bin/activate

agents= wanted= asked= requeue=
end() { # only once: after a second signal, agents kills its runs
    wanted=yes
    if [ -n "$agents" ] && [ -z "$asked" ]; then
        asked=yes
        kill -TERM "$agents" || true
    fi
}
trap 'requeue=yes; end' USR1 # before the time limit
trap 'requeue=; end' TERM    # scancel

python -m study.sweep agents --grace 90 "$@" &
agents=$!
[ -z "$wanted" ] || end # a signal came before agents had started
while kill -0 "$agents" 2>/dev/null; do
    wait "$agents" || true # a signal ends `wait`, not agents
done
code=0
wait "$agents" || code=$?
job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID} # not the whole array
[ -z "$requeue" ] || scontrol requeue "$job"
exit "$code"
