"""The commands of ``derma-train``, a module a group: thin, with heavy imports inside."""
