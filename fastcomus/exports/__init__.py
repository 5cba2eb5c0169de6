"""Masks in other tools' formats: one file for each format."""
