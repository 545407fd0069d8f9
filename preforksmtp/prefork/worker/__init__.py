"""A worker: its main thread, and the session threads that accept and serve.
Imports prefork/ and the standard library, never prefork/master/.
Everything here runs in a worker; the master calls it right after the fork."""
