"""An operator's orders: the control socket of the master, what may be asked there, and the client of preforksmtpctl.
Imports observe/ for what is shown, and prefork/master/ for what is done.
Attended by server/observation.py; runs in the master, the client in a process of its own."""
