"""Errors, command lines, the native extension, files and HTML pages."""
