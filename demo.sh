#!/bin/sh
# The main job from end to end: 6 base models, a sweep of 24 runs that need them, the table, and the report.
# A second call goes on where the first was interrupted.
set -eu

create() { # a collection that is there already is submitted on instead
    if slurmkit collection show "$1" >/dev/null 2>&1; then
        slurmkit submit "$1" >/dev/null
    else
        slurmkit collection create "collections/$1.yaml" --allow-dirty --submit >/dev/null
    fi
}

follow() { # failed runs (1) are the table's to tell; an interrupt (130) ends the demo, not the runs
    slurmkit status "$1" --watch || [ $? -eq 1 ]
}

create demo-base
create demo
echo
echo "30 runs are queued; the first six are the models that the others need."
echo "Ctrl-C detaches: they go on, and 'make demo' looks again."
echo
follow demo-base
follow demo
# What the two regularisers are for, and what they were hoped to bring.
set -- --metric router_test_final/final_answer_accuracy \
    --metric 'router_probe_accuracy' --metric 'router_probe_accuracy_majority' \
    --metric 'posterior_mu_probe_accuracy' \
    --metric loss/val/posterior_variance --metric loss/val/router_marginal_kl_to_prior
echo
slurmkit aggregate demo "$@" 2>/dev/null
echo
slurmkit aggregate demo --by pv,rmkl "$@"
echo
echo "The report of it, with figures:"
slurmkit report demo
