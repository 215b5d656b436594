"""The corpora that travel with the package (README.md here names their sources and licences)."""
