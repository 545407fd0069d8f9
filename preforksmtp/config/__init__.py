"""What the user wants: the table of settings, and how command line, environment and config file fill it.
Opens nothing but the config file. Imports facts of other rooms: the grammar of a bind, names of mechanisms and atoms.
Called by cli.py, by server/ at each start and reload, and by testing.py."""
