"""The command line: one module a verb, flags made from the settings."""
