"""Tests of single modules: no server, no network, no compiler, no archive to build."""
