"""The ground that master and workers share: the scoreboard, signals, hooks of the user's, the contract between them.
Imports the standard library only; knows nothing of SMTP or TLS. No import leads from here to master/ or worker/.
Called by both, and by the status process, which reads the scoreboard."""
