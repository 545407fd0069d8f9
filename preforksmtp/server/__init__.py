"""One run of the server, in the master: from settings to the exit code, and what each configuration makes.
Imports every other room, and is imported by cli.py, ctl.py and testing.py only.
A worker comes here once, to boot (`Composition.boot`)."""
