"""This machine: its clock, memory, files, terminal, compiler and caches."""
