"""One connection: the only room that joins a Wire (net/) and a Dialogue (smtp/), with logs, limits and the scoreboard.
Runs in the session threads of a worker.
Called by the pool of prefork/worker/, which is handed `Service.serve`; made by server/composition.py."""
