"""A bounded queue of jobs on one machine: no server, a few files, and one detached supervisor.

A queue is a folder:

    journal.jsonl       what happened, append-only: submit, started, warned, verdict, requeued, ended, cancel
    archive.jsonl       batches of which all jobs have ended, moved out of the journal, one line each
    lock                held by whoever writes these two
    environments/       the submitters' environment variables, named by their hash (mode 600)
    claims/             one empty file for each start of a job; its name is its content (see `claims`)
    supervisor.lock     held by the supervisor for its life: this is how its death is noticed
    supervisor.json     its process, written once it stands
    supervisor.log      what it has to say
    wake                a FIFO: a byte in it means "look at the journal"

Import order: processes, claims, state -> journal -> machine -> watch, child -> supervisor; and
launch -> executor -> scheduler on the submitter's side.
"""
