"""The command line: arguments to calls to lines. A command is a row in ``main.COMMANDS`` and a module."""
