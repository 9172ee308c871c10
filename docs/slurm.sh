#!/usr/bin/env bash
# Trains a W&B sweep on a cluster: each job of the array is a node whose GPUs ask W&B for points until none is left.
#
#   sbatch --array=1-4 docs/slurm.sh ENTITY/PROJECT/ID [--per-gpu 2 | --cpus 8]
#
# Two minutes before the time limit the node's runs write a checkpoint and go back into the sweep's queue, and the job
# goes back into Slurm's. `scancel --batch --signal=TERM JOB` ends a job cleanly and for good. Adapt the lines of
# #SBATCH; submit it from the folder that holds .venv, data and runs.
#SBATCH --job-name=sweep
#SBATCH --nodes=1
#SBATCH --ntasks=1
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
end() { # once, since a second signal has agents kill its runs
    wanted=yes
    if [ -n "$agents" ] && [ -z "$asked" ]; then
        asked=yes
        kill -TERM "$agents" || true
    fi
}
trap 'requeue=yes; end' USR1 # the time limit comes
trap 'requeue=; end' TERM    # scancel

python -m study.sweep agents "$@" --grace 90 &
agents=$!
[ -z "$wanted" ] || end # it was asked before there was somebody to ask
while kill -0 "$agents" 2>/dev/null; do
    wait "$agents" || true # a signal ends the waiting, not agents
done
code=0
wait "$agents" || code=$?
job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID} # not the whole array
[ -z "$requeue" ] || scontrol requeue "$job"
exit "$code"
