"""Error log, access log, transcript and syslog: each a file of lines that survives rotation, forks and full disks.
Imports the standard library only.
Opened by server/ in the master, written in every process; session threads write through connection/."""
