"""What any process is: its identity, its name, its pid file, the machine it runs on, files it watches.
Imports the standard library only.
Called by server/ and prefork/ in the master, in workers and in the status process."""
