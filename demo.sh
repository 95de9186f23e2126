#!/bin/sh
# The main job from end to end: 6 base models, a sweep of 24 runs that need them, and the table.
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
echo
slurmkit aggregate demo
