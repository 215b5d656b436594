// The entry of the unit tests; every csrc/tests/test_<idea>.cpp adds its cases.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
