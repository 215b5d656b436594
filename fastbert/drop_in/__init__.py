"""This package's ops in models that somebody else wrote."""
