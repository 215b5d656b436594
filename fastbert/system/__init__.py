"""Errors, command lines, the compiled core, files and pages."""
