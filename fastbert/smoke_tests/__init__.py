"""Tests that go with the installed package: ``pytest --pyargs fastbert.smoke_tests``. They need no source tree."""
