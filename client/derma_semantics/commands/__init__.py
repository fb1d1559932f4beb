"""The subcommands of ``derma``, a module each: parse, call the library, print."""
