"""The master: one loop that forks workers, watches, replaces and stops them; reloads and upgrades.
Imports prefork/ and prefork/worker/, and the standard library.
Everything here runs in the master, but for what fork.py says."""
